"""A law of loss fitted to runs: Huber on ln loss summed, many starts, every optimum, a bootstrap over runs.

The objective and its pitfalls are those of Hoffmann et al. 2022 (approach 3) as refitted by Besiroglu et al.
2024: a published law was a local optimum of a mean whose gradients were too small for its search.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.errors import SpecError
from repetita.fit.estimate import Estimate
from repetita.fit.fitted_law import FittedLaw, LawOptimum, explained
from repetita.fit.laws import DELTA
from repetita.fit.loss_laws import FORMS, NAMES, Points, absent, log_loss, parameters, points
from repetita.fit.optima import Optimum, Problem, optima, resampled, tails
from repetita.fit.parameters import Space, space
from repetita.fit.solve import grid

Floats = NDArray[np.float64]

N_REPLICATES = 400
"""Refits to resampled runs where no other number is asked for."""

_FEW_A_PARAMETER = 3
_FEW_REPLICATES = 100

_PUBLISHED = (-1, -0.5, 0, 0.5, 1), (0, 5, 10, 15, 20, 25), (0, 0.5, 1, 1.5, 2)
"""Starts of ln E, of ln A and ln B, and of either exponent (Hoffmann et al. 2022)."""

_EXPONENTS = (0.08, 0.2, 0.35, 0.55, 0.9, 1.5)
_RATES = (0.5, 3.0, 10.0, 40.0)


class LossFit(NamedTuple):
    """A law of loss with its parameters."""

    law: str
    params: Mapping[str, float]

    def predict(self, x: Any, /) -> Floats:
        """Loss at columns by role (params, tokens, unique_tokens), or at params alone for a power law."""
        columns = x if isinstance(x, Mapping) else {"params": x}
        lacking = [name for name in FORMS[self.law].inputs if name not in columns]
        if lacking:
            raise SpecError(f"the law needs a column '{lacking[0]}' to predict")
        read = [np.asarray(columns[name], dtype=np.float64) for name in FORMS[self.law].inputs]
        shape = np.broadcast_shapes(*(one.shape for one in read))
        flat = [np.broadcast_to(one, shape).ravel() for one in read]
        values = absent(self.law) | dict(self.params)
        with np.errstate(divide="ignore"):
            eta = np.array([values[n] if n in ("alpha", "beta") else np.log(values[n]) for n in NAMES])
        at = points(dict(zip(FORMS[self.law].inputs, flat, strict=True)))
        return np.asarray(np.exp(log_loss(eta[None, :], at)[0][0]).reshape(shape))


def fit_loss_law(
    law: str,
    *,
    columns: Mapping[str, Floats],
    fix: Mapping[str, float] | None = None,
    tie: Sequence[str] = (),
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> FittedLaw:
    """One of `loss_laws.FORMS` through runs: columns by role, and loss in nats, all above 0.

    Intervals are percentiles of refits to runs drawn with replacement, widened for the parameters used; a
    side that a bound of the search cuts, or that the data do not decide, is open. Fixed parameters have
    their value as both ends; with all of them fixed a published law is judged on these runs. Raises
    SpecError for too few runs.
    """
    form, losses = FORMS[law], columns["loss"]
    if not len(losses):
        raise SpecError("no row has a number in every column that the law reads; give a row for each run")
    at = points(columns)
    known = parameters(law, at, losses=losses)
    where = space(known, fix=fix, tie=tie, absent=absent(law), optional=form.optional)
    n, n_free = len(losses), len(where.owner)
    if n <= n_free:
        raise SpecError(
            f"{n_free} free parameters need {n_free + 1} runs, got {n}; give more, or fix or tie some"
        )
    _check_inputs(columns, where)
    problem = Problem(lambda eta: log_loss(eta, at), np.log(losses), where, DELTA)
    found = optima(problem, starts=_starts(law, at, losses, where))
    best = found[0].phi
    draws = resampled(problem, found=found, n_replicates=n_replicates, seed=seed)
    shown = [name for name in NAMES if name in form.free or name in (fix or {})]
    values = _estimates(problem, best, draws, shown)
    for name, value in (fix or {}).items():
        values[name] = Estimate(value, value, value, n, "fixed")
    by_optimum = [_params(where, one, shown) | dict(fix or {}) for one in found]
    fitted = LossFit(law, by_optimum[0])
    return FittedLaw(
        law=law,
        formula=FORMS["power-with-offset" if law == "power" and "E" in values else law].formula,
        values=values,
        n=n,
        fit=fitted,
        objective=found[0].objective,
        r2=explained(losses, predicted=fitted.predict(columns)),
        optima=tuple(LawOptimum(one.objective, own) for one, own in zip(found, by_optimum, strict=True)),
        warnings=(
            *_bounds(where, best),
            *disagreement(by_optimum),
            *scarcity(n, n_free=n_free, n_replicates=n_replicates),
            *(undecided(values) if n_replicates else ()),
        ),
    )


def disagreement(found: Sequence[Mapping[str, float]]) -> list[str]:
    """A warning where optima nearly as good as the best have other parameters."""
    if len(found) < 2:
        return []
    ranges = (
        f"{name} {min(one[name] for one in found):.4g} to {max(one[name] for one in found):.4g}"
        for name in found[0]
        if len({one[name] for one in found}) > 1
    )
    return [f"{len(found)} optima are within 5% of the best and disagree: {', '.join(ranges)}"]


def scarcity(n: int, *, n_free: int, n_replicates: int) -> list[str]:
    """Warnings of too few rows and of too few refits."""
    said = []
    if n < _FEW_A_PARAMETER * n_free:
        said.append(f"{n} rows are few for {n_free} free parameters: read the intervals as rough")
    if 0 < n_replicates < _FEW_REPLICATES:
        said.append(f"{n_replicates} bootstrap refits are few for a 95% interval; use at least 200")
    return said


def undecided(values: Mapping[str, Estimate]) -> list[str]:
    """Warnings of intervals that are open on a side."""
    said = []
    for name, one in values.items():
        sides = [side for side, bound in (("below", one.low), ("above", one.high)) if bound is None]
        if sides:
            said.append(f"the interval of {name} is open {' and '.join(sides)}")
    return said


def _check_inputs(columns: Mapping[str, Floats], where: Space) -> None:
    """SpecError where a column does not vary and its term is free: it cannot be told from E."""
    for role, names in (("params", ("A", "alpha")), ("tokens", ("B", "beta"))):
        free = [name for name in names if any(name in owner.split(" = ") for owner in where.owner)]
        if role in columns and free == list(names) and np.ptp(columns[role]) == 0:
            raise SpecError(
                f"the column of {role} has one value only, so that {' and '.join(names)} cannot be found; "
                f"give runs of several or fix one of them"
            )


def _starts(law: str, at: Points, losses: Floats, where: Space) -> Floats:
    """The published grid, and the best terms for each of a grid of exponents and rates."""
    rates: Sequence[float] = _RATES if law == "data-constrained" else (1.0,)
    floors, coefficients, exponents = map(list[float], _PUBLISHED)
    rough = [0.0]
    if law == "data-constrained":  # Two more parameters: a coarser grid of the others.
        floors, coefficients, exponents = floors[::2], coefficients[1:5], exponents[1:3]
        rough = [math.log(3.0), math.log(20.0)]
    published = grid(floors, coefficients, coefficients, exponents, exponents, rough, rough)
    fitted = [
        [*_terms(at, losses, alpha, beta, rate), math.log(rate_n)]
        for alpha, beta, rate, rate_n in itertools.product(_EXPONENTS, _EXPONENTS, rates, rates)
        if rate == rate_n or rate_n in (_RATES[0], _RATES[-1])
    ]
    return where.inside(np.concatenate([published, np.array(fitted)]))


def _terms(at: Points, losses: Floats, alpha: float, beta: float, rate: float) -> list[float]:
    """ln E, ln A, ln B by non-negative least squares for given exponents, with them and ln R_D."""
    from scipy.optimize import nnls

    data = at.d
    if at.unique is not None:
        data = at.unique + np.log1p(rate * -np.expm1(-np.expm1(at.d - at.unique) / rate))
    by_size, by_data = np.exp(-alpha * (at.n - at.n.mean())), np.exp(-beta * (data - data.mean()))
    design = np.stack([np.ones_like(losses), by_size, by_data], axis=1) / losses[:, None]
    e, a, b = np.log(np.maximum(nnls(design, np.ones_like(losses))[0], 1e-9 * losses.min()))
    return [e, a + alpha * at.n.mean(), b + beta * data.mean(), alpha, beta, math.log(rate)]


def _estimates(problem: Problem, best: Floats, draws: Floats, shown: Sequence[str]) -> dict[str, Estimate]:
    where, n = problem.space, len(problem.y)
    n_free = len(where.owner)
    values, spread = where.natural(best), where.natural(draws)
    low_tail, high_tail = tails(n, n_free=n_free)
    flat = ~(np.abs(problem.at(best[None, :])[1][0]).max(axis=0) > 1e-9)
    margin = 1e-9 * (where.box[1] - where.box[0])
    cut_low = (draws <= where.box[0] + margin).mean(axis=0) > low_tail if len(draws) else flat
    cut_high = (draws >= where.box[1] - margin).mean(axis=0) > low_tail if len(draws) else flat
    found = {}
    for name in shown:
        value = float(values[name])
        j = next((j for j, owner in enumerate(where.owner) if name in owner.split(" = ")), None)
        if j is None:  # Fixed.
            found[name] = Estimate(value, value, value, n, "fixed")
            continue
        low = high = None
        if len(draws) and not flat[j]:
            low, high = (float(np.quantile(spread[name], tail)) for tail in (low_tail, high_tail))
            # A coefficient moves with its exponent, the bound of which opens both.
            exponent = next(one.exponent for one in where.parameters if one.name == name)
            k = next((k for k, owner in enumerate(where.owner) if exponent in owner.split(" = ")), j)
            low = None if cut_low[j] or cut_low[k] else low
            high = None if cut_high[j] or cut_high[k] else high
        method = f"Huber on ln loss, bootstrap over runs ({len(draws)})"
        found[name] = Estimate(value, low, high, n, method, contains="runs about the law")
    return found


def _params(where: Space, one: Optimum, shown: Sequence[str]) -> dict[str, float]:
    values = where.natural(one.phi)
    return {name: float(values[name]) for name in shown}


def _bounds(where: Space, best: Floats) -> list[str]:
    """What is said of parameters that ended at a bound of the search."""
    said = []
    for j in np.flatnonzero(~where.idle(best)).tolist():
        owner = where.owner[j]
        name = owner.split(" = ", maxsplit=1)[0]
        kind = next(one.kind for one in where.parameters if one.name == name)
        width = 1e-6 * (where.box[1][j] - where.box[0][j])
        if best[j] <= where.box[0][j] + width:
            means = {
                "floor": "the data show no floor",
                "coefficient": "the data show no such term",
                "exponent": "the loss does not fall this way",
                "rate": "repeats are worth nothing in these data",
            }[kind]
            said.append(f"{owner} is at its lower bound: {means}")
        elif best[j] >= where.box[1][j] - width:
            means = "repeats lose no value in these data" if kind == "rate" else "the law may not fit"
            said.append(f"{owner} is at its upper bound: {means}")
    return said
