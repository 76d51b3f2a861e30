"""Laws of loss over parameters, tokens and repeats, as sums in logarithms with their slopes.

One form holds all of them: ln L = ln(E + A / N'^alpha + B / D'^beta), with N' = N and D' = D, or with the
effective sizes of repeated data (Muennighoff et al. 2023).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.fit.parameters import Parameter

Floats = NDArray[np.float64]

NAMES = ("E", "A", "B", "alpha", "beta", "R_D", "R_N")
_E, _A, _B, _ALPHA, _BETA, _RD, _RN = range(7)

_NEGLIGIBLE = 14.0
"""A term that is e^-14 of the least loss is held for absent: the bound of E, A and B."""

_GONE = -1e3
_STEEPEST = 4.0
_LEAST_EXPONENT = 1e-3
"""The data-constrained law divides by its exponents."""


class LossForm(NamedTuple):
    """What one law of loss reads and has."""

    inputs: tuple[str, ...]
    free: tuple[str, ...]
    optional: tuple[str, ...]
    """Parameters that are absent unless they are fixed to something."""
    formula: str


FORMS = {
    "power": LossForm(("params",), ("A", "alpha"), ("E",), "loss = A / params^alpha"),
    "power-with-offset": LossForm(("params",), ("E", "A", "alpha"), (), "loss = E + A / params^alpha"),
    "chinchilla": LossForm(
        ("params", "tokens"),
        ("E", "A", "B", "alpha", "beta"),
        (),
        "loss = E + A / params^alpha + B / tokens^beta",
    ),
    "data-constrained": LossForm(
        ("params", "tokens", "unique_tokens"),
        NAMES,
        (),
        "loss = E + A / N'^alpha + B / D'^beta, D' = U + U R_D (1 - exp(-(tokens / U - 1) / R_D)) with "
        "U = unique_tokens, and N' so with R_N where params exceed the optimal number for U",
    ),
}


class Points(NamedTuple):
    """The runs as logarithms."""

    n: Floats
    d: Floats
    """ln tokens; 0 for laws that do not read them."""
    unique: Floats | None
    """ln unique tokens, at most d; None in laws of text that is read once."""


def points(columns: Mapping[str, Floats]) -> Points:
    """Logarithms of the columns by role."""
    n = np.log(columns["params"])
    d = np.log(columns["tokens"]) if "tokens" in columns else np.zeros_like(n)
    unique = np.minimum(np.log(columns["unique_tokens"]), d) if "unique_tokens" in columns else None
    return Points(n, d, unique)


def parameters(law: str, at: Points, *, losses: Floats) -> tuple[Parameter, ...]:
    """All seven parameters with bounds from the data: each term from absent to the whole loss."""
    least, most = float(np.log(losses.min())), float(np.log(losses.max()))
    terms = least - _NEGLIGIBLE, most + 3.0
    low = _LEAST_EXPONENT if law == "data-constrained" else 0.0
    repeats = float(np.expm1(at.d - at.unique).max()) if at.unique is not None else 1.0
    rates = math.log(1e-2), math.log(1e3 * (1 + repeats))
    return (
        Parameter("E", "floor", least - _NEGLIGIBLE, most, log=True),
        Parameter("A", "coefficient", *terms, log=True, exponent="alpha", centre=float(at.n.mean())),
        Parameter("B", "coefficient", *terms, log=True, exponent="beta", centre=float(at.d.mean())),
        Parameter("alpha", "exponent", low, _STEEPEST, term="A"),
        Parameter("beta", "exponent", low, _STEEPEST, term="B"),
        Parameter("R_D", "rate", *rates, log=True, term="B"),
        Parameter("R_N", "rate", *rates, log=True, term="A"),
    )


def absent(law: str) -> dict[str, float]:
    """What a law without a parameter holds it at."""
    nothing = {"E": 0.0, "B": 0.0, "beta": 1.0, "R_D": 1.0, "R_N": 1.0}
    return {name: value for name, value in nothing.items() if name not in FORMS[law].free}


def log_loss(eta: Floats, at: Points) -> tuple[Floats, Floats]:
    """ln L (R, n) and its slopes (R, n, 7) at parameters (R, 7) on the search's scale."""
    n, d = at.n[None, :], at.d[None, :]
    slopes_n = slopes_d = None
    if at.unique is not None:
        d, slopes_d = _effective_data(eta, at)
        n, slopes_n = _effective_params(eta, at)
    alpha, beta = eta[:, _ALPHA, None], eta[:, _BETA, None]
    by_size, by_data = eta[:, _A, None] - alpha * n, eta[:, _B, None] - beta * d
    floor = np.broadcast_to(eta[:, _E, None], by_size.shape)
    top = np.maximum(np.maximum(by_size, by_data), floor)
    shares = [np.exp(term - top) for term in (floor, by_size, by_data)]
    total = shares[0] + shares[1] + shares[2]
    of_e, of_a, of_b = (share / total for share in shares)
    slopes = np.zeros((*total.shape, 7))
    slopes[..., _E], slopes[..., _A], slopes[..., _B] = of_e, of_a, of_b
    slopes[..., _ALPHA], slopes[..., _BETA] = -n * of_a, -d * of_b
    if slopes_n is not None and slopes_d is not None:
        slopes -= (of_a * alpha)[..., None] * slopes_n
        slopes[..., _RD] -= of_b * beta * slopes_d
    return top + np.log(total), slopes


