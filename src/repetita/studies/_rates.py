"""T(N, tau) on a grid of learning rates: sensitivity by size, the best rate, and claims about them."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import Crossing
from repetita.fit.sensitivity import Bend, Detour, bend, detour
from repetita.fit.times_to_memorize import Slope, combined, largest, mean_of, slope_weights
from repetita.studies._power import paired_seeds, smallest_effects
from repetita.studies._speed import CAUSAL, Cells, Key, Run, common_seeds
from repetita.studies._speed_claims import HIGH
from repetita.studies._speed_ladder import Ladder
from repetita.studies._speed_verdicts import BOUNDS, slope_claim

PAPER = "Tirumala et al. 2022, Fig. 5"
TEXTS = {
    "rate-sensitivity": (
        f"the larger the model, the less T(N, {HIGH:g}) depends on the learning rate",
        f"{PAPER}: sensitivity to the rate falls with N",
    ),
    "rate-u-shape": (
        f"T(N, {HIGH:g}) falls and rises again with the learning rate, on average over sizes",
        f"{PAPER}: each curve goes down, then up",
    ),
    "rate-any": (
        f"at every one of the rates larger models need fewer passes to M(f) = {HIGH:g}",
        f"{PAPER}: at any fixed rate larger models are faster",
    ),
}
"""Statement and source of the primary claims."""
FALLS = "(slope on ln N of the curvature of ln T in log2 rate)"

SEED_SD = {"rate-sensitivity": 0.05, "rate-u-shape": 0.1, "rate-any": 0.1}
"""Assumed standard deviations over seeds of the effects that the claims test, for planning only."""
PREDICTED = {"rate-sensitivity": 0.1, "rate-u-shape": 0.3, "rate-any": 0.5}
"""What one may expect: the chart's lines for 6.7B are nearly flat over a decade of rates, those for 125M fall
and rise by a factor of two or so; T falls with size as in Fig. 1. Guesses where the chart gives no number."""
UNITS = {
    "rate-sensitivity": "of curvature per e-fold of N",
    "rate-u-shape": "of curvature",
    "rate-any": "of slope",
}


class RateGrid(NamedTuple):
    """Runs of one training set by size and rate, and the seeds that all of them have."""

    runs: Mapping[tuple[str, float], Mapping[Hashable, Run]]
    """By size and rate, then seed."""
    sizes: tuple[str, ...]
    """By parameters."""
    n_params: tuple[int, ...]
    rates: tuple[float, ...]
    """Ascending."""
    seeds: tuple[Hashable, ...]
    window: int

    def crossings(self, size: str, seed: Hashable, *, tau: float = HIGH) -> list[Crossing]:
        """T(N, tau) in passes, one a rate."""
        runs = (self.runs[size, rate][seed] for rate in self.rates)
        return [run.times(tau, window=self.window)["passes"] for run in runs]

    def bend(self, size: str, seed: Hashable) -> Bend | None:
        """The quadratic of one size in one seed."""
        return bend(self.rates, crossings=self.crossings(size, seed))

    def detour(self, size: str, seed: Hashable) -> Detour | None:
        """What other rates than the measured best cost one size in one seed."""
        return detour(self.rates, crossings=self.crossings(size, seed))

    def at(self, rate: float, /) -> Ladder:
        """The sizes at one rate."""
        return Ladder(tuple(self.runs[size, rate] for size in self.sizes), self.seeds, self.window)

    def over_sizes(
        self, value: Callable[[str, Hashable], Slope | None]
    ) -> dict[Hashable, list[Slope]] | None:
        """A number of each size by seed; None where some size has none in some seed."""
        found = {seed: [value(size, seed) for size in self.sizes] for seed in self.seeds}
        if any(one is None for row in found.values() for one in row):
            return None
        return {seed: [one for one in row if one is not None] for seed, row in found.items()}


def rates_of(planned: Sequence[Mapping[str, Any]], /) -> dict[str, float]:
    """The rate of each arm, ascending."""
    found = {str(labels["arm"]): float(labels["rate"]) for labels in planned}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def sizes_of(planned: Sequence[Mapping[str, Any]], /) -> dict[str, int]:
    """Planned sizes and their non-embedding parameters, ascending."""
    found = {str(labels["size"]): int(labels["non_embedding"]) for labels in planned}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def rate_grid(found: Cells, *, planned: Sequence[Mapping[str, Any]], window: int) -> RateGrid | None:
    """The whole planned grid; None where a cell is missing altogether or no seed has every cell."""
    rates, sizes = rates_of(planned), sizes_of(planned)
    runs: dict[tuple[str, float], Mapping[Hashable, Run]] = {}
    keys: list[Key] = []
    for key, by_seed_ in found.items():
        if key.arm in rates:
            runs[key.size, rates[key.arm]] = by_seed_
            keys.append(key)
    if len(runs) < len(sizes) * len(rates) or len(sizes) < 2:
        return None
    seeds = common_seeds(found, keys)
    if not seeds:
        return None
    values = tuple(sorted(set(rates.values())))
    return RateGrid(runs, tuple(sizes), tuple(sizes.values()), values, tuple(seeds), window)


def claims(there: RateGrid | None) -> Iterator[Claim]:
    """Three primary claims, the paper's own first; rate by rate and the best rate are descriptive."""
    yield _sensitivity(there)
    yield _u_shape(there)
    yield _any_rate(there)
    if there is None:
        return
    yield from _detours(there)
    yield from _best(there)
    for rate in there.rates:
        yield slope_claim(
            there.at(rate).slopes(HIGH),
            name=f"rate-{rate:g}".replace(".", "-"),
            statement=f"at the rate {rate:g}: the larger the model, the fewer passes to M(f) = {HIGH:g}",
            source=PAPER,
            primary=False,
        )


