"""How fast a training set is memorized: M(f), held-out accuracy, unit length and online hits, run by run."""

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.fit.times_to_memorize import Progress, Unit, time_to
from repetita.study.plan import Label

if TYPE_CHECKING:
    import polars as pl

    from repetita.fit.estimate import Crossing
    from repetita.study.collect import Collected

Floats = NDArray[np.float64]

CAUSAL, MASKED = "causal", "masked"
TAUS: Mapping[str, tuple[float, ...]] = {
    CAUSAL: (0.4, 0.5, 0.6, 0.8, 0.9, 0.95),
    MASKED: (0.2, 0.4, 0.6, 0.8, 0.9),
}
"""The paper's thresholds on WikiText-103 (Figs. 1 and 2)."""
STANDARD = "standard"
LENGTHS = (
    "unit_length",
    "unit_length_shuffled",
    "unit_length_token_weighted",
    "unit_length_token_weighted_shuffled",
)


class Key(NamedTuple):
    """What differs between two runs of the study but the seed."""

    objective: str
    size: str
    n_sequences: int
    """Sequences of the training set."""
    arm: str
    """`standard`, or what is done otherwise."""


class Points(NamedTuple):
    """Something measured at some states of a run."""

    updates: Floats
    value: Floats

    def at(self, updates: Floats | float, /) -> Floats:
        """Read linearly between the states, in ln updates; held beyond them."""
        return np.asarray(np.interp(np.log1p(updates), np.log1p(self.updates), self.value))


class Run(NamedTuple):
    """One run of the study."""

    key: Key
    seed: Hashable
    folder: str
    n_params: int
    """Non-embedding parameters."""
    n_scored: int
    """Scored tokens of the training set."""
    progress: Progress
    """M(f) on the training set."""
    test: Points
    """M(f) on the test set: what is predictable without having been seen."""
    lengths: Mapping[str, Points]
    """Mean lengths of runs of memorized tokens on the training set, by metric, where any is memorized; and
    `independent`, 1 / (1 - M)."""

    def times(self, tau: float, /, *, window: float) -> "dict[Unit, Crossing]":
        """T(N, tau) of this run in each unit."""
        return time_to(self.progress, tau=tau, window=window)

    def length_at(self, metric: str, /, *, tau: float, window: float) -> float | None:
        """A mean run length where M(f) first is tau; None where tau is not reached or no length lies around.

        Between the two states around that time, on the logarithms of the length and of 1 - M, which are
        nearly proportional: states can lie far apart while M(f) rises steeply. A state where M is 1 cannot
        be one of them, and without two that have tau between them there is nothing to read.
        """
        at = self.times(tau, window=window)["updates"].x
        if at is None or metric not in self.lengths:
            return None
        lengths, odds = self.lengths[metric], self.lengths["independent"]
        _, mine, theirs = np.intersect1d(lengths.updates, odds.updates, return_indices=True)
        i = int(np.searchsorted(odds.updates[theirs], at))
        pair = slice(max(0, i - 1), i + 1)
        x, y = np.log(odds.value[theirs][pair]), np.log(lengths.value[mine][pair])
        order, here = np.argsort(x), -math.log1p(-tau)
        if len(x) < 2 or not x.min() <= here <= x.max():
            return None
        return float(np.exp(np.interp(here, x[order], y[order])))

    def excess(self) -> Progress:
        """M on the training set minus M on the test set in place of M."""
        memorized = self.progress.memorized - self.test.at(self.progress.updates)
        return self.progress._replace(memorized=memorized)


Cells = dict[Key, dict[Hashable, Run]]
"""Runs by key, then seed."""


def cells(table: "pl.DataFrame") -> Cells:
    """The runs that have M(f) on both sets, by objective, set, arm and parameters, then seed."""
    import polars as pl

    rows = table.filter(pl.col("value").is_not_null() & pl.col("metric").is_in(["memorized", *LENGTHS]))
    runs: dict[tuple[Key, Hashable], list[dict[str, Any]]] = {}
    for row in rows.sort("step").iter_rows(named=True):
        key = Key(row["objective"], row["size"], row["n_sequences"], row["arm"])
        runs.setdefault((key, row["seed"]), []).append(row)
    found = [run for (key, seed), lines in runs.items() if (run := _run(key, seed, lines)) is not None]
    sizes = {run.key: run.n_params for run in found}
    order = sorted(
        sizes, key=lambda key: (key.objective, key.n_sequences, key.arm != STANDARD, key.arm, sizes[key])
    )
    return {
        key: {run.seed: run for run in sorted(found, key=lambda run: str(run.seed)) if run.key == key}
        for key in order
    }


