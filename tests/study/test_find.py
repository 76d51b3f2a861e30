"""A study is found by name or file, and what is wrong with it is said in one sentence."""

from pathlib import Path

import pytest

from repetita.errors import SpecError
from repetita.study.find import built_in, find_study


def test_every_built_in_study_is_found() -> None:
    for name in built_in():
        found = find_study(name)
        assert found.study.name == name
        assert found.reference == name
        assert len(found.sha256) == 64


def test_a_typo_gets_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="did you mean 'double_descent'"):
        find_study("double-decent")


def test_a_missing_file() -> None:
    with pytest.raises(SpecError, match=r"no study file nowhere\.py"):
        find_study("nowhere.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("X = 1\n", "defines no STUDY"),
        ("STUDY = 3\n", "a STUDY that is a int"),
        ("X = 1\nY = X / 0\n", r"mine.py:2: ZeroDivisionError"),
        ("def (\n", r"mine.py:1: SyntaxError"),
    ],
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(SpecError, match=message):
        find_study(file)


def test_a_file_is_read_anew_when_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = (Path(__file__).parent / "tiny_study.py").read_text()
    file.write_text(text)
    before = find_study(file)
    file.write_text(text.replace("A tiny study", "Another study"))
    after = find_study(str(file))
    assert (before.study.title, after.study.title) == ("A tiny study", "Another study")
    assert before.sha256 != after.sha256


def test_an_unknown_scale_gets_the_nearest(tmp_path: Path) -> None:
    study = find_study(Path(__file__).parent / "tiny_study.py").study
    with pytest.raises(SpecError, match="did you mean 'tiny'"):
        study.runs("tinny")
