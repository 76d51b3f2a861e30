"""What repetition does to induction heads, as numbers: scores by cell and seed, when heads form, sizes."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from repetita.errors import SpecError
from repetita.fit.curves import crossing
from repetita.fit.effective_size import ControlScan, control_scan
from repetita.fit.estimate import Crossing
from repetita.fit.score_size import FEWEST_SIZES, ScoreScan, score_scan
from repetita.studies._grid import Labels, Line, Losses, mean, minus, turned

if TYPE_CHECKING:
    import polars as pl

SCORE = "prefix_query_mean"
"""The score that goes on the scale of sizes: mean over heads, prefix matching a query. The paper does not say
how it aggregates; the mean is graded where the best head is all or nothing."""
BEST = "prefix_query_max"
FORMED = 0.5
"""Score of the best head from which induction heads count as formed (experiment design, rule 22)."""
EVALUATIONS = 2
"""States, one after the other, that must lie beyond it (rule 14)."""
GATE_SHARE = 0.5
"""Share of a run before which the control's best head is to get there (rule 22)."""

PAPER_FRACTION = 0.03
"""The headline is judged at the planned share nearest to the paper's 3%."""

METRICS = (
    "loss", "in_context", "prefix_query_mean", "prefix_query_max", "prefix_query_top", "prefix_entry_mean",
    "prefix_entry_max", "previous_token_max", "ov_activation_max", "ov_eigen_max", "induction_ov",
    "k_composition_max",
)  # fmt: skip

Cell = tuple[str, float | None, float | None]
"""Size, fraction and passes; the last two None: a control."""
Course = tuple[tuple[int, ...], tuple[float, ...]]
"""Steps and values of one run."""


class Heads(NamedTuple):
    """Scores at the end of the runs, and the best head's over training."""

    final: dict[str, dict[Cell, Losses]]
    """Value by metric, cell and seed; loss and in-context score of the test set in nats."""
    courses: dict[Cell, dict[Hashable, Course]]
    """Prefix-matching score of the best head, step 0 left out."""
    n_params: dict[str, int]
    """Non-embedding parameters by size."""
    vocab_size: int
    steps: int
    """Updates of a run."""

    def of(self, metric: str, cell: Cell, /) -> Losses:
        """By seed; empty where it was not measured."""
        return self.final.get(metric, {}).get(cell, {})

    def sizes(self) -> list[str]:
        """Sizes that have controls, smallest first."""
        there = {cell[0] for cell in self.final.get("loss", {}) if cell[1] is None}
        return sorted(there, key=lambda size: self.n_params[size])

    def lines(self) -> list[Line]:
        """Treated sizes and fractions, by fraction, then size."""
        there = {(cell[0], cell[1]) for cell in self.final.get("loss", {}) if cell[1] is not None}
        return sorted(there, key=lambda line: (line[1], self.n_params[line[0]]))

    def cells(self, line: Line, /) -> list[Cell]:
        """Treated cells of a line by passes."""
        return sorted(
            (cell for cell in self.final.get("loss", {}) if cell[:2] == line), key=lambda cell: cell[2] or 0
        )

    def by_passes(self, metric: str, line: Line, /) -> dict[float, Losses]:
        """{passes: {seed: value}} of a line."""
        return {float(cell[2] or 0): self.of(metric, cell) for cell in self.cells(line)}


def control(size: str, /) -> Cell:
    """The cell of a size's control."""
    return size, None, None


