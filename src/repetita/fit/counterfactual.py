"""Counterfactual memorization and influence: models with an example in their half minus models without.

Feldman and Zhang 2020, section 2; Zhang et al. 2021, definitions 2.1 and 2.2. T models, each trained on a
random subset of the X examples and measured on Y texts; nothing here knows what the performance is.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita import seeds
from repetita.errors import SpecError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Counterfactual(NamedTuple):
    """Differences of means over models, of the shape asked for; nan where no model is on one of the sides."""

    value: Floats
    error: Floats
    """Standard error over models, the two sides independent; nan with fewer than two models on a side."""
    n_in: Ints
    """Models trained on each example, shape (X,)."""
    n_out: Ints


def memorization(performance: Floats, /, *, membership: Bools) -> Counterfactual:
    """mem(x): mean performance on x of the models trained on x minus that of the others, shape (X,).

    `performance` (T, X) on the examples themselves and `membership` (T, X): mem(x) = infl(x => x).
    """
    if performance.shape != membership.shape:
        raise SpecError(
            f"memorization: performance {performance.shape} and membership {membership.shape} differ in "
            f"shape; give a row a model and a column an example in both"
        )
    inside, outside = (_moments(performance, side, paired=True) for side in (membership, ~membership))
    return _difference(inside, outside)


def influence(performance: Floats, /, *, membership: Bools) -> Counterfactual:
    """infl(x => x'): the same for the performance on every other text x', shape (X, Y).

    `performance` (T, Y) on any texts, held-out ones for example; `membership` (T, X).
    """
    if len(performance) != len(membership):
        raise SpecError(
            f"influence: performance of {len(performance)} models and membership of {len(membership)}; give "
            f"a row a model in both"
        )
    inside, outside = (_moments(performance, side, paired=False) for side in (membership, ~membership))
    return _difference(inside, outside)


def squared_error_bound(*, models: int, share: float) -> float:
    """Feldman and Zhang's bound on the mean squared error of an estimate from t models (lemma 2.1).

    1/(pt) + 1/((1-p)t) + exp(-pt/16)/2 with p = min(share, 1 - share), for a performance within [0, 1]. It
    holds for any performance; few models make it larger than the values that it bounds.
    """
    p = min(share, 1 - share)
    if p <= 0 or models < 1:
        raise SpecError(f"squared_error_bound: share {share} of {models} models leaves one side empty")
    return 1 / (p * models) + 1 / ((1 - p) * models) + math.exp(-p * models / 16) / 2


def largest_by_chance(
    performance: Floats, /, *, membership: Bools, draws: int = 200, seed: int = 0
) -> Floats:
    """The largest influence that there is by chance: of each of `draws` shuffles, which model is which.

    Of influences that have an error, from two models or more on either side: a single model's is larger by
    far. nan where there are none. Shuffling the rows of `membership` keeps its columns and all that the
    performances have in common, and breaks only the link between the two. Compare the largest influence
    found, of those that have an error, with a high quantile of these.
    """
    drawn, found = seeds.generator(seed, "bootstrap"), np.empty(draws)
    for i in range(draws):
        shuffled = membership[drawn.permutation(len(membership))]
        drawn_at_random = influence(performance, membership=shuffled)
        largest = np.max(drawn_at_random.value, where=np.isfinite(drawn_at_random.error), initial=-np.inf)
        found[i] = largest if np.isfinite(largest) else np.nan
    return found


class _Side(NamedTuple):
    mean: Floats
    variance_of_mean: Floats
    n: Ints


def _moments(performance: Floats, side: Bools, *, paired: bool) -> _Side:
    """Mean over the models on one side, and its variance; `paired`: of each column its own side."""
    weights = side.astype(np.float64)
    n_X = side.sum(0)
    if paired:
        total, squares = (weights * performance).sum(0), (weights * performance**2).sum(0)
        n = n_X.astype(np.float64)
    else:
        total, squares = weights.T @ performance, weights.T @ performance**2
        n = n_X.astype(np.float64)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        variance = np.maximum(squares / n - mean**2, 0) * n / (n - 1) / n
    return _Side(mean, np.where(n > 1, variance, np.nan), n_X)


def _difference(inside: _Side, outside: _Side) -> Counterfactual:
    error = np.sqrt(inside.variance_of_mean + outside.variance_of_mean)
    return Counterfactual(inside.mean - outside.mean, error, inside.n, outside.n)