def _curvatures(there: RateGrid | None) -> dict[Hashable, list[Slope]] | None:
    def curvature(size: str, seed: Hashable) -> Slope | None:
        assert there is not None
        found = there.bend(size, seed)
        return None if found is None else found.curvature

    return None if there is None else there.over_sizes(curvature)


def _sensitivity(there: RateGrid | None) -> Claim:
    curvatures = _curvatures(there)
    if there is None or curvatures is None:
        return _nothing("rate-sensitivity", there)
    weights = slope_weights(there.n_params)
    slopes = {seed: combined(weights, slopes=row) for seed, row in curvatures.items()}
    statement, source = TEXTS["rate-sensitivity"]
    return slope_claim(
        slopes, name="rate-sensitivity", statement=statement, source=source, unit=FALLS,
        note=_curvature_text(there, curvatures),
    )  # fmt: skip


def _curvature_text(there: RateGrid, curvatures: Mapping[Hashable, Sequence[Slope]]) -> str:
    signs = {"exact": "", "at_least": "at least ", "at_most": "at most ", "unknown": "about "}
    parts: list[str] = []
    for i, size in enumerate(there.sizes):
        found = mean_of([row[i] for row in curvatures.values()])
        parts.append(f"{size}: {signs[found.bound]}{found.value:.3g}")
    return f"curvature by size, mean over seeds: {'; '.join(parts)}"


def _u_shape(there: RateGrid | None) -> Claim:
    curvatures = _curvatures(there)
    if there is None or curvatures is None:
        return _nothing("rate-u-shape", there)
    statement, source = TEXTS["rate-u-shape"]
    return slope_claim(
        {seed: mean_of(row) for seed, row in curvatures.items()},
        name="rate-u-shape", statement=statement, source=source, direction="above",
        unit="(curvature of ln T in log2 rate)",
    )  # fmt: skip


def _any_rate(there: RateGrid | None) -> Claim:
    """The flattest of the slopes at all rates: below 0 only if all are."""
    slopes: dict[Hashable, Slope] = {}
    for seed in there.seeds if there else ():
        assert there is not None
        ladders = [there.at(rate) for rate in there.rates]
        # A rate at which no size gets there says nothing of their order.
        some = [at for at in ladders if any(one.reached for one in at.crossings(seed, HIGH))]
        if some:
            slopes[seed] = largest([at.slopes(HIGH)[seed] for at in some])
    if there is None or len(slopes) < len(there.seeds):
        return _nothing("rate-any", there)
    statement, source = TEXTS["rate-any"]
    return slope_claim(
        slopes, name="rate-any", statement=statement, source=source,
        unit="(the flattest slope of ln T on ln N of any rate)",
    )  # fmt: skip


def _detours(there: RateGrid) -> Iterator[Claim]:
    def cost(size: str, seed: Hashable) -> Slope | None:
        found = there.detour(size, seed)
        return None if found is None else found.mean()

    rows = there.over_sizes(cost)
    if rows is None:
        return
    weights = slope_weights(there.n_params)
    yield slope_claim(
        {seed: combined(weights, slopes=row) for seed, row in rows.items()},
        name="rate-detour",
        statement="the larger the model, the less is lost at half and at double its best rate",
        source=f"{PAPER}, read at the bottom of each curve",
        unit="(slope on ln N of the mean ln ratio of T to the best rate's)",
        primary=False,
    )


def _best(there: RateGrid) -> Iterator[Claim]:
    import numpy as np

    weights = slope_weights(there.n_params)
    slopes: dict[Hashable, float] = {}
    for seed in there.seeds:
        found = [there.detour(size, seed) for size in there.sizes]
        if any(one is None for one in found):
            return
        best = np.log([one.best for one in found if one is not None])
        slopes[seed] = float(weights @ (best - best[0]))  # Equal rates are a slope of 0 to the bit.
    yield directional(
        by_seed(slopes), name="rate-best", direction="below", primary=False,
        statement="the rate at which T is lowest falls with size",
        source="Tirumala et al. 2022, Table 1: from 6e-4 at 125M to 1e-4 at 13B",
        unit="(slope of the ln of the best rate of the grid on ln N)",
    )  # fmt: skip


def _nothing(name: str, there: RateGrid | None) -> Claim:
    statement, source = TEXTS[name]
    why = f"some size reaches M(f) = {HIGH:g} at fewer than two rates"
    return undecided(
        name=name, statement=statement, source=source, primary=True, n=len(there.seeds) if there else 0,
        rule=f"t test over seeds; {BOUNDS}",
        note="no seed has every planned size and rate" if there is None else why,
    )  # fmt: skip


def detectable(planned: Sequence[Mapping[str, Any]], /) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    n = paired_seeds(planned, by=("size", "arm"))
    return smallest_effects(n=n, sd=SEED_SD, unit=UNITS, predicted=PREDICTED)


def warnings(found: Cells, *, window: int) -> Iterator[str]:
    """Cells in which no run reached the level."""
    never = [
        f"N = {key.size} at {key.arm}"
        for key, runs in found.items()
        if key.objective == CAUSAL
        and not any(run.times(HIGH, window=window)["passes"].reached for run in runs.values())
    ]
    if never:
        yield f"M(f) = {HIGH:g} was not reached by the end of any run of {'; '.join(never)}."
