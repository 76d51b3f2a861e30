"""T(N, tau) over nested training sets, and M(f) of all of them on the sequences of the smallest."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.times_to_memorize import Slope, Unit, combined, largest, log_slope, mean_of, slope_weights
from repetita.studies._power import paired_seeds, smallest_effects
from repetita.studies._speed import CAUSAL, Cells, Key, Points, Run
from repetita.studies._speed_ladder import Ladder
from repetita.studies._speed_verdicts import BOUNDS, slope_claim

if TYPE_CHECKING:
    from repetita.study.collect import Collected

PAPER = "Tirumala et al. 2022"
TAU = 0.5
"""The level of the claims, one of the paper's grid: well above what is predictable unseen, and low enough to
be reached on the largest set of a laptop."""
MISSING = "no seed has every planned set and size"

TEXTS = {
    "set-faster": (
        f"on every one of the training sets larger models need fewer passes to M(f) = {TAU:g}",
        f"{PAPER}, abstract: larger models memorize faster across all settings",
    ),
    "set-updates": (
        f"the smaller the training set, the fewer updates to M(f) = {TAU:g}",
        "the paper's abstract names data set size as studied; direction ours",
    ),
    "set-passes": (
        f"the smaller the training set, the fewer passes to M(f) = {TAU:g}",
        "the paper's abstract names data set size as studied; direction ours",
    ),
    "set-interaction": (
        "size matters more for the largest training set than for the smallest",
        "ours: more to store for the same parameters",
    ),
    "set-fixed-updates": (
        "after equal updates, less of the common sequences is memorized the larger the set they are part of",
        "ours: fewer readings of each",
    ),
    "set-fixed-passes": (
        "after equal passes, less of the common sequences is memorized the larger the set they are part of",
        "ours: the same readings of each, more else to store, more updates",
    ),
}
"""Statement and source of the primary claims, the paper's own first."""
SEED_SD = {
    "set-faster": 0.05, "set-updates": 0.03, "set-passes": 0.03, "set-interaction": 0.05,
    "set-fixed-updates": 0.01, "set-fixed-passes": 0.01,
}  # fmt: skip
"""Assumed standard deviations over seeds of the effects that the claims test, for planning only: a guess."""
PREDICTED = {
    "set-faster": 0.4, "set-updates": 0.8, "set-passes": 0.2, "set-interaction": 0.2,
    "set-fixed-updates": 0.1, "set-fixed-passes": 0.05,
}  # fmt: skip
"""Guesses; the paper gives no numbers on training sets of several sizes."""


class SetGrid(NamedTuple):
    """Runs of the sizes that every training set has, and the seeds that all of them have."""

    runs: Mapping[int, tuple[Mapping[Hashable, Run], ...]]
    """By sequences of the set, ascending; then a mapping by seed for each size, by parameters."""
    sizes: tuple[str, ...]
    n_params: tuple[int, ...]
    seeds: tuple[Hashable, ...]
    window: int

    @property
    def sets(self) -> list[int]:
        """Sequences of each set, ascending."""
        return list(self.runs)

    def on(self, n_sequences: int, /) -> Ladder:
        """The sizes on one set."""
        return Ladder(self.runs[n_sequences], self.seeds, self.window)

    def by_set(self, seed: Hashable, *, unit: Unit) -> list[Slope]:
        """Slope of ln T on ln S, one a size."""
        return [
            log_slope(
                self.sets,
                crossings=[self.runs[n][i][seed].times(TAU, window=self.window)[unit] for n in self.sets],
            )
            for i in range(len(self.sizes))
        ]


def common_sizes(planned: Sequence[Mapping[str, Any]], /) -> dict[str, int]:
    """The sizes that are planned on every set, and their non-embedding parameters, ascending."""
    by_set: dict[Any, set[str]] = {}
    for labels in planned:
        by_set.setdefault(labels["n_sequences"], set()).add(str(labels["size"]))
    names = set.intersection(*by_set.values())
    found = {str(labels["size"]): int(labels["non_embedding"]) for labels in planned}
    return dict(sorted(((name, found[name]) for name in names), key=lambda item: item[1]))