def _run(key: Key, seed: Hashable, lines: Sequence[Mapping[str, Any]]) -> Run | None:
    """A run from its measurements; None where one of the two sets was never read."""

    def points(metric: str, on: str) -> tuple[Points, Floats]:
        chosen = {row["step"]: row for row in lines if row["metric"] == metric and row["on"] == on}
        values = [[step, row["value"], row["tokens"]] for step, row in sorted(chosen.items())]
        updates, value, tokens = np.array(values, dtype=np.float64).reshape(-1, 3).T
        return Points(updates, value), tokens

    (train, targets), (test, _) = points("memorized", "train"), points("memorized", "test")
    if len(train.updates) < 2 or not len(test.updates):
        return None
    first = lines[0]
    n_scored = max(row["n"] for row in lines if row["metric"] == "memorized" and row["on"] == "train")
    progress = Progress(
        updates=train.updates,
        passes=train.updates * first["batch_size"] / key.n_sequences,
        exposures=targets / n_scored,
        tokens=train.updates * first["batch_size"] * first["length"],
        memorized=train.value,
    )
    lengths = {metric: points(metric, "train")[0] for metric in LENGTHS}
    lengths["independent"] = _independent(lines)
    return Run(
        key=key,
        seed=seed,
        folder=first["folder"],
        n_params=first["non_embedding"],
        n_scored=n_scored,
        progress=progress,
        test=test,
        lengths={metric: found for metric, found in lengths.items() if len(found.updates)},
    )


def _independent(lines: Iterable[Mapping[str, Any]]) -> Points:
    """1 / (1 - M) where run lengths were measured."""
    details = {row["step"]: json.loads(row["detail"] or "{}") for row in lines if row["metric"] == LENGTHS[0]}
    found = {step: detail.get("independent") for step, detail in sorted(details.items())}
    values = [[float(step), value] for step, value in found.items() if value is not None]
    updates, value = np.array(values, dtype=np.float64).reshape(-1, 2).T
    return Points(updates, value)


def window_tokens(planned: Iterable[Mapping[str, Label]], /) -> int:
    """Tokens read for which a crossing has to last, and over which online hits are summed (rule 14).

    One pass over the smallest training set planned: the same number for every run of a scale.
    """
    return min(int(labels["n_sequences"] or 0) * int(labels["length"] or 0) for labels in planned)


def main_set(planned: Iterable[Mapping[str, Label]], /) -> int:
    """Sequences of the training set of most planned runs, the first among equals."""
    counts = [int(labels["n_sequences"] or 0) for labels in planned]
    return max(counts, key=counts.count)


def line(found: Cells, *, objective: str, n_sequences: int, arm: str = STANDARD) -> list[Key]:
    """Cells that differ in size only, by parameters."""
    return [
        key for key in found if (key.objective, key.n_sequences, key.arm) == (objective, n_sequences, arm)
    ]


def common_seeds(found: Cells, keys: Sequence[Key]) -> list[Hashable]:
    """The seeds that every one of these cells has."""
    return sorted(set.intersection(*(set(found[key]) for key in keys)), key=str) if keys else []


class Online(NamedTuple):
    """M_update of one run: the share of hits in its training batches, each before its update."""

    key: Key
    seed: Hashable
    kind: str
    """All targets, or in masked runs what the model was shown in their place: mask, random, kept."""
    points: Points
    """By number of the update, from 1; summed over the window that ends with it."""


ALL_TARGETS = "all targets"


def online(collected: "Collected", *, window: int) -> list[Online]:
    """M_update of every run over windows of `window` tokens read, by kind of corruption where it has any."""
    import polars as pl

    found: list[Online] = []
    frames = [collected.steps.with_columns(kind=pl.lit(ALL_TARGETS)), collected.corruption]
    for frame in frames:
        sums = frame.group_by("folder", "kind", "step").agg(
            pl.col("hits").sum(), pl.col("n").sum(), *(pl.col(name).first() for name in collected.labels)
        )
        for (_, kind), part in sums.sort("folder", "kind", "step").group_by(
            "folder", "kind", maintain_order=True
        ):
            first = part.row(0, named=True)
            updates = max(1, round(window / (first["batch_size"] * first["length"])))
            if len(part) < updates:
                continue
            key = Key(first["objective"], first["size"], first["n_sequences"], first["arm"])
            hits, n = (_rolling(part[name].to_numpy(), updates) for name in ("hits", "n"))
            at = part["step"].to_numpy()[updates - 1 :] + 1.0
            some = n > 0
            points = Points(at[some], hits[some] / n[some])
            found.append(Online(key, first["seed"], str(kind), points))
    return found


def _rolling(values: NDArray[np.int64], width: int) -> Floats:
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.asarray(sums[width:] - sums[:-width], dtype=np.float64)


def as_progress(one: Online, *, run: Run) -> Progress:
    """M_update in the place of M(f), with the units of its run; its states are updates made."""
    at = one.points.updates
    units = (
        np.interp(at, run.progress.updates, run.progress.along(u)) for u in ("passes", "exposures", "tokens")
    )
    passes, exposures, tokens = units
    return Progress(at, passes, exposures, tokens, one.points.value)
