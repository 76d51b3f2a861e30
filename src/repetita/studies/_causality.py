"""What windows of repetition do to induction heads, as numbers: scores, what heads carry, each run's fate."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from repetita.fit.estimate import Crossing
from repetita.studies._causality_runs import AFTER, ARMS, BEFORE, CONTROL
from repetita.studies._grid import Labels, Losses, minus
from repetita.studies._heads import BEST, FORMED, GATE_SHARE, Course, onset

if TYPE_CHECKING:
    import polars as pl

Cell = tuple[str, str, float | None]
"""Size, arm and passes; the last None for a control."""
ByStep = dict[int, float]

METRICS = {
    "copying_loss": "copies of random tokens",
    "in_context": "in-context score",
    "names_loss": "names that stood before",
    "test_loss": "test loss",
}
"""What a head may carry: metric of the ablation probe, and what it is called."""
KEPT = 0.5
"""A run whose best head still matches prefixes, but whose in-context gain is under this share of its
control's, counts as masked."""


class Window(NamedTuple):
    """The steps in which a run repeats, and where it ends."""

    start: int
    stop: int
    steps: int


class Causality(NamedTuple):
    """All that was measured, by cell and seed."""

    best: dict[Cell, dict[Hashable, Course]]
    """Prefix-matching score of the best head over training, step 0 left out."""
    loss: dict[Cell, dict[Hashable, Course]]
    """Test loss over training, of few sequences."""
    states: dict[str, dict[Cell, dict[Hashable, ByStep]]]
    """Readings of the ablation probe by metric, such as `copying_loss_top`, and step."""
    windows: dict[Cell, Window]

    def cells(self, size: str, /) -> list[Cell]:
        """What is there of a size, in the order of the arms."""
        there = [cell for cell in self.best if cell[0] == size]
        return sorted(there, key=lambda cell: (cell[2] is not None, cell[2] or 0, ARMS.index(cell[1])))

    def end(self, cell: Cell, /) -> int:
        """The last step of a cell's runs."""
        return self.windows[cell].steps

    def value(self, metric: str, cell: Cell, *, step: int) -> Losses:
        """A reading by seed."""
        found = self.states.get(metric, {}).get(cell, {})
        return {seed: values[step] for seed, values in found.items() if step in values}

    def carried(self, metric: str, cell: Cell, *, step: int) -> Losses:
        """What is lost without the highest heads beyond what is lost without others, by seed, in nats."""
        return minus(
            self.value(f"{metric}_top", cell, step=step), self.value(f"{metric}_random", cell, step=step)
        )

    def score(self, cell: Cell, *, step: int) -> Losses:
        """The best head's score at a step, by seed."""
        courses = self.best.get(cell, {})
        found = {seed: dict(zip(*course, strict=True)) for seed, course in courses.items()}
        return {seed: course[step] for seed, course in found.items() if step in course}


def control(size: str, /) -> Cell:
    """The cell of a size's control."""
    return size, CONTROL, None


def read(table: "pl.DataFrame", /) -> Causality:
    """The measurements of the test set by the probes `curve`, `heads` and `ablation`."""
    import polars as pl

    found = Causality({}, {}, {}, {})
    chosen = table.filter(
        pl.col("probe").is_in(["curve", "heads", "ablation"])
        & (pl.col("on") == "test")
        & pl.col("value").is_not_null()
    ).sort("step")
    points: dict[tuple[str, Cell, Hashable], ByStep] = {}
    for row in chosen.iter_rows(named=True):
        cell: Cell = (row["size"], row["arm"], row["passes"])
        stop = row["steps"] if row["stop"] is None else row["stop"]
        found.windows[cell] = Window(row["start"] or 0, stop, row["steps"])
        if row["probe"] == "ablation":
            by_seed = found.states.setdefault(row["metric"], {}).setdefault(cell, {})
            by_seed.setdefault(row["seed"], {})[row["step"]] = row["value"]
        elif row["step"] > 0 and row["metric"] in ("loss", BEST):
            points.setdefault((row["metric"], cell, row["seed"]), {})[row["step"]] = row["value"]
    for (metric, cell, seed), by_step in points.items():
        place = found.best if metric == BEST else found.loss
        place.setdefault(cell, {})[seed] = tuple(by_step), tuple(by_step.values())
    return found


def lines(planned: Sequence[Labels], /) -> list[tuple[str, float]]:
    """Sizes and passes that are planned: those with windows first, of these the most passes first.

    Primary claims are about the first one.
    """
    found: dict[tuple[str, float], set[object]] = {}
    for one in planned:
        if one["passes"] is not None:
            found.setdefault((str(one["size"]), float(one["passes"])), set()).add(one["arm"])
    return sorted(found, key=lambda line: (AFTER not in found[line], -line[1], line[0]))


def onsets(found: Causality, cell: Cell, /) -> dict[Hashable, Crossing]:
    """From when on the best head stays formed, by seed."""
    return {seed: onset(course) for seed, course in sorted(found.best.get(cell, {}).items(), key=str)}


def late(found: Causality, size: str, /) -> dict[Hashable, bool]:
    """The gate: seeds of the control, and whether its heads are not there by half of the run."""
    limit = GATE_SHARE * found.end(control(size)) if control(size) in found.windows else 0
    return {seed: one.x is None or one.x > limit for seed, one in onsets(found, control(size)).items()}


