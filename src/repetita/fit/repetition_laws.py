"""Published laws of loss, repetition and compute as closed functions, to be drawn beside measurements."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita import seeds
from repetita.errors import SpecError

Floats = NDArray[np.float64]

_FLOPS = 6.0
"""Floating-point operations per parameter and token: C = 6 N D."""


class LossLaw(NamedTuple):
    """L = E + A / N^alpha + B / D^beta in nats a token, with the two rates at which repeats lose their value.

    `R_D` repeats of the data (passes - 1) and `R_N` repeats of the parameters after which 1/e of the value
    of the next one is left; None in laws of text that is read once.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    R_D: float | None = None
    R_N: float | None = None


CHINCHILLA = LossLaw(
    E=math.exp(0.5267228), A=math.exp(6.0073404), B=math.exp(6.0179186), alpha=0.33917084, beta=0.2849083
)
"""Hoffmann et al. 2022, approach 3, unrounded (published rounded: 1.69, 406.4, 410.7, 0.34, 0.28)."""

CHINCHILLA_REFITTED = LossLaw(E=1.81724, A=477.84, B=2143.86, alpha=0.34731, beta=0.36718)
"""Besiroglu et al. 2024: the optimum over a grid of starts on 240 of the runs."""

DATA_CONSTRAINED = LossLaw(
    E=math.exp(0.6254804),
    A=math.exp(6.255414),
    B=math.exp(7.3049974),
    alpha=0.3526596,
    beta=0.3526596,
    R_D=15.387756,
    R_N=5.309743,
)
"""Muennighoff et al. 2023 on C4, 7M to 9B parameters, whole corpora repeated up to 1,500 times."""


class Optimum(NamedTuple):
    """The split of a compute budget that a law holds for best."""

    params: Floats
    tokens: Floats


class ToyHump(NamedTuple):
    """Mean test error of the toy regression over the number of repeats."""

    repeats: NDArray[np.int64]
    error: Floats
    """In units of the variance that the model cannot express; 1 is the least possible."""
    standard_error: Floats
    """Of the mean over draws of the rows."""
    n_duplicated: NDArray[np.int64]
    """Distinct rows that are repeated: the same share of the rows is spread over fewer at more repeats."""


def chinchilla_loss(params: ArrayLike, *, tokens: ArrayLike, law: LossLaw = CHINCHILLA) -> Floats:
    """Loss in nats of `params` parameters trained on `tokens` tokens that are read once."""
    n, d = _positive(params, "params"), _positive(tokens, "tokens")
    return np.asarray(law.E + law.A * n**-law.alpha + law.B * d**-law.beta)


def compute_optimum(flops: ArrayLike, *, law: LossLaw = CHINCHILLA) -> Optimum:
    """Parameters and tokens of least loss under flops = 6 N D."""
    c, g, total = _positive(flops, "flops") / _FLOPS, _balance(law), law.alpha + law.beta
    return Optimum(np.asarray(g * c ** (law.beta / total)), np.asarray(c ** (law.alpha / total) / g))


def optimal_params(tokens: ArrayLike, *, law: LossLaw = DATA_CONSTRAINED) -> Floats:
    """Parameters for which `tokens` tokens are the compute-optimal number."""
    d, g = _positive(tokens, "tokens"), _balance(law)
    return np.asarray((d * g) ** (law.beta / law.alpha) * g)


def effective_data(tokens: ArrayLike, *, unique_tokens: ArrayLike, law: LossLaw = DATA_CONSTRAINED) -> Floats:
    """Tokens read once that are worth `tokens` tokens read from `unique_tokens` (Muennighoff et al. 2023).

    D' = U + U R_D (1 - exp(-(D/U - 1) / R_D)), with U at most D: each pass is worth less than the one before.
    """
    d = _positive(tokens, "tokens")
    unique = np.minimum(_positive(unique_tokens, "unique_tokens"), d)
    return _saturating(unique, d / unique - 1, _rate(law.R_D, "R_D"))


def effective_params(
    params: ArrayLike, *, unique_tokens: ArrayLike, law: LossLaw = DATA_CONSTRAINED
) -> Floats:
    """Parameters that `params` are worth on few unique tokens: those beyond `optimal_params` count less."""
    n = _positive(params, "params")
    base = np.minimum(optimal_params(unique_tokens, law=law), n)
    return _saturating(base, n / base - 1, _rate(law.R_N, "R_N"))


def data_constrained_loss(
    params: ArrayLike, *, tokens: ArrayLike, unique_tokens: ArrayLike, law: LossLaw = DATA_CONSTRAINED
) -> Floats:
    """Loss in nats when a whole corpus of `unique_tokens` is repeated (Muennighoff et al. 2023, eq. 6).

    It falls with every pass, so that it cannot show the hump of a repeated *part* of the corpus.
    """
    d = _positive(tokens, "tokens")
    unique = np.minimum(_positive(unique_tokens, "unique_tokens"), d)
    n = effective_params(params, unique_tokens=unique, law=law)
    return chinchilla_loss(n, tokens=effective_data(d, unique_tokens=unique, law=law), law=law)


