"""A skew-normal tail: how rare a value is below all that was sampled, with its goodness of fit."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError

Floats = NDArray[np.float64]
FEWEST = 100
"""Samples under which no tail is fitted."""
STEEPEST = 50.0
"""Largest shape: beyond it the distribution is a half-normal to all that a sample can tell."""
POINTS = 4001


class SkewNormal(NamedTuple):
    """The distribution 2 / scale * phi(z) * Phi(shape * z) of z = (x - location) / scale."""

    shape: float
    location: float
    scale: float
    p_value: float
    """That a sample of the fitted distribution would fit it as badly as the half of the sample that it was
    not fitted to (Kolmogorov-Smirnov). Small: the tail is not to be believed."""

    def cdf(self, x: ArrayLike, /) -> Floats:
        """Probability of a value of at most x."""
        from scipy.special import ndtr, owens_t

        z = (np.asarray(x, dtype=np.float64) - self.location) / self.scale
        return np.asarray(np.clip(ndtr(z) - 2 * owens_t(z, self.shape), 0, 1))

    def log_cdf(self, x: ArrayLike, /) -> Floats:
        """Its logarithm, also far below the location, where the probability itself is lost to rounding."""
        z = (np.asarray(x, dtype=np.float64) - self.location) / self.scale
        whole = self.cdf(x)
        with np.errstate(divide="ignore"):
            near = np.log(whole)
        far = np.array([_log_below(one, shape=self.shape) for one in z[whole < 1e-4].ravel()])
        found = np.array(near)
        found[whole < 1e-4] = far
        return found


def fit_skew_normal(sample: ArrayLike, /) -> SkewNormal:
    """The likeliest skew-normal of a sample, as Carlini et al. 2019 (section 4) take for log perplexities.

    The sample is in random order: the goodness of fit comes from fitting every other value and testing the
    rest. Raises SpecError for fewer than FEWEST values, and where all are equal or one is not finite.
    """
    x = np.asarray(sample, dtype=np.float64)
    if len(x) < FEWEST or not np.isfinite(x).all() or x.std() == 0:
        raise SpecError(
            f"fit_skew_normal: {len(x)} values; give {FEWEST} or more that are finite and not all the same"
        )
    half = SkewNormal(*_likeliest(x[::2]), 1.0)
    return SkewNormal(*_likeliest(x), _p_value(x[1::2], half))


def _likeliest(x: Floats) -> tuple[float, float, float]:
    from scipy.optimize import minimize
    from scipy.special import log_ndtr

    center, spread = float(x.mean()), float(x.std())
    z = (x - center) / spread

    def loss(values: Floats) -> float:
        shape, location, log_scale = values
        u = (z - location) / math.exp(log_scale)
        return float((u**2 / 2 - log_ndtr(shape * u)).mean() + log_scale)

    # The moments of the sample, with the skewness within what the family has.
    skewness = float(np.clip((z**3).mean(), -0.95, 0.95))
    power = abs(skewness) ** (2 / 3)
    delta = math.copysign(math.sqrt(math.pi / 2 * power / (power + ((4 - math.pi) / 2) ** (2 / 3))), skewness)
    scale = 1 / math.sqrt(1 - 2 * delta**2 / math.pi)
    first = (delta / math.sqrt(1 - delta**2), -scale * delta * math.sqrt(2 / math.pi), math.log(scale))
    bounds = [(-STEEPEST, STEEPEST), (-8, 8), (-4, 4)]
    found = min(
        (minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in (first, (0.0, 0.0, 0.0))),
        key=lambda one: float(one.fun),
    )
    shape, location, log_scale = found.x
    return float(shape), center + spread * float(location), spread * math.exp(log_scale)


def _p_value(x: Floats, fitted: SkewNormal) -> float:
    from scipy.special import kolmogorov

    n, below = len(x), fitted.cdf(np.sort(x))
    steps = np.arange(n + 1) / n
    distance = float(max((steps[1:] - below).max(), (below - steps[:-1]).max()))
    # Stephens 1970: the limit's quantiles are met at finite n with this factor.
    return float(kolmogorov((math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance))


def _log_below(z: float, *, shape: float) -> float:
    """log of the mass below z, left of the mode: the density is log-concave, so that it falls at least
    exponentially from z on and a finite stretch holds all of it that counts."""
    from scipy.special import log_ndtr

    def log_density(u: Floats) -> Floats:
        return np.asarray(math.log(2 / math.sqrt(2 * math.pi)) - u**2 / 2 + log_ndtr(shape * u))

    near = log_density(np.array([z, z - 1e-5]))
    rate = float(near[0] - near[1]) / 1e-5
    u = np.linspace(0, 45 / rate, POINTS)
    weights = np.exp(log_density(z - u) - near[0])
    step = u[1]
    # Simpson's rule: POINTS is odd.
    total = step / 3 * (weights[0] + weights[-1] + 4 * weights[1:-1:2].sum() + 2 * weights[2:-1:2].sum())
    return float(near[0] + math.log(total))
