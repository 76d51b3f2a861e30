from pathlib import Path

import numpy as np
import pytest

from repetita.corpus.synthetic import SyntheticSpec, lexicon
from repetita.corpus.tokenizer import ByteTokenizer
from repetita.errors import SpecError
from repetita.measure.passages import (
    LONG,
    SHORT,
    Passage,
    continuations,
    found_names,
    in_words_of,
    occurrences,
    read_passage,
)


def test_the_passages_are_as_long_as_the_papers_and_hold_every_form_of_a_name() -> None:
    assert (len(LONG.text), len(SHORT.text)) == (1463, 125)
    for passage in (LONG, SHORT):
        kinds = {one.kind for one in occurrences(passage)}
        assert kinds >= {"first", "inflected", "embedded"}
        assert passage.text.isascii() and "  " not in passage.text
        assert set(found_names(passage.text)) == set(passage.names or ())
    assert {one.kind for one in occurrences(LONG) if one.name == "Tolligrew"} == {
        "first", "exact", "inflected", "embedded",
    }  # fmt: skip


def test_each_form_of_a_name_is_told_from_the_others() -> None:
    text = "Dursley met Dursley, Dursleys, Dursley's and the 'Dursley' of unDursleyish Dursleyan ways."
    found = occurrences(Passage(name="x", text=text, names=("Dursley",)))
    assert [one.kind for one in found] == [
        "first", "exact", "inflected", "inflected", "exact", "embedded", "embedded",
    ]  # fmt: skip
    assert all(text[one.start : one.stop] == "Dursley" for one in found)


def test_names_are_capitalised_everywhere_and_occur_twice() -> None:
    text = "The Potters came. The cat saw Potter; nobody saw the Smiths. Nobody ever did, and Once is enough."
    assert found_names(text) == ("Potter",)
    assert occurrences(Passage(name="x", text="nothing here")) == ()


def test_continuations_leave_out_the_token_that_begins_a_name() -> None:
    passage = Passage(name="x", text="Æ Pot, Pots", names=("Pot",))
    sizes = np.ones(len(ByteTokenizer().encode(passage.text)), np.int64)
    found = continuations(passage, token_bytes=sizes)
    assert found is not None
    # Bytes: two of the first letter, a space, P at 3; the second P at 8.
    assert {kind: at.tolist() for kind, at in found.items()} == {
        "first": [4, 5], "exact": [], "inflected": [9, 10], "embedded": [],
    }  # fmt: skip
    # Tokens " P", "ots" go on with the name in one token, that holds its ending too.
    found = continuations(passage, token_bytes=np.array([2, 2, 2, 1, 2, 3]))
    assert found is not None
    assert (found["first"].tolist(), found["inflected"].tolist()) == ([2], [5])
    assert continuations(passage, token_bytes=np.zeros(6, np.int64)) is None


def test_a_file_is_a_passage_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my-text.txt").write_text("Once upon a time.\n", encoding="utf-8")
    assert read_passage(tmp_path / "my-text.txt") == Passage(name="my-text", text="Once upon a time.")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "zeros.txt").write_bytes(b"one\0and another\0")
    (tmp_path / "short.txt").write_text("One two.")
    (tmp_path / "long.txt").write_text("word " * 4001)
    (tmp_path / "huge.txt").write_bytes(b"\xff" * 1_000_000)
    for name, why in (
        ("empty.txt", "is empty"), ("latin.txt", "not UTF-8"), ("none.txt", "cannot read"),
        (".", "cannot read"), ("zeros.txt", "zero bytes"), ("short.txt", "has 8 characters"),
        ("long.txt", "more than 20,000 bytes"), ("huge.txt", "more than 20,000 bytes"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=why) as caught:
            read_passage(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "; " in str(caught.value)
    with pytest.raises(SpecError, match="does not occur"):
        Passage(name="x", text="one", names=("two",))
    with pytest.raises(SpecError, match="no name for a passage"):
        Passage(name="a/b", text="one")


def test_a_passage_in_the_words_of_a_synthetic_corpus_encodes_alike_in_every_copy() -> None:
    spec = SyntheticSpec(n_documents=5, n_words=50, vocabulary=30, sentence_words=0)
    passage = in_words_of(spec, name="words", n_words=12)
    assert set(passage.text.split()) <= set(lexicon(30)) and len(passage.text.split()) == 12
    assert passage.text.startswith(" ") and passage.separator == ""
    assert occurrences(passage) == ()
    assert passage != in_words_of(spec, name="words", n_words=12, document=1)