def _effective_data(eta: Floats, at: Points) -> tuple[Floats, Floats]:
    """ln D' (R, n) and its slope by ln R_D."""
    assert at.unique is not None
    worth, slope, _ = _worth(np.expm1(at.d - at.unique)[None, :], np.exp(eta[:, _RD, None]))
    return at.unique + np.log1p(worth), slope / (1 + worth)


def _effective_params(eta: Floats, at: Points) -> tuple[Floats, Floats]:
    """ln N' (R, n) and its slopes (R, n, 7): the optimal size for the unique tokens is the law's own."""
    assert at.unique is not None
    alpha, beta = eta[:, _ALPHA, None], eta[:, _BETA, None]
    # A term that is fixed at 0 has the logarithm -inf: then every size, or none, is below the optimal one.
    a, b = (np.maximum(eta[:, i, None], _GONE) for i in (_A, _B))
    total, ratio = alpha + beta, beta / alpha
    balance = (np.log(alpha / beta) + a - b) / total
    best = ratio * (at.unique + balance) + balance
    beyond = np.maximum(at.n - best, 0.0)
    extra = np.expm1(np.minimum(beyond, 700.0))
    worth, slope, passing = _worth(extra, np.exp(eta[:, _RN, None]))
    # By the logarithm of the optimal size; 0 where the model is no larger than that.
    by_best = np.where(beyond > 0, 1 - passing * (1 + extra) / (1 + worth), 0.0)
    by_balance = by_best * (ratio + 1)
    slopes = np.zeros((*best.shape, 7))
    slopes[..., _A], slopes[..., _B] = by_balance / total, -by_balance / total
    by_ratio = by_best * (at.unique + balance)
    slopes[..., _ALPHA] = by_balance * (1 / alpha - balance) / total - by_ratio * ratio / alpha
    slopes[..., _BETA] = -by_balance * (1 / beta + balance) / total + by_ratio / alpha
    slopes[..., _RN] = slope / (1 + worth)
    return np.minimum(at.n, best) + np.log1p(worth), slopes


def _worth(repeats: Floats, rate: Floats) -> tuple[Floats, Floats, Floats]:
    """R (1 - exp(-r / R)), its slope by ln R, and its slope by r."""
    z = repeats / rate
    gained, passing = -np.expm1(-z), np.exp(-z)
    return rate * gained, rate * (gained - z * passing), passing
