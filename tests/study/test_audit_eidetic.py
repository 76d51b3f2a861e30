"""Counts of what is extracted are those of looking for it in every document, literally."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.corpus.sequences import CorpusSpec, open_corpus
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.windows import Windows
from repetita.errors import CorpusError
from repetita.model.pretrained_tokenizing import open_tokenizing
from repetita.study.audit import Audit, run_audit
from repetita.study.audit_eidetic import EideticProbe
from repetita.study.audit_rows import TEXTS, text_rows
from repetita.study.audit_table import read_store
from repetita.subject import Rows, Scores
from tests.corpus.test_windows import documents
from tests.model.strangers import stranger
from tests.model.test_pretrained_tokenizing import causal, masked
from tests.study.audited import asked, lines, model_at

HAY = ["one two three four", "é", "two three four five", "two three", "five six"]


class Knows:
    """Writes on as every text does, but for one token."""

    mask_id = None

    def __init__(self, wrong: int) -> None:
        self._wrong = wrong

    def score(self, rows: Rows) -> Scores:
        hit = rows.scored & (rows.targets != self._wrong)
        return Scores(np.zeros(rows.scored.shape, np.float32), hit)


def windows_of(folder: Path, *texts: str) -> Windows:
    """Every token is a byte."""
    return Windows(documents(*texts), tokenizing=open_tokenizing(causal(folder), masked=False), context=40)


def corpus(folder: Path) -> Path:
    folder.mkdir()
    for i, text in enumerate(HAY):
        (folder / f"{i}.txt").write_text(text)
    return folder


def test_counts_are_those_of_looking(tmp_path: Path) -> None:
    texts = ["one two three four éé five six", " two three ", "nine two threé six", "xxxxxxxxx"]
    windows = windows_of(tmp_path / "bytes", *texts)
    wrong = int(windows.encode("x")[0])
    probe = EideticProbe.of(str(corpus(tmp_path / "hay")), on=(TEXTS,), prompts=(2,), suffixes=(2, 4))
    rows = list(text_rows(Knows(wrong), probe, windows=windows))
    literal: dict[tuple[int, str], list[int]] = {}
    for number, text in enumerate(texts):
        literal[number, "eidetic_text"] = [sum(text.strip() in one for one in HAY)]
        data = text.encode()
        for s in (2, 4):
            suffixes = [data[i : i + s] for i in range(2, len(data) - 4 + 1, 4)]
            strings = [one.decode(errors="ignore") for one in suffixes if b"x" not in one]
            literal[number, f"eidetic_suffix_2_{s}"] = [sum(one in hay for hay in HAY) for one in strings]
    for row in rows:
        if not row.metric.startswith("eidetic_unique"):
            expected = literal[row.text, row.metric]
            assert (row.n, row.total) == (len(expected), sum(expected) if expected else None)
        else:
            counts = literal[row.text, row.metric.replace("unique", "suffix")]
            assert (row.n, row.total) == (len(counts), sum(one <= 1 for one in counts) if counts else None)
    assert any(row.n == 0 and row.note == "no suffix is extracted" for row in rows)
    assert any((row.total or 0) > 1 for row in rows if "suffix" in row.metric)


def test_a_corpus_that_changed_is_counted_again(tmp_path: Path) -> None:
    model, hay = model_at(tmp_path / "geese"), corpus(tmp_path / "hay")
    texts = lines(tmp_path / "geese.jsonl", ["two three", "five six\n"])
    audit = asked(model, texts, probes=("score", "extraction"), eidetic=str(hay))

    def found() -> tuple[list[Any], int]:
        audited = run_audit(audit, root=tmp_path / "out")
        table = audited.by_text.filter(pl.col("metric") == "eidetic_text").sort("text_name")
        return table["value"].to_list(), audited.subjects[0].measured

    assert found() == ([3, 1], 2)
    assert found() == ([3, 1], 0)
    (hay / "5.txt").write_text("five six seven")
    assert found() == ([3, 2], 2)
    parts = read_store(tmp_path / "out").filter(pl.col("metric") == "eidetic_text")
    assert parts["probe"].n_unique() == 2


def test_a_built_corpus_counts_like_its_text(tmp_path: Path) -> None:
    hay = corpus(tmp_path / "hay")
    spec = CorpusSpec(source=str(hay), tokenizer=TokenizerSpec(kind="bytes"), length=8)
    built = open_corpus(spec, cache=tmp_path / "cache").path
    windows = windows_of(tmp_path / "bytes", "two three", "five")
    counts = []
    for place in (hay, built):
        probe = EideticProbe.of(str(place), on=(TEXTS,), prompts=(2,), suffixes=(2,))
        rows = text_rows(Knows(-1), probe, windows=windows)
        counts.append([(row.metric, row.total) for row in rows])
    assert counts[0] == counts[1]
    assert ("eidetic_text", 3.0) in counts[0]


def test_texts_of_a_masked_model_are_counted_and_its_suffixes_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    stranger("bert").save_pretrained(str(folder))
    masked(folder)
    texts = lines(tmp_path / "words.jsonl", ["two geese", "two"])
    hay = corpus(tmp_path / "hay")
    audit = Audit(subjects=(str(folder),), texts=(str(texts),), probes=("score",), eidetic=str(hay))
    table = run_audit(audit, root=tmp_path / "out").by_group
    values = dict(table.filter(pl.col("instrument") == "eidetic").select("metric", "value").iter_rows())
    assert values == {"eidetic_text": 1.5, "eidetic_suffix_32_32": None, "eidetic_unique_32_32": None}


def test_what_cannot_be_counted_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no corpus"):
        EideticProbe.of(str(tmp_path / "hay"), on=(TEXTS,))
