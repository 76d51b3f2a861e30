"""Rows cover the text as each way of breaking promises."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus import breaks
from repetita.corpus.breaks import RowTable, Text, at_documents, at_sentences, at_units, packed
from repetita.corpus.building import build_shards
from repetita.corpus.documents import find_source
from repetita.corpus.shards import Shards
from repetita.corpus.tokenizer import TokenizerSpec

TEXTS = ["Aa. Bbb.\n\nCc.", "D", "Eee! Ffff. Ggggg. " + "H" * 12 + ".", "Ii.\n\nJjj."]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("breaks")
    (folder / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    source = find_source(str(folder / "c.jsonl"))
    return build_shards(folder / "built", source=source, tokenizer=TokenizerSpec(kind="bytes"))


def texts(text: Text, table: RowTable) -> list[str]:
    """Rows as text, separators as a bar."""
    return [
        "".join(chr(i - 1) if i else "|" for i in text.take(np.arange(start, start + n)).tolist())
        for start, n in zip(table.starts, table.lengths, strict=True)
    ]


def some(shards: Shards, *documents: int) -> Text:
    return Text(shards, documents=np.array(documents))


def test_packed(shards: Shards) -> None:
    text = some(shards, 0, 1)
    assert texts(text, packed(text, length=5)) == ["Aa. B", "bb.\n\n", "Cc.|D"]


def test_at_documents(shards: Shards) -> None:
    text = some(shards, 0, 1, 3)
    assert texts(text, at_documents(text, length=6)) == ["Aa. Bb", "b.\n\nCc", "Ii.\n\nJ", "jj."]


def test_at_paragraphs_and_sentences(shards: Shards) -> None:
    text = some(shards, 0, 1, 3)
    paragraphs = text.ends_of(shards.paragraph_ends)
    assert texts(text, at_units(text, ends=paragraphs, length=20)) == [
        "Aa. Bbb.\n\n",
        "Cc.",
        "Ii.\n\n",
        "Jjj.",
    ]
    text = some(shards, 2)
    ends = text.ends_of(shards.sentence_ends)
    rows = texts(text, at_units(text, ends=ends, length=8))
    assert rows == ["Eee!", " Ffff.", " Ggggg.", " HHHHHHH", "HHHHH."]


def test_at_sentences(shards: Shards) -> None:
    text = some(shards, 0, 1, 2, 3)
    table = at_sentences(text, ends=text.ends_of(shards.sentence_ends), length=10)
    assert texts(text, table) == [
        "Aa. Bbb.\n\n",
        "Cc.|D|Eee!",
        " Ffff.",
        " Ggggg.",
        " HHHHHHHHH",
        "HHH.|Ii.\n\n",
        "Jjj.",
    ]


@settings(deadline=None)
@given(documents=st.lists(st.integers(0, 3), min_size=1, unique=True).map(sorted), length=st.integers(2, 40))
def test_rows_are_stretches_that_lose_only_what_they_say(
    shards: Shards, documents: list[int], length: int
) -> None:
    text = some(shards, *documents)
    whole = "|".join(TEXTS[d] for d in documents) + "|"
    sentences = text.ends_of(shards.sentence_ends)
    for table in (
        packed(text, length=length),
        at_documents(text, length=length),
        at_units(text, ends=sentences, length=length),
        at_sentences(text, ends=sentences, length=length),
    ):
        rows = texts(text, table)
        stops = table.starts + table.lengths
        assert (table.lengths <= length).all()
        assert (table.starts[1:] >= stops[:-1]).all()
        assert rows == [whole[a:b] for a, b in zip(table.starts, stops, strict=True)]
    broken = at_sentences(text, ends=sentences, length=length)
    for stop, n in zip(broken.starts + broken.lengths, broken.lengths, strict=True):
        assert stop in sentences or n == length


def test_a_text_too_large_for_memory_reads_the_same(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    small = some(shards, 1, 3, 0)
    monkeypatch.setattr(breaks, "IN_MEMORY_TOKENS", 0)
    large = some(shards, 1, 3, 0)
    assert large._laid_out is None
    places = np.arange(len(small)).reshape(2, -1)
    np.testing.assert_array_equal(small.take(places), large.take(places))
    assert large.document_at(np.array([0, 1, 2])).tolist() == [0, 0, 1]


@settings(deadline=None)
@given(documents=st.lists(st.integers(0, 3), min_size=1, unique=True).map(sorted), length=st.integers(2, 40))
def test_sentences_are_packed_greedily(shards: Shards, documents: list[int], length: int) -> None:
    """Row after row: each takes all the sentences that fit, or a piece of one that does not."""
    text = some(shards, *documents)
    ends = text.ends_of(shards.sentence_ends)
    separators = set((text.starts[1:] - 1).tolist())
    rows, at = [], 0
    while at < len(text) - 1:
        at += at in separators
        fitting = [end for end in ends.tolist() if at < end <= at + length]
        stop = fitting[-1] if fitting else at + length
        if stop - at >= breaks.SHORTEST:
            rows.append((at, stop - at))
        at = stop
    table = at_sentences(text, ends=ends, length=length)
    assert list(zip(table.starts.tolist(), table.lengths.tolist(), strict=True)) == rows