def closed(found: Causality, size: str, /) -> str:
    """Why nothing is concluded about the heads of a size; "" where the gate is open."""
    seeds = late(found, size)
    if not seeds:
        return "the control's heads were not measured"
    shut = [str(seed) for seed, is_late in seeds.items() if is_late]
    if not shut:
        return ""
    return (
        f"gate not passed: the control's best head does not reach {FORMED:g} before half of the run in seed "
        f"{', '.join(shut)}"
    )


def too_early(found: Causality, cell: Cell, /) -> str:
    """Why the early window is not before heads form; "" where it is."""
    stop = found.windows[cell].stop if cell in found.windows else 0
    inside = [
        str(seed)
        for seed, one in onsets(found, control(cell[0])).items()
        if one.x is not None and one.x < stop
    ]
    if not inside:
        return ""
    return (
        f"the control's heads form before step {stop}, inside the early window, in seed {', '.join(inside)}"
    )


def held(course: Course, /) -> float | None:
    """The highest score that a run holds over two neighbouring states; None with fewer states."""
    values = course[1]
    pairs = [min(one, after) for one, after in pairwise(values)]
    return max(pairs, default=None)


class Fate(NamedTuple):
    """What became of the heads of one run."""

    seed: Hashable
    control: Crossing
    """When the control's heads form."""
    own: Crossing
    """When the run's own do, from when on they stay."""
    at_stop: float
    """Best head's score when the repetition ends."""
    at_end: float
    kept: float | None
    """In-context gain over the control's when the repetition ends; None where the control has none."""
    words: str


def fates(found: Causality, cell: Cell, /) -> Iterator[Fate]:
    """By seed: prevented, destroyed, masked or intact when the repetition ends, and what follows."""
    window, own = found.windows[cell], control(cell[0])
    ours, theirs = (
        found.value("in_context_none", cell, step=window.stop),
        found.value("in_context_none", own, step=window.stop),
    )
    stop, end = found.score(cell, step=window.stop), found.score(cell, step=window.steps)
    formed, before = onsets(found, cell), onsets(found, own)
    for seed in sorted(set(stop) & set(end) & set(before), key=str):
        kept = None
        if seed in ours and theirs.get(seed, 0.0) < 0:
            kept = ours[seed] / theirs[seed]
        there = _formed_by(found, cell, seed=seed, step=window.stop)
        words = _during(
            there=there, score=stop[seed], kept=kept, due=_by(before[seed], window.stop),
            ever=before[seed].x is not None,
        )  # fmt: skip
        if window.steps > window.stop:
            words += _afterwards(words, score=end[seed], own=formed[seed])
        yield Fate(seed, before[seed], formed[seed], stop[seed], end[seed], kept, words)


def _by(one: Crossing, step: int) -> bool:
    return one.x is not None and one.x <= step


def _formed_by(found: Causality, cell: Cell, *, seed: Hashable, step: int) -> bool:
    """Whether heads were there at some time up to a step: in the run, or in the control that it began as."""
    window, own = found.windows[cell], dict(zip(*found.best[cell][seed], strict=True))
    course = {at: value for at, value in own.items() if window.start < at <= step}
    if window.start:
        first = found.best.get(control(cell[0]), {}).get(seed, ((), ()))
        course |= {at: value for at, value in zip(*first, strict=True) if at <= window.start}
    ordered = dict(sorted(course.items()))
    highest = held((tuple(ordered), tuple(ordered.values())))
    return highest is not None and highest >= FORMED


def _during(*, there: bool, score: float, kept: float | None, due: bool, ever: bool) -> str:
    if not ever:
        return "undecided: the control has no heads either"
    if there:
        if score < FORMED:
            return "destroyed"
        return "masked" if kept is not None and kept < KEPT else "intact"
    return "prevented" if due else "not due yet"


def _afterwards(words: str, *, score: float, own: Crossing) -> str:
    there = score >= FORMED
    if words in ("prevented", "destroyed"):
        return ", then returned" if there else ", and not returned"
    if words == "not due yet":
        return f", formed afterwards ({own.text()})" if there else ", and not formed afterwards"
    return ", and so at the end" if there else ", lost afterwards"


def worst_step(found: Causality, cell: Cell, /) -> int | None:
    """The step, until the repetition ends, with the largest mean extra test loss over the control."""
    extra = excess(found, cell)
    within = {step: values for step, values in extra.items() if step <= found.windows[cell].stop}
    if not within:
        return None
    return max(within, key=lambda step: sum(within[step].values()) / len(within[step]))


def excess(found: Causality, cell: Cell, /) -> dict[int, Losses]:
    """Test loss minus the control's by step and seed, at the states that both have."""
    own = found.loss.get(control(cell[0]), {})
    extra: dict[int, Losses] = {}
    for seed, course in found.loss.get(cell, {}).items():
        beside: Mapping[int, float] = dict(zip(*own.get(seed, ((), ())), strict=True))
        for step, value in zip(*course, strict=True):
            if step in beside:
                extra.setdefault(step, {})[seed] = value - beside[step]
    most = max(map(len, extra.values()), default=0)
    return {step: values for step, values in sorted(extra.items()) if len(values) == most}


def compared(found: Causality, size: str, passes: float, /) -> int | None:
    """The step at which the early and the late window are compared, at equal training: where both end."""
    early, after = (size, BEFORE, passes), (size, AFTER, passes)
    if early not in found.windows or after not in found.windows:
        return None
    return min(found.end(early), found.end(after))
