"""What is kept of one exposure: forgetting curves beside their controls, by cell and seed."""

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.fit.forgetting import LEAST_POINTS, Forgetting, forgetting, retained

if TYPE_CHECKING:
    import polars as pl

PER_DECADE = 5
"""Points of the common grid a decade: what is measured after the last special batch."""
Floats = NDArray[np.float64]

Series = tuple[Hashable, str, str]
"""Seed, arm of the run (special or placebo), and the role of the text (trained or other)."""
CURVES = {
    ("special", "trained"): "special",
    ("placebo", "trained"): "placebo",
    ("special", "other"): "twin",
    ("placebo", "other"): "twin_placebo",
}


class Arm(NamedTuple):
    """A cell of the study: what differs between two forgetting curves but the seed."""

    size: str
    times: int
    after: str


class Kept(NamedTuple):
    """Forgetting curves of one cell and one metric by seed, all over the same x."""

    arm: Arm
    n_params: int
    """Non-embedding parameters."""
    x: Floats
    """Updates since the last exposure to the batch, 1 right after it; shape (X,)."""
    special: dict[Hashable, Floats]
    """On the trained text in the run that trained on it, mean over batches."""
    placebo: dict[Hashable, Floats]
    """On the same tokens in the run that trained on placebo text instead."""
    twin: dict[Hashable, Floats]
    """On the never-seen twins in the run that trained on the special batches."""
    twin_placebo: dict[Hashable, Floats]
    before: dict[Hashable, float]
    """On the special batches just before the injections."""
    n_batches: int
    n_tokens: int
    """Scored tokens of all special batches of one seed."""
    pass_updates: float | None = None
    """Updates in a pass over the training set; None where the study does not say."""

    def kept(self, how: str = "minus_placebo", /) -> dict[Hashable, Floats]:
        """The curves `raw`, `minus_placebo` or `minus_twin` (difference in differences) by seed."""
        return {
            seed: retained(
                self.special[seed],
                placebo=self.placebo[seed],
                twin=self.twin[seed],
                twin_placebo=self.twin_placebo[seed],
            )[how]
            for seed in self.special
        }

    def summary(self, how: str, /) -> Forgetting:
        """Baseline, last value and fitted floors of the curves."""
        return forgetting(self.x, curves=self.kept(how))

    def decays(self, how: str, /) -> Forgetting:
        """The same from one pass after the exposure on, the first state that the paper looks at.

        Until then M(f) first rises, under the momentum of the update. All of the curve where less than five
        states come later.
        """
        later = self.x - 1 >= (self.pass_updates or 0)
        chosen = later if later.sum() >= LEAST_POINTS else np.ones_like(later)
        return forgetting(
            self.x[chosen], curves={seed: curve[chosen] for seed, curve in self.kept(how).items()}
        )

    def in_second_half(self, how: str, /) -> dict[Hashable, float]:
        """By seed the value at the end of the horizon minus that at half of it, read linearly in ln x."""
        middle = np.log((self.x[-1] + 1) / 2)
        return {
            seed: float(values[-1] - np.interp(middle, np.log(self.x), values))
            for seed, values in self.kept(how).items()
        }

    def last(self, how: str, /) -> dict[Hashable, float]:
        """The value at the end of the horizon by seed."""
        return {seed: float(values[-1]) for seed, values in self.kept(how).items()}


def kept(table: "pl.DataFrame", *, metric: str) -> list[Kept]:
    """Every cell with at least one seed that has both arms measured to the end, by size, dose and sequel."""
    import polars as pl

    rows = table.filter(
        (pl.col("probe") == "special") & (pl.col("metric") == metric) & pl.col("value").is_not_null()
    ).sort("step")
    cells: dict[Arm, dict[Series, dict[int, dict[int, float]]]] = {}
    facts: dict[Arm, dict[str, int]] = {}
    pass_updates: dict[Arm, float] = {}
    for row in rows.iter_rows(named=True):
        arm = Arm(row["size"], row["times"], row["after"])
        # Roles are crossed over seeds: what one seed trains on, another never sees.
        role = "trained" if row["set"] == row["trained"] else "other"
        place = cells.setdefault(arm, {}).setdefault((row["seed"], row["arm"], role), {})
        place.setdefault(row["batch"], {})[row["step"]] = row["value"]
        fact = facts.setdefault(arm, {key: row[key] for key in ("at", "n_batches", "steps", "non_embedding")})
        fact["n"] = row["n"]
        if row.get("n_sequences"):
            pass_updates[arm] = row["n_sequences"] / row["batch_size"]
    found = [
        _cell(arm, series, facts[arm], pass_updates=pass_updates.get(arm)) for arm, series in cells.items()
    ]
    there = [cell for cell in found if cell is not None]
    return sorted(there, key=lambda cell: (cell.n_params, cell.arm.times, cell.arm.after != "same"))


def _cell(
    arm: Arm,
    series: Mapping[Series, Mapping[int, Mapping[int, float]]],
    fact: Mapping[str, int],
    *,
    pass_updates: float | None,
) -> Kept | None:
    """The curves of one cell on a common grid of updates since exposure; None where no seed is complete."""
    exposed = [fact["at"] + (batch + 1) * arm.times for batch in range(fact["n_batches"])]
    x = common_grid(fact["steps"] - exposed[-1] + 1)
    curves: dict[str, dict[Hashable, Floats]] = {name: {} for name in CURVES.values()}
    before: dict[Hashable, float] = {}
    for (seed, injected, role), batches in series.items():
        needed = [{fact["at"], step, fact["steps"]} for step in exposed]
        if any(not steps <= set(batches.get(batch, ())) for batch, steps in enumerate(needed)):
            continue  # A state is missing at the start or the end: an unfinished run or a failed probe.
        values = [resampled(x, batches[batch], step) for batch, step in enumerate(exposed)]
        curves[CURVES[injected, role]][seed] = np.mean(values, axis=0)
        if (injected, role) == ("special", "trained"):
            before[seed] = float(np.mean([points[fact["at"]] for points in batches.values()]))
    complete = sorted(set.intersection(*(set(by_seed) for by_seed in curves.values())), key=str)
    if not complete:
        return None
    chosen = {name: {seed: by_seed[seed] for seed in complete} for name, by_seed in curves.items()}
    return Kept(
        arm=arm,
        n_params=fact["non_embedding"],
        x=x,
        before={seed: before[seed] for seed in complete},
        n_batches=fact["n_batches"],
        n_tokens=fact["n"] * fact["n_batches"],
        pass_updates=pass_updates,
        **chosen,
    )


def common_grid(horizon: int) -> Floats:
    """Updates since exposure at which every batch is read: 1, then log-spaced, up to the horizon."""
    n_points = int(PER_DECADE * math.log10(horizon)) + 1
    spaced = 10 ** (np.arange(n_points) / PER_DECADE)
    return np.append(spaced[spaced < horizon * 0.999], float(horizon))


def resampled(x: Floats, points: Mapping[int, float], exposed: int) -> Floats:
    """A batch's curve at x updates since the state right after its last exposure (x = 1), linear in ln x."""
    steps = [step for step in points if step >= exposed]
    own = np.array([step - exposed + 1 for step in steps], dtype=np.float64)
    return np.asarray(np.interp(np.log(x), np.log(own), [points[step] for step in steps]))


def gaps(one: Kept, other: Kept) -> dict[Hashable, float]:
    """What `one` keeps at the end minus what `other` keeps, each minus its placebo, by the seeds of both."""
    mine, theirs = one.last("minus_placebo"), other.last("minus_placebo")
    return {seed: mine[seed] - theirs[seed] for seed in mine if seed in theirs}