def set_grid(found: Cells, *, planned: Sequence[Mapping[str, Any]], window: int) -> SetGrid | None:
    """The whole planned grid; None where a cell is missing altogether or no seed has every cell."""
    sizes = common_sizes(planned)
    sets = sorted({int(labels["n_sequences"]) for labels in planned})
    cells = {(key.n_sequences, key.size): runs for key, runs in found.items() if key.size in sizes}
    if len(cells) < len(sets) * len(sizes) or len(sizes) < 2 or len(sets) < 2:
        return None
    seeds = sorted(set.intersection(*(set(runs) for runs in cells.values())), key=str)
    if not seeds:
        return None
    runs = {n: tuple(cells[n, size] for size in sizes) for n in sets}
    return SetGrid(runs, tuple(sizes), tuple(sizes.values()), tuple(seeds), window)


Shared = Mapping[tuple[Key, Hashable], Points]
"""M(f) on the common sequences, by cell and seed."""


def shared(collected: "Collected", found: Cells) -> dict[tuple[Key, Hashable], Points]:
    """M(f) of each run on the sequences of its seed's smallest set, from what was kept of each sequence.

    Sets are nested within a seed, so that the smallest is part of every other; a run that does not hold all
    of it, or whose seed has no run of the smallest set, is left out.
    """
    import polars as pl

    rows = collected.measurements.filter(
        (pl.col("metric") == "memorized") & (pl.col("on") == "train") & (pl.col("probe") == "train")
    ).sort("step")
    states: dict[str, list[tuple[int, str]]] = {}
    for folder, key, step in rows.select("folder", "key", "step").iter_rows():
        states.setdefault(folder, []).append((step, key))
    least = min((key.n_sequences for key in found), default=0)
    ids: dict[Hashable, Any] = {}
    for key, runs in found.items():
        for seed, run in runs.items() if key.n_sequences == least else ():
            step, probe = states[run.folder][0]
            ids.setdefault(seed, collected.items(run.folder, key=probe, step=step)["train/sequence"])
    points: dict[tuple[Key, Hashable], Points] = {}
    for key, runs in found.items():
        for seed, run in runs.items():
            if seed not in ids:
                continue
            values: list[tuple[float, float]] = []
            for step, probe in states[run.folder]:
                items = collected.items(run.folder, key=probe, step=step)
                inside = np.isin(items["train/sequence"], ids[seed])
                if inside.sum() == len(ids[seed]):
                    hits, n = (items[f"train/{name}"][inside].sum() for name in ("hits", "n_scored"))
                    values.append((float(step), float(hits / n)))
            if values:
                updates, value = np.array(values).T
                points[key, seed] = Points(updates, value)
    return points


class Horizon(NamedTuple):
    """Where sets are compared: what every planned run of the common sizes comes to."""

    updates: float
    passes: float


def horizon(planned: Sequence[Mapping[str, Any]], /) -> Horizon:
    """The fewest updates and the fewest passes of any planned run of the common sizes."""
    sizes = common_sizes(planned)
    runs = [labels for labels in planned if labels["size"] in sizes]
    passes = [labels["steps"] * labels["batch_size"] / labels["n_sequences"] for labels in runs]
    return Horizon(float(min(labels["steps"] for labels in runs)), float(min(passes)))


def shared_at(run: Run, known: Shared, at: Horizon, unit: Unit) -> float | None:
    """M(f) of a run on the common sequences after equal updates or passes; None where it is not known."""
    points = known.get((run.key, run.seed))
    if points is None:
        return None
    progress = run.progress
    updates = (
        at.updates if unit == "updates" else float(np.interp(at.passes, progress.passes, progress.updates))
    )
    return float(points.at(updates))


