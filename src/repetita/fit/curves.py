"""Curves: sustained crossings, first rises, smoothing over log tokens, the memorization marker."""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.fit.estimate import Crossing

Floats = NDArray[np.float64]

MARKER_SHARES = (0.10, 0.05, 0.20)
"""The marker's threshold and its sensitivity (experiment design, rule 26)."""


def crossing(
    x: ArrayLike,
    *,
    y: ArrayLike,
    threshold: float,
    direction: Literal["above", "below"] = "above",
    window: float = 0.0,
    evaluations: int = 1,
    unit: str = "step",
) -> Crossing:
    """First x from which y stays at or beyond `threshold` for `window` (in units of x), interpolated.

    The first touch of a noisy curve is early (rule 14), so give a window; where a window may hold a single
    evaluation, `evaluations` is the least number of them that must lie beyond, one after the other. A window
    that the curve does not fill to its end confirms nothing: the crossing is censored at the last x.
    Interpolation is linear in y against ln x, against x where an x is not positive.
    """
    xs, ys = curve(x, y=y)
    beyond = ys >= threshold if direction == "above" else ys <= threshold
    for i in np.flatnonzero(beyond):
        if xs[i] + window > xs[-1] or i + evaluations > len(xs):
            break
        inside = (xs >= xs[i]) & (xs <= xs[i] + window)
        inside[i : i + evaluations] = True
        if beyond[inside].all():
            return _between(xs, ys, int(i), threshold, unit)
    return Crossing(None, float(xs[-1]), None, float(xs[-1]), unit)


def first_rise(x: ArrayLike, *, y: ArrayLike, unit: str = "step") -> Crossing:
    """First evaluation above the one before: overfitting as the memorization paper counts it, literally."""
    xs, ys = curve(x, y=y)
    rises = np.flatnonzero(np.diff(ys) > 0)
    if not len(rises):
        return Crossing(None, float(xs[-1]), None, float(xs[-1]), unit)
    i = int(rises[0])
    return Crossing(float(xs[i + 1]), float(xs[i]), float(xs[i + 1]), float(xs[-1]), unit)


def sustained_rise(x: ArrayLike, *, y: ArrayLike, window: float, unit: str = "step") -> Crossing:
    """The first point that all evaluations of the next `window` (in units of x) exceed (rule 16).

    At least one evaluation must lie inside the window, and the curve must go on to its end.
    """
    xs, ys = curve(x, y=y)
    for i in range(len(xs) - 1):
        if xs[i] + window > xs[-1]:
            break
        later = (xs > xs[i]) & (xs <= xs[i] + window)
        if later.any() and (ys[later] > ys[i]).all():
            return Crossing(float(xs[i]), float(xs[i]), float(xs[i + 1]), float(xs[-1]), unit)
    return Crossing(None, float(xs[-1]), None, float(xs[-1]), unit)


def smooth(x: ArrayLike, *, y: ArrayLike, decades: float = 0.1) -> Floats:
    """y smoothed over ln x by a local line with a Gaussian kernel whose sd is `decades` of x.

    x must be positive. Straight lines in ln x pass unchanged, also at the ends.
    """
    xs, ys = curve(x, y=y)
    if xs[0] <= 0:
        raise SpecError("smooth: x must be above zero to be smoothed over its logarithm; leave out step 0")
    u = np.log10(xs)
    gap = u[None, :] - u[:, None]
    weights = np.exp(-0.5 * (gap / decades) ** 2)
    s0, s1, s2 = (np.sum(weights * gap**k, axis=1) for k in range(3))
    t0, t1 = weights @ ys, np.sum(weights * gap * ys[None, :], axis=1)
    det = s0 * s2 - s1**2
    lone = det <= 1e-12 * np.maximum(s0 * s2, 1e-300)  # no neighbour within reach: the point itself
    return np.asarray(np.where(lone, t0 / s0, (s2 * t0 - s1 * t1) / np.where(lone, 1, det)))


def wiggle(x: ArrayLike, *, y: ArrayLike, decades: float = 0.1) -> float:
    """sd of y around its smooth over ln x: the noise of one evaluation within a run."""
    xs, ys = curve(x, y=y)
    residual = ys - smooth(xs, y=ys, decades=decades)
    return float(np.sqrt(np.mean(residual**2)))


def marker(
    passes: ArrayLike, *, repeated_loss: ArrayLike, unique_loss: ArrayLike, share: float = MARKER_SHARES[0]
) -> Crossing:
    """Passes E at which the train loss on the repeated subset falls under `share` of the unique train loss.

    Interpolated on the log of the ratio in ln E (Hernandez et al. 2022 only say "approaches zero"; rule 26).
    Already under it at the smallest E: x is None, `high` is that E.
    """
    e, repeated = curve(passes, y=repeated_loss)
    _, unique = curve(passes, y=unique_loss)
    if np.any(repeated <= 0) or np.any(unique <= 0):
        raise SpecError("marker: losses must be above zero")
    logs = np.log(repeated / unique)
    if logs[0] < math.log(share):
        return Crossing(None, None, float(e[0]), float(e[-1]), "pass")
    return crossing(e, y=logs, threshold=math.log(share), direction="below", unit="pass")


def log_distance(peak: float | None, *, to: Crossing) -> float | None:
    """|ln E_peak - ln E_marker|; None where either is not known."""
    if peak is None or to.x is None:
        return None
    return abs(math.log(peak) - math.log(to.x))


def peak_position(x: ArrayLike, *, y: ArrayLike) -> float:
    """x of the maximum by a parabola through the highest point and its neighbours in ln x.

    At an edge, or with neighbours as high, the highest point itself.
    """
    xs, ys = curve(x, y=y)
    i = int(ys.argmax())
    if i in (0, len(xs) - 1):
        return float(xs[i])
    u, v = np.log(xs[i - 1 : i + 2]), ys[i - 1 : i + 2]
    bend, slope, _ = np.polyfit(u - u[1], v, 2)
    if bend >= 0:
        return float(xs[i])
    return float(np.exp(np.clip(u[1] - slope / (2 * bend), u[0], u[2])))


def curve(x: ArrayLike, *, y: ArrayLike) -> tuple[Floats, Floats]:
    """x and y as arrays sorted by x; raises SpecError when lengths differ, x repeats or a value is not
    finite.
    """
    xs, ys = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
    if len(xs) != len(ys) or len(xs) == 0:
        raise SpecError(f"a curve needs as many y as x and at least one point, got {len(xs)} and {len(ys)}")
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise SpecError("a curve has a value that is not finite; leave that evaluation out")
    order = np.argsort(xs, kind="stable")
    xs, ys = xs[order], ys[order]
    if np.any(np.diff(xs) == 0):
        raise SpecError("a curve has two values at one x; average them or give one curve a run")
    return xs, ys


def _between(xs: Floats, ys: Floats, i: int, threshold: float, unit: str) -> Crossing:
    """The crossing between evaluations i-1 and i."""
    if i == 0:
        return Crossing(float(xs[0]), None, float(xs[0]), float(xs[-1]), unit)
    share = (threshold - ys[i - 1]) / (ys[i] - ys[i - 1])
    a, b = xs[i - 1], xs[i]
    at = a * (b / a) ** share if a > 0 else a + share * (b - a)
    return Crossing(float(at), float(a), float(b), float(xs[-1]), unit)
