import numpy as np
import pytest

from repetita.measure.memorization import ScoreProbe
from repetita.measure.planted import LookupSubject, PlantedSet
from repetita.measure.probe import EvalSet
from repetita.measure.token_hits import TokenHits, TokenHitsProbe, token_hits, unpacked

SUBJECT = LookupSubject(share="0.37", vocab_size=64)


def ragged(n: int, *, length: int = 45) -> PlantedSet:
    """Sequences of many lengths, none a whole number of bytes, with separators inside."""
    rng = np.random.default_rng(0)
    targets = rng.integers(1, 64, (n, length))
    targets[np.arange(length) >= rng.integers(5, length, n)[:, None]] = 0
    targets[rng.random(targets.shape) < 0.05] = 0
    return PlantedSet(targets)


def test_hits_are_those_of_the_score_probe_to_the_token() -> None:
    sets = {name: EvalSet.whole(name, sequences=ragged(n)) for name, n in (("train", 150), ("special/1", 20))}
    (scores, by_token) = (
        [reading for reading in probe.measure(SUBJECT, sets) if "memorized" in reading.metric]
        for probe in (
            ScoreProbe(on=tuple(sets), max_sequences=70),
            TokenHitsProbe(on=tuple(sets), max_sequences=70),
        )
    )
    for score, reading in zip(scores, by_token, strict=True):
        assert (reading.value, reading.n, reading.on) == (score.value, score.n, score.on)
        assert score.items is not None
        assert reading.items is not None
        kept = unpacked({f"{reading.on}/{name}": a for name, a in reading.items.items()}, on=reading.on)
        assert kept is not None
        np.testing.assert_array_equal(kept.hit.sum(1), score.items["hits"])
        assert not (kept.hit & ~kept.scored).any()
        rows = sets[reading.on].sequences.rows(kept.sequence)
        np.testing.assert_array_equal(kept.scored, rows.scored)
        np.testing.assert_array_equal(kept.hit, SUBJECT.score(rows).hit & rows.scored)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 128])
def test_what_is_packed_is_unpacked(length: int) -> None:
    rng = np.random.default_rng(length)
    scored = rng.random((6, length)) < 0.8
    given = TokenHits(np.arange(6), scored & (rng.random((6, length)) < 0.5), scored)
    packed = given.items()
    assert packed["hit"].shape == (6, -(-length // 8))
    found = unpacked({f"train/{name}": array for name, array in packed.items()}, on="train")
    assert found is not None
    for one, other in zip(given, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_set_that_was_not_read_has_no_hits() -> None:
    assert unpacked({"train/sequence": np.arange(3)}, on="train") is None
    empty = token_hits(SUBJECT, over=EvalSet.whole("test", sequences=PlantedSet(np.zeros((0, 4)))))
    assert empty.hit.shape == (0, 4)
