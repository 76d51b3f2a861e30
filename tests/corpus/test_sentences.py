"""Sentences and paragraphs end where a reader would say."""

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
