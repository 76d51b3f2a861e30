"""What is said of a text does not depend on which others were measured with it."""

from collections.abc import Iterable

import numpy as np

from repetita.corpus.windows import Windows
from repetita.measure.memorization import ScoreProbe
from repetita.measure.planted import UniformSubject
from repetita.study.audit_rows import NO_BYTES, TEXTS, text_rows
from tests.corpus.test_windows import Words, documents


class LosesSome(Words):
    def decode(self, ids: Iterable[int], /) -> str:
        return super().decode(ids).replace("é", "e")


def test_a_text_that_is_not_given_back_takes_no_bytes_from_others() -> None:
    def bits(*texts: str) -> list[tuple[float | None, str]]:
        windows = Windows(documents(*texts), tokenizing=LosesSome(), context=4)
        rows = text_rows(UniformSubject(vocab_size=8), ScoreProbe(on=(TEXTS,)), windows=windows)
        return [(row.value, row.note) for row in rows if row.metric == "bits_per_byte"]

    (alone,) = bits("two words")
    assert alone[0] is not None
    np.testing.assert_allclose(alone[0], 2 * 3 / 9, rtol=1e-6)
    assert alone[1] == ""
    assert bits("né", "two words") == [(None, NO_BYTES), alone]
