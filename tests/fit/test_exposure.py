"""Estimates of exposure from what a probe keeps: intervals, bounds that stay open, a tail that is marked."""

import math
from typing import Any

import numpy as np
import pytest

from repetita.corpus.canaries import CanarySpec
from repetita.errors import SpecError
from repetita.fit.exposure import ExposureEstimate, exposure_estimates, fitted_exposure
from repetita.fit.tail import SkewNormal
from repetita.measure.canaries import CanaryProbe
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet
from tests.measure.test_canaries import Keeping, chain


def estimated(subject: Any, spec: CanarySpec, **fields: Any) -> tuple[dict[int, ExposureEstimate], Any]:
    sets = {"test": EvalSet.whole("test", sequences=PlantedSet(np.ones((1, 64))))}
    readings = CanaryProbe(canaries=spec, **fields).measure(subject, sets)
    (items,) = [one.items for one in readings if one.items is not None]
    return {one.written: one for one in exposure_estimates(items, space=spec.space)}, items


def test_canaries_that_were_not_seen_are_like_the_rest() -> None:
    """1 / ln 2 bits by rank and by the fitted tail; the two agree canary by canary where both hold."""
    spec = CanarySpec(counts=(0,), each=200, n_digits=6)
    found, _ = estimated(chain(), spec, n_candidates=1500)
    never = found[0]
    assert never.fitted is not None
    for one in (never.sampled, never.fitted):
        assert one.holds(1 / math.log(2))
        assert one.high is not None or never.at_bound
        assert (one.n, one.contains) == (200, "canaries")
    assert never.extrapolated == never.at_bound <= 2
    assert never.p_value is not None
    assert never.fitted.value == pytest.approx(never.sampled.value, abs=0.1)


def test_a_bound_opens_the_interval() -> None:
    """Where one canary ranks before all candidates the mean is a lower bound; one canary has no spread."""
    spec = CanarySpec(counts=(3, 0), each=4, n_digits=6)
    known = [one.text for one in spec.canaries()[:1]]
    found, items = estimated(Keeping(known, otherwise=chain()), spec, n_candidates=255)
    assert list(found) == [0, 3]
    assert (found[3].at_bound, found[3].sampled.high, found[3].sampled.n) == (1, None, 4)
    assert found[3].sampled.value == pytest.approx(items["exposure"][:4].mean())
    assert found[0].at_bound == 0
    assert found[0].sampled.high is not None
    assert found[3].text.startswith("1 of 4 rank before all candidates: at least this; by a fitted tail ")
    assert ", 1 of 4 extrapolated, its fit p = 0." in found[3].text
    assert found[0].text.startswith("by a fitted tail ")
    single, _ = estimated(chain(), CanarySpec(counts=(0,), each=1, n_digits=6), n_candidates=255)
    assert (single[0].sampled.low, single[0].sampled.method) == (None, "one canary")


def test_a_tail_goes_on_beyond_the_sample() -> None:
    """-log2 of the true share of secrets as likely, no more than there are secrets, and marked."""
    tail = SkewNormal(0, 30, 4, 1)
    losses = 30 - 4 * np.array([0, 1, 3, 6, 40])
    shares = np.array([0.5, 0.15865525, 1.3498980e-3, 9.8658765e-10])
    assert fitted_exposure(losses, tail=tail, space=10**12)[:4] == pytest.approx(-np.log2(shares), rel=1e-6)
    assert fitted_exposure(losses, tail=tail, space=10**4)[3:] == pytest.approx(math.log2(10**4))
    with pytest.raises(SpecError, match="holds none"):
        fitted_exposure(losses, tail=tail, space=0)
    spec = CanarySpec(counts=(0, 3), each=1, n_digits=9)
    found, _ = estimated(Keeping([spec.canaries()[1].text], otherwise=chain()), spec, n_candidates=255)
    assert (found[3].sampled.value, found[3].at_bound, found[3].extrapolated) == (8, 1, 1)
    assert found[3].fitted is not None
    assert 8 < found[3].fitted.value <= math.log2(10**9)  # type: ignore[operator]
    assert found[0].extrapolated == 0


def test_no_tail_where_all_candidates_are_the_same_or_few() -> None:
    spec = CanarySpec(counts=(0,), each=3, n_digits=6)
    for subject, n in ((UniformSubject(vocab_size=257), 200), (chain(), 50)):
        found, _ = estimated(subject, spec, n_candidates=n)
        assert (found[0].fitted, found[0].p_value, found[0].text) == (None, None, "")
        assert found[0].sampled.value is not None
