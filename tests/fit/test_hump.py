import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.curves import wiggle
from repetita.fit.hump import hump_across, hump_within

PASSES = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
BUMP = (0.0, 0.03, 0.12, 0.30, 0.14, 0.05)


def runs(
    shape: tuple[float, ...], *, noise: float, n_seeds: int, seed: int = 0
) -> dict[int, dict[float, float]]:
    rng = np.random.default_rng(seed)
    return {
        s: {e: 5 + level + h + float(rng.normal(0, noise)) for e, h in zip(PASSES, shape, strict=True)}
        for s, level in enumerate(rng.normal(0, 0.1, n_seeds))
    }


def test_a_planted_hump_is_found_at_its_place_and_height() -> None:
    found = hump_across(runs(BUMP, noise=0.01, n_seeds=3))
    assert (found.kind, found.peak, found.peak_between) == ("hump", 100, (30, 300))
    assert found.height.holds(0.25)
    assert found.height_left.holds(0.30)
    assert found.height_right.holds(0.25)
    assert found.height.n == 3


def test_heights_cover_the_planted_one() -> None:
    covered = [
        hump_across(runs(BUMP, noise=0.03, n_seeds=4, seed=s)).height_left.holds(0.3) for s in range(200)
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_flat_curves_have_no_hump(n_seeds: int) -> None:
    kinds = [hump_across(runs((0.0,) * 6, noise=0.02, n_seeds=n_seeds, seed=s)).kind for s in range(200)]
    assert kinds.count("hump") / 200 <= 0.04


def test_a_peak_at_the_edge_decides_nothing() -> None:
    assert hump_across(runs((0, 0.1, 0.2, 0.3, 0.4, 0.5), noise=0.001, n_seeds=3)).kind == "edge"
    falling = hump_across(runs((0.5, 0.4, 0.3, 0.2, 0.1, 0), noise=0.001, n_seeds=3))
    assert falling.kind == "edge"
    assert "inconclusive" in falling.note


def test_one_seed_has_a_height_without_interval() -> None:
    found = hump_across(runs(BUMP, noise=0.001, n_seeds=1))
    assert found.kind == "hump"
    assert found.height.half_width is None
    assert "illustration" in found.note


def test_further_seeds_may_cover_the_peak_only() -> None:
    """Laptop: one seed on the whole grid, two more at the three passes around the peak."""
    table = runs(BUMP, noise=0.005, n_seeds=3)
    for s in (1, 2):
        table[s] = {e: table[s][e] for e in (30.0, 100.0, 300.0)}
    found = hump_across(table)
    assert (found.kind, found.peak, found.height.n) == ("hump", 100, 3)


def test_two_passes_are_no_curve() -> None:
    with pytest.raises(SpecError, match="3 values"):
        hump_across({0: {1.0: 3.0, 2.0: 4.0}})


TOKENS = np.geomspace(1e4, 1e7, 61)
CONTROL = 9 - 0.4 * np.log(TOKENS)


def bumped(height: float, at: float = 1e6) -> np.ndarray:
    return np.asarray(CONTROL + height * np.exp(-((np.log10(TOKENS / at) / 0.2) ** 2)))


def noisy(curve: np.ndarray, seed: int, sd: float = 0.01) -> np.ndarray:
    return np.asarray(curve + np.random.default_rng(seed).normal(0, sd, len(curve)))


def test_a_rise_and_fall_within_a_run_is_literal() -> None:
    found = hump_within(TOKENS, loss=noisy(bumped(0.8), 1), noise=0.01, control=noisy(CONTROL, 2))
    assert found.kind == "literal"
    assert found.start is not None
    assert found.stop is not None
    assert found.start < 8e5 < found.stop < 1.3e6
    assert found.rise > 0.2


def test_a_curve_that_ends_high_is_rising_not_double_descent() -> None:
    early = TOKENS <= 1e6
    found = hump_within(TOKENS[early], loss=bumped(0.8)[early], noise=0.01, control=CONTROL[early])
    assert found.kind == "rising"


def test_a_flat_stretch_where_the_control_falls_is_a_plateau() -> None:
    flat = np.where(TOKENS < 3e5, CONTROL, np.maximum(CONTROL - 0.5, 9 - 0.4 * np.log(3e5)))
    found = hump_within(TOKENS, loss=noisy(flat, 3), noise=0.01, control=noisy(CONTROL, 4))
    assert found.kind == "plateau"
    assert found.start is not None
    assert found.stop is not None
    assert found.stop >= 1.9 * found.start
    assert hump_within(TOKENS, loss=noisy(flat, 3), noise=0.01).kind == "none"


def test_falling_curves_have_neither() -> None:
    kinds = [
        hump_within(
            TOKENS,
            loss=noisy(CONTROL, s),
            noise=wiggle(TOKENS, y=noisy(CONTROL, 1000 + s)),
            control=noisy(CONTROL, 1000 + s),
        ).kind
        for s in range(100)
    ]
    assert kinds.count("none") >= 98


def test_a_control_that_flattens_too_makes_no_plateau() -> None:
    flat = np.full(len(TOKENS), 4.0)
    assert hump_within(TOKENS, loss=noisy(flat, 5), noise=0.01, control=noisy(flat, 6)).kind == "none"
