"""Every optimum of a law that is nearly as good as the best, from many starts, and its spread over runs."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita import seeds
from repetita.errors import SpecError
from repetita.fit.estimate import LEVEL, t_quantile
from repetita.fit.parameters import Space
from repetita.fit.solve import huber, minimise, refine

Floats = NDArray[np.float64]

NEARLY = 1.05
"""An optimum is nearly as good when its objective is at most this many times the best."""

SAME = 0.01
"""Optima that differ by less in every coordinate (an exponent, the logarithm of the rest) are one."""

_MOST = 8
"""Optima that are listed; where a valley is flat there is no end to them."""

_HARDLY_EVER = 0.999
"""Quantile of F beyond which a law without one of its terms is not looked for in resampled runs."""

_WORK = 250_000
"""Values of a law held at a time."""


class Problem(NamedTuple):
    """What is minimised: the Huber losses of model minus y, summed."""

    model: Callable[[Floats], tuple[Floats, Floats]]
    """From parameters (R, K) on the search's scale to values (R, n) and slopes (R, n, K)."""
    y: Floats
    space: Space
    delta: float
    same: float = SAME

    def at(self, phi: Floats, /) -> tuple[Floats, Floats]:
        """Values (R, n) and slopes (R, n, P) at free coordinates (R, P)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            fitted, slopes = self.model(self.space.eta(phi))
            return fitted, slopes @ self.space.matrix

    def objective(self, phi: Floats, /) -> tuple[float, Floats]:
        """The summed Huber loss over delta squared at one point (P,), and its gradient."""
        fitted, slopes = self.at(phi[None, :])
        value, slope = huber(fitted[0] - self.y, delta=self.delta)
        return value, slope @ slopes[0]


class Optimum(NamedTuple):
    """A place from which nothing near is better."""

    phi: Floats
    objective: float
    """Summed Huber loss, not divided by anything: comparable with published ones."""


def optima(problem: Problem, *, starts: Floats) -> list[Optimum]:
    """The distinct optima nearly as good as the best, best first, from starts (K, P) inside the box.

    Damped Gauss-Newton from all starts at once; the best of them go on, and what is left is searched by
    L-BFGS to tight tolerances. Without free coordinates there is one point, and no search.
    """
    n = len(problem.y)
    if not problem.space.owner:
        return [Optimum(np.empty(0), problem.objective(np.empty(0))[0] * problem.delta**2)]
    points = starts
    for n_steps, room in ((12, _WORK // n // 3), (30, _WORK // n // 12), (60, _WORK // n // 12)):
        points = _refined(problem, points, n_steps=n_steps)
        costs = _costs(problem, points)
        order = np.argsort(costs)[: max(room, 24)]
        points = points[order[np.isfinite(costs[order])]]
        if not len(points):
            raise SpecError("the fit found no finite value from any start; check the columns")
    costs = _costs(problem, points)
    ends = _apart(points[costs <= NEARLY**2 * costs[0] + _least(n)], problem)
    found = sorted((_searched(problem, phi) for phi in ends), key=lambda one: one.objective)
    limit = NEARLY * found[0].objective + _least(n) * problem.delta**2
    kept: list[Optimum] = []
    for one in found:
        if one.objective <= limit and len(kept) < _MOST:
            kept += [one] if all(_separate(problem, one, better) for better in kept) else []
    return kept


def resampled(
    problem: Problem, *, found: list[Optimum], n_replicates: int, seed: int, residuals: bool = False
) -> Floats:
    """Free coordinates (R, P) of the law refitted to runs, or to its residuals, drawn with replacement.

    Each draw starts from every listed optimum, and from the best laws that lack a term, and keeps the best
    end: a term that a draw does not show is then at its bound, and not somewhere on the flat way there.
    Residuals suit rows of equal scatter of which few decide a parameter, as along a curve.
    """
    n = len(problem.y)
    if not n_replicates or not problem.space.owner:
        return np.empty((0, len(found[0].phi)))
    rng = seeds.generator(seed, "bootstrap")
    counts = ys = None
    if residuals:
        fitted, scatter = _scatter(problem, found[0].phi)
        ys = fitted + scatter[rng.integers(0, n, (n_replicates, n))]
    else:
        counts = rng.multinomial(n, np.full(n, 1 / n), size=n_replicates).astype(np.float64)
    best = np.full(n_replicates, np.inf)
    ends = np.tile(found[0].phi, (n_replicates, 1))
    for phi in [*(one.phi for one in found[:3]), *_without_a_term(problem, found[0])]:
        tried = _refined(problem, np.tile(phi, (n_replicates, 1)), n_steps=40, counts=counts, ys=ys)
        costs = _costs(problem, tried, counts, ys)
        ends[costs < best] = tried[costs < best]
        best = np.minimum(best, costs)
    return ends


def _scatter(problem: Problem, phi: Floats) -> tuple[Floats, Floats]:
    """The law's values (n,), and its residuals about zero, each as wide as before the fit drew it in."""
    fitted, slopes = (part[0] for part in problem.at(phi[None, :]))
    leverage = np.einsum("np,pn->n", slopes, np.linalg.pinv(slopes))
    residual = (problem.y - fitted) / np.sqrt(np.maximum(1 - leverage, 1 / len(fitted)))
    return fitted, residual - residual.mean()


