"""How much T depends on the learning rate: a quadratic of ln T in log2 rate, with censored times as such."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.fit.estimate import Crossing
from repetita.fit.times_to_memorize import Slope, combined, mean_of

Floats = NDArray[np.float64]

ROUNDS = 50


class Bend(NamedTuple):
    """ln T as a quadratic in log2 rate."""

    curvature: Slope
    """Its second coefficient: at half and at double the best rate T is exp(curvature) times as long, where
    the quadratic holds."""
    coefficients: tuple[float, float, float]
    """Of 1, x and x^2, with x = log2(rate) less its mean over the rates."""
    centre: float
    """That mean."""
    best: float | None
    """The rate of the lowest T; None where it lies outside the rates, or there is no lowest."""

    def time(self, rate: float, /) -> float:
        """T at a rate by the quadratic."""
        x = math.log2(rate) - self.centre
        a, b, c = self.coefficients
        return math.exp(a + b * x + c * x * x)


def bend(rates: ArrayLike, *, crossings: Sequence[Crossing]) -> Bend | None:
    """Least squares, one crossing a rate; None with fewer than three rates or fewer than two reached.

    A censored T only says that it is later: it enters with the end of its run where the quadratic would
    otherwise lie below that, and not at all where the quadratic lies above (one-sided least squares, a convex
    problem). Where one enters, the curvature is a bound, on the side to which a later T would move it.
    """
    x = np.log2(np.asarray(rates, dtype=np.float64))
    if len(x) != len(crossings) or not np.isfinite(x).all():
        raise SpecError("bend: one crossing for each rate above zero")
    late = np.array([one.x is None for one in crossings])
    if len(np.unique(x)) < 3 or (~late).sum() < 2:
        return None
    y = np.log([one.last if one.x is None else one.x for one in crossings])
    centre = float(x.mean())
    design = np.stack([np.ones_like(x), x - centre, (x - centre) ** 2], axis=1)
    used = np.ones_like(late)
    for _ in range(ROUNDS):
        theta, *_ = np.linalg.lstsq(design[used], y[used], rcond=None)
        wanted = ~late | (design @ theta < y - 1e-9) | (used & (np.abs(design @ theta - y) <= 1e-9))
        if len(np.unique(x[wanted])) < 3 or (wanted == used).all():
            break
        used = wanted
    # A run that ended on the curve itself pulls at nothing now, but a later T would: it stays a bound.
    each = [
        Slope(value, "at_least" if censored else "exact")
        for value, censored in zip(y[used], late[used], strict=True)
    ]
    curvature = combined(np.linalg.pinv(design[used])[2], slopes=each)
    a, b, c = (float(value) for value in theta)
    lowest = -b / (2 * c) if c > 0 else math.inf
    inside = x.min() <= lowest + centre <= x.max()
    return Bend(curvature, (a, b, c), centre, 2 ** (lowest + centre) if inside else None)


class Detour(NamedTuple):
    """What another rate than the measured best costs: ln of T there over T at the best rate."""

    best: float
    """The measured rate of the lowest T."""
    half: Slope | None
    """At half that rate; None where it was not measured."""
    double: Slope | None

    def mean(self) -> Slope | None:
        """Of both; None where one is missing."""
        if self.half is None or self.double is None:
            return None
        return mean_of([self.half, self.double])


def detour(rates: Sequence[float], *, crossings: Sequence[Crossing]) -> Detour | None:
    """Ratios at half and double the best of the rates, as measured; None where no rate reached tau."""
    times = dict(zip(rates, crossings, strict=True))
    reached = {rate: one.x for rate, one in times.items() if one.x is not None}
    if not reached:
        return None
    best = min(reached, key=lambda rate: reached[rate])

    def beside(factor: float) -> Slope | None:
        for rate, one in times.items():
            if math.isclose(rate, best * factor, rel_tol=1e-6):
                at = one.last if one.x is None else one.x
                return Slope(math.log(at / reached[best]), "at_least" if one.x is None else "exact")
        return None

    return Detour(best, beside(0.5), beside(2.0))