def claims(there: SetGrid | None, *, known: Shared, at: Horizon) -> Iterator[Claim]:
    """Six primary claims, the paper's own first; each set by itself is descriptive."""
    if there is None:
        yield from (_nothing(name, 0, MISSING) for name in TEXTS)
        return
    ladders = {n: there.on(n).slopes(TAU) for n in there.sets}
    small, large = there.sets[0], there.sets[-1]
    yield _slopes(
        "set-faster", {seed: largest([by[seed] for by in ladders.values()]) for seed in there.seeds},
        unit="(the flattest slope of ln T on ln N of any set)",
    )  # fmt: skip
    units: tuple[Unit, ...] = ("updates", "passes")
    for unit in units:
        slopes = {seed: mean_of(there.by_set(seed, unit=unit)) for seed in there.seeds}
        yield _slopes(f"set-{unit}", slopes, unit="(slope of ln T on ln S, mean over sizes)", above=True)
    yield _slopes(
        "set-interaction",
        {
            seed: combined([1, -1], slopes=[ladders[large][seed], ladders[small][seed]])
            for seed in there.seeds
        },
        unit=f"(slope of ln T on ln N at {large} sequences minus that at {small})",
    )
    for unit in units:
        yield _fixed(there, known, at, unit)
    for n, slopes in ladders.items():
        yield slope_claim(
            slopes, name=f"set-faster-{n}", primary=False, source=f"{PAPER}, abstract",
            statement=f"{n} sequences: the larger the model, the fewer passes to M(f) = {TAU:g}",
        )  # fmt: skip


def _slopes(name: str, slopes: Mapping[Hashable, Slope], *, unit: str, above: bool = False) -> Claim:
    statement, source = TEXTS[name]
    return slope_claim(
        slopes, name=name, statement=statement, source=source, unit=unit,
        direction="above" if above else "below",
    )  # fmt: skip


def _fixed(there: SetGrid, known: Shared, at: Horizon, unit: Unit) -> Claim:
    """Slope of M(f) on the common sequences against ln S, mean over sizes."""
    name = f"set-fixed-{unit}"
    statement, source = TEXTS[name]
    weights = slope_weights(there.sets)
    effects: dict[Hashable, float] = {}
    for seed in there.seeds:
        rows = [
            [shared_at(there.runs[n][i][seed], known, at, unit) for n in there.sets]
            for i in range(len(there.sizes))
        ]
        values = np.array([[np.nan if value is None else value for value in row] for row in rows])
        if not np.isnan(values).any():
            effects[seed] = float((values @ weights).mean())
    if len(effects) < len(there.seeds):
        return _nothing(name, len(effects), "M(f) on the common sequences is not known of every run")
    shown = f"{at.updates:,.0f} updates" if unit == "updates" else f"{at.passes:g} passes"
    return directional(
        by_seed(effects), name=name, statement=statement, source=source, direction="below",
        unit=f"(slope of M(f) on ln S after {shown}, mean over sizes)",
    )  # fmt: skip


def _nothing(name: str, n: int, why: str) -> Claim:
    statement, source = TEXTS[name]
    return undecided(
        name=name, statement=statement, source=source, primary=True, n=n, note=why,
        rule=f"t test over seeds; {BOUNDS}",
    )  # fmt: skip


def detectable(planned: Sequence[Mapping[str, Any]], /) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    sizes = common_sizes(planned)
    paired = [labels for labels in planned if labels["size"] in sizes]
    n = paired_seeds(paired, by=("n_sequences", "size"))
    units = {name: "of M per e-fold of S" if "fixed" in name else "of slope" for name in SEED_SD}
    return smallest_effects(n=n, sd=SEED_SD, unit=units, predicted=PREDICTED)


def warnings(found: Cells, *, window: int) -> Iterator[str]:
    """Cells in which some run ended before the level of the claims."""
    short = [
        f"N = {key.size} on {key.n_sequences} sequences"
        for key, runs in found.items()
        if key.objective == CAUSAL
        and not all(run.times(TAU, window=window)["passes"].reached for run in runs.values())
    ]
    if short:
        yield f"M(f) = {TAU:g} was not reached by the end of some or all runs of {'; '.join(short)}."
