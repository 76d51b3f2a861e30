"""Laws: a power law with or without an offset, and a power trend through crossings that may be censored."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita import seeds
from repetita.errors import SpecError
from repetita.fit.estimate import LEVEL, Crossing, Estimate, t_quantile
from repetita.fit.solve import Floats, Solution, huber, minimise, refine

DELTA = 1e-3
"""Huber's delta on log loss (Hoffmann et al. 2022, approach 3); the least that is used here."""

TUNING = 1.345
"""Delta in robust sds of the residuals: 95% of the efficiency of least squares on Gaussian scatter.

With delta far under the scatter the fit is one of least absolute values, whose resampled residuals give
intervals that cover 84-91% instead of 95% (21 points, scatter 0.005, delta 0.001).
"""

Offset = Literal["none", "fitted"]


class PowerLaw(NamedTuple):
    """y = offset + coefficient * x^-exponent, fitted by Huber loss on ln y, summed over points."""

    coefficient: float
    exponent: float
    offset: float
    n: int
    x_low: float
    x_high: float
    """Range of the points: predictions outside it are extrapolated."""
    residual_sd: float
    """sd of ln y around the law."""
    aicc: float
    """For choosing between offset none and fitted on the same points."""
    replicates: Floats
    """Coefficient, exponent, offset refitted to resampled residuals, shape (R, 3)."""
    solution: Solution

    def predict(self, x: ArrayLike, /) -> Floats:
        """y at x."""
        return np.asarray(self.offset + self.coefficient * np.asarray(x, dtype=np.float64) ** -self.exponent)

    def invert(self, y: float, /) -> float | None:
        """x at which the law gives y; None at or under the offset."""
        return _invert(self.coefficient, self.exponent, self.offset, y)

    def inverse(self, y: float, /, *, level: float = LEVEL) -> Estimate:
        """x at which the law gives y, with the law's own uncertainty; a side on which it fails is open."""
        found = [_invert(a, b, c, y) for a, b, c in self.replicates.tolist()]
        low, high = self._tails([math.inf if x is None else x for x in found], level)
        high = None if high is not None and not math.isfinite(high) else high
        low = None if low is not None and not math.isfinite(low) else low
        return Estimate(
            self.invert(y), low, high, self.n, "inverted power law", level, "scatter about the law"
        )

    def estimates(self, *, level: float = LEVEL) -> dict[str, Estimate]:
        """Coefficient, exponent and offset with bootstrap intervals."""
        values = {"coefficient": self.coefficient, "exponent": self.exponent, "offset": self.offset}
        return {
            name: Estimate(
                value,
                *self._tails(self.replicates[:, i].tolist(), level),
                self.n,
                "Huber on log, bootstrap of residuals",
                level,
                "scatter about the law",
            )
            for i, (name, value) in enumerate(values.items())
        }

    def _tails(self, draws: list[float], level: float) -> tuple[float | None, float | None]:
        """Percentiles of the replicates, widened as t widens the normal at the degrees of freedom left."""
        from scipy.special import ndtr

        if not draws:
            return None, None
        df = max(1, self.n - (2 if self.offset == 0 else 3))
        tail = float(ndtr(-t_quantile(level, df)))
        low, high = np.quantile(draws, [tail, 1 - tail], method="nearest")
        return float(low), float(high)


class PowerTrend(NamedTuple):
    """y = coefficient * x^exponent with log-normal scatter, through crossings of which some are censored."""

    coefficient: float
    exponent: Estimate
    sd: float
    n: int
    n_censored: int

    def predict(self, x: ArrayLike, /) -> Floats:
        """The median of y at x."""
        return np.asarray(
            self.coefficient * np.asarray(x, dtype=np.float64) ** float(self.exponent.value or 0.0)
        )


