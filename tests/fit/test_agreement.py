"""Planted agreement is recovered through noise, and noise that two scores share makes none."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from repetita.fit import agreement as fitted
from repetita.fit.agreement import agreement, agreement_interval, spearman


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=30), st.integers(0, 99))
def test_spearman_is_scipys_with_ties_and_in_resamples(pairs: list[tuple[int, int]], seed: int) -> None:
    x, y = np.array(pairs, dtype=float).T
    counts = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)), size=3)
    found = spearman(x, y, weights=counts.astype(float))
    for row, value in zip(counts, found, strict=True):
        a, b = np.repeat(x, row), np.repeat(y, row)
        if len(set(a)) == 1 or len(set(b)) == 1:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(spearmanr(a, b).statistic)


def test_what_has_no_score_is_left_out() -> None:
    x, y = np.array([1.0, 2, np.nan, 4, 0]), np.array([1.0, 3, 9, 2, np.nan])
    assert spearman(x, y) == pytest.approx(spearmanr([1, 2, 4], [1, 3, 2]).statistic)


class World:
    """Two scores whose truth correlates by `rho`, seen through the noise of models, some of it shared."""

    def __init__(self, *, rho: float, noise: float, shared: bool, models: int = 16, seed: int = 0) -> None:
        drawn = np.random.default_rng(seed)
        u, v = drawn.normal(size=(2, 150))
        truth, other = u, rho * u + (1 - rho**2) ** 0.5 * v
        one, two = noise * drawn.normal(size=(2, models, 150))
        self.one = truth + one
        self.other = other + (one if shared else two)
        order = [drawn.permutation(models) for _ in range(4)]
        self.sides = [set(one[: models // 2].tolist()) for one in order]

    def halves(self, models: list[int]) -> Any:
        def of(scores: Any) -> Any:
            parts = [
                ([m for m in models if m in side], [m for m in models if m not in side])
                for side in self.sides
            ]
            return [(scores[a].mean(0), scores[b].mean(0)) for a, b in parts]

        return of(self.one), of(self.other)


def rank(rho: float) -> float:
    """Spearman's rho of a bivariate normal."""
    return float(6 / np.pi * np.arcsin(rho / 2))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.6, 1.0])
def test_planted_agreement_is_recovered(rho: float, shared: bool) -> None:
    found = [
        agreement(*World(rho=rho, noise=3, shared=shared, seed=s).halves(list(range(16)))) for s in range(30)
    ]
    corrected = np.array([one.corrected for one in found], dtype=float)
    raw = np.array([one.raw for one in found], dtype=float)
    assert corrected.mean() == pytest.approx(rank(rho), abs=0.05)
    # Eight models a side: the noise has 9/8 of the variance of the truth.
    assert raw.mean() == pytest.approx(rank(rho / (1 + 9 / 8)), abs=0.04)
    same = World(rho=rho, noise=3, shared=True)
    naive = spearman(same.one.mean(0), same.other.mean(0))[0]
    assert rho == 1 or naive > rank(rho) + 0.05, "the same models would find an agreement of their noise"


def test_the_interval_covers() -> None:
    held = 0
    for seed in range(40):
        world = World(rho=0.6, noise=2, shared=False, seed=100 + seed)
        found = agreement_interval(world.halves, models=16, draws=200)
        assert found.n == 16
        assert found.value is not None
        held += found.holds(rank(0.6))
    assert held >= 34


def test_many_sequences_take_memory_by_their_number_and_not_by_its_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = np.random.default_rng(5)
    truth = drawn.normal(size=3000)
    scores = truth + drawn.normal(size=(2, 6, 3000))

    def halves(models: list[int]) -> Any:
        a, b = [m for m in models if m < 3], [m for m in models if m >= 3]
        return tuple([(of[a].mean(0), of[b].mean(0))] for of in scores)

    tracemalloc.start()
    at_once = agreement_interval(halves, models=6, draws=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 8 / 2
    monkeypatch.setattr(fitted, "AT_ONCE", 7 * 3000)
    assert agreement_interval(halves, models=6, draws=20) == at_once


def test_scores_that_do_not_rank_have_no_agreement() -> None:
    flat, there = np.zeros(9), np.arange(9.0)
    found = agreement([(flat, flat)], [(there, there)])
    assert found.raw is None
    assert found.reliability[0] is None
    assert found.reliability[1] == pytest.approx(1)
    assert found.corrected is None
    empty = agreement_interval(lambda _: ([(flat, flat)], [(there, there)]), models=4)
    assert (empty.value, empty.low, empty.high) == (None, None, None)
    mirrored = agreement([(there, -there)], [(there, there)])
    assert mirrored.corrected is None
