"""Effective size by a score that rises with size: a line in ln N, inverted only where it is one.

The repeated-data paper puts the prefix-matching score of induction heads on the scale of model sizes by a
linear fit of the control's score (its Figs. 6 and 21). A score that steps from nothing to everything between
two sizes, or does not clearly rise, says nothing about sizes between or beyond (experiment design, rule 20).
"""

import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from repetita.errors import SpecError
from repetita.fit.curves import Floats
from repetita.fit.estimate import LEVEL, Estimate, t_interval, t_quantile

BySeed = Mapping[Any, float]

STEP = 0.75
"""Share of a ladder's whole rise between two neighbouring sizes from which the score is a step: on a straight
line each of three evenly spaced sizes has a half."""

FEWEST_SIZES = 3


class ScoreScan(NamedTuple):
    """Scores of the runs without repetition over sizes, and the line through them."""

    sizes: Floats
    """Non-embedding parameters, ascending."""
    means: Floats
    """Mean score over seeds at each size."""
    intercept: float
    slope: Estimate
    """Score a unit of ln N; t interval over the residuals of all runs."""
    by_seed: Mapping[Hashable, float]
    """Slope of each seed's own ladder, of seeds with at least 3 sizes."""
    refused: str
    """Why no size is read off it; "" where one may be."""

    def predict(self, n_params: float, /) -> float:
        """Score of the line at this size."""
        assert self.slope.value is not None
        return self.intercept + self.slope.value * math.log(n_params)


class ScoreSize(NamedTuple):
    """A treated size on the control's line."""

    drop: Estimate
    """Control minus treated score, paired by seed."""
    multiplier: Estimate
    """Effective size / size: the drop divided by the slope, exp(-drop / b), so that a run as good as its own
    control has 1. A bound alone where the size is outside the ladder; empty where the scan is refused."""
    extrapolated: float | None
    """The paper's way: the line inverted wherever it leads, over the size; None where refused."""
    note: str


def score_scan(scores: Mapping[float, BySeed]) -> ScoreScan:
    """The scan from `scores[n_params][seed]`; raises SpecError for fewer than two sizes."""
    sizes = sorted(size for size, own in scores.items() if own)
    if len(sizes) < 2:
        raise SpecError(
            "score_scan: a line over sizes needs controls of at least two sizes; run more of them"
        )
    points = np.array([(math.log(size), value) for size in sizes for value in scores[size].values()])
    slope, intercept = np.polyfit(points[:, 0], points[:, 1], 1)
    found = Estimate(float(slope), None, None, len(points), "least squares over control runs", LEVEL, "seeds")
    if len(points) > 2:
        residual = points[:, 1] - intercept - slope * points[:, 0]
        spread = float(((points[:, 0] - points[:, 0].mean()) ** 2).sum())
        error = math.sqrt(float((residual**2).sum()) / (len(points) - 2) / spread)
        half = t_quantile(LEVEL, len(points) - 2) * error
        found = found._replace(low=float(slope - half), high=float(slope + half))
    means = np.array([np.mean(list(scores[size].values())) for size in sizes])
    sizes_array = np.array(sizes, dtype=np.float64)
    return ScoreScan(sizes_array, means, float(intercept), found, _slopes(scores), _refused(means, found))


def score_size(scan: ScoreScan, *, n_params: float, scores: BySeed, control: BySeed) -> ScoreSize:
    """Drop and multiplier of treated runs of one size against their controls, both by seed.

    The interval joins the seeds' t interval and the slope's own error. Raises SpecError where no seed has
    both runs.
    """
    shared = sorted(set(scores) & set(control), key=str)
    if not shared:
        raise SpecError(
            "score_size: no seed has a treated and a control run; run both arms with the same seeds"
        )
    drop = t_interval([control[seed] - scores[seed] for seed in shared])
    drop = drop._replace(method=drop.method.replace("runs", "runs paired by seed"))
    empty = Estimate(None, None, None, len(shared), "control's line in ln N", LEVEL, "seeds and control")
    if scan.refused:
        return ScoreSize(drop, empty, None, scan.refused)
    assert drop.value is not None and scan.slope.value is not None and scan.slope.low is not None
    slope = scan.slope.value
    mean = sum(scores.values()) / len(scores)
    paper = math.exp((mean - scan.intercept) / slope) / n_params
    log = -drop.value / slope
    smallest, largest = math.log(scan.sizes[0] / n_params), math.log(scan.sizes[-1] / n_params)
    if log < smallest:
        note = "worse than the smallest control: open below"
        return ScoreSize(drop, empty._replace(high=math.exp(smallest)), paper, note)
    if log > largest:
        note = "better than the largest control: open above"
        return ScoreSize(drop, empty._replace(low=math.exp(largest)), paper, note)
    if drop.half_width is None:
        return ScoreSize(drop, empty._replace(value=math.exp(log)), paper, "one seed")
    half = math.hypot(drop.half_width / slope, log * (slope - scan.slope.low) / slope)
    low, high = (log + sign * half for sign in (-1, 1))
    bounds = math.exp(low) if low >= smallest else None, math.exp(high) if high <= largest else None
    return ScoreSize(drop, empty._replace(value=math.exp(log), low=bounds[0], high=bounds[1]), paper, "")


def _slopes(scores: Mapping[float, BySeed]) -> dict[Hashable, float]:
    found: dict[Hashable, float] = {}
    for seed in sorted({seed for own in scores.values() for seed in own}, key=str):
        own = [(math.log(size), by[seed]) for size, by in scores.items() if seed in by]
        if len(own) >= FEWEST_SIZES:
            x, y = np.array(own).T
            found[seed] = float(np.polyfit(x, y, 1)[0])
    return found


def _refused(means: Floats, slope: Estimate) -> str:
    if len(means) < FEWEST_SIZES:
        return f"controls of {len(means)} sizes: a line needs {FEWEST_SIZES}"
    if slope.low is None or slope.low <= 0:
        shown = slope.text(digits=2)
        return f"the control's score does not clearly rise with size (slope {shown} a unit of ln N)"
    whole, jump = float(means.max() - means.min()), float(np.diff(means).max())
    if jump > STEP * whole:
        return (
            f"the control's score is a step: {jump / whole:.0%} of its rise is between two neighbouring sizes"
        )
    return ""
