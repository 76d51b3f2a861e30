"""A skew-normal sample gives back its tail, another one is found out."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from repetita.errors import SpecError
from repetita.fit.tail import SkewNormal, fit_skew_normal


def sample(shape: float, *, n: int = 2000, seed: int = 0) -> Any:
    return stats.skewnorm.rvs(shape, loc=30, scale=4, size=n, random_state=seed)


@pytest.mark.parametrize("shape", [-6.0, -2.0, 0.0, 0.7, 3.0, 8.0])
def test_tails_are_those_of_the_density(shape: float) -> None:
    """log_cdf is the integral of the density, also where the probability is lost to rounding."""
    tail = SkewNormal(shape, 30, 4, 1)
    x = np.linspace(30, 50, 41)
    assert tail.cdf(x) == pytest.approx(stats.skewnorm.cdf(x, shape, 30, 4), abs=1e-12)
    for one in (29.0, 26.0, 18.0, 2.0, -60.0):
        peak = stats.skewnorm.logpdf(one, shape, 30, 4)
        u = np.linspace(0, 25, 200_001)
        mass = np.trapezoid(np.exp(stats.skewnorm.logpdf(one - u, shape, 30, 4) - peak), u)
        assert tail.log_cdf(one) == pytest.approx(peak + math.log(mass), rel=2e-6)


@pytest.mark.parametrize("shape", [0.0, 1.5, 4.0])
def test_a_sample_gives_back_its_tail(shape: float) -> None:
    fitted = fit_skew_normal(sample(shape))
    true = SkewNormal(shape, 30, 4, 1)
    assert fitted.p_value > 0.02
    for share in (0.5, 0.05, 0.001):
        x = stats.skewnorm.ppf(share, shape, 30, 4)
        assert fitted.log_cdf(x) / math.log(2) == pytest.approx(
            math.log2(share), abs=0.6 if share < 0.01 else 0.2
        )
        assert true.log_cdf(x) == pytest.approx(math.log(share), rel=1e-6)


def test_the_fit_is_the_likeliest() -> None:
    """As likely as what scipy finds, or more."""
    x = sample(3.0)
    fitted = fit_skew_normal(x)
    likelihood = stats.skewnorm.logpdf(x, fitted.shape, fitted.location, fitted.scale).sum()
    assert likelihood > stats.skewnorm.logpdf(x, *stats.skewnorm.fit(x)).sum() - 0.05


def test_p_values_are_honest() -> None:
    """Of skew-normal samples about a tenth is under 0.1; two separate humps are found out."""
    found = np.array([fit_skew_normal(sample(2.0, n=300, seed=seed)).p_value for seed in range(60)])
    assert 1 <= (found < 0.1).sum() <= 16
    humps = np.concatenate([sample(0.0), sample(0.0) + 30])
    assert fit_skew_normal(np.random.default_rng(0).permutation(humps)).p_value < 1e-6


@pytest.mark.parametrize("values", [np.arange(50), np.ones(200), np.append(np.arange(200.0), np.inf)])
def test_what_has_no_tail_is_refused(values: Any) -> None:
    with pytest.raises(SpecError, match="finite and not all the same"):
        fit_skew_normal(values)
