"""A known T comes back in every unit; what is not reached is a bound, over seeds and in slopes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.errors import SpecError
from repetita.fit.estimate import Crossing
from repetita.fit.times_to_memorize import (
    UNITS,
    Progress,
    Slope,
    bound_of,
    log_slope,
    over_seeds,
    time_to,
)

TOKENS_PER_UPDATE, UPDATES_PER_PASS = 2048, 8


def progress(t: float, *, until: float = 1e6, share: float = 1.0) -> Progress:
    """M rises linearly in ln passes through 1/2 at pass t; targets are this share of what is read."""
    passes = np.append(0, np.geomspace(0.5, 1000, 60))
    passes = passes[passes <= until]
    m = np.clip(0.5 + 0.2 * np.log(np.maximum(passes, 1e-9) / t), 0, 1)
    updates = passes * UPDATES_PER_PASS
    return Progress(updates, passes, passes * share, updates * TOKENS_PER_UPDATE, m)


def reached(x: float) -> Crossing:
    return Crossing(x, x, x, 1000, "pass")


def missed(last: float) -> Crossing:
    return Crossing(None, last, None, last, "pass")


@given(t=st.floats(2, 300), tau=st.floats(0.3, 0.7), share=st.floats(0.1, 1))
def test_a_known_time_comes_back_in_every_unit(t: float, tau: float, share: float) -> None:
    found = time_to(progress(t, share=share), tau=tau, window=8 * TOKENS_PER_UPDATE)
    expected = t * math.exp((tau - 0.5) / 0.2)
    factors = {
        "passes": 1.0,
        "updates": UPDATES_PER_PASS,
        "exposures": share,
        "tokens": UPDATES_PER_PASS * TOKENS_PER_UPDATE,
    }
    if expected > 900:
        return
    for unit in UNITS:
        assert found[unit].x == pytest.approx(expected * factors[unit], rel=1e-6)
        low, high = found[unit].low, found[unit].high
        assert low is not None
        assert high is not None
        assert low * 0.999 <= expected * factors[unit] <= high * 1.001


def test_what_a_run_does_not_reach_is_censored_in_every_unit() -> None:
    found = time_to(progress(100, until=80), tau=0.5, window=0)
    last = progress(100, until=80).passes[-1]
    assert all(not one.reached for one in found.values())
    assert found["passes"].last == pytest.approx(last)
    assert found["updates"].last == pytest.approx(last * UPDATES_PER_PASS)
    assert "not reached by pass" in found["passes"].text()


def test_a_touch_is_not_a_time_even_where_states_are_far_apart() -> None:
    one = progress(30)
    i = int(np.argmax(one.passes > 5))
    one.memorized[i] = 0.9
    found = time_to(one, tau=0.5, window=TOKENS_PER_UPDATE)
    assert found["passes"].x == pytest.approx(30, rel=1e-6)
    end = one._replace(memorized=np.where(np.arange(len(one.passes)) == len(one.passes) - 1, 0.9, 0.1))
    assert not time_to(end, tau=0.5, window=0)["passes"].reached


def test_seeds_give_a_geometric_mean_and_a_censored_one_an_open_bound() -> None:
    whole = over_seeds({0: reached(10), 1: reached(40)})
    assert whole.value == pytest.approx(20)
    part = over_seeds({0: reached(90), 1: reached(110), 2: missed(100)})
    assert (part.value, part.high) == (None, None)
    assert part.low is not None
    assert part.low < 100
    assert "1 of 3 not reached" in part.method
    assert over_seeds({0: missed(300), 1: missed(300)}).text() == "above 300"
    assert over_seeds({0: missed(300)}).text() == "above 300"


@given(b=st.floats(-2, 1))
def test_a_power_law_has_its_exponent(b: float) -> None:
    n = np.array([1e4, 1e5, 1e6])
    found = log_slope(n, crossings=[reached(5 * (x / 1e4) ** b) for x in n])
    assert found.bound == "exact"
    assert found.value == pytest.approx(b, abs=1e-9)


def test_small_models_that_were_not_reached_leave_a_slope_that_is_at_most() -> None:
    """Whatever their T really is: the true slope is never above the one that is given."""
    n = np.array([1e4, 3e4, 1e5, 1e6])
    seen = log_slope(n, crossings=[missed(100), reached(60), reached(30), reached(10)])
    assert seen.bound == "at_most"
    for truth in (100, 200, 5000):
        true = log_slope(n, crossings=[reached(truth), reached(60), reached(30), reached(10)])
        assert true.value <= seen.value + 1e-12
    large = log_slope(n, crossings=[reached(10), reached(10), reached(10), missed(100)])
    assert large.bound == "at_least"


def test_where_nothing_can_be_said() -> None:
    n = [1e4, 1e5, 1e6]
    assert log_slope(n, crossings=[missed(100)] * 3).bound == "unknown"
    assert log_slope(n, crossings=[missed(100), reached(10), missed(100)]).bound == "unknown"
    # At the geometric mean of the sizes a T has no weight in the slope.
    assert log_slope(n, crossings=[reached(50), missed(100), reached(10)]).bound == "exact"
    with pytest.raises(SpecError, match="two different sizes"):
        log_slope([1e4], crossings=[reached(1)])
    exact, most, least = Slope(-1, "exact"), Slope(-1, "at_most"), Slope(-1, "at_least")
    assert bound_of([exact, exact]) == "exact"
    assert bound_of([exact, most, most]) == "at_most"
    assert bound_of([most, least]) == "unknown"
