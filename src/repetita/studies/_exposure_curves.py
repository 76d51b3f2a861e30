"""What is kept of exposures of several kinds, by level and seed, each minus its own placebo."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repetita.studies._exposure import Exposure, states_of
from repetita.studies._memory import CURVES, Arm, Floats, Kept, common_grid, resampled

if TYPE_CHECKING:
    import polars as pl

Points = Mapping[int, Mapping[int, float]]
"""Batch -> step -> value."""


class Level(NamedTuple):
    """What one way of exposing leaves: curves over the updates since the last exposure to each batch."""

    exposure: Exposure
    passes: float
    """Passes over the training set before the first exposure."""
    curves: Kept
    first: dict[Hashable, float]
    """Special minus placebo, as long after the first exposure in every level; empty where not measured."""

    def kept(self) -> dict[Hashable, float]:
        """Special minus placebo at the horizon, by seed."""
        return self.curves.last("minus_placebo")

    def lowest(self) -> dict[Hashable, float]:
        """The paper's forgetting baseline: the lowest M on the special batches up to the horizon, by seed."""
        return {seed: float(values.min()) for seed, values in self.curves.special.items()}

    def unseen(self) -> dict[Hashable, float]:
        """The same in the placebo run, which never saw the batches."""
        return {seed: float(values.min()) for seed, values in self.curves.placebo.items()}


By = Callable[[Level], Mapping[Hashable, float]]
"""One number a seed of a level."""


def exposure_of(labels: Mapping[str, Any], /) -> Exposure:
    """The level of a run with these labels."""
    return Exposure(*(labels[name] for name in Exposure._fields))


def levels(table: "pl.DataFrame", *, metric: str) -> list[Level]:
    """Every level with at least one seed that has both arms measured to the horizon, in order of exposure."""
    import polars as pl

    rows = table.filter(
        pl.col("probe").is_in(["special", "other"])
        & (pl.col("metric") == metric)
        & pl.col("value").is_not_null()
    )
    series: dict[Exposure, dict[tuple[str, Hashable], dict[int, dict[int, float]]]] = {}
    facts: dict[Exposure, dict[str, Any]] = {}
    for row in rows.sort("step").iter_rows(named=True):
        exposure = exposure_of(row)
        curve = CURVES[row["arm"], "trained" if row["probe"] == "special" else "other"]
        place = series.setdefault(exposure, {}).setdefault((curve, row["seed"]), {})
        place.setdefault(row["batch"], {})[row["step"]] = row["value"]
        facts[exposure] = row
    found = (_level(exposure, series[exposure], facts[exposure]) for exposure in sorted(series))
    return [level for level in found if level is not None]


def _level(
    exposure: Exposure, series: Mapping[tuple[str, Hashable], Points], fact: Mapping[str, Any]
) -> Level | None:
    first, last = states_of(fact)
    horizon, since_first = fact["horizon"], fact["since_first"]
    x = common_grid(horizon + 1)
    needed = [{fact["at"], state, state + horizon} for state in last]
    if since_first is not None:
        needed = [{*those, state + since_first} for those, state in zip(needed, first, strict=True)]
    whole: dict[str, dict[Hashable, Points]] = {name: {} for name in CURVES.values()}
    for (name, seed), points in series.items():
        # A state is missing where a run is unfinished or a probe failed.
        if all(steps <= set(points.get(batch, ())) for batch, steps in enumerate(needed)):
            whole[name][seed] = points
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in whole.values())), key=str)
    if not seeds:
        return None

    def by_seed(name: str) -> dict[Hashable, Floats]:
        return {seed: curve(name, seed) for seed in seeds}

    def curve(name: str, seed: Hashable) -> Floats:
        points = whole[name][seed]
        own = [resampled(x, points[batch], state) for batch, state in enumerate(last)]
        return np.asarray(np.mean(own, axis=0))

    def gap(seed: Hashable) -> float:
        pairs = ((whole["special"][seed][batch], whole["placebo"][seed][batch], state + since_first)
                 for batch, state in enumerate(first))  # fmt: skip
        return float(np.mean([special[step] - placebo[step] for special, placebo, step in pairs]))

    return Level(
        exposure=exposure,
        passes=fact["passes"],
        curves=Kept(
            arm=Arm(fact["size"], exposure.times, "same"),
            n_params=fact["non_embedding"],
            x=x,
            before={
                seed: float(np.mean([points[fact["at"]] for points in whole["special"][seed].values()]))
                for seed in seeds
            },
            n_batches=fact["n_batches"],
            n_tokens=fact["n"] * fact["n_batches"],
            special=by_seed("special"),
            placebo=by_seed("placebo"),
            twin=by_seed("twin"),
            twin_placebo=by_seed("twin_placebo"),
        ),
        first={} if since_first is None else {seed: gap(seed) for seed in seeds},
    )


def through_training(table: "pl.DataFrame") -> Iterator[dict[str, Any]]:
    """M over the passes of a run, mean over batches and over the seeds that have every state of a level."""
    import polars as pl

    chosen = table.filter(
        pl.col("probe").is_in(["special", "train"])
        & (pl.col("metric") == "memorized")
        & pl.col("value").is_not_null()
        & (pl.col("step") > 0)
    )
    keys = [*Exposure._fields, "arm", "probe", "step", "per_pass"]
    batches = chosen.group_by(*keys, "seed").agg(pl.col("value").mean())
    means = batches.group_by(keys).agg(pl.col("value").mean(), pl.col("seed").n_unique().alias("seeds"))
    most = pl.col("seeds").max().over([*Exposure._fields, "arm", "probe"])
    for row in means.filter(pl.col("seeds") == most).sort(keys).iter_rows(named=True):
        yield {**row, "exposure": exposure_of(row), "passes": row["step"] / row["per_pass"]}


def seeds_of_all(levels: Sequence[Level], /) -> list[Hashable]:
    """Seeds that every one of these levels has."""
    shared = set.intersection(*(set(level.curves.special) for level in levels)) if levels else set()
    return sorted(shared, key=str)
