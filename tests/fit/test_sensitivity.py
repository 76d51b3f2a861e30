"""A planted quadratic comes back; censored times pull where they must, and leave bounds that hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita import seeds
from repetita.errors import SpecError
from repetita.fit.estimate import Crossing
from repetita.fit.sensitivity import bend, detour

RATES = [0.001, 0.002, 0.004, 0.008, 0.016]


def time(rate: float, *, c: float, best: float = 0.004, level: float = 30.0) -> float:
    return level * math.exp(c * math.log2(rate / best) ** 2)


def seen(t: float, *, end: float = math.inf) -> Crossing:
    return Crossing(t, t, t, 1e4, "pass") if t <= end else Crossing(None, end, None, end, "pass")


@given(c=st.floats(0.05, 1), best=st.floats(0.0012, 0.014))
def test_a_planted_quadratic_comes_back(c: float, best: float) -> None:
    found = bend(RATES, crossings=[seen(time(rate, c=c, best=best)) for rate in RATES])
    assert found is not None
    assert found.curvature.bound == "exact"
    assert found.curvature.value == pytest.approx(c, rel=1e-6)
    assert found.best == pytest.approx(best, rel=1e-6)
    assert found.time(best) == pytest.approx(30, rel=1e-6)
    assert found.time(2 * best) / found.time(best) == pytest.approx(math.exp(c), rel=1e-6)


def test_a_best_rate_outside_is_not_given() -> None:
    falling = bend(RATES, crossings=[seen(time(rate, c=0.2, best=0.1)) for rate in RATES])
    assert falling is not None
    assert falling.best is None
    bent_down = bend(RATES, crossings=[seen(1 / time(rate, c=0.2)) for rate in RATES])
    assert bent_down is not None
    assert bent_down.curvature.value == pytest.approx(-0.2)
    assert bent_down.best is None


def test_a_censored_time_below_the_curve_takes_no_part() -> None:
    """Three rates that were reached say what the fourth and fifth would be: later than seen, as they are."""
    found = bend(RATES, crossings=[seen(time(rate, c=0.5), end=50) for rate in RATES])
    assert found is not None
    assert [time(rate, c=0.5) <= 50 for rate in RATES] == [False, True, True, True, False]
    assert found.curvature.bound == "exact"
    assert found.curvature.value == pytest.approx(0.5, rel=1e-6)


def test_a_censored_time_above_the_curve_gives_a_bound_that_holds() -> None:
    """Reached times lie on a flat curve, and the last rate never gets there: a cliff."""
    flat = [seen(time(rate, c=0.05)) for rate in RATES[:4]]
    found = bend(RATES, crossings=[*flat, seen(1e9, end=200)])
    assert found is not None
    assert found.curvature.bound == "at_least"
    assert found.curvature.value > 0.05
    for truth in (200, 1000, 1e6):
        true = bend(RATES, crossings=[*flat, seen(truth)])
        assert true is not None
        assert true.curvature.value >= found.curvature.value - 1e-9


def test_two_times_and_a_bound_are_a_bound() -> None:
    crossings = [seen(30), seen(28), seen(1e9, end=60)]
    found = bend(RATES[:3], crossings=crossings)
    assert found is not None
    assert found.curvature.bound == "at_least"
    assert bend(RATES[:3], crossings=[seen(1e9, end=60), seen(28), seen(1e9, end=60)]) is None
    assert bend(RATES[:2], crossings=crossings[:2]) is None
    with pytest.raises(SpecError, match="one crossing for each rate"):
        bend(RATES, crossings=crossings)


def test_censoring_at_random_ends_never_overstates_a_bound() -> None:
    """Whatever is cut off at the edges of an exact quadratic: what is called known is, a bound is one."""
    rng = seeds.generator(0, "test")
    for _ in range(200):
        c, best = rng.uniform(0.05, 0.8), float(np.exp(rng.uniform(np.log(0.0015), np.log(0.01))))
        end = rng.uniform(25, 200)
        found = bend(RATES, crossings=[seen(time(rate, c=c, best=best), end=end) for rate in RATES])
        if found is None:
            continue
        if found.curvature.bound == "exact":
            assert found.curvature.value == pytest.approx(c, rel=1e-4)
        elif found.curvature.bound == "at_least":
            assert found.curvature.value <= c + 1e-6


def test_detours_are_measured_beside_the_best_rate() -> None:
    found = detour(RATES, crossings=[seen(t) for t in (90, 45, 30, 60, 300)])
    assert found is not None
    assert found.best == 0.004
    assert found.half is not None
    assert found.double is not None
    assert math.exp(found.half.value) == pytest.approx(1.5)
    assert math.exp(found.double.value) == pytest.approx(2)
    mean = found.mean()
    assert mean is not None
    assert math.exp(mean.value) == pytest.approx(math.sqrt(3))
    cut = detour(RATES, crossings=[seen(t, end=50) for t in (90, 45, 30, 60, 300)])
    assert cut is not None
    assert cut.double is not None
    assert cut.double.bound == "at_least"
    assert math.exp(cut.double.value) == pytest.approx(50 / 30)
    edge = detour(RATES, crossings=[seen(t) for t in (10, 20, 30, 60, 300)])
    assert edge is not None
    assert edge.half is None
    assert edge.mean() is None
    assert detour(RATES, crossings=[seen(1e9, end=5)] * 5) is None
