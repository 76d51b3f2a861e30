import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.errors import SpecError
from repetita.fit.curves import (
    crossing,
    first_rise,
    log_distance,
    marker,
    peak_position,
    smooth,
    sustained_rise,
    wiggle,
)


def test_a_crossing_is_interpolated_in_ln_x_and_bracketed() -> None:
    found = crossing([1, 10, 100], y=[0.0, 0.2, 0.6], threshold=0.4)
    assert found.x == pytest.approx(10**1.5)
    assert (found.low, found.high) == (10, 100)


def test_at_zero_it_is_interpolated_in_x() -> None:
    assert crossing([0, 10], y=[0.0, 1.0], threshold=0.4).x == pytest.approx(4)


def test_a_touch_is_no_sustained_crossing() -> None:
    x, y = np.arange(1, 11), np.array([0, 0.9, 0, 0, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert crossing(x, y=y, threshold=0.7).high == 2
    assert crossing(x, y=y, threshold=0.7, window=3).high == 5


def test_what_is_not_reached_or_not_confirmed_is_censored() -> None:
    never = crossing([1, 2, 300], y=[0, 0.1, 0.2], threshold=0.9)
    assert never.text() == "not reached by step 300"
    late = crossing([1, 2, 3], y=[0, 0, 1], threshold=0.9, window=2)
    assert (late.x, late.low, late.last) == (None, 3, 3)


def test_the_least_number_of_evaluations_holds_where_a_window_has_fewer() -> None:
    """States that lie further apart than the window: one alone is a touch."""
    x, y = [1, 10, 100, 1000, 10000], [0, 0.9, 0, 0.9, 0.9]
    assert crossing(x, y=y, threshold=0.7, window=2).high == 10
    assert crossing(x, y=y, threshold=0.7, window=2, evaluations=2).high == 1000
    assert not crossing(x, y=y, threshold=0.7, window=2, evaluations=3).reached


def test_a_curve_that_starts_beyond_has_no_lower_bracket() -> None:
    assert crossing([5, 6], y=[1, 1], threshold=0.5)[:3] == (5, None, 5)


@given(threshold=st.floats(-5, 5), shift=st.floats(0.1, 3))
def test_crossings_mirror_and_come_later_for_higher_thresholds(threshold: float, shift: float) -> None:
    x = np.geomspace(1, 1000, 30)
    y = np.log(x) - 3
    up = crossing(x, y=y, threshold=threshold)
    assert up == crossing(x, y=-y, threshold=-threshold, direction="below")
    higher = crossing(x, y=y, threshold=threshold + shift)
    assert (higher.x or math.inf) >= (up.x or math.inf) or not up.reached


def test_the_literal_first_rise_and_the_sustained_one_differ_on_noise() -> None:
    x, y = np.arange(1, 9), np.array([5, 4, 4.1, 3, 2, 2.5, 2.6, 2.7])
    assert first_rise(x, y=y).x == 3
    assert sustained_rise(x, y=y, window=2).x == 5
    falling = np.arange(8, 0, -1.0)
    assert not first_rise(x, y=falling).reached
    assert not sustained_rise(x, y=falling, window=2).reached


def test_smoothing_keeps_lines_in_ln_x_and_takes_noise_away() -> None:
    x = np.geomspace(10, 1e5, 60)
    line = 4 - 0.3 * np.log(x)
    np.testing.assert_allclose(smooth(x, y=line), line)
    noisy = line + np.random.default_rng(0).normal(0, 0.05, 60)
    assert np.std(smooth(x, y=noisy, decades=0.3) - line) < 0.02
    assert wiggle(x, y=noisy, decades=0.3) == pytest.approx(0.05, rel=0.25)
    assert smooth([1, 1e6], y=[3, 5]).tolist() == [3, 5]


def test_the_marker_is_where_the_ratio_crosses() -> None:
    passes = np.array([1, 10, 100, 1000])
    unique = np.full(4, 4.0)
    repeated = unique * passes ** (-0.5)
    found = marker(passes, repeated_loss=repeated, unique_loss=unique)
    assert found.x == pytest.approx(100)
    assert marker(passes, repeated_loss=repeated, unique_loss=unique, share=0.05).x == pytest.approx(400)
    assert log_distance(100 * math.e, to=found) == pytest.approx(1)


def test_a_marker_beyond_the_grid_is_open_on_its_side() -> None:
    above = marker([1, 10], repeated_loss=[4, 3], unique_loss=[4, 4])
    assert above.text() == "not reached by pass 10"
    under = marker([1, 10], repeated_loss=[0.1, 0.1], unique_loss=[4, 4])
    assert (under.x, under.low, under.high) == (None, None, 1)
    assert log_distance(5, to=under) is None


def test_the_peak_of_a_parabola_in_ln_x_is_found_between_points() -> None:
    x = np.array([1, 3, 10, 30, 100.0])
    y = 2 - (np.log(x) - math.log(14)) ** 2
    assert peak_position(x, y=y) == pytest.approx(14)
    assert peak_position(x, y=np.arange(5)) == 100


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [1, 2]), ([1, 1], [1, 2]), ([1, 2], [1, math.nan])])
def test_bad_curves_are_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(SpecError):
        crossing(x, y=y, threshold=0)


def test_order_of_the_points_does_not_matter() -> None:
    found = crossing([3, 1, 2], y=[1, 0, 0], threshold=0.5)
    assert found == crossing([1, 2, 3], y=[0, 0, 1], threshold=0.5)
    assert found.x == pytest.approx(math.sqrt(6))
