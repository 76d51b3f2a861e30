"""What is kept of a study is small, the same each time, and names no place of this machine."""

import json
import re
from pathlib import Path

import pytest

from repetita.errors import StorageError
from repetita.study.gallery import write_gallery
from repetita.study.prepare import bundle
from repetita.study.walkthrough import publish_bundle
from tests.study.places import Place, repetita
from tests.study.test_walkthrough import both, finished, paper_of

__all__ = ["both", "finished"]


def written(place: Place, folder: Path) -> dict[str, bytes]:
    whole = bundle(paper_of(place), scale="tiny")
    write_gallery(publish_bundle(whole, root=place.root), bundle=whole, folder=folder)
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.*"))}


def test_it_holds_figures_findings_and_tables(both: Place, tmp_path: Path) -> None:
    files = written(both, tmp_path / "gallery")
    assert {"README.md", "findings.json", "figures/law.svg", "figures/law.csv", "tables/cost.csv"} <= set(
        files
    )
    assert not any(name.endswith((".html", ".parquet", ".jsonl")) for name in files)
    text = files["README.md"].decode()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link in files
    assert "**supported** It is strong" in text
    assert "repetita study run two.py --scale tiny" in text
    found = json.loads(files["findings.json"])
    assert [section["title"][:8] for section in found["sections"]] == ["Figure 1", "Figure 2", "Figure 3"]
    assert found["sections"][1]["claims"][0]["verdict"] == "supported"


def test_it_is_the_same_twice_and_names_no_place(both: Place, tmp_path: Path) -> None:
    first, second = written(both, tmp_path / "one"), written(both, tmp_path / "two")
    assert first == second
    for name, data in first.items():
        assert str(tmp_path).encode() not in data, name
        assert str(both.root).encode() not in data, name


def test_what_an_earlier_one_left_goes(both: Place, tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    before = written(both, folder)
    (folder / "figures" / "old.svg").write_text("old")
    (folder / "notes.txt").write_text("mine")
    after = written(both, folder)
    assert set(after) == {*before, "notes.txt"}


def test_another_folder_is_not_touched(both: Place, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.svg").write_text("mine")
    with pytest.raises(StorageError, match="is no gallery; give a folder that is empty or new"):
        written(both, tmp_path)
    assert (tmp_path / "figures" / "mine.svg").exists()


def test_of_one_study_from_the_command_line(done: Place, tmp_path: Path) -> None:
    said = repetita(
        "study", "report", done.study, "--root", done.root, "--gallery", tmp_path / "g", cwd=tmp_path
    )
    assert said.returncode == 0, said.stderr
    text = (tmp_path / "g" / "README.md").read_text()
    assert text.startswith("# A tiny study")
    assert "repetita study run study.py --scale tiny" in text