def _without_a_term(problem: Problem, best: Optimum) -> list[Floats]:
    """The best points with one term at its lower bound, where resampled runs could come to prefer them."""
    from scipy.special import fdtri

    where, df = problem.space, max(1, len(problem.y) - len(best.phi))
    limit = best.objective * (1 + float(fdtri(1, df, _HARDLY_EVER)) / df)
    found = []
    for j in np.flatnonzero(where.terms):
        top, start = where.box[1].copy(), best.phi.copy()
        top[j] = start[j] = where.box[0][j]
        held = problem._replace(space=where._replace(box=(where.box[0], top)))
        end = _refined(held, start[None, :], n_steps=60)
        if _costs(problem, end)[0] * problem.delta**2 <= limit:
            found.append(end[0])
    return found


def _searched(problem: Problem, phi: Floats) -> Optimum:
    """The optimum below a point: L-BFGS, with steps of another kind wherever it stalls at a kink."""
    value = math.inf
    for _ in range(4):
        solution = minimise(problem.objective, starts=phi, box=problem.space.box)
        phi, before, value = solution.x, value, solution.value
        if value >= before * (1 - 1e-9):
            break
        phi = _refined(problem, phi[None, :], n_steps=40)[0]
    return Optimum(solution.x, solution.value * problem.delta**2)


def _separate(problem: Problem, one: Optimum, better: Optimum) -> bool:
    """Whether a point is an optimum of its own, and not one from which the way to a better one only falls."""
    if problem.space.distance(one.phi, better.phi) <= problem.same:
        return False
    shares = np.linspace(0, 1, 21)[:, None]
    heights = _costs(problem, one.phi + shares * (better.phi - one.phi)) * problem.delta**2
    level = one.objective <= better.objective * (1 + 1e-9)  # A valley without slope: both are ends of it.
    return level or bool(heights.max() > one.objective * (1 + 1e-9))


def tails(n: int, *, n_free: int, level: float = LEVEL) -> tuple[float, float]:
    """Shares of draws under and over the interval, widened as t widens the normal."""
    from scipy.special import ndtr

    tail = float(ndtr(-t_quantile(level, max(1, n - n_free))))
    return tail, 1 - tail


def _least(n: int) -> float:
    """What rounding leaves of an objective (over delta squared) that is zero."""
    return 1e-12 * n


def _refined(
    problem: Problem,
    points: Floats,
    *,
    n_steps: int,
    counts: Floats | None = None,
    ys: Floats | None = None,
) -> Floats:
    """Points (R, P) moved downhill, a few at a time to keep the arrays small.

    `counts` and `ys` (R, n) are the weights and observations of each point, where they differ.
    """
    chunk = max(1, _WORK // len(problem.y))
    parts = []
    for i in range(0, len(points), chunk):
        own = points[i : i + chunk]
        parts.append(
            refine(
                problem.at,
                y=np.broadcast_to(problem.y, (len(own), len(problem.y))) if ys is None else ys[i : i + chunk],
                start=own,
                delta=problem.delta,
                n_steps=n_steps,
                weights=None if counts is None else counts[i : i + chunk],
                box=problem.space.box,
            )
        )
    return np.concatenate(parts)


def _costs(
    problem: Problem, points: Floats, counts: Floats | None = None, ys: Floats | None = None
) -> Floats:
    """Summed Huber loss over delta squared at points (R, P)."""
    found = []
    for i, phi in enumerate(points):
        y = problem.y if ys is None else ys[i]
        residual = np.abs(problem.at(phi[None, :])[0][0] - y) / problem.delta
        each = np.where(residual <= 1, 0.5 * residual**2, residual - 0.5)
        found.append(float(each.sum() if counts is None else each @ counts[i]))
    return np.array(found)


def _apart(points: Floats, problem: Problem) -> list[Floats]:
    """Points that differ from all before them."""
    kept: list[Floats] = []
    for phi in points:
        if len(kept) < 3 * _MOST and all(problem.space.distance(phi, other) > problem.same for other in kept):
            kept.append(phi)
    return kept
