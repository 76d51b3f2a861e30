"""A planted line gives back its sizes; steps and flat scores are refused."""

import math
from collections.abc import Hashable

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.score_size import score_scan, score_size

SIZES = (4e3, 16e3, 64e3, 256e3)


def ladder(*, slope: float = 0.1, sd: float = 0.004) -> dict[float, dict[Hashable, float]]:
    noise = np.random.default_rng(0).normal(0, sd, (len(SIZES), 3))
    return {
        size: {seed: 0.2 + slope * math.log(size / 4e3) + float(noise[place, seed]) for seed in range(3)}
        for place, size in enumerate(SIZES)
    }


def test_a_line_gives_back_its_slope_and_the_size() -> None:
    scores = ladder()
    scan = score_scan(scores)
    assert scan.refused == "" and scan.slope.holds(0.1) and len(scan.by_seed) == 3
    # As good as a model of a quarter of the size: ln 4 times the slope lower.
    treated = {seed: value - 0.1 * math.log(4) for seed, value in scores[64e3].items()}
    found = score_size(scan, n_params=64e3, scores=treated, control=scores[64e3])
    assert found.multiplier.value == pytest.approx(0.25, rel=0.1) and found.multiplier.holds(0.25)
    assert found.drop.value == pytest.approx(0.1 * math.log(4))
    assert found.extrapolated == pytest.approx(0.25, rel=0.2)


def test_a_run_as_good_as_its_control_has_one() -> None:
    scores = ladder(sd=0.02)
    found = score_size(score_scan(scores), n_params=16e3, scores=scores[16e3], control=scores[16e3])
    assert found.multiplier.value == 1.0


def test_outside_the_ladder_only_bounds_are_known() -> None:
    scores, scan = ladder(), score_scan(ladder())
    worse = {seed: value - 0.3 for seed, value in scores[16e3].items()}
    found = score_size(scan, n_params=16e3, scores=worse, control=scores[16e3])
    assert found.multiplier.value is None and found.multiplier.low is None
    assert found.multiplier.high == pytest.approx(0.25) and "open below" in found.note
    assert found.extrapolated is not None and found.extrapolated < 0.25
    better = {seed: value + 0.4 for seed, value in scores[16e3].items()}
    assert score_size(
        scan, n_params=16e3, scores=better, control=scores[16e3]
    ).multiplier.low == pytest.approx(16)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    held, rng = 0, np.random.default_rng(1)
    for _ in range(300):
        scores: dict[float, dict[Hashable, float]] = {
            size: {seed: 0.1 * math.log(size) + float(rng.normal(0, 0.01)) for seed in range(3)}
            for size in SIZES
        }
        treated = {seed: 0.1 * math.log(32e3) + float(rng.normal(0, 0.01)) for seed in range(3)}
        found = score_size(score_scan(scores), n_params=64e3, scores=treated, control=scores[64e3])
        held += found.multiplier.holds(0.5)
    assert held / 300 > 0.92


def test_a_step_a_flat_line_and_too_few_sizes_are_refused() -> None:
    step = {size: {0: 0.02 + 0.9 * (size > 50e3), 1: 0.03 + 0.9 * (size > 50e3)} for size in SIZES}
    assert "step" in score_scan(step).refused
    assert "does not clearly rise" in score_scan(ladder(slope=0.0)).refused
    assert "a line needs 3" in score_scan({size: ladder()[size] for size in SIZES[:2]}).refused
    scan = score_scan(step)
    found = score_size(scan, n_params=64e3, scores={0: 0.5, 1: 0.5}, control=step[64e3])
    assert found.multiplier.text() == "undetermined" and found.note == scan.refused and found.drop.value


def test_without_a_pair_or_a_ladder_it_says_so() -> None:
    with pytest.raises(SpecError, match="at least two sizes"):
        score_scan({4e3: {0: 0.1}})
    with pytest.raises(SpecError, match="no seed has a treated and a control run"):
        score_size(score_scan(ladder()), n_params=64e3, scores={7: 0.1}, control={0: 0.2})
