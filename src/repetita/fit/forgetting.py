"""Forgetting curves: the paper's baseline, and floors fitted in four forms of decay with their intervals."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from repetita.errors import SpecError
from repetita.fit.curves import Floats, curve
from repetita.fit.estimate import Estimate, t_interval

Form = Literal["exponential", "power", "power-to-zero", "logarithmic"]
FORMS: tuple[Form, ...] = ("exponential", "power", "power-to-zero", "logarithmic")
FLOORED: tuple[Form, ...] = ("exponential", "power")
"""The forms that end somewhere above zero; of the others one ends at zero and one nowhere."""

LEAST_DECADES = 1.5
"""A shorter horizon cannot separate the forms, and the floor stays open (experiment design, rule 31)."""

LEAST_POINTS = 5
"""Evaluations that a curve needs."""

_SHAPES = 241
"""Values of the rate (or exponent) tried; the best is refined."""

_ZOOMS = 6
"""Grids in turn, each twenty times finer than the one before: six give nine digits of the rate."""


class Decay(NamedTuple):
    """One form fitted to a curve y(x), x > 0 counted from the injection.

    exponential: floor + height exp(-rate x); power: floor + height x^-rate; power-to-zero: height x^-rate;
    logarithmic: height - rate ln x, which has no floor.
    """

    form: Form
    floor: Estimate | None
    """Where the curve ends; None for the forms that have no floor to fit (see FLOORED)."""
    constant: float
    """The floor of the curve drawn by `predict` (the fit to the mean over seeds); 0 where there is none."""
    height: float
    rate: float
    aicc: float
    """AICc over the forms; it takes residuals for independent, so read `left_out` beside it (rule 31)."""
    left_out: float | None
    """Root mean square error on a seed left out of the fit; None with one seed."""
    errors: tuple[float, ...]
    """The same by seed, in the order of the curves; () with one seed."""
    residual_sd: float

    def predict(self, x: ArrayLike, /) -> Floats:
        """The fitted curve at x."""
        xs = np.asarray(x, dtype=np.float64)
        if self.form == "logarithmic":
            return np.asarray(self.height - self.rate * np.log(xs))
        return self.constant + self.height * _basis(self.form, xs, self.rate)


class Forgetting(NamedTuple):
    """A forgetting curve summed up."""

    baseline: Estimate
    """The paper's: the lowest value after the injection (over seeds: its mean). Biased downwards by noise and
    by the number of evaluations, so compared at equal horizon and equal number only (rule 30)."""
    last: Estimate
    """The value at the end of the horizon."""
    horizon_decades: float
    decays: tuple[Decay, ...]
    """Lowest AICc first."""
    note: str


def forgetting(x: ArrayLike, *, curves: Mapping[Any, ArrayLike]) -> Forgetting:
    """Baseline and floors of curves by seed, all at the same x: steps (or tokens) since the injection, > 0.

    Give M on the special batch itself, or its difference against the placebo fork or the twin (`retained`).
    Floors take a t interval over seeds; with one seed a profile interval from the scatter within the run,
    which says nothing of other seeds. Under 1.5 decades every floor is open.
    """
    table = {seed: curve(x, y=values) for seed, values in curves.items()}
    if not table:
        raise SpecError("forgetting: no curve; give at least one seed")
    xs = next(iter(table.values()))[0]
    if xs[0] <= 0 or len(xs) < LEAST_POINTS:
        raise SpecError(
            f"forgetting: needs at least {LEAST_POINTS} evaluations after the injection, at x > 0"
        )
    ys = np.array([values for _, values in table.values()])
    decades = math.log10(xs[-1] / xs[0])
    lowest = t_interval(ys.min(axis=1))
    lowest = lowest._replace(method=f"minimum of {len(xs)} evaluations after the injection, {lowest.method}")
    decays = sorted((_fitted(form, xs, ys, decades) for form in FORMS), key=lambda decay: decay.aicc)
    note = ""
    if decades < LEAST_DECADES:
        note = (
            f"the horizon of {decades:.1f} decades cannot separate the forms ({LEAST_DECADES:g} are needed): "
            f"the floor is open"
        )
    return Forgetting(lowest, t_interval(ys[:, -1]), decades, tuple(decays), note)


def retained(
    special: ArrayLike,
    *,
    placebo: ArrayLike | None = None,
    twin: ArrayLike | None = None,
    twin_placebo: ArrayLike | None = None,
) -> dict[str, Floats]:
    """The three readings of one memory, by evaluation (or by evaluation and sequence; shapes equal).

    `raw`: the special batch in the injected run. `minus_placebo`: minus the same tokens in the run forked at
    the injection that trained on a placebo instead (primary, rule 7). `minus_twin`: minus the never-seen twin
    in the same run, and minus the same difference in the placebo run where `twin_placebo` is given
    (difference in differences).
    """
    raw = np.asarray(special, dtype=np.float64)
    found = {"raw": raw}
    if placebo is not None:
        found["minus_placebo"] = raw - np.asarray(placebo, dtype=np.float64)
    if twin is not None:
        difference = raw - np.asarray(twin, dtype=np.float64)
        if twin_placebo is not None:
            if placebo is None:
                raise SpecError("retained: twin_placebo has no effect without placebo; give both")
            other = np.asarray(placebo, dtype=np.float64) - np.asarray(twin_placebo, dtype=np.float64)
            difference = difference - other
        found["minus_twin"] = difference
    return found


def fit_decay(x: ArrayLike, *, y: ArrayLike, form: Form) -> Decay:
    """One form fitted to one curve by least squares, its floor with a profile (F) interval.

    The floor is open under 1.5 decades, and on a side on which the data do not bound it.
    """
    xs, ys = curve(x, y=y)
    if xs[0] <= 0 or len(xs) < LEAST_POINTS:
        raise SpecError(f"fit_decay: needs at least {LEAST_POINTS} points with x > 0")
    return _fitted(form, xs, ys[None, :], math.log10(xs[-1] / xs[0]))


def _fitted(form: Form, xs: Floats, ys: Floats, decades: float) -> Decay:
    mean = ys.mean(axis=0)
    floor, height, rate, ssr = _solve(form, xs, mean)
    n, k = len(xs), (3 if form in FLOORED else 2)
    ssr = max(ssr, 1e-300)
    dims = k + 1  # the noise's variance is a parameter, too
    small_sample = 2 * dims * (dims + 1) / (n - dims - 1) if n > dims + 1 else math.inf
    aicc = n * math.log(ssr / n) + 2 * dims + small_sample
    sd = math.sqrt(ssr / (n - k))
    estimate = None if floor is None else _floor(form, xs, ys, floor, ssr, decades)
    errors = _left_out(form, xs, ys)
    left_out = float(np.sqrt(np.mean(np.square(errors)))) if errors else None
    return Decay(form, estimate, 0.0 if floor is None else floor, height, rate, aicc, left_out, errors, sd)


def _floor(form: Form, xs: Floats, ys: Floats, value: float, ssr: float, decades: float) -> Estimate:
    if decades < LEAST_DECADES:
        return Estimate(value, None, None, len(ys), f"{form} asymptote, horizon {decades:.1f} decades: open")
    if len(ys) > 1:
        floors = [_solve(form, xs, own)[0] for own in ys]
        found = t_interval([floor for floor in floors if floor is not None])
        return found._replace(method=f"{form} asymptote by seed, {found.method}")
    low, high = _profile(form, xs, ys[0], value, ssr)
    return Estimate(
        value, low, high, 1, f"{form} asymptote, profile of one run", contains="scatter in the run"
    )


def _left_out(form: Form, xs: Floats, ys: Floats) -> tuple[float, ...]:
    """By seed the root mean square error of the form fitted to the mean of the others."""
    if len(ys) < 2:
        return ()
    errors = []
    for i in range(len(ys)):
        floor, height, rate, _ = _solve(form, xs, np.delete(ys, i, axis=0).mean(axis=0))
        shape = np.log(xs) * -rate if form == "logarithmic" else height * _basis(form, xs, rate)
        level = height if form == "logarithmic" else float(floor or 0.0)
        errors.append(float(np.sqrt(np.mean((ys[i] - level - shape) ** 2))))
    return tuple(errors)


def _basis(form: Form, xs: Floats, rate: float | Floats) -> Floats:
    return np.asarray(np.exp(-rate * xs) if form == "exponential" else np.power(xs, -rate))


def _rates(form: Form, xs: Floats) -> Floats:
    """Rates whose decay the points can show: from nearly straight to gone by the second point."""
    if form == "exponential":
        return np.geomspace(0.03 / xs[-1], 5 / xs[0], _SHAPES)
    return np.geomspace(0.01, 8, _SHAPES)


def _solve(form: Form, xs: Floats, ys: Floats) -> tuple[float | None, float, float, float]:
    """Floor, height, rate and sum of squares: linear parts in closed form, the rate by search."""
    if form == "logarithmic":
        slope, level = np.polyfit(np.log(xs), ys, 1)
        residual = ys - level - slope * np.log(xs)
        return None, float(level), float(-slope), float(residual @ residual)
    rates = _rates(form, xs)
    for _ in range(_ZOOMS):
        basis = _basis(form, xs, rates[:, None])
        # Without a floor the basis is all there is: its mean is not taken away.
        free = float(form in FLOORED)
        centred, offset = basis - free * basis.mean(axis=1, keepdims=True), ys - free * ys.mean()
        spread = np.maximum((centred**2).sum(axis=1), 1e-300)
        i = int(np.argmax((centred @ offset) ** 2 / spread))
        rate = float(rates[i])
        rates = np.geomspace(rates[max(i - 1, 0)], rates[min(i + 1, len(rates) - 1)], 41)
    basis = _basis(form, xs, rate)
    if form not in FLOORED:
        height = float(basis @ ys) / float(basis @ basis)
        residual = ys - height * basis
        return None, height, rate, float(residual @ residual)
    floor, height, ssr = _linear(basis, ys)
    return floor, height, rate, ssr


def _linear(basis: Floats, ys: Floats) -> tuple[float, float, float]:
    """Least squares of ys on 1 and basis."""
    centred, offset = basis - basis.mean(), ys - ys.mean()
    spread = float(centred @ centred)
    height = float(centred @ offset) / spread if spread > 0 else 0.0
    residual = offset - height * centred
    return float(ys.mean() - height * basis.mean()), height, float(residual @ residual)


def _profile(
    form: Form, xs: Floats, ys: Floats, value: float, ssr: float
) -> tuple[float | None, float | None]:
    """Floors whose best sum of squares stays under the F limit; None on a side that is never left."""
    from scipy.special import fdtri

    n = len(xs)
    limit = ssr * (1 + float(fdtri(1, n - 3, 0.95)) / (n - 3)) * (1 + 1e-12)
    ends = _rates(form, xs)
    rates = np.geomspace(float(ends[0]), float(ends[-1]), 4 * _SHAPES)
    basis = _basis(form, xs, rates[:, None])
    norm = np.maximum((basis**2).sum(axis=1), 1e-300)

    def costs(floor: float) -> Floats:
        rest = ys - floor
        return np.asarray(rest @ rest - (basis @ rest) ** 2 / norm)

    def inside(floor: float) -> bool:
        return bool(costs(floor).min() <= limit)

    span = float(ys.max() - ys.min()) or 1.0
    edges = [_edge(inside, value, side * span) for side in (-1, 1)]
    # Where the slowest rate is the best one, a slower one would reach farther: nothing bounds this side.
    low, high = (None if at is None or int(costs(at).argmin()) == 0 else at for at in edges)
    return low, high


def _edge(inside: Callable[[float], bool], start: float, span: float) -> float | None:
    step = span / 64
    while abs(step) <= 16 * abs(span) and inside(start + step):
        step *= 2
    if abs(step) > 16 * abs(span):
        return None
    near, far = start, start + step
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (middle, far) if inside(middle) else (near, middle)
    return far