def read(table: "pl.DataFrame", /) -> Heads:
    """The measurements of the test set by the probes `test`, `heads` and `in_context`."""
    import polars as pl

    found = Heads({}, {}, {}, 2, 0)
    chosen = table.filter(
        pl.col("probe").is_in(["test", "heads", "in_context"])
        & pl.col("metric").is_in(METRICS)
        & (pl.col("on") == "test")
        & pl.col("value").is_not_null()
        & pl.col("arm").is_in(["control", "repeated"])
    ).sort("step")
    if chosen.is_empty():
        return found
    courses: dict[tuple[Cell, Hashable], list[tuple[int, float]]] = {}
    for row in chosen.iter_rows(named=True):
        cell: Cell = (row["size"], row["fraction"], row["passes"])
        found.n_params[row["size"]] = row["non_embedding"]
        if row["step"] == row["steps"]:
            found.final.setdefault(row["metric"], {}).setdefault(cell, {})[row["seed"]] = row["value"]
        if row["metric"] == BEST and row["step"] > 0:
            courses.setdefault((cell, row["seed"]), []).append((row["step"], row["value"]))
    for (cell, seed), points in courses.items():
        steps, values = zip(*points, strict=True)
        found.courses.setdefault(cell, {})[seed] = steps, values
    return found._replace(
        vocab_size=int(chosen["vocab_size"].max() or 2),  # type: ignore[arg-type]
        steps=int(chosen["steps"].max() or 0),  # type: ignore[arg-type]
    )


def headline_line(planned: Sequence[Labels], /) -> Line | None:
    """What primary claims are about: the largest size at the planned share nearest to the paper's 3%."""
    treated = [labels for labels in planned if labels["arm"] == "repeated"]
    if not treated:
        return None
    nearest = min(
        treated,
        key=lambda labels: (
            abs(math.log(float(labels["fraction"] or 1) / PAPER_FRACTION)),
            -int(labels["non_embedding"] or 0),
        ),
    )
    return str(nearest["size"]), float(nearest["fraction"] or 0)


def onset(course: Course, /) -> Crossing:
    """The step from which the best head stays at or above FORMED; right-censored where it does not."""
    return crossing(course[0], y=course[1], threshold=FORMED, evaluations=EVALUATIONS)


def onsets(heads: Heads, cell: Cell, /) -> dict[Hashable, Crossing]:
    """When heads form in each seed of a cell."""
    return {seed: onset(course) for seed, course in sorted(heads.courses.get(cell, {}).items(), key=str)}


def passed(heads: Heads, size: str, /) -> dict[Hashable, bool]:
    """The gate: whether the control's heads form before half of the run, by seed."""
    limit = GATE_SHARE * heads.steps
    return {seed: one.x is not None and one.x <= limit for seed, one in onsets(heads, control(size)).items()}


def worst(heads: Heads, line: Line, /) -> dict[Hashable, float]:
    """The passes with the highest test loss for each seed, by the other seeds (alone: by itself).

    A noisy curve read at its own maximum would flatter the damage; the paper takes the peak of the loss, too.
    """
    by_seed = turned(heads.by_passes("loss", line))
    found: dict[Hashable, float] = {}
    for seed, own in by_seed.items():
        others = [theirs for other, theirs in by_seed.items() if other != seed] or [own]
        levels = {
            passes: mean(there)
            for passes in own
            if (there := [theirs[passes] for theirs in others if passes in theirs])
        }
        if levels:
            found[seed] = max(levels, key=lambda passes: levels[passes])
    return found


def at_worst(heads: Heads, metric: str, line: Line, /) -> Losses:
    """A metric of each treated seed at its worst passes."""
    chosen = {seed: heads.of(metric, (*line, passes)) for seed, passes in worst(heads, line).items()}
    return {seed: values[seed] for seed, values in chosen.items() if seed in values}


def change(heads: Heads, metric: str, line: Line, /) -> Losses:
    """Treated at the worst passes minus control, by seed."""
    return minus(at_worst(heads, metric, line), heads.of(metric, control(line[0])))


def ladder(heads: Heads, metric: str, /) -> dict[float, Losses]:
    """The control's values by parameters and seed."""
    found = {float(heads.n_params[size]): heads.of(metric, control(size)) for size in heads.sizes()}
    return {size: values for size, values in found.items() if values}


def scan_of(heads: Heads, metric: str = SCORE) -> ScoreScan | None:
    """The line through the control's score; None with fewer than two sizes."""
    try:
        return score_scan(ladder(heads, metric))
    except SpecError:
        return None


def loss_scan(heads: Heads, /) -> ControlScan | None:
    """The law through the control's test loss; None with too few sizes."""
    try:
        return control_scan(ladder(heads, "loss"), vocab_size=heads.vocab_size)
    except SpecError:
        return None


