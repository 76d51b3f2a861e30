"""Memory with document IDs in numbers: M(f) by condition over passes, its mean, and how far it ever falls."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.fit.estimate import Crossing
from repetita.fit.times_to_memorize import Progress, time_to
from repetita.studies import _speed
from repetita.studies._ids_runs import (
    CONDITIONS,
    IDS,
    OTHER,
    TEST,
    TEST_BEHIND,
    TRAINED,
    WITHOUT,
    conditions_of,
)

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Labels = Mapping[str, Any]


class Curve(NamedTuple):
    """Hits on one set over passes, as a share of its scored tokens."""

    passes: Floats
    value: Floats

    def at(self, passes: Floats | float, /) -> Floats:
        """Read linearly between the states."""
        return np.asarray(np.interp(passes, self.passes, self.value))

    def mean(self, *, until: float, states: Floats | None = None) -> float:
        """Mean over passes from 0 to `until`: the area under the curve by its width.

        `states` are the passes that it is read at, so that curves measured more and less often compare.
        """
        read = self.passes if states is None else states
        inside = np.append(read[read < until], until)
        values = self.at(inside)
        return float(((values[1:] + values[:-1]) / 2 * np.diff(inside)).sum() / until)


class Fall(NamedTuple):
    """How far M(f) stayed below what it had been."""

    value: float
    """0 where it never fell."""
    passes: float | None
    """Where the fall was largest."""


class One(NamedTuple):
    """One run: its progress, and its curves by set."""

    progress: Progress
    curves: Mapping[str, Curve]
    total: int
    """All parameters."""
    n_scored: int
    """Scored tokens of the training set."""

    def time(self, tau: float, *, window: float) -> Crossing:
        """T(N, tau) in passes."""
        return time_to(self.progress, tau=tau, window=window)["passes"]

    def test(self) -> Curve:
        """Accuracy on the test set in the form that the training set has."""
        return self.curves.get(TEST_BEHIND, self.curves[TEST])


class Size(NamedTuple):
    """The runs of one model size, by condition in the order of the page, then seed."""

    name: str
    runs: Mapping[str, Mapping[Hashable, One]]
    until: float
    """Passes up to which all conditions are compared: the end of the shortest run that is planned."""
    window: int
    """Tokens read for which a crossing or a fall has to last: one pass."""

    def seeds(self, *conditions: str) -> list[Hashable]:
        """The seeds that all these conditions have."""
        there = [set(self.runs.get(condition, {})) for condition in conditions]
        return sorted(set.intersection(*there), key=str)

    def means(
        self, condition: str, *, on: str = TRAINED, states: Floats | None = None
    ) -> dict[Hashable, float]:
        """Mean M(f) over passes by seed, of the runs that have this curve."""
        return {
            seed: one.curves[on].mean(until=self.until, states=states)
            for seed, one in self.runs.get(condition, {}).items()
            if on in one.curves
        }

    def falls(self, condition: str) -> dict[Hashable, Fall]:
        """The largest fall by seed."""
        return {
            seed: largest_fall(one.progress, until=self.until, window=self.window)
            for seed, one in self.runs.get(condition, {}).items()
        }


def conditions(table: "pl.DataFrame", *, planned: Sequence[Labels]) -> dict[str, Size]:
    """The runs that have M(f) on training and test set, by size in the order of most planned runs."""
    found = _speed.cells(table)
    curves = _curves(table)
    sizes = sorted({labels["size"] for labels in planned}, key=lambda size: -_count(planned, size))
    result: dict[str, Size] = {}
    for size in sizes:
        runs: dict[str, dict[Hashable, One]] = {}
        for condition in conditions_of(planned, size=size):
            for key, by_seed in found.items():
                if (key.size, key.arm) == (size, condition):
                    runs[condition] = {
                        seed: One(
                            run.progress, curves[run.folder], _total(planned, size, condition), run.n_scored
                        )
                        for seed, run in by_seed.items()
                    }
        if runs:
            own = [labels for labels in planned if labels["size"] == size]
            until = min(labels["steps"] * labels["batch_size"] / labels["n_sequences"] for labels in own)
            result[size] = Size(size, runs, float(until), _speed.window_tokens(own))
    return result


def largest_fall(progress: Progress, *, until: float, window: float) -> Fall:
    """The most by which M(f) lies below its running maximum for `window` tokens read, two states at least."""
    inside = progress.passes <= until * (1 + 1e-9)
    m, tokens, passes = progress.memorized[inside], progress.tokens[inside], progress.passes[inside]
    best = np.maximum.accumulate(m) if len(m) else m
    found = Fall(0.0, None)
    for i in range(len(m) - 1):
        stop = max(i + 2, int(np.searchsorted(tokens, tokens[i] + window, side="right")))
        fall = float(best[i] - m[i:stop].max())
        if fall > found.value:
            found = Fall(fall, float(passes[i]))
    return found


def _count(planned: Iterable[Labels], size: str) -> int:
    return sum(labels["size"] == size for labels in planned)


def _total(planned: Iterable[Labels], size: str, condition: str) -> int:
    return next(int(row["total"]) for row in planned if (row["size"], row["arm"]) == (size, condition))


def _curves(table: "pl.DataFrame") -> dict[str, dict[str, Curve]]:
    """M(f) by folder, then set."""
    import polars as pl

    sets = (TRAINED, WITHOUT, OTHER, TEST, TEST_BEHIND)
    rows = table.filter(
        (pl.col("metric") == "memorized") & pl.col("on").is_in(sets) & pl.col("value").is_not_null()
    )
    read = rows.with_columns(passes=pl.col("step") * pl.col("batch_size") / pl.col("n_sequences"))
    once = read.unique(["folder", "on", "step"]).sort("step")
    found: dict[str, dict[str, Curve]] = {}
    for (folder, on), part in once.group_by(["folder", "on"], maintain_order=True):
        curve = Curve(part["passes"].to_numpy().astype(float), part["value"].to_numpy().astype(float))
        found.setdefault(str(folder), {})[str(on)] = curve
    return found


def with_ids(size: Size, /) -> list[str]:
    """The conditions of a size whose sequences have a prefix."""
    return [condition for condition in CONDITIONS if condition in IDS and condition in size.runs]
