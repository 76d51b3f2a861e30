"""Attributions of planted heads are known, and items hold those of every scored token."""

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.measure.attribution import AttributionProbe
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.planted_heads import HeadsSubject
from repetita.measure.probe import EvalSet

V = 257
SUBJECT = HeadsSubject((("previous", "uniform"), ("induction", "start")), vocab_size=V)


def sets(n: int = 6, *, length: int = 40) -> dict[str, EvalSet]:
    targets = np.random.default_rng(0).permuted(np.tile(np.arange(1, V), (n, 1)), axis=1)[:, :length]
    targets[:, -3:] = 0
    return {"test": EvalSet.whole("test", sequences=PlantedSet(targets))}


def test_a_text_twice_is_the_work_of_the_induction_head() -> None:
    probe = AttributionProbe(on=("test",), texts=("abcdefgh", "qrstu"))
    (reading,) = probe.measure(SUBJECT, sets())
    assert reading.items is not None and reading.detail is not None
    added, scored = reading.items["attribution"], reading.items["scored"]
    assert added.shape == (2, 2, 2, 16) and scored.sum(1).tolist() == [16, 10]
    # The second copy's first token comes after a token that is new; from its second on the head knows.
    np.testing.assert_allclose(added[1, 0, 0, 9:], 1 - 1 / V, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(added[1, 0, 0, :9], -1 / V, atol=1e-5)
    assert not added[:, :, 1, 10:].any()
    assert (reading.detail["layer"], reading.detail["head"]) == (1, 0)
    assert reading.value == pytest.approx(added[1, 0].sum() / 26, rel=1e-5) and reading.n == 26


def test_rows_of_a_set() -> None:
    (reading,) = AttributionProbe(on=("test",), max_sequences=3).measure(SUBJECT, sets())
    assert reading.items is not None
    assert reading.items["attribution"].shape == (2, 2, 3, 40) and reading.n == 3 * 37


def test_what_cannot_be_answered_says_why() -> None:
    probe = AttributionProbe(on=("test",), texts=("ab" * 15,))
    with pytest.raises(SpecError, match="60 tokens and a sequence has 40"):
        list(probe.measure(SUBJECT, sets()))
    (reading,) = AttributionProbe(on=("test",)).measure(UniformSubject(vocab_size=V), sets())
    assert reading.value is None and reading.detail is not None and "not applicable" in reading.detail["why"]
