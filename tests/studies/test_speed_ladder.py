"""Sizes side by side: what is read between two states, what an interval holds, and what is censored."""

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import polars as pl
import pytest

from repetita import seeds
from repetita.fit.times_to_memorize import Progress
from repetita.studies._speed import CAUSAL, STANDARD, Key, Points, Run
from repetita.studies._speed_figures import spread_row
from repetita.studies._speed_ladder import Ladder, length_ratio, trend_text, trends
from repetita.studies.memorization_speed import STUDY
from tests.studies.planted import effect
from tests.studies.test_memorization_speed import Labels, Plant, made, named

SIZES = (25_000, 100_000, 220_000, 890_000)


def run(n_params: int, memorized: Sequence[float], *, at: Sequence[float] | None = None) -> Run:
    """States at doubling passes, or where it is said; run lengths 1 / (1 - M), 1.5 times the shuffled."""
    passes = np.array(at or [2.0**i for i in range(len(memorized))])
    m = np.array(memorized, dtype=np.float64)
    some = m < 1
    length = np.minimum(1 / np.maximum(1 - m, 1e-3), 100)
    return Run(
        key=Key(CAUSAL, str(n_params), 128, STANDARD), seed=0, folder="", n_params=n_params, n_scored=100,
        progress=Progress(passes, passes, passes, passes, m), test=Points(passes, 0 * m),
        lengths={
            "unit_length": Points(passes, 1.5 * length),
            "unit_length_shuffled": Points(passes, length),
            "independent": Points(passes[some], length[some]),
        },
    )  # fmt: skip


def reaching(n_params: int, time: float, *, last: float = 1e4) -> Run:
    """A run that reaches M(f) = 0.9 after `time` passes, if it does not end before."""
    passes = np.geomspace(1, last, 400)
    return run(n_params, (1 / (1 + (time / passes) ** 3 / 9)).tolist(), at=passes.tolist())


def ladder_of(times: Sequence[Sequence[float]], *, last: float = 1e4) -> Ladder:
    """One row of times a size, one time a seed."""
    rows = zip(SIZES, times, strict=True)
    runs: list[Mapping[Hashable, Run]] = [
        {seed: reaching(n, time, last=last) for seed, time in enumerate(row)} for n, row in rows
    ]
    return Ladder(tuple(runs), tuple(range(len(times[0]))), 0)


def test_a_length_is_read_only_between_states_around_tau() -> None:
    """M jumps over tau to 1, where 1 - M has no logarithm: the state before is not the one at tau."""
    jumped = run(25_000, [0.3, 0.5, 0.6, 1, 1])
    assert jumped.times(0.9, window=0)["updates"].reached
    assert jumped.length_at("unit_length", tau=0.9, window=0) is None
    assert jumped.length_at("unit_length_shuffled", tau=0.9, window=0) is None
    assert length_ratio(jumped, tau=0.9, window=0) is None
    around = run(25_000, [0.3, 0.5, 0.6, 0.95, 1])
    assert around.length_at("unit_length", tau=0.9, window=0) == pytest.approx(15)
    assert length_ratio(around, tau=0.9, window=0) == pytest.approx(1.5)


def test_seeds_that_are_off_the_line_together_are_not_more_points() -> None:
    times = [[100.0], [30.0], [40.0], [10.0]]
    (_, one), *_ = trends(ladder_of(times), taus=[0.9])
    (_, many), *_ = trends(ladder_of([row * 5 for row in times]), taus=[0.9])
    assert one is not None
    assert many is not None
    assert many.n == len(SIZES)
    assert many.exponent.low == pytest.approx(one.exponent.low, rel=1e-3)
    assert many.exponent.high == pytest.approx(one.exponent.high, rel=1e-3)


def test_the_interval_holds_the_scatter_of_sizes() -> None:
    """95% by its rule; with seeds times sizes as points it was about half."""
    rng, held, n = seeds.generator(0, "test"), 0, 60
    for _ in range(n):
        line = 100 * (np.array(SIZES) / SIZES[0]) ** -0.5 * np.exp(rng.normal(0, 0.2, 4))
        times = line[:, None] * np.exp(rng.normal(0, 0.02, (4, 3)))
        ((_, found),) = trends(ladder_of(times.tolist()), taus=[0.9])
        assert found is not None
        held += found.exponent.holds(-0.5)
    assert held >= 0.85 * n


def test_a_size_is_censored_if_a_seed_is() -> None:
    there = ladder_of([[100, 300], [60, 70], [40, 40], [10, 11]], last=200)
    ((_, found),) = trends(there, taus=[0.9])
    assert found is not None
    assert (found.n, found.n_censored) == (4, 1)
    assert "1 of 4 sizes censored" in trend_text(there, tau=0.9)
    assert trend_text(ladder_of([[100, 300], [60, 250], [40, 40], [10, 11]], last=200), tau=0.9) == ""


def test_updates_that_never_get_there_are_a_bound() -> None:
    """Masked hits are those shown as the mask, and a T_update beyond the end of a run is not dropped."""
    whole = made("laptop", Plant())
    late = whole.corruption.with_columns(
        hits=pl.when((pl.col("kind") == "mask") & (pl.col("size") == "100k"))
        .then((pl.col("hits") * 0.85).cast(pl.Int64))
        .otherwise("hits")
    )
    before = named(STUDY.analyse(whole))["masked-update-later"]
    whole.__dict__["corruption"] = late
    after = named(STUDY.analyse(whole))["masked-update-later"]
    assert before.estimate is not None
    assert after.estimate is not None
    assert before.estimate.value is not None
    assert (after.estimate.value, after.estimate.high) == (None, None)
    assert after.estimate.low is not None
    assert after.estimate.low > before.estimate.value
    assert "not seen to the end" in after.note


def test_lengths_are_a_mean_over_the_same_sizes_in_every_seed() -> None:
    def most(labels: Labels) -> float:
        return 0.7 if (labels["size"], labels["seed"]) == ("25k", 0) else 1.0

    claim = named(STUDY.analyse(made("laptop", Plant(most=most))))["causal-unit-length"]
    assert claim.note.startswith("over N = 100k, 220k, 890k,")
    assert math.isclose(effect(claim), 1.3, abs_tol=0.03)


def test_the_interval_of_a_share_ends_where_shares_do() -> None:
    seeds_apart = [0.01, 0.5, 0.9]
    wide, cut = spread_row(seeds_apart), spread_row(seeds_apart, "share")
    assert isinstance(wide["low"], float) and wide["low"] < 0
    assert (cut["low"], cut["high"]) == (0.0, 1.0)
    assert cut["value"] == wide["value"]
