"""Do two scores rank the same things alike? Spearman's rank correlation, corrected for the scores' own noise.

S things (sequences), each scored twice by models that have nothing in common: A and B, in P splits of the
models. T models in all.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita import seeds
from repetita.fit.estimate import LEVEL, Estimate, t_quantile

Floats = NDArray[np.float64]
Halves = Sequence[tuple[Floats, Floats]]
"""The scores from A and from B, each of shape (S,), of every split; nan where a thing has no score."""


MOST_GROUPS = 16
"""Groups of models that the jackknife leaves out at most."""
AT_ONCE = 1 << 22
"""Things times resamples that are worked on at once."""


class Agreement(NamedTuple):
    """Rank agreement of two scores, mean over splits; None where a score does not rank at all."""

    raw: float | None
    """Spearman's rho of one score from some models and the other from other models: no noise is shared,
    which two scores of the same models share."""
    reliability: tuple[float | None, float | None]
    """The same of each score with itself: what noise leaves of a perfect agreement is the root of both."""
    corrected: float | None
    """raw / sqrt(product of reliabilities), Spearman's (1904) correction for attenuation; may exceed 1. None
    where a score does not agree with itself."""


def agreement(one: Halves, other: Halves) -> Agreement:
    """How much `one` and `other` rank alike."""
    weights = np.ones((1, len(one[0][0])))
    drawn = _draws(one, other, weights)
    return Agreement(
        _value(drawn.raw[0]),
        (_value(drawn.one[0]), _value(drawn.other[0])),
        _value(drawn.corrected[0]),
    )


def agreement_interval(
    halves: Callable[[list[int]], tuple[Halves, Halves]],
    *,
    models: int,
    corrected: bool = True,
    draws: int = 500,
    seed: int = 0,
) -> Estimate:
    """The agreement with an interval over sequences and over models.

    `halves` gives both scores from the models of these numbers. The variance is that of a bootstrap over
    sequences plus that of a jackknife over models (each left out once, more than 16 in 16 groups): resampled
    models would come twice, and their noise with them. The interval is t with a degree of freedom less than
    there are groups; n counts models.
    """
    everyone = list(range(models))
    one, other = halves(everyone)
    value = _of(agreement(one, other), corrected)
    method = "Spearman's rho between disjoint models" + (", corrected for attenuation" if corrected else "")
    method += "; bootstrap over sequences, jackknife over models"
    if value is None:
        return Estimate(None, None, None, models, method)
    resampled = _resampled(one, other, corrected=corrected, draws=draws, seed=seed)
    groups = min(models, MOST_GROUPS)
    left = [
        _of(agreement(*halves([m for m in everyone if m % groups != group])), corrected)
        for group in range(groups)
    ]
    known = [x for x in left if x is not None]
    if len(known) < groups or models < 3 or np.isnan(resampled).mean() > 1 - LEVEL:
        return Estimate(value, None, None, models, method, LEVEL, "")
    over_models = (groups - 1) / groups * float(np.sum((np.array(known) - np.mean(known)) ** 2))
    half = t_quantile(LEVEL, groups - 1) * math.sqrt(float(np.nanvar(resampled, ddof=1)) + over_models)
    return Estimate(value, value - half, value + half, models, method, LEVEL, "sequences, models")


def spearman(x: Floats, y: Floats, /, *, weights: Floats | None = None) -> Floats:
    """Rank correlation with mean ranks for ties, one for each row of `weights` (R, S); nan without spread.

    Weights are counts: each row is a resample of the things in which thing i is there weights[i] times.
    """
    there = np.isfinite(x) & np.isfinite(y)
    w = np.ones((1, int(there.sum()))) if weights is None else weights[:, there]
    return _correlation(_ranks(x[there], w), _ranks(y[there], w), w)


class _Draws(NamedTuple):
    raw: Floats
    one: Floats
    other: Floats
    corrected: Floats


def _draws(one: Halves, other: Halves, weights: Floats) -> _Draws:
    """Means over splits for each row of weights; things without all four scores of a split are left out."""
    raw, own, others = [], [], []
    for scores in zip(one, other, strict=True):
        four = [half for pair in scores for half in pair]
        there = np.isfinite(four).all(axis=0)
        w = weights[:, there]
        a, b, c, d = (_ranks(score[there], w) for score in four)
        raw += [_correlation(a, d, w), _correlation(b, c, w)]
        own.append(_correlation(a, b, w))
        others.append(_correlation(c, d, w))
    mean, mine, theirs = (np.mean(values, axis=0) for values in (raw, own, others))
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.where((mine > 0) & (theirs > 0), mine * theirs, np.nan)
        return _Draws(mean, mine, theirs, mean / np.sqrt(noise))


def _resampled(one: Halves, other: Halves, *, corrected: bool, draws: int, seed: int) -> Floats:
    """The agreement in each of `draws` bootstrap samples of the things."""
    s, drawing, found = len(one[0][0]), seeds.generator(seed, "bootstrap"), []
    at_once = max(1, AT_ONCE // s)
    for first in range(0, draws, at_once):
        weights = drawing.multinomial(s, np.full(s, 1 / s), size=min(at_once, draws - first))
        drawn = _draws(one, other, weights.astype(np.float64))
        found.append(drawn.corrected if corrected else drawn.raw)
    return np.concatenate(found)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """Mean rank of each thing in each resample, shape (R, S)."""
    _, which, n = np.unique(values, return_inverse=True, return_counts=True)
    rising = np.argsort(which, kind="stable")
    ends = np.cumsum(weights[:, rising], axis=1)[:, np.cumsum(n) - 1]
    starts = np.concatenate([np.zeros((len(weights), 1)), ends[:, :-1]], axis=1)
    return np.asarray(((starts + ends + 1) / 2)[:, which])


def _correlation(a: Floats, b: Floats, weights: Floats) -> Floats:
    total = np.maximum(weights.sum(1, keepdims=True), 1)
    a, b = (ranks - (weights * ranks).sum(1, keepdims=True) / total for ranks in (a, b))
    spread = np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(spread > 1e-9, (weights * a * b).sum(1) / spread, np.nan)
    return found


def _of(found: Agreement, corrected: bool) -> float | None:
    return found.corrected if corrected else found.raw


def _value(x: float, /) -> float | None:
    return float(x) if np.isfinite(x) else None