def additive_penalty_loss(
    params: ArrayLike,
    *,
    tokens: ArrayLike,
    unique_tokens: ArrayLike,
    law: LossLaw,
    penalty: float,
    delta: float,
    kappa: float,
) -> Floats:
    """L = E + A/N^alpha + B/D^beta + penalty R^delta (N/U)^kappa, R = D/U - 1 (Lovelace et al. 2026).

    Their fitted values of the last three were not to be found, so that they are asked for.
    """
    n, d = _positive(params, "params"), _positive(tokens, "tokens")
    unique = np.minimum(_positive(unique_tokens, "unique_tokens"), d)
    repeats = d / unique - 1
    return np.asarray(
        chinchilla_loss(n, tokens=d, law=law) + penalty * repeats**delta * (n / unique) ** kappa
    )


def compute_equivalent_gain(
    loss: ArrayLike, *, control_loss: ArrayLike, floor: float, exponent: float
) -> Floats:
    """Compute that a control of loss floor + K C^-exponent needs for `loss`, as a share of what was spent.

    ((control - floor) / (loss - floor))^(1/exponent) (Chudnovsky et al. 2026); 1 minus it is the
    compute-equivalent loss. Raises SpecError where a loss is not above the floor.
    """
    own, other = np.asarray(loss, dtype=np.float64), np.asarray(control_loss, dtype=np.float64)
    if exponent <= 0 or not (np.all(own > floor) and np.all(other > floor)):
        raise SpecError("compute_equivalent_gain: losses must be above the floor and the exponent above 0")
    return np.asarray(((other - floor) / (own - floor)) ** (1 / exponent))


def peak_passes(params: ArrayLike, *, coefficient: float = 2.31e10, exponent: float = 0.96) -> Floats:
    """Passes at which a tenth of the tokens, repeated, does most harm (Chudnovsky et al. 2026).

    Fitted by them to 34M to 344M parameters, embeddings counted, f = 0.1; elsewhere it is an extrapolation.
    """
    return np.asarray(coefficient * _positive(params, "params") ** -exponent)


def toy_error(unique: ArrayLike, *, duplicated: ArrayLike, repeats: int) -> float:
    """Expected test error of least squares on rows of which some are there `repeats` times.

    Rows (n, P) and (d, P) of features with unit covariance; the target also depends on features that the
    model lacks, which act as noise of variance 1: 1 + tr(M^-1 (C_u + r^2 C_d) M^-1) with M = C_u + r C_d, of
    which the first part is the noise of the test itself. Copies enter the fit by r but its error by r^2
    (Chudnovsky et al. 2026). Raises SpecError when the distinct rows are fewer than the features.
    """
    rows_u = np.atleast_2d(np.asarray(unique, dtype=np.float64))
    rows_d = np.atleast_2d(np.asarray(duplicated, dtype=np.float64))
    if repeats < 1 or len(rows_u) + len(rows_d) < rows_u.shape[1]:
        raise SpecError("toy_error: needs at least one repeat, and as many distinct rows as features")
    c_u, c_d = rows_u.T @ rows_u, rows_d.T @ rows_d
    inverse = np.linalg.inv(c_u + repeats * c_d)
    return 1.0 + float(np.trace(inverse @ (c_u + repeats**2 * c_d) @ inverse))


def toy_hump(
    repeats: ArrayLike,
    *,
    n_rows: int = 600,
    n_features: int = 100,
    fraction: float = 0.5,
    n_draws: int = 50,
    seed: int = 0,
) -> ToyHump:
    """The toy's test error when a fraction of `n_rows` training rows is fewer rows, repeated more often.

    At r repeats fraction * n_rows / r rows (to the nearest, at least one) are there r times, and the rest of
    the rows once, so that the fit always sees as many rows, as in the repeated-data paper. One repeat, or a
    fraction of 0, is training without duplication. Gaussian rows; averages `toy_error` over draws of them,
    the same at every r.
    """
    counts = np.atleast_1d(np.asarray(repeats, dtype=np.int64))
    n_slots = round(fraction * n_rows)
    if not 0 <= fraction < 1 or counts.min() < 1 or n_rows - n_slots < n_features or n_draws < 2:
        raise SpecError(
            "toy_hump: needs repeats from 1 on, two draws, and at least as many unique rows as features"
        )
    distinct = np.maximum(np.rint(n_slots / counts).astype(np.int64), min(n_slots, 1))
    rng = seeds.generator(seed, "bootstrap")
    errors = np.empty((n_draws, len(counts)))
    for draw in range(n_draws):
        rows = rng.standard_normal((n_rows, n_features))
        for i, (r, d) in enumerate(zip(counts.tolist(), distinct.tolist(), strict=True)):
            once, often = rows[n_slots:], rows[:d]
            errors[draw, i] = toy_error(once, duplicated=often, repeats=r)
    spread = errors.std(axis=0, ddof=1) / math.sqrt(n_draws)
    return ToyHump(counts, np.asarray(errors.mean(axis=0)), np.asarray(spread), distinct)


def _balance(law: LossLaw) -> float:
    """G of the compute optimum: N = G (C/6)^(beta / (alpha + beta))."""
    return float((law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta)))


def _saturating(base: Floats, repeats: Floats, rate: float) -> Floats:
    return np.asarray(base + base * rate * -np.expm1(-repeats / rate))


def _rate(value: float | None, name: str) -> float:
    if value is None or value <= 0:
        raise SpecError(f"the law has no {name} above 0; give one with law._replace({name}=...)")
    return value


def _positive(values: ArrayLike, name: str) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if not np.all(x > 0):
        raise SpecError(f"{name} must be above 0")
    return x
