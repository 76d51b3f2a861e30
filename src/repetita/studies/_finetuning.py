"""What fine-tuning makes of pre-trained models: losses, curves, sizes, what is left of what was before."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.fit.curves import crossing
from repetita.fit.estimate import Crossing
from repetita.studies._grid import Grid, Labels, Line, Losses, mean
from repetita.studies._other_texts import OWN, Ratios, Reading, reading, sizes

if TYPE_CHECKING:
    import polars as pl

EARLY = 0.1
"""Share of fine-tuning after which a gap, or what is left, is called early."""
SAME_RECIPE = "scratch at the same recipe"

Points = dict[float, float]
"""A quantity by tokens of the run itself."""


class Arm(NamedTuple):
    """Runs on the target that differ in their seed only."""

    kind: str
    """repeated, unique (both fine-tuned), scratch, or `SAME_RECIPE`."""
    size: str
    fraction: float | None = None
    """Share of repeated text in pre-training."""
    variant: str = "main"

    @property
    def title(self) -> str:
        """In words, without the size."""
        name = {
            "repeated": f"pre-trained with f = {self.fraction or 0:g}", "unique": "pre-trained on unique text"
        }.get(self.kind, self.kind)  # fmt: skip
        return name if self.variant == "main" else f"{name}, {self.variant}"

    @property
    def tuned(self) -> bool:
        """Whether it was trained before."""
        return self.kind in ("repeated", "unique")


class Tuned(NamedTuple):
    """All that there is."""

    size: str
    """That claims are about, see `main_line`."""
    share: float
    """The repeated share that claims are about."""
    arms: tuple[Arm, ...]
    """Those planned, by size, kind, share and variant."""
    step_tokens: float
    """Tokens of one update on the target."""
    before: Reading
    """The runs that were fine-tuned, and controls, on unseen text of pre-training."""
    after: Reading
    """The ladder from scratch, on unseen text of the target."""
    passes: Mapping[tuple[str, float], float]
    """Passes of pre-training by size and share."""
    final: Mapping[Arm, Losses]
    """Loss at the end on unseen text of the target, nats."""
    curves: Mapping[Arm, Mapping[Hashable, Points]]
    """The same over training, on fewer sequences, without step 0."""
    left: Mapping[tuple[Arm, str, str], Mapping[Hashable, Points]]
    """By arm, set of the parent (repeated, test) and metric (loss, memorized): over fine-tuning."""

    def arm(self, kind: str, /) -> Arm:
        """The arm of a kind that claims are about."""
        return Arm(kind, self.size, self.share if kind == "repeated" else None)


def read(table: "pl.DataFrame", *, planned: Sequence[Labels]) -> Tuned | None:
    """What a table of the study holds; None where nothing is planned to be fine-tuned."""
    import polars as pl

    line = main_line(planned)
    if line is None:
        return None
    on_target = [labels for labels in planned if labels["stage"] == "target"]
    n_params = {str(labels["size"]): int(labels["non_embedding"] or 0) for labels in on_target}
    source = {labels["stage"]: str(labels["corpus"]) for labels in planned}
    stage = {name: table.filter(pl.col("stage") == name) for name in ("pre-training", "target")}
    ladder = stage["target"].filter(pl.col("arm") == "scratch")
    found = Tuned(
        size=line[0],
        share=line[1],
        arms=tuple(sorted({_arm(labels) for labels in on_target}, key=lambda arm: _place(arm, n_params))),
        step_tokens=0.0,
        before=reading(stage["pre-training"], OWN, corpus=source["pre-training"]),
        after=reading(ladder, OWN, corpus=source["target"]),
        passes={
            (str(one["size"]), float(one["fraction"] or 0)): float(one["passes"] or 0)
            for one in on_target
            if one["fraction"] is not None
        },
        final={},
        curves={},
        left={},
    )
    return _filled(found, stage["target"])


def main_line(planned: Sequence[Labels]) -> Line | None:
    """Size and repeated share that claims are about; None where nothing is planned to be fine-tuned.

    The size with the most fine-tuned arms, the largest of equals; at it the share with the most seeds, the
    highest of equals, as the paper's is 0.9. Chosen among what is planned, so that it does not depend on
    which runs are finished or how they ended.
    """
    repeated = [one for one in planned if one["stage"] == "target" and one["arm"] == "repeated"]
    arms: dict[tuple[int, str], set[Arm]] = {}
    for labels in repeated:
        arms.setdefault((int(labels["non_embedding"] or 0), str(labels["size"])), set()).add(_arm(labels))
    if not arms:
        return None
    _, size = max(arms, key=lambda one: (len(arms[one]), one))
    seeds: dict[float, set[object]] = {}
    for labels in repeated:
        if (labels["size"], labels["variant"]) == (size, "main"):
            seeds.setdefault(float(labels["fraction"] or 0), set()).add(labels["seed"])
    return size, max(seeds, key=lambda share: (len(seeds[share]), share))


def _place(arm: Arm, n_params: Mapping[str, int]) -> tuple[int, int, float, int, str]:
    kinds = ("scratch", SAME_RECIPE, "unique", "repeated")
    return n_params[arm.size], kinds.index(arm.kind), arm.fraction or 0.0, arm.variant != "main", arm.variant


def _filled(there: Tuned, table: "pl.DataFrame") -> Tuned:
    """With what was measured in the runs on the target."""
    import polars as pl

    final: dict[Arm, Losses] = {}
    curves: dict[Arm, dict[Hashable, Points]] = {}
    left: dict[tuple[Arm, str, str], dict[Hashable, Points]] = {}
    chosen = table.filter(pl.col("metric").is_in(["loss", "memorized"]) & pl.col("value").is_not_null())
    per_step = 0.0
    for row in chosen.sort("step").iter_rows(named=True):
        arm, seed = _arm(row), row["seed"]
        per_step = row["tokens"] / row["step"] if row["step"] else per_step
        if row["probe"] == "left":
            place = left.setdefault((arm, row["on"].partition("/")[2], row["metric"]), {})
            place.setdefault(seed, {})[float(row["tokens"])] = row["value"]
        elif row["metric"] == "loss" and row["probe"] == "curve" and row["step"]:
            curves.setdefault(arm, {}).setdefault(seed, {})[float(row["tokens"])] = row["value"]
        elif row["metric"] == "loss" and row["probe"] == "test" and row["step"] == row["steps"]:
            final.setdefault(arm, {})[seed] = row["value"]
    return there._replace(final=final, curves=curves, left=left, step_tokens=per_step)


def _arm(labels: Labels) -> Arm:
    fraction = labels["fraction"]
    return Arm(
        str(labels["arm"]),
        str(labels["size"]),
        None if fraction is None else float(fraction),
        str(labels["variant"]),
    )


def multipliers(there: Tuned, arm: Arm, /) -> Ratios:
    """Effective size on the target over that of scratch, by seed; None outside the ladder."""
    return sizes(there.after, size=arm.size, losses=there.final.get(arm, {}))


def pretrained(there: Tuned, arm: Arm, /) -> Losses:
    """Loss before fine-tuning on unseen text of pre-training."""
    of: Grid = there.before.grid
    if arm.fraction is None:
        return of.control.get(arm.size, {})
    line = (arm.size, arm.fraction)
    return of.repeated.get(line, {}).get(there.passes.get(line, 0.0), {})


def multipliers_before(there: Tuned, arm: Arm, /) -> Ratios:
    """Effective size on the text of pre-training over that of the control; None outside the ladder."""
    return sizes(there.before, size=arm.size, losses=pretrained(there, arm))


def at_most_before(there: Tuned, arm: Arm, /) -> dict[Hashable, float]:
    """`multipliers_before`, and for a loss above that of the smallest control its size over N, a bound."""
    found = {seed: ratio for seed, ratio in multipliers_before(there, arm).items() if ratio is not None}
    of, scan = there.before.grid, there.before.scan
    if scan is None or there.before.unfit or arm.size not in of.n_params:
        return found
    bound = float(scan.sizes[0]) / of.n_params[arm.size]
    worse = {seed for seed, loss in pretrained(there, arm).items() if loss > scan.means[0]}
    return found | {seed: bound for seed in worse if seed not in found}


def gap(there: Tuned, arm: Arm, /, *, over: Arm) -> dict[Hashable, Points]:
    """Loss of one arm minus that of another by seed, over tokens, where both have them."""
    ours, theirs = there.curves.get(arm, {}), there.curves.get(over, {})
    found: dict[Hashable, Points] = {}
    for seed in ours:
        if seed in theirs:
            shared = [at for at in ours[seed] if at in theirs[seed]]
            found[seed] = {at: ours[seed][at] - theirs[seed][at] for at in shared}
    return found


def early_and_last(points: Points, /) -> tuple[float, float] | None:
    """A quantity at the first state after `EARLY` of training, and at the end; None for too few states."""
    end = max(points, default=0.0)
    early = min((at for at in points if at >= EARLY * end), default=end)
    return None if early >= end else (points[early], points[end])


def average(by_seed: Mapping[Hashable, Points], /) -> Points:
    """Mean over the seeds at the tokens that all have."""
    if not by_seed:
        return {}
    shared = set.intersection(*(set(points) for points in by_seed.values()))
    return {at: mean([points[at] for points in by_seed.values()]) for at in sorted(shared)}


def crossovers(points: Points, /) -> tuple[Crossing | None, Crossing | None]:
    """Where a gap of mean curves falls to zero or below, and where it rises above, for two states or more.

    Each None where the gap begins on that side already.
    """
    if len(points) < 2:
        return None, None
    tokens = list(points)
    values = list(points.values())
    down = crossing(tokens, y=values, threshold=0.0, direction="below", evaluations=2, unit="token")
    up = crossing(tokens, y=values, threshold=math.ulp(0.0), evaluations=2, unit="token")
    return (None if values[0] <= 0 else down), (None if values[0] > 0 else up)


def excess_left(there: Tuned, arm: Arm, /) -> dict[Hashable, Points]:
    """M(f) on the text that was repeated minus that on unseen text like it, over fine-tuning."""
    repeated = there.left.get((arm, "repeated", "memorized"), {})
    unseen = there.left.get((arm, "test", "memorized"), {})
    return {
        seed: {at: points[at] - unseen[seed][at] for at in points if at in unseen[seed]}
        for seed, points in repeated.items()
        if seed in unseen
    }
