"""Sizes side by side: T(N, tau) by seed, its slope against N, and run lengths where tau is reached."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from repetita.errors import SpecError
from repetita.fit.estimate import Crossing
from repetita.fit.laws import PowerTrend, fit_power_trend
from repetita.fit.times_to_memorize import Slope, log_slope, time_to
from repetita.studies._speed import STANDARD, Cells, Run, common_seeds, line


class Ladder(NamedTuple):
    """Sizes of one objective, training set and arm, and the seeds that all of them have."""

    runs: tuple[Mapping[Hashable, Run], ...]
    """A mapping by seed for each size, by parameters."""
    seeds: tuple[Hashable, ...]
    window: int

    @property
    def n_params(self) -> list[int]:
        """Non-embedding parameters of the sizes."""
        return [next(iter(runs.values())).n_params for runs in self.runs]

    @property
    def sizes(self) -> list[str]:
        """Their names."""
        return [next(iter(runs.values())).key.size for runs in self.runs]

    def crossings(self, seed: Hashable, tau: float, *, excess: bool = False) -> list[Crossing]:
        """T(N, tau) in passes, one a size."""
        chosen = [runs[seed] for runs in self.runs]
        progress = [run.excess() if excess else run.progress for run in chosen]
        return [time_to(one, tau=tau, window=self.window)["passes"] for one in progress]

    def slopes(self, tau: float, *, excess: bool = False) -> dict[Hashable, Slope]:
        """Slope of ln T on ln N by seed."""
        return {
            seed: log_slope(self.n_params, crossings=self.crossings(seed, tau, excess=excess))
            for seed in self.seeds
        }


def ladder(
    found: Cells, *, objective: str, n_sequences: int, window: int, sizes: Sequence[str], arm: str = STANDARD
) -> Ladder | None:
    """The planned sizes of an objective; None where a size is missing altogether or only one is planned."""
    keys = line(found, objective=objective, n_sequences=n_sequences, arm=arm)
    if len(sizes) < 2 or {key.size for key in keys} != set(sizes):
        return None
    seeds = common_seeds(found, keys)
    return Ladder(tuple(found[key] for key in keys), tuple(seeds), window) if seeds else None


def planned_sizes(
    planned: Sequence[Mapping[str, Any]], *, objective: str, n_sequences: int, arm: str = STANDARD
) -> list[str]:
    """Sizes planned for an objective, training set and arm, by parameters."""
    n_params = {
        str(labels["size"]): int(labels["non_embedding"])
        for labels in planned
        if (labels["objective"], labels["n_sequences"], labels["arm"]) == (objective, n_sequences, arm)
    }
    return sorted(n_params, key=lambda size: n_params[size])


def length_ratio(run: Run, /, *, tau: float, window: float) -> float | None:
    """Unit length over its shuffled expectation where M(f) first is tau; None where it is not reached."""
    measured, shuffled = (
        run.length_at(metric, tau=tau, window=window) for metric in ("unit_length", "unit_length_shuffled")
    )
    return None if measured is None or shuffled is None else measured / shuffled


def length_ratios(there: Ladder, *, tau: float) -> tuple[dict[Hashable, float], list[str]]:
    """The ratio by seed, the geometric mean of the sizes where every seed has one; and these sizes."""
    logs: list[list[float]] = []
    sizes: list[str] = []
    for size, runs in zip(there.sizes, there.runs, strict=True):
        ratios = [length_ratio(runs[seed], tau=tau, window=there.window) for seed in there.seeds]
        known = [math.log(ratio) for ratio in ratios if ratio is not None]
        if len(known) == len(ratios):
            logs.append(known)
            sizes.append(size)
    means = np.exp(np.mean(logs, axis=0)) if logs else []
    return {seed: float(mean) for seed, mean in zip(there.seeds, means, strict=bool(logs))}, sizes


def trends(there: Ladder, *, taus: Sequence[float]) -> Iterator[tuple[float, PowerTrend | None]]:
    """The power law T ~ N^b through one T a size at each tau, the geometric mean over seeds.

    Seeds of a size are off the line together, so they are not points of their own: what the interval holds
    is the scatter of sizes about the line, with two degrees of freedom fewer than sizes that reach tau. A
    size is censored if any of its seeds is. None where fewer than three sizes reach tau.
    """
    for tau in taus:
        by_size = zip(*(there.crossings(seed, tau) for seed in there.seeds), strict=True)
        try:
            yield tau, fit_power_trend(there.n_params, crossings=[_mean(found) for found in by_size])
        except SpecError:
            yield tau, None


def _mean(crossings: Sequence[Crossing]) -> Crossing:
    """Geometric mean; where one is censored, not reached by the mean with its last x in place of it."""
    at = math.exp(np.mean([math.log(one.last if one.x is None else one.x) for one in crossings]))
    reached = all(one.reached for one in crossings)
    return Crossing(at if reached else None, at, at if reached else None, at, crossings[0].unit)


def trend_text(there: Ladder, *, tau: float) -> str:
    """The exponent of the power law at one tau in words, "" where there is none."""
    ((_, fitted),) = trends(there, taus=[tau])
    if fitted is None:
        return ""
    missed = f", {fitted.n_censored} of {fitted.n} sizes censored" if fitted.n_censored else ""
    return (
        f"power law through the sizes' geometric means: T ~ N^b, b = {fitted.exponent.text()}{missed}; the "
        "interval holds the scatter of sizes about the line"
    )