def fit_power_law(
    x: ArrayLike,
    *,
    y: ArrayLike,
    offset: Offset = "none",
    delta: float | None = None,
    n_replicates: int = 500,
    seed: int = 0,
) -> PowerLaw:
    """The law through points (one a run; x and y above zero), from many starts.

    `delta` None takes it from the scatter about a first fit with delta 1e-3 (`TUNING`).

    Intervals come from refits to resampled residuals, scaled up for the parameters used. They hold the
    scatter of runs about the law and no error common to all runs (one test set, one corpus). Needs one
    point more than parameters, at as many different x.
    """
    xs, ys = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
    k = 2 if offset == "none" else 3
    if len(xs) != len(ys) or not (np.all(xs > 0) and np.all(ys > 0) and np.isfinite(xs + ys).all()):
        raise SpecError("fit_power_law: x and y need equal lengths and finite values above zero")
    if len(xs) <= k or len(np.unique(xs)) < k:
        raise SpecError(
            f"fit_power_law: {k} parameters need {k + 1} points at {k} different x, got {len(xs)}"
        )
    u, logs = np.log(xs), np.log(ys)
    centre = float(u.mean())
    solution = _search(u - centre, logs, delta or DELTA, _starts(u - centre, ys, offset))
    if delta is None:
        rough = float(np.median(np.abs(logs - _log_law(solution.x, u - centre))))
        delta = max(DELTA, TUNING * 1.4826 * rough * math.sqrt(len(xs) / (len(xs) - k)))
        tuned = _search(u - centre, logs, delta, solution.x[None, :])
        solution = solution._replace(x=tuned.x, value=tuned.value)
    fitted = _log_law(solution.x, u - centre)
    residual = logs - fitted
    # n/(n-k) and not its root, as in the jackknife: with the root the intervals cover 89-92% at 21 points.
    spread = (residual - residual.mean()) * len(xs) / (len(xs) - k)
    draws = seeds.generator(seed, "bootstrap").integers(0, len(xs), (n_replicates, len(xs)))
    start = np.repeat(solution.x[None, :], n_replicates, axis=0)
    refits = refine(
        lambda theta: _law_and_slopes(theta, u - centre), y=fitted + spread[draws], start=start, delta=delta
    )
    replicates = np.array([_natural(row, centre) for row in refits]).reshape(-1, 3)
    ssr = max(float(residual @ residual), 1e-300)
    dims, n = k + 1, len(xs)
    small_sample = 2 * dims * (dims + 1) / (n - dims - 1) if n > dims + 1 else math.inf
    aicc = n * math.log(ssr / n) + 2 * dims + small_sample
    a, alpha, floor = _natural(solution.x, centre)
    sd = math.sqrt(ssr / (n - k))
    return PowerLaw(a, alpha, floor, n, float(xs.min()), float(xs.max()), sd, aicc, replicates, solution)


