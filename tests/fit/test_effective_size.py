import math

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.effective_size import (
    ControlScan,
    control_scan,
    damage,
    effective_size,
    equivalent_tokens,
    half_damage,
    harmonic_mean,
    profitable_multiplier,
    stored_bits,
)
from repetita.fit.laws import fit_power_trend

SIZES = [float(n) for n in np.round(np.geomspace(1e3, 1e6, 7))]


def law(n: float) -> float:
    return float(12 * n**-0.1)


def scan(noise: float = 0.004, seed: int = 0, n_seeds: int = 3) -> ControlScan:
    rng = np.random.default_rng(seed)
    losses = {n: {s: law(n) + float(rng.normal(0, noise)) for s in range(n_seeds)} for n in SIZES}
    return control_scan(losses, vocab_size=1024, seed=seed)


def treated(n_eff: float, noise: float = 0.004, seed: int = 0) -> dict[int, float]:
    rng = np.random.default_rng(100 + seed)
    return {s: law(n_eff) + float(rng.normal(0, noise)) for s in range(3)}


@pytest.mark.parametrize("method", ["law", "interpolation"])
def test_the_planted_size_lies_inside_its_interval_as_stated(method: str) -> None:
    covered = []
    for seed in range(30):
        found = effective_size(
            scan(seed=seed),
            n_params=1e5,
            losses=treated(3.2e4, seed=seed),
            method="law" if method == "law" else "interpolation",
        )
        covered.append(found.n_eff.holds(3.2e4))
        assert found.multiplier.value == pytest.approx((found.n_eff.value or 0) / 1e5)
    assert np.mean(covered) >= 0.85


def test_excess_is_paired_with_the_control_of_the_same_seeds() -> None:
    control = scan()
    shifted = {s: loss + 0.2 for s, loss in control.losses[SIZES[4]].items()}
    found = effective_size(control, n_params=SIZES[4], losses=shifted).excess
    assert found.value == pytest.approx(0.2)
    assert found.half_width == pytest.approx(0, abs=1e-9)
    assert "paired" in found.method
    assert "law" in effective_size(control, n_params=5e4, losses=shifted).excess.method


def test_beyond_the_scan_the_size_is_an_open_bound() -> None:
    control = scan()
    worse = effective_size(control, n_params=1e4, losses=treated(500))
    assert worse.n_eff.text() == "below 1000"
    assert worse.multiplier.high == pytest.approx(0.1)
    assert worse.extrapolated == pytest.approx(500, rel=0.1)
    better = effective_size(control, n_params=1e6, losses=treated(1e7))
    assert better.n_eff.text() == "above 1.00e+06"
    assert worse.excess.value is not None


def test_above_ln_v_there_is_no_equivalent_size() -> None:
    found = effective_size(scan(), n_params=1e4, losses={0: 7.0, 1: 7.1})
    assert found.n_eff[:3] == (None, None, None)
    assert "ln V" in found.note
    assert found.excess.value == pytest.approx(7.05 - law(1e4), abs=0.02)


def test_one_seed_has_open_bounds() -> None:
    found = effective_size(scan(), n_params=1e5, losses={0: law(3e4)})
    assert found.n_eff.value == pytest.approx(3e4, rel=0.1)
    assert found.n_eff.half_width is None


def test_sizes_that_the_seeds_cannot_tell_apart_are_named() -> None:
    losses = {n: {0: law(n) - 0.3, 1: law(n) + 0.3} for n in SIZES}
    noisy = control_scan(losses, vocab_size=1024)
    assert len(noisy.unresolved) == len(SIZES) - 1
    assert "not resolvable" in effective_size(noisy, n_params=1e5, losses=treated(3e4)).note
    assert not scan(noise=0.001).unresolved


def test_damage_is_starvation_plus_interference() -> None:
    rng = np.random.default_rng(0)
    level = {s: float(x) for s, x in enumerate(rng.normal(4, 0.5, 4))}
    found = damage(
        control=level,
        starved={s: x + 0.1 + float(rng.normal(0, 0.01)) for s, x in level.items()},
        repeated={s: x + 0.4 for s, x in level.items()},
    )
    assert found.total.value == pytest.approx(0.4)
    assert found.starvation.holds(0.1)
    assert (found.starvation.value or 0) + (found.interference.value or 0) == pytest.approx(0.4)
    with pytest.raises(SpecError, match="no seed"):
        damage(control={0: 1.0}, starved={1: 1.0}, repeated={0: 1.0})


def test_equivalent_tokens_invert_each_seeds_own_curve() -> None:
    tokens = np.concatenate([[0], np.geomspace(1e3, 1e6, 40)])
    curves = {s: (tokens, 8 - 0.3 * np.log(np.maximum(tokens, 500)) + s) for s in range(3)}
    losses = {s: 8 - 0.3 * math.log(2e5) + s for s in range(3)}
    assert equivalent_tokens(curves, losses=losses).value == pytest.approx(2e5, rel=1e-3)
    low = equivalent_tokens(curves, losses={s: 9.0 + s for s in range(3)})
    assert (low.value, low.low) == (None, None)
    assert low.high == pytest.approx(1e3)
    high = equivalent_tokens(curves, losses={s: 1.0 + s for s in range(3)})
    assert (high.value, high.high) == (None, None)
    assert high.low == pytest.approx(1e6)


def test_half_damage_lies_on_straight_lines_in_ln_e() -> None:
    found = half_damage([1, 10, 100, 1000, 10000], effect=[0, 0.1, 0.4, 0.1, 0])
    assert (found.peak, found.effect, found.peak_at_edge) == (100, 0.4, False)
    assert found.left is not None
    assert found.right is not None
    assert found.left.x == pytest.approx(10 ** (1 + 1 / 3))
    assert found.right.x == pytest.approx(10 ** (3 - 1 / 3))


def test_edges_outside_the_grid_are_censored_and_edge_peaks_have_none() -> None:
    found = half_damage([1, 10, 100], effect=[0.3, 0.4, 0.3])
    assert found.left == (None, None, 1, 100, "pass")
    assert found.right == (None, 100, None, 100, "pass")
    edge = half_damage([1, 10, 100], effect=[0.1, 0.2, 0.3])
    assert (edge.peak_at_edge, edge.left, edge.right) == (True, None, None)
    with pytest.raises(SpecError, match="nowhere above zero"):
        half_damage([1, 2, 3], effect=[0, -1, 0])


def test_the_papers_right_edge_is_returned_from_planted_bands() -> None:
    """E = 5.1e7 N^-0.50 (repeated-data paper, appendix A), from tents in ln E."""
    sizes = np.array([1.57e6, 12.6e6, 101e6, 805e6])
    edges = []
    for n in sizes:
        right = 5.1e7 * n**-0.5
        passes = np.geomspace(right / 1000, right * 30, 30)
        effect = np.maximum(0, 1 - 0.5 * np.abs(np.log(passes / (right / 8))) / math.log(8))
        found = half_damage(passes, effect=effect)
        assert found.right is not None
        edges.append(found.right)
    trend = fit_power_trend(sizes, crossings=edges)
    assert trend.exponent.value == pytest.approx(-0.5, abs=0.02)
    assert trend.predict(1e7) == pytest.approx(5.1e7 * 1e7**-0.5, rel=0.1)


def test_closed_forms() -> None:
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert 1 / profitable_multiplier(fraction=0.1, exponent=0.1375) == pytest.approx(2.2, abs=0.05)
    assert stored_bits(control_loss_sum=100 * math.log(2), repeated_loss_sum=0, n_params=50) == pytest.approx(
        (100, 2)
    )
