"""Sentences and paragraphs end where a reader would say."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from repetita.corpus.sentences import byte_offsets, text_ends


def pieces(text: str, ends: np.ndarray) -> list[str]:
    return [text[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def test_sentences() -> None:
    text = 'Mr. Smith of the U.S. Senate said "No." Was it so? It was (v. 2.5)... and more! Yes.\n\nEnd'
    assert pieces(text, text_ends(text).sentences) == [
        'Mr. Smith of the U.S. Senate said "No."',
        " Was it so?",
        " It was (v. 2.5)... and more!",
        " Yes.\n\n",
        "End",
    ]


def test_paragraphs() -> None:
    text = "One\ntwo.\r\n \r\nThree\n\n\n  Four\n"
    assert pieces(text, text_ends(text).paragraphs) == ["One\ntwo.\r\n \r\n", "Three\n\n\n  ", "Four\n"]
    assert pieces("One\ntwo", text_ends("One\ntwo").paragraphs) == ["One\n", "two"]


@given(st.text(alphabet='Ab .!?"\n\té…', min_size=1))
def test_every_paragraph_ends_a_sentence_and_the_text_is_covered(text: str) -> None:
    sentences, paragraphs = text_ends(text)
    assert set(paragraphs) <= set(sentences)
    if text.strip():
        assert all(piece.strip() for piece in pieces(text, paragraphs) + pieces(text, sentences))
    for ends in (sentences, paragraphs):
        assert ends[-1] == len(text)
        assert (np.diff(ends) > 0).all()
        assert ends[0] > 0


@given(st.text())
def test_byte_offsets_count_bytes(text: str) -> None:
    places = np.arange(len(text) + 1)
    expected = [len(text[:i].encode()) for i in places]
    assert byte_offsets(text, offsets=places).tolist() == expected


@given(st.text(alphabet='Ab .!?"\n\té…', min_size=1), st.data())
def test_ends_are_those_of_the_parts_around_any_cut_behind_a_word(text: str, data: st.DataObject) -> None:
    """As long documents are encoded: a part is seen with what precedes it, its end is left to the next."""
    cuts = [i for i in range(1, len(text)) if text[i] in " \n" and not text[i - 1].isspace()]
    if not cuts:
        return
    cut = data.draw(st.sampled_from(cuts))
    whole = text_ends(text)
    lines = bool(len(whole.paragraphs) and not re.search(r"\n[ \t\r]*\n", text))
    left, right = text_ends(text[:cut], lines=lines), text_ends(text, lines=lines)
    for all_, one, other in zip(whole, left, right, strict=True):
        joined = [*one[one < cut], *other[other >= cut]]
        np.testing.assert_array_equal(joined, all_)
