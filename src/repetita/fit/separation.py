"""How well a score tells two groups apart: area under the curve, and hits at few false alarms."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.fit.estimate import LEVEL, Estimate, proportion, t_quantile

Floats = NDArray[np.float64]


def auc(inside: ArrayLike, /, *, outside: ArrayLike, level: float = LEVEL) -> Estimate:
    """Chance that a member of the first group scores above one of the second, ties one half.

    The interval is DeLong et al.'s (1988) on the logit scale, with t of the smaller group's size. Groups that
    are told apart without one error have no variance: their interval is that of a proportion of the smaller
    group without a miss. One member on a side leaves both bounds open. Raises SpecError for an empty group
    and for scores that are not numbers; infinite ones are ranked.
    """
    x, y = _scores(inside), _scores(outside)
    above = _placed(x, among=y)
    value, method, n = float(above.mean()), "DeLong, logit", min(len(x), len(y))
    if n == 1:
        return Estimate(value, None, None, n, "one text in a group", level)
    if value in (0.0, 1.0):
        exact = proportion(round(value * n), n=n, level=level)
        return Estimate(value, exact.low, exact.high, n, "Clopper-Pearson, smaller group", level, "texts")
    below = _placed(y, among=x)
    variance = float(above.var(ddof=1)) / len(x) + float(below.var(ddof=1)) / len(y)
    half = t_quantile(level, n - 1) * math.sqrt(variance) / (value * (1 - value))
    centre = math.log(value / (1 - value))
    low, high = (1 / (1 + math.exp(-max(-700.0, centre + side * half))) for side in (-1, 1))
    return Estimate(value, low, high, n, method, level, "texts")


def hits_at(
    inside: ArrayLike, /, *, outside: ArrayLike, false_alarms: float = 0.01, level: float = LEVEL
) -> Estimate:
    """Share of the first group above the threshold that at most this share of the second exceeds.

    The number that counts for an accusation (Carlini et al. 2022, "Membership inference attacks from first
    principles", section III). The exact interval takes the threshold as given. With fewer than
    1 / `false_alarms` outside, the threshold is their highest score.
    """
    x, y = _scores(inside), np.sort(_scores(outside))[::-1]
    threshold = y[int(false_alarms * len(y) + 1e-9)]
    return proportion(int((x > threshold).sum()), n=len(x), level=level)


def _placed(scores: Floats, *, among: Floats) -> Floats:
    """Share of `among` that each score is above, ties one half."""
    ranked = np.sort(among)
    places = [np.searchsorted(ranked, scores, side=side) for side in ("left", "right")]
    return np.asarray(sum(places) / (2 * len(ranked)), dtype=np.float64)


def _scores(values: ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64).ravel()
    if not len(found) or np.isnan(found).any():
        raise SpecError("both groups need at least one text, and every score must be a number")
    return found
