"""What an audit keeps is found again under the right key, and groups are whole whatever happened between."""

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repetita.corpus.windows import ReadingRule, Windows
from repetita.errors import DamagedError
from repetita.study import audit as auditing
from repetita.study.audit import Audit, run_audit
from repetita.study.audit_rows import text_rows
from repetita.study.audit_table import read_store
from tests.study.audited import GEESE, asked, lines, model_at


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_at(tmp_path_factory.mktemp("models") / "geese")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return lines(tmp_path / "geese.jsonl", GEESE)


def test_a_damaged_part_is_named(model: Path, texts: Path, tmp_path: Path) -> None:
    audited = run_audit(asked(model, texts), root=tmp_path)
    (part,) = audited.subjects[0].folder.glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(DamagedError, match=f"{part.name} is damaged .*; delete it, and its texts"):
        run_audit(asked(model, texts), root=tmp_path)
    part.unlink()
    assert run_audit(asked(model, texts), root=tmp_path).by_text.equals(audited.by_text)


def test_shares_at_the_edge_have_an_exact_interval(model: Path, texts: Path, tmp_path: Path) -> None:
    audited = run_audit(asked(model, texts), root=tmp_path)
    row = audited.by_group.filter(pl.col("metric") == "extractable_4_6").row(0, named=True)
    assert row["value"] == row["low"] == 0
    assert row["high"] == pytest.approx(float(1 - Fraction(1, 40) ** (1 / row["texts"])))


def test_the_same_model_under_two_names_is_in_both(model: Path, texts: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy" / "geese-b")
    shutil.copytree(model, tmp_path / "geese-b")
    paths = (str(tmp_path / "copy" / "geese-b"), str(tmp_path / "geese-b"))
    audit = Audit(subjects=paths, texts=(str(texts),), probes=("score",))
    audited = run_audit(audit, root=tmp_path / "out")
    # Of one name, and of one content: one subject, counted once.
    assert len(audited.by_group.filter(pl.col("metric") == "loss")) == 1
    series = tmp_path / "series"
    for step in (0, 100):
        shutil.copytree(model, series / f"run{step}" / "checkpoint-1")
    names = tuple(str(series / f"run{step}@all") for step in (0, 100))
    both = run_audit(audit.edit(subjects=names), root=tmp_path / "out")
    losses = both.by_group.filter(pl.col("metric") == "loss")
    assert losses["name"].to_list() == ["run0", "run100"]
    assert losses["value"].n_unique() == losses["n"].n_unique() == 1


def test_a_group_that_was_halved_or_moved_is_one_group(
    model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "BLOCK_TEXTS", 2)
    whole = run_audit(asked(model, texts), root=tmp_path / "out")
    part = next(whole.subjects[0].folder.glob("*.parquet"))
    moved = pl.read_parquet(part).with_columns(pl.lit("cuda").alias("device"), pl.lit(3).alias("halvings"))
    moved.write_parquet(part)
    again = run_audit(asked(model, texts), root=tmp_path / "out")
    assert again.by_group.drop("device").equals(whole.by_group.drop("device"))
    assert set(again.by_group["device"]) == {"cpu, cuda"}


def test_a_text_given_twice_is_no_second_one(model: Path, tmp_path: Path) -> None:
    once = run_audit(asked(model, lines(tmp_path / "geese.jsonl", GEESE[:3])), root=tmp_path)
    twice = run_audit(asked(model, lines(tmp_path / "geese.jsonl", GEESE[:3] * 2)), root=tmp_path)
    assert twice.subjects[0].measured == 0
    intervals = [
        one.by_group.filter(pl.col("metric") == "loss").select("value", "low", "high").row(0)
        for one in (once, twice)
    ]
    assert intervals[0] == pytest.approx(intervals[1])


def test_shares_have_intervals_within_their_bounds(model: Path, texts: Path, tmp_path: Path) -> None:
    table = run_audit(asked(model, texts, limit=3), root=tmp_path).by_group
    shares = table.filter(pl.col("metric").is_in(["memorized", "extraction_strength"]))
    assert len(shares) == 2
    assert all(0 <= low <= high <= 1 for low, high in shares.select("low", "high").iter_rows())


def test_a_long_text_is_kept_probe_by_probe(
    model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while the last probe reads a text that is longer than a block costs that probe alone."""
    monkeypatch.setattr(auditing, "BLOCK_CHARACTERS", 20)
    whole = text_rows

    def dying(subject: Any, probe: Any, /, *, windows: Windows) -> Any:
        if probe.name == "membership":
            raise KeyboardInterrupt
        return whole(subject, probe, windows=windows)

    monkeypatch.setattr(auditing, "text_rows", dying)
    with pytest.raises(KeyboardInterrupt):
        run_audit(asked(model, texts, limit=1), root=tmp_path)
    assert set(read_store(tmp_path)["instrument"]) == {"score", "unit_length", "continuation"}


def test_rules_of_all_audits_are_noted(model: Path, texts: Path, tmp_path: Path) -> None:
    for rule in (ReadingRule(), ReadingRule(bos="never")):
        folder = run_audit(asked(model, texts, rule=rule, limit=1), root=tmp_path).subjects[0].folder
    noted = json.loads((folder / "subject.json").read_text())
    assert {one["first_scored"] for one in noted["rules"].values()} == {True, False}
    assert set(noted["rules"]) == set(read_store(tmp_path)["rule"])


def test_a_part_of_before_a_column_was_added_is_read(model: Path, texts: Path, tmp_path: Path) -> None:
    audited = run_audit(asked(model, texts), root=tmp_path)
    (part,) = audited.subjects[0].folder.glob("*.parquet")
    pl.read_parquet(part).drop("halvings").write_parquet(part)
    again = run_audit(asked(model, texts), root=tmp_path)
    assert again.subjects[0].measured == 0
    assert again.by_group.equals(audited.by_group)
    pl.read_parquet(part).drop("subject").write_parquet(part)
    with pytest.raises(DamagedError, match="is damaged"):
        run_audit(asked(model, texts), root=tmp_path)


def test_rows_come_in_the_order_of_the_probes(model: Path, texts: Path, tmp_path: Path) -> None:
    names = ("unit_length", "score")
    one, other = (Audit(subjects=(str(model),), texts=(str(texts),), probes=of) for of in (names[1:], names))
    run_audit(one, root=tmp_path)
    found = run_audit(other, root=tmp_path)
    assert found.by_group["instrument"].unique(maintain_order=True).to_list() == ["unit_length", "score"]
