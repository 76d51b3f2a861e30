"""A page is written of whatever is there, and says what is not."""

import base64
import json
import shutil
from typing import Any

import polars as pl
import pytest
import vl_convert

import repetita
from repetita.errors import UserError
from repetita.study.publish import publish
from tests.study.places import Place
from tests.study.test_collect import folder_of


def test_page_and_table_of_a_whole_study(done: Place) -> None:
    published = publish([done.portion()], root=done.root)
    (report,) = published.reports
    assert not report.warnings
    assert [claim.verdict for claim in report.findings] == ["illustrated"]
    assert len(report.provenance["Runs"]) == 4
    text = published.page.read_text()
    assert "A tiny study" in text
    assert str(done.root) not in text
    table = pl.read_parquet(published.page.parent / "table.parquet")
    assert table.equals(repetita.table(done.study, root=done.root))


def test_page_of_a_study_that_is_half_done(done: Place) -> None:
    shutil.rmtree(folder_of(done, "repeated"))
    published = publish([done.portion()], root=done.root)
    (warning,) = published.reports[0].warnings
    assert warning.startswith("1 of 5 planned runs not started: ")
    assert "not started" in published.page.read_text()


def test_an_analysis_that_needs_what_is_missing(done: Place) -> None:
    shutil.rmtree(folder_of(done, "control"))
    done.edit("final = ", 'collected.runs.row(by_predicate=collected.runs["arm"] == "control")\n    final = ')
    published = publish([done.portion()], root=done.root)
    assert published.reports[0].warnings[0].startswith("The analysis needs the missing runs (")
    assert not published.reports[0].findings


def test_an_analysis_with_a_mistake(done: Place) -> None:
    done.edit("final = ", "1 / 0\n    final = ")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        publish([done.portion()], root=done.root)


def test_nothing_finished_yet(done: Place) -> None:
    shutil.rmtree(done.root / "runs")
    warnings = publish([done.portion()], root=done.root).reports[0].warnings
    assert warnings[0] == "No run of this study is finished yet."
    assert len(warnings) == 2


def test_arms_on_different_versions_are_flagged(done: Place) -> None:
    header = folder_of(done, "repeated") / "run.json"
    values = json.loads(header.read_text())
    values["versions"]["torch"] = "1.0"
    del values["sha256"]
    header.write_text(json.dumps(values))
    (warning,) = publish([done.portion()], root=done.root).reports[0].warnings
    assert "different versions of torch" in warning


def test_arms_of_several_processes_or_in_16_bits_are_flagged(done: Place) -> None:
    path = folder_of(done, "repeated")
    values = json.loads((path / "run.json").read_text())
    values["device"] |= {"dtype": "bfloat16", "world": 4, "backend": "gloo", "parallel": "ddp"}
    (path / "run.json").write_text(json.dumps({k: v for k, v in values.items() if k != "sha256"}))
    (warning,) = publish([done.portion()], root=done.root).reports[0].warnings
    assert warning.startswith("Runs of this study were computed with different devices: ")
    assert "1 threads, bfloat16, 4 processes by ddp (1 runs)" in warning


def test_every_figure_is_drawn_once(done: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = "from tests.report import samples\n    return Analysis(figures=samples.repetition().figures, "
    done.edit("return Analysis(", figures)
    drawn = []
    draw_one = vl_convert.vegalite_to_svg

    def count(spec: dict[str, Any], *, vl_version: str) -> str:
        drawn.append(spec)
        return str(draw_one(spec, vl_version=vl_version))

    monkeypatch.setattr(vl_convert, "vegalite_to_svg", count)
    published = publish([done.portion()], root=done.root)
    files = sorted((published.page.parent / "figures").glob("*.svg"))
    assert len(drawn) == len(files) == len(published.reports[0].figures) > 1
    text = published.page.read_text()
    assert all(base64.b64encode(file.read_bytes()).decode() in text for file in files)


def test_public_functions(done: Place) -> None:
    published = repetita.report_study(done.study, scale="tiny", root=done.root)
    assert published.page.name == "page.html"
