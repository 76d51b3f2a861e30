"""Forgetting as a law of a table: what is remembered against steps since the exposure, in four forms."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.errors import SpecError
from repetita.fit.estimate import Estimate, t_interval
from repetita.fit.fitted_law import FittedLaw, LawOptimum, explained
from repetita.fit.forgetting import LEAST_DECADES, LEAST_POINTS
from repetita.fit.loss_fit import N_REPLICATES, disagreement, scarcity, undecided
from repetita.fit.optima import SAME, Optimum, Problem, optima, resampled, tails
from repetita.fit.parameters import Parameter, Space, space

Floats = NDArray[np.float64]

INPUTS = ("step",)
FORMULAS = {
    "exponential-decay": "value = E + A * exp(-rate * step)",
    "power-decay": "value = E + A / step^alpha",
    "power-to-zero-decay": "value = A / step^alpha",
    "logarithmic-decay": "value = A - rate * ln(step)",
}

_CLEAR = 2.0
"""Forms whose AICc differs by less are not told apart."""

_UNBOUNDED = 1e3
"""In ranges of the values: beyond this a linear coefficient is not looked for."""


class DecayFit(NamedTuple):
    """One form of decay with its parameters."""

    form: str
    params: Mapping[str, float]

    def predict(self, x: Any, /) -> Floats:
        """What is remembered at steps (or a mapping with a column of them)."""
        steps = np.asarray(x["step"] if isinstance(x, Mapping) else x, dtype=np.float64)
        own = {"E": 0.0} | dict(self.params)
        if self.form == "logarithmic-decay":
            return np.asarray(own["A"] - own["rate"] * np.log(steps))
        falling = np.exp(-own["rate"] * steps) if "rate" in own else steps ** -own["alpha"]
        return np.asarray(own["E"] + own["A"] * falling)


class _Form(NamedTuple):
    """One form fitted to all rows."""

    name: str
    problem: Problem
    found: list[Optimum]
    aicc: float


def fit_decay_law(
    law: str,
    *,
    columns: Mapping[str, Floats],
    groups: Sequence[Any] | None = None,
    fix: Mapping[str, float] | None = None,
    tie: Sequence[str] = (),
    n_replicates: int | None = None,
    seed: int = 0,
) -> FittedLaw:
    """`forgetting` (the form of least AICc), or one form of `FORMULAS`, through columns step and value.

    Least squares. Intervals are t intervals over the `groups` (seeds) fitted one by one where there are
    several, unless refits are asked for, else percentiles of refits to the curve with its residuals drawn
    with replacement. Under 1.5 decades of steps a floor is open (experiment design, rule 31). Raises
    SpecError for fewer than 5 rows, and for a fixed parameter that no form has.
    """
    steps, values = columns["step"], columns["value"]
    if len(steps) < LEAST_POINTS or len(np.unique(steps)) < LEAST_POINTS - 1:
        raise SpecError(f"a decay needs at least {LEAST_POINTS} rows at different steps, got {len(steps)}")
    forms = _forms(law, steps, values, fix or {}, tie)
    best = forms[0]
    where, phi = best.problem.space, best.found[0].phi
    params = [_params(where, one, fix or {}) for one in best.found]
    sets = sorted(set(groups), key=str) if groups is not None else []
    several = len(sets) > 1
    if several and n_replicates is None:
        assert groups is not None
        by_set = [np.array([group == one for group in groups]) for one in sets]
        estimates = _over_sets(best, by_set, steps, values, params[0], fix or {}, tie)
        n_draws = N_REPLICATES
    else:
        n_draws = N_REPLICATES if n_replicates is None else n_replicates
        draws = resampled(best.problem, found=best.found, n_replicates=n_draws, seed=seed, residuals=True)
        estimates = _over_rows(best, phi, draws, params[0], fix or {})
    warnings = [] if law != "forgetting" else _undecided_form(forms)
    decades = math.log10(steps.max() / steps.min())
    if decades < LEAST_DECADES and "E" in estimates and "E" not in (fix or {}):
        estimates["E"] = estimates["E"]._replace(low=None, high=None)
        warnings.append(f"steps over {decades:.1f} decades show no floor ({LEAST_DECADES:g} are needed)")
    if several and n_replicates:
        warnings.append("rows of one seed are not independent: intervals over rows are too narrow")
    fit = DecayFit(best.name, params[0])
    return FittedLaw(
        law=law,
        formula=FORMULAS[best.name],
        values=estimates,
        n=len(values),
        fit=fit,
        objective=best.found[0].objective,
        r2=explained(values, predicted=fit.predict(steps)),
        optima=tuple(LawOptimum(one.objective, own) for one, own in zip(best.found, params, strict=True)),
        warnings=(
            *warnings,
            *disagreement(params),
            *scarcity(len(values), n_free=len(phi), n_replicates=n_draws),
            *(undecided(estimates) if n_draws else ()),
        ),
    )


def _params(where: Space, one: Optimum, fix: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in where.natural(one.phi).items()} | dict(fix)


def _forms(
    law: str, steps: Floats, values: Floats, fix: Mapping[str, float], tie: Sequence[str]
) -> list[_Form]:
    """The forms in question, least AICc first; those that lack a fixed parameter are none."""
    found, mistakes = [], []
    for name in FORMULAS if law == "forgetting" else (law,):
        if name == "power-to-zero-decay" and "E" in fix:
            continue  # The power decay with that floor.
        try:
            problem = _problem(name, steps, values, fix, tie)
        except SpecError as error:
            mistakes.append(error)
            continue
        ends = optima(problem, starts=problem.space.inside(_starts(name, problem, steps, values)))
        n, dims = len(values), len(problem.space.owner) + 1
        small = 2 * dims * (dims + 1) / (n - dims - 1) if n > dims + 1 else math.inf
        aicc = n * math.log(max(2 * ends[0].objective / n, 1e-300)) + 2 * dims + small
        found.append(_Form(name, problem, ends, aicc))
    if not found:
        raise mistakes[0]
    return sorted(found, key=lambda one: one.aicc)


def _problem(
    name: str, steps: Floats, values: Floats, fix: Mapping[str, float], tie: Sequence[str]
) -> Problem:
    span = float(np.ptp(values)) or 1.0
    reach = _UNBOUNDED * (span + float(np.abs(values).max()))
    kinds = {
        "exponential-decay": Parameter(
            "rate", "rate", math.log(0.01 / steps.max()), math.log(10 / steps.min()), log=True
        ),
        "power-decay": Parameter("alpha", "exponent", 1e-3, 8.0),
        "power-to-zero-decay": Parameter("alpha", "exponent", 1e-3, 8.0),
        "logarithmic-decay": Parameter("rate", "slope", -reach, reach),
    }
    known = [Parameter("A", "height", -reach, reach), kinds[name]]
    if name in ("exponential-decay", "power-decay"):
        known.insert(0, Parameter("E", "floor", -reach, reach))
    where = space(known, fix=fix, tie=tie)
    logs = np.log(steps)

    def model(eta: Floats) -> tuple[Floats, Floats]:
        *floor, height, shape = (eta[:, i, None] for i in range(eta.shape[1]))
        if name == "logarithmic-decay":
            basis, slope = np.ones((1, len(steps))), -logs[None, :] + 0 * shape
            return height - shape * logs, np.stack([basis + 0 * height, slope], axis=-1)
        if name == "exponential-decay":
            rate = np.exp(shape)
            basis = np.exp(-rate * steps)
            slope = -height * rate * steps * basis
        else:
            basis = np.exp(-shape * logs)
            slope = -height * logs * basis
        parts = [basis, slope]
        if floor:
            parts.insert(0, np.ones_like(basis))
        return (floor[0] if floor else 0.0) + height * basis, np.stack(parts, axis=-1)

    # At a delta this large every residual of an optimum is squared.
    return Problem(model, values, where, delta=2 * span, same=SAME * min(span, 1.0))


def _starts(name: str, problem: Problem, steps: Floats, values: Floats) -> Floats:
    """Heights and floors by least squares for a grid of rates."""
    if name == "logarithmic-decay":
        slope, level = np.polyfit(np.log(steps), values, 1)
        return np.array([[level, -slope]])
    shape = problem.space.parameters[-1]
    rows = []
    for at in np.linspace(shape.low, shape.high, 60):
        basis = np.exp(-math.exp(at) * steps) if shape.log else steps**-at
        design = np.stack([np.ones_like(basis), basis], axis=1)[:, 2 - len(problem.space.parameters) + 1 :]
        rows.append([*np.linalg.lstsq(design, values, rcond=None)[0], at])
    return np.array(rows)


def _over_sets(
    best: _Form,
    by_set: Sequence[NDArray[np.bool_]],
    steps: Floats,
    values: Floats,
    params: Mapping[str, float],
    fix: Mapping[str, float],
    tie: Sequence[str],
) -> dict[str, Estimate]:
    """t intervals over seeds, each fitted by itself; the value is that of all rows together."""
    fitted = []
    for rows in by_set:
        problem = _problem(best.name, steps[rows], values[rows], fix, tie)
        starts = problem.space.inside(_starts(best.name, problem, steps[rows], values[rows]))
        fitted.append(problem.space.natural(optima(problem, starts=starts)[0].phi))
    found = {}
    for name, value in params.items():
        own = t_interval([float(one[name]) for one in fitted])
        half = own.half_width or 0.0
        method = f"least squares, {own.method}"
        found[name] = own._replace(value=value, low=value - half, high=value + half, method=method)
        if name in fix:
            found[name] = Estimate(value, value, value, own.n, "fixed")
    return found


def _over_rows(
    best: _Form, phi: Floats, draws: Floats, params: Mapping[str, float], fix: Mapping[str, float]
) -> dict[str, Estimate]:
    where, n = best.problem.space, len(best.problem.y)
    spread = where.natural(draws)
    ends = tails(n, n_free=len(phi))
    found = {}
    for name, value in params.items():
        if name in fix:
            found[name] = Estimate(value, value, value, n, "fixed")
            continue
        low, high = (float(np.quantile(spread[name], tail)) for tail in ends) if len(draws) else (None, None)
        method = f"least squares, bootstrap of residuals ({len(draws)})"
        found[name] = Estimate(value, low, high, n, method, contains="scatter about the curve")
    return found


def _undecided_form(forms: Sequence[_Form]) -> list[str]:
    close = [one.name for one in forms[1:] if one.aicc - forms[0].aicc < _CLEAR]
    if not close:
        return []
    return [f"the form is not decided: {' and '.join(close)} fit as well as {forms[0].name} (AICc)"]
