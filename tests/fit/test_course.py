"""Rises, losses and effects are those that were planted."""

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.course import difference_in_differences, lost, onset, rises, welch

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000])


def test_a_rise_must_last_for_two_checkpoints() -> None:
    y = np.array([0, 0, 0.6, 0, 0, 0.2, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95])
    found = rises(STEPS, y=y)
    assert found[0.5].low == 16 and found[0.5].high == 32, "the touch at step 2 does not count"
    assert found[0.9].reached and found[0.9].x == 512
    assert not rises(STEPS, y=y, thresholds=(0.99,))[0.99].reached
    assert onset(STEPS, score=y) == found[0.5]


def test_what_is_lost_behind_the_last_reading_has_its_floor() -> None:
    steps = np.array([0, 90, *(100 + 2.0 ** np.arange(12))])
    y = np.where(steps > 100, 0.2 + 0.6 * np.exp(-(steps - 100) / 50), 0.05)
    found = lost(steps, y=y, since=100)
    assert found is not None and found.forgetting is not None
    best = found.forgetting.decays[0]
    assert best.form == "exponential" and best.constant == pytest.approx(0.2, abs=1e-3)
    assert found.at == pytest.approx(y[2]) and found.note == ""
    assert found.half is not None and found.half.reached
    half = lost(steps, y=y, since=100, unseen=np.full_like(y, 0.2))
    assert half is not None and half.half is not None and half.half.x is not None
    assert half.half.x == pytest.approx(50 * np.log(2) + 1, rel=0.05), "half of what is above the unseen"


def test_losses_behind_a_peak_say_that_it_was_chosen() -> None:
    found = lost([0, 1, 2, 3], y=[0, 0.5, 0.4, 0.3])
    assert found is not None and found.since == 1 and found.forgetting is None
    assert "counted from the highest" in found.note and "2 checkpoints behind it, 5" in found.note
    assert lost([0, 1, 2], y=[0, 0.1, 0.2]) is None, "still rising"
    assert lost([0, 1, 2], y=[0, 0.1, 0.2], since=2) is None


def test_a_difference_in_differences_is_each_text_over_its_own_time() -> None:
    generator = np.random.default_rng(3)
    trend = np.array([0, 3.0, 3.1, 3.1, 3.5, 3.6])  # What everybody learns, early most.
    unseen = generator.normal(0, 0.1, (40, 1)) + trend
    before = generator.integers(0, 4, 30)
    after = before + 1
    seen = generator.normal(0.4, 0.1, (30, 1)) + trend  # Easier from the start: no effect.
    effect = generator.normal(0.25, 0.02, 30)
    for i in range(30):
        seen[i, after[i] :] += effect[i]
    found = difference_in_differences(seen, unseen=unseen, before=before, after=after)
    assert found.value == pytest.approx(effect.mean(), abs=1e-12)
    assert found.holds(0.25) and not found.holds(0.0)
    naive = [
        (seen[i, after[i]] - seen[i, before[i]]) - np.mean(unseen[:, after[i]] - unseen[:, before[i]])
        for i in range(30)
    ]
    assert found.value == pytest.approx(np.mean(naive))
    assert found.half_width == pytest.approx(welch(naive, control=[1e-9, -1e-9]).half_width, rel=1e-3)


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        seen = generator.normal([0, 0.5], 1.0, (12, 2))
        unseen = generator.normal(0, 0.3, (25, 2))
        found = difference_in_differences(seen, unseen=unseen, before=[0] * 12, after=[1] * 12)
        hits += found.holds(0.5)
    assert 0.92 < hits / 400 < 0.98


def test_too_little_leaves_bounds_open() -> None:
    alone = difference_in_differences([[0, 1]], unseen=[[0, 0.1], [0, 0.2]], before=[0], after=[1])
    assert alone.value == pytest.approx(0.85) and alone.low is None
    assert welch([1, 1], control=[0, 0]).high is None
    for wrong in ([], [[np.nan, 1.0]]):
        with pytest.raises(SpecError):
            difference_in_differences(wrong, unseen=[[0, 1]], before=[0], after=[1])
