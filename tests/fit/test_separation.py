"""Areas are those of counting pairs, and their intervals hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.errors import SpecError
from repetita.fit.separation import auc, hits_at

scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12)


@given(scores, scores)
def test_the_area_counts_pairs_ties_one_half(inside: list[float], outside: list[float]) -> None:
    pairs = [(x > y) + 0.5 * (x == y) for x in inside for y in outside]
    found = auc(inside, outside=outside)
    assert found.value == pytest.approx(np.mean(pairs))
    other = auc(outside, outside=inside)
    assert found.value is not None and other.value is not None
    assert found.value == pytest.approx(1 - other.value)
    if found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert other.low == pytest.approx(1 - found.high)


def test_the_variance_is_delongs_by_hand() -> None:
    """V10 = (1, 1/2, 1), V01 = (2/3, 1): S10/3 + S01/2 = 1/36 + 1/36."""
    found = auc([3.0, 1.5, 4.0], outside=[2.0, 1.0])
    value, half = 5 / 6, 12.7062 * math.sqrt(1 / 18) / (5 / 36)
    assert found.value == pytest.approx(value)
    assert found.low is not None
    assert math.log(found.low / (1 - found.low)) == pytest.approx(math.log(5) - half, rel=1e-4)


def test_the_interval_covers_as_stated() -> None:
    """Two normal groups one standard deviation apart: the area is known to be Phi(1 / sqrt 2) = 0.7602."""
    rng = np.random.default_rng(0)
    covered = [auc(rng.normal(1, 1, 30), outside=rng.normal(0, 1, 40)).holds(0.760250) for _ in range(2000)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_groups_told_apart_have_an_interval_and_single_texts_none() -> None:
    found = auc([3.0, 4.0, 5.0, 6.0], outside=[0.0, 1.0, 2.0])
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025 ** (1 / 3))
    assert auc([1.0], outside=[0.0, 2.0])[:3] == (0.5, None, None)
    assert auc([math.inf, 1.0], outside=[0.0, 2.0]).value == 0.75


def test_hits_are_counted_above_the_false_alarms_that_are_allowed() -> None:
    outside = np.arange(200.0)
    found = hits_at([197.0, 198.0, 199.0, 500.0], outside=outside)
    assert found.value == 3 / 4  # 198 and 199 outside are the two that may lie above.
    assert (outside > 197).mean() == 0.01
    assert hits_at([199.0, 500.0], outside=outside[-50:]).value == 1 / 2
    assert hits_at([1.0, 1.0], outside=[1.0]).value == 0
    for bad in ([], [math.nan]):
        with pytest.raises(SpecError):
            hits_at(bad, outside=[1.0])
        with pytest.raises(SpecError):
            auc([1.0], outside=bad)
