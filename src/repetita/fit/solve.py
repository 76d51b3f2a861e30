"""The search: a smooth objective minimised from many starts, and how far the starts agree.

Three lessons of Besiroglu et al. 2024 (who refitted the Chinchilla law): sum the losses, since a mean makes
gradients so small that the search stops early; give the gradient; use tight tolerances and many starts.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]
"""From parameters (P,) to the value and its gradient (P,)."""

AGREE = 1e-6
"""Starts agree when their values differ by less than this share."""


class Solution(NamedTuple):
    """The best point found."""

    x: Floats
    value: float
    n_starts: int
    n_agree: int
    """Starts that ended at the best value; few of many is a warning."""
    spread: Floats
    """Range of each parameter over the starts that agree: wide where the data do not decide."""


def minimise(
    objective: Objective,
    *,
    starts: ArrayLike,
    tolerance: float = 1e-13,
    box: tuple[Floats, Floats] | None = None,
) -> Solution:
    """L-BFGS from every start (K, P), then again from the best; raises SpecError when none ends finite.

    `box` holds the parameters between two vectors (P,).
    """
    from scipy.optimize import minimize

    bounds = None if box is None else list(zip(*box, strict=True))
    ends: list[tuple[float, Floats]] = []
    options = {"maxiter": 2000, "maxfun": 10000, "ftol": tolerance, "gtol": 1e-10, "maxcor": 20}
    points = np.atleast_2d(np.asarray(starts, dtype=np.float64))
    for start in points:
        with np.errstate(over="ignore", invalid="ignore"):
            found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        if np.isfinite(found.fun):
            ends.append((float(found.fun), np.asarray(found.x, dtype=np.float64)))
    if not ends:
        raise SpecError("the fit found no finite value from any start; check that x and y are above zero")
    best = min(ends, key=lambda end: end[0])
    # A second search forgets the first one's curvature: it leaves places where the first had stalled.
    again = minimize(objective, best[1], jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if np.isfinite(again.fun) and again.fun < best[0]:
        best = (float(again.fun), np.asarray(again.x, dtype=np.float64))
    agree = [x for value, x in ends if value - best[0] <= AGREE * max(abs(best[0]), 1e-12)] or [best[1]]
    spread = np.ptp(np.array(agree), axis=0)
    return Solution(best[1], best[0], len(points), len(agree), spread)


def grid(*axes: Sequence[float]) -> Floats:
    """All combinations of the values on each axis, shape (K, P)."""
    return np.array(list(itertools.product(*axes)), dtype=np.float64)


def huber(residual: Floats, *, delta: float) -> tuple[float, Floats]:
    """Summed Huber loss over delta squared, and its derivative by residual.

    The division keeps the value near the number of points, whatever delta, so that tolerances mean the same.
    """
    size = np.abs(residual)
    inner = size <= delta
    value = np.where(inner, 0.5 * (residual / delta) ** 2, size / delta - 0.5)
    return float(value.sum()), np.clip(residual, -delta, delta) / delta**2


def refine(
    model: Callable[[Floats], tuple[Floats, Floats]],
    *,
    y: Floats,
    start: Floats,
    delta: float,
    n_steps: int = 30,
    weights: Floats | None = None,
    box: tuple[Floats, Floats] | None = None,
) -> Floats:
    """Huber fits of R data sets y (R, n) at once from R starts (R, P): for resampled data, or many starts.

    `model` maps parameters (R, P) to values (R, n) and derivatives (R, n, P). Damped Gauss-Newton steps with
    Huber's weights; a step that does not lower a row's cost is not taken. `weights` (R, n) count each point
    so often (a bootstrap); `box` holds the parameters between two vectors (P,).
    """
    theta = start.copy()
    counts = np.ones((1, 1)) if weights is None else weights
    damping = np.full(len(theta), 1e-6)
    fitted, slopes = model(theta)
    cost = _row_costs(fitted - y, delta, counts)
    eye = np.eye(theta.shape[1])
    for _ in range(n_steps):
        residual = fitted - y
        weighted = slopes * (counts * (delta / np.maximum(np.abs(residual), delta)))[..., None]
        normal = np.einsum("rnp,rnq->rpq", weighted, slopes)
        gradient = np.einsum("rnp,rn->rp", weighted, residual)
        if box is not None:
            pushed = ((theta <= box[0]) & (gradient > 0)) | ((theta >= box[1]) & (gradient < 0))
            gradient[pushed] = 0.0
            normal = np.where(pushed[:, :, None] | pushed[:, None, :], 0.0, normal)
        scale = np.einsum("rpp->r", normal)[:, None, None] * eye
        step = np.linalg.solve(normal + damping[:, None, None] * scale + 1e-300 * eye, gradient[..., None])[
            ..., 0
        ]
        tried = theta - step if box is None else np.clip(theta - step, *box)
        with np.errstate(over="ignore", invalid="ignore"):
            new_fitted, new_slopes = model(tried)
            new_cost = _row_costs(new_fitted - y, delta, counts)
        better = new_cost < cost
        theta[better], cost[better] = tried[better], new_cost[better]
        fitted[better], slopes[better] = new_fitted[better], new_slopes[better]
        damping = np.where(better, np.maximum(damping / 4, 1e-12), np.minimum(damping * 8, 1e6))
    return theta


def _row_costs(residual: Floats, delta: float, counts: Floats) -> Floats:
    size = np.abs(residual)
    costs = np.where(size <= delta, 0.5 * (size / delta) ** 2, size / delta - 0.5)
    return np.asarray((counts * costs).sum(axis=1))