class Disproportion(NamedTuple):
    """Damage to the score beside damage to the test loss, in ln of the size, by seed."""

    on_score: Losses
    """ln(size / effective size) by prefix matching; where that is below the smallest control, the least that
    it can be."""
    on_loss: Losses
    """The same by test loss; where the run is better than the largest control, the most that it can be."""
    refused: str
    """Why there is none; "" where there is."""
    slopes: str = ""
    """Whose ladder the sizes are read from."""
    bounded: tuple[Hashable, ...] = ()
    """Seeds of which one of the two is such a bound, so that their difference can be larger."""

    @property
    def difference(self) -> Losses:
        """How much more is lost on the score; above zero where it is hit harder."""
        return minus(self.on_score, self.on_loss)


def disproportion(heads: Heads, line: Line, /) -> Disproportion:
    """Both damages at the worst passes, each a difference to the same seed's control over its ladder's slope.

    Every seed is measured by its own ladder, so that an interval over seeds holds the slopes' errors too;
    where a treated seed has none, all are measured by the ladder of all seeds. No size is read beyond the
    ladder: bounds stand where they do not favour the score's being hit harder, and nothing where they would.
    """
    scan = scan_of(heads)
    if scan is None or scan.refused:
        return Disproportion({}, {}, "controls of fewer than two sizes" if scan is None else scan.refused)
    drops = {seed: -fall for seed, fall in change(heads, SCORE, line).items()}
    treated, own = at_worst(heads, "loss", line), heads.of("loss", control(line[0]))
    seeds = sorted(set(drops) & set(treated) & set(own), key=str)
    if not seeds:
        return Disproportion({}, {}, "no seed has a treated and a control run")
    slopes, exponents, whose = dict(scan.by_seed), _exponents(ladder(heads, "loss")), "of the same seed"
    if not set(seeds) <= set(slopes) & set(exponents):
        law = loss_scan(heads)
        if law is None or scan.slope.value is None:
            return Disproportion({}, {}, f"no seed has controls of {FEWEST_SIZES} sizes")
        slopes, exponents = dict.fromkeys(seeds, scan.slope.value), dict.fromkeys(seeds, law.law.exponent)
        whose = "of all seeds, whose own error is not in the interval"
    flat = [seed for seed in seeds if slopes[seed] <= 0 or exponents[seed] <= 0]
    if flat:
        return Disproportion({}, {}, f"score or loss does not improve with size in seed {flat[0]}")
    on_score = {seed: drops[seed] / slopes[seed] for seed in seeds}
    on_loss = {seed: math.log(treated[seed] / own[seed]) / exponents[seed] for seed in seeds}
    # ln(size / smallest) and ln(size / largest): where the ladder ends.
    most, least = (math.log(heads.n_params[line[0]] / end) for end in (scan.sizes[0], scan.sizes[-1]))
    beyond = [seed for seed in seeds if on_loss[seed] > most]
    if beyond:
        return Disproportion({}, {}, f"test loss above the smallest control's in seed {beyond[0]}: no size")
    bounded = tuple(seed for seed in seeds if on_score[seed] > most or on_loss[seed] < least)
    return Disproportion(
        {seed: min(lost, most) for seed, lost in on_score.items()},
        {seed: max(lost, least) for seed, lost in on_loss.items()},
        "",
        whose,
        bounded,
    )


def _exponents(losses: Mapping[float, Losses]) -> Losses:
    """alpha of each seed's own ladder, loss = c N^-alpha, of seeds with at least 3 sizes."""
    found: Losses = {}
    for seed in _seeds(losses.values()):
        points = [(math.log(size), math.log(own[seed])) for size, own in losses.items() if seed in own]
        if len(points) >= FEWEST_SIZES:
            x, y = np.array(points).T
            found[seed] = -float(np.polyfit(x, y, 1)[0])
    return found


def _seeds(many: Iterable[Losses]) -> list[Hashable]:
    return sorted({seed for own in many for seed in own}, key=str)
