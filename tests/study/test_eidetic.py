"""Counts of strings are exact: those of looking at every place of every document."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus.documents import read_documents
from repetita.corpus.sequences import CorpusSpec, open_corpus
from repetita.corpus.shards import open_shards
from repetita.corpus.source import Document
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import CorpusError
from repetita.study import eidetic
from repetita.study.eidetic import count_strings, shard_documents


def documents(*texts: str) -> list[Document]:
    return [Document(text, f"text{i}", "", None) for i, text in enumerate(texts)]


words = st.text("aAé \U0001f600\u0301", min_size=1, max_size=4)


@given(
    st.lists(words, min_size=1, max_size=8),
    st.lists(st.text("aAé \U0001f600\u0301", min_size=1, max_size=20), max_size=8),
    st.sampled_from([1, 15, 1 << 20]),
)
@settings(max_examples=30, deadline=None)
def test_counts_are_those_of_every_place(strings: list[str], texts: list[str], at_once: int) -> None:
    """Strings inside strings, overlapping themselves, beside combining marks, given twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eidetic, "AT_ONCE", at_once)
        found = count_strings(strings, within=iter(documents(*texts)))
    assert found.documents.tolist() == [sum(one in text for text in texts) for one in strings]
    assert found.occurrences.tolist() == [
        sum(text.startswith(one, i) for text in texts for i in range(len(text))) for one in strings
    ]
    assert found.searched == len(texts)


def test_what_counts_everything_is_refused() -> None:
    with pytest.raises(CorpusError, match="an empty string is in every document"):
        count_strings(["a", ""], within=documents("a"))
    with pytest.raises(CorpusError, match="no string to count"):
        count_strings([], within=documents("a"))


def test_a_built_corpus_is_searched_as_its_text_is(tmp_path: Path) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    texts = ["Héllo wörld, héllo.", "wörld\n\nwide web", "none of it " * 30, "wide\nwörld"]
    for i, text in enumerate(texts):
        (source / f"{i}.txt").write_text(text, encoding="utf-8")
    spec = CorpusSpec(source=str(source), tokenizer=TokenizerSpec(kind="bpe", vocab_size=270), length=8)
    shards = open_shards(open_corpus(spec, cache=tmp_path / "cache").path)
    decoded = list(shard_documents(shards))
    assert [(one.text, one.name) for one in decoded] == [
        (one.text, one.name) for one in read_documents(str(source))
    ]
    found = count_strings(["wörld", "wide", "o", "absent"], within=decoded)
    assert found.documents.tolist() == [3, 2, 2, 0]
    shards.manifest["lossless"] = False
    with pytest.raises(CorpusError, match="do not give back its text"):
        list(shard_documents(shards))