def fit_power_trend(
    x: ArrayLike,
    *,
    crossings: Sequence[Crossing],
    groups: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> PowerTrend:
    """Passes, steps or band edges against size; what was not reached counts as beyond `last` (rule 14).

    Maximum likelihood of a log-normal scatter with right-censored (x None) and left-censored (x and low None)
    crossings. The exponent's interval is a likelihood profile that is the t interval when nothing is
    censored. Needs 3 crossings that were reached, at 2 different x.

    `groups` (repeated fractions) share the exponent and each have a coefficient of their own; the one of the
    trend is their geometric mean. A group of which nothing was reached says nothing of the exponent and is
    left out; there must be one crossing more than parameters, and a group that was reached at 2 different x.
    """
    xs = np.asarray(x, dtype=np.float64).ravel()
    given: list[Hashable] = [0] * len(xs) if groups is None else list(groups)
    if not len(xs) == len(crossings) == len(given) or np.any(xs <= 0):
        raise SpecError("fit_power_trend: one crossing above zero, and one group, for each x above zero")
    told = {group for group, one in zip(given, crossings, strict=True) if one.x is not None}
    kept = [i for i, group in enumerate(given) if group in told]
    xs, crossings = xs[kept], [crossings[i] for i in kept]
    names = list(dict.fromkeys(given[i] for i in kept))
    member = np.array([[given[i] == name for name in names] for i in kept], dtype=np.float64)
    reached = np.array([crossing.x is not None for crossing in crossings], dtype=bool)
    before = np.array([c.x is None and c.low is None for c in crossings], dtype=bool)
    at = np.array(
        [c.x or (c.high if b else c.last) or math.nan for c, b in zip(crossings, before, strict=True)]
    )
    n, n_seen, k = len(xs), int(reached.sum()), len(names) + 1
    apart = any(len(np.unique(xs[reached & (column > 0)])) > 1 for column in member.T)
    if n_seen < k + 1 or not apart:
        raise SpecError(
            f"fit_power_trend: needs {max(k + 1, 3)} crossings that were reached, at 2 sizes, got {n_seen}"
        )
    if not np.all(at > 0):
        raise SpecError("fit_power_trend: one crossing above zero, and one group, for each x above zero")
    u, v = np.log(xs) - np.log(xs).mean(), np.log(at)
    side = np.where(reached, 0, np.where(before, -1, 1))
    (levels, b, log_sd), best = _censored(member, u, v, side, None)
    df = n_seen - k
    limit = best + 0.5 * n_seen * math.log1p(t_quantile(level, df) ** 2 / df)

    def excess(slope: float) -> float:
        return _censored(member, u, v, side, slope)[1] - limit

    low, high = (_root(excess, b, sign * (abs(b) + 1) / 16) for sign in (-1, 1))
    method = "log-normal trend, likelihood profile" + (", censored" if (~reached).any() else "")
    method += ", a level for each group" if len(names) > 1 else ""
    exponent = Estimate(b, low, high, n, method, level, "scatter about the trend")
    coefficient = math.exp(float(levels.mean()) - b * float(np.log(xs).mean()))
    return PowerTrend(coefficient, exponent, math.exp(log_sd), n, n - n_seen)


def _log_law(theta: Floats, u: Floats) -> Floats:
    """ln y of the law at each row of parameters, shape (..., n)."""
    line = np.asarray(theta[..., 0, None] - theta[..., 1, None] * u)
    return line if theta.shape[-1] == 2 else np.asarray(np.logaddexp(line, theta[..., 2, None]))


def _law_and_slopes(theta: Floats, u: Floats) -> tuple[Floats, Floats]:
    """ln y (..., n) and its derivatives by parameter (..., n, P)."""
    fitted = _log_law(theta, u)
    if theta.shape[-1] == 2:
        share = np.ones_like(fitted)
        return fitted, np.stack([share, -u * share], axis=-1)
    share = np.exp(theta[..., 0, None] - theta[..., 1, None] * u - fitted)
    return fitted, np.stack([share, -u * share, 1 - share], axis=-1)


def _search(u: Floats, logs: Floats, delta: float, starts: Floats) -> Solution:
    def objective(theta: Floats) -> tuple[float, Floats]:
        fitted, slopes = _law_and_slopes(theta, u)
        value, slope = huber(fitted - logs, delta=delta)
        return value, slope @ slopes

    return minimise(objective, starts=starts)


def _starts(u: Floats, ys: Floats, offset: Offset) -> Floats:
    """Lines through ln(y - offset) for offsets from nothing to nearly the lowest y, and bent copies of
    them.
    """
    if offset == "none":
        slope, level = np.polyfit(u, np.log(ys), 1)
        return np.array([[level, -slope * factor] for factor in (1.0, 0.5, 2.0)])
    points = []
    for share in (0.01, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96, 0.99):
        floor = share * float(ys.min())
        slope, level = np.polyfit(u, np.log(ys - floor), 1)
        points += [[level, -slope * factor, math.log(floor)] for factor in (1.0, 0.5, 2.0)]
    return np.array(points)


def _natural(theta: Floats, centre: float) -> tuple[float, float, float]:
    """Coefficient, exponent, offset from the centred log parameters."""
    offset = math.exp(float(theta[2])) if len(theta) == 3 else 0.0
    return math.exp(float(theta[0]) + float(theta[1]) * centre), float(theta[1]), offset


def _invert(coefficient: float, exponent: float, offset: float, y: float) -> float | None:
    if y <= offset or exponent == 0:
        return None
    log_x = (math.log(coefficient) - math.log(y - offset)) / exponent
    return math.exp(log_x) if abs(log_x) < 700 else None


def _censored(
    member: Floats, u: Floats, v: Floats, side: NDArray[np.int64], slope: float | None
) -> tuple[tuple[Floats, float, float], float]:
    """Parameters (levels of the groups, slope, ln sd) and negative log likelihood; `slope` given is held.

    `member` holds 1 where a point (row) is of a group (column). Newton's method in level/sd, slope/sd and
    1/sd, in which the likelihood is concave (Olsen 1978).
    """
    from scipy.special import log_ndtr

    free = np.column_stack([member, u]) if slope is None else member
    target = v if slope is None else v - slope * u
    design = np.column_stack([-free, target])
    n_seen = int((side == 0).sum())

    def value(theta: Floats) -> float:
        z = design @ theta
        costs = np.where(side == 0, 0.5 * z**2, -log_ndtr(-side * z))
        return float(costs.sum()) - n_seen * math.log(theta[-1]) if theta[-1] > 0 else math.inf

    start = np.linalg.lstsq(free, target, rcond=None)[0]
    inverse_sd = 1 / max(float(np.std(target - free @ start)), 1e-9)
    theta = inverse_sd * np.append(start, 1.0)
    best = value(theta)
    for _ in range(100):
        z = design @ theta
        tail = -side * z
        ratio = np.exp(-0.5 * tail**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(tail))
        gradient = design.T @ np.where(side == 0, z, side * ratio)
        hessian = (design.T * np.where(side == 0, 1.0, ratio * (ratio + tail))) @ design
        gradient[-1] -= n_seen / theta[-1]
        hessian[-1, -1] += n_seen / theta[-1] ** 2
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        share = 1.0
        while share > 1e-10 and not value(theta - share * step) <= best:
            share /= 2
        theta, before = theta - share * step, best
        best = value(theta)
        if before - best <= 1e-12 * (1 + abs(best)):
            break
    sd = 1 / float(theta[-1])
    found = float(theta[-2]) * sd if slope is None else slope
    return (theta[: member.shape[1]] * sd, found, math.log(sd)), best


def _root(excess: Callable[[float], float], start: float, step: float) -> float | None:
    """Where `excess` turns positive on the way from `start`; None when it does not within 2^12 steps."""
    for _ in range(12):
        if excess(start + step) > 0:
            break
        step *= 2
    else:
        return None
    near, far = start, start + step
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (near, middle) if excess(middle) > 0 else (middle, far)
    return far
