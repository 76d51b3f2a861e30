"""Counterfactual memorization is a difference of means of M(f), worked out by hand from an audit's rows."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from repetita.errors import CorpusError, SpecError
from repetita.study.audit import Audit, run_audit
from repetita.study.audit_subjects import Named
from repetita.study.audit_texts import Text
from repetita.study.audit_trained import read_trained
from tests.study.audited import GEESE, lines, model_at

NAMED = [Named(f"models/{one}", one, None, None) for one in "abc"]
TEXTS = [Text(f"hash{i}", f"group{i // 2}", f"t{i}", "x" * (i + 1)) for i in range(4)]


def table(file: Path, *rows: str) -> str:
    file.write_text("\n".join(["subject,text", *rows]) + "\n")
    return str(file)


def test_a_table_names_subjects_and_texts_in_several_ways(tmp_path: Path) -> None:
    path = table(tmp_path / "with.csv", "a,t0", "models/b,group1", "c,hash2", "a,t0", "c,t1")
    found = read_trained(path, named=NAMED, texts=TEXTS)
    assert found.astype(int).tolist() == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("d,t0", r"names the subject 'd', which this audit does not have; valid: a, b, c"),
        ("a,t9", r"names the text 't9', which this audit does not have; did you mean 't"),
        ("a,twin", r"names the text 'twin', which 2 are called; name it by its SHA-256"),
    ],
)
def test_names_that_are_none_or_two(row: str, sentence: str, tmp_path: Path) -> None:
    texts = [*TEXTS, Text("hash8", "group8", "twin", "p"), Text("hash9", "group9", "twin", "q")]
    with pytest.raises(SpecError, match=sentence):
        read_trained(table(tmp_path / "with.csv", row), named=NAMED, texts=texts)


def test_names_of_digits_stay_names(tmp_path: Path) -> None:
    texts = [Text("h1", "g", "007", "p"), Text("h2", "g", "7", "q")]
    found = read_trained(table(tmp_path / "with.csv", "a,007"), named=NAMED, texts=texts)
    assert found[0].tolist() == [True, False]


def test_a_table_without_its_columns(tmp_path: Path) -> None:
    (tmp_path / "with.csv").write_text("model,text\na,t0\n")
    with pytest.raises(CorpusError, match="has no column 'subject'"):
        read_trained(str(tmp_path / "with.csv"), named=NAMED, texts=TEXTS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    # Weights so small that the most likely token is nearly always one of few: some hits.
    kinds: list[dict[str, Any]] = [{"n_inner": 32 + 8 * i} for i in range(5)]
    return [model_at(folder / f"m{i}", "gpt2", **kind) for i, kind in enumerate(kinds)]


def test_values_and_intervals_by_hand(models: list[Path], tmp_path: Path) -> None:
    file = lines(tmp_path / "geese.jsonl", GEESE[:5])
    rows = ["m0,g0", "m1,g0", "m2,g1", *(f"m{i},g2" for i in range(5)), "m3,g4", "m4,g4", "m0,g4"]
    audit = Audit(
        subjects=tuple(map(str, models)), texts=(str(file),), probes=("score",),
        trained_with=table(tmp_path / "with.csv", *rows),
    )  # fmt: skip
    audited = run_audit(audit, root=tmp_path / "out")
    found = audited.counterfactual
    assert found is not None
    memorized = audited.by_text.filter(pl.col("metric") == "memorized")
    assert memorized["value"].n_unique() > 3
    for row in found.iter_rows(named=True):
        name = row["text_name"]
        values = dict(memorized.filter(pl.col("text_name") == name).select("name", "value").iter_rows())
        inside = [values[one.split(",")[0]] for one in rows if one.endswith(name)]
        outside = [value for one, value in values.items() if f"{one},{name}" not in rows]
        assert (row["n_in"], row["n_out"]) == (len(inside), len(outside))
        if not inside or not outside:
            assert row["value"] is None
            side = "no" if not inside else "every"
            assert row["note"] == f"{side} subject was trained with it: nothing to compare"
            continue
        value = np.mean(inside) - np.mean(outside)
        assert row["value"] == pytest.approx(value)
        if min(len(inside), len(outside)) == 1:
            assert row["low"] is None
            assert "no interval" in row["note"]
            continue
        error = np.sqrt(np.var(inside, ddof=1) / len(inside) + np.var(outside, ddof=1) / len(outside))
        half = stats.t.ppf(0.975, min(len(inside), len(outside)) - 1) * error
        assert row["low"] == pytest.approx(max(-1, value - half))
        assert row["high"] == pytest.approx(min(1, value + half))
    assert found["note"].n_unique() == 4, "all four kinds of texts are here"


def test_m_of_f_must_be_measured() -> None:
    with pytest.raises(SpecError, match="trained_with compares"):
        Audit(subjects=("a",), texts=("b",), probes=("unit_length",), trained_with="with.csv")
