"""What is said of a text is what the instrument says, whichever others were measured with it."""

from collections.abc import Iterable

import numpy as np

from repetita.corpus.windows import Windows
from repetita.measure.induction import InContextProbe
from repetita.measure.memorization import ScoreProbe
from repetita.measure.planted import UniformSubject
from repetita.measure.unit_length import Shuffled
from repetita.study.audit_rows import NO_BYTES, TEXTS, shuffled_runs, text_rows
from repetita.subject import Rows, Scores
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


def test_runs_of_shuffled_hits_are_those_of_the_instrument() -> None:
    generator = np.random.default_rng(3)
    scored = generator.random((40, 12)) < np.linspace(0, 1, 40)[:, None]
    hits = (scored.sum(1) * generator.random(40)).astype(np.int64)
    expected = [Shuffled.of(scored[i : i + 1], hits=hits[i : i + 1]).runs for i in range(40)]
    np.testing.assert_allclose(shuffled_runs(hits, scored=scored), expected, atol=1e-9)


class Steps:
    """Loss i at index i, half of it in every other row."""

    mask_id = None

    def score(self, rows: Rows) -> Scores:
        factor = np.where(rows.tokens[:, :1] == 1, 0.5, 1.0)
        loss = (np.arange(rows.tokens.shape[1]) * factor * rows.scored).astype(np.float32)
        return Scores(loss, np.zeros_like(rows.scored))


def test_in_context_pairs_rows_that_reach_both_indices() -> None:
    texts = ["a b c d e f", "b c", " ".join("bcdefg" * 3)]
    windows = Windows(documents(*texts), tokenizing=Words(), context=8)
    probe = InContextProbe(on=(TEXTS,), early=1, late=4)
    rows = list(text_rows(Steps(), probe, windows=windows))
    literal = []
    for text in range(3):
        found = windows.rows(np.flatnonzero(windows.document() == text))
        loss = Steps().score(found).loss
        reach = found.scored[:, 4] & found.scored[:, 1]
        literal.append((loss[reach, 4] - loss[reach, 1]).astype(float))
    assert [row.n for row in rows] == [len(one) for one in literal]
    assert [len(one) > 0 for one in literal] == [True, False, True]
    assert [row.value for row in rows] == [one.mean() if len(one) else None for one in literal]
    assert "at index 1 and at 4" in rows[1].note
