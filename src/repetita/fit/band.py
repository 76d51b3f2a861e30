"""The band of damaging repetition as a law of size: either edge E = k N^alpha, from excess over passes.

The repeated-data paper's appendix A: on each curve the passes at which the effect is half of its maximum,
averaged over the repeated fractions, then a power law over sizes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita import seeds
from repetita.errors import SpecError
from repetita.fit.effective_size import HalfDamage, half_damage
from repetita.fit.estimate import LEVEL, Crossing, Estimate, t_quantile
from repetita.fit.fitted_law import FittedLaw, LawOptimum, explained
from repetita.fit.laws import fit_power_trend
from repetita.fit.loss_fit import undecided
from repetita.fit.optima import tails
from repetita.fit.parameters import Parameter, Space, space

Floats = NDArray[np.float64]

INPUTS = ("params", "passes", "fraction")
SIDES = ("left", "right")
FORMULA = "passes at half of the damage = k * params^alpha, on either side of the worst"
_FEWEST = 3


class BandFit(NamedTuple):
    """Both edges of the band."""

    params: Mapping[str, float]

    def predict(self, x: Any, /) -> Floats:
        """Passes at the left and the right edge, (..., 2), for sizes in parameters (or a column of them)."""
        sizes = np.asarray(x["params"] if isinstance(x, Mapping) else x, dtype=np.float64)
        edges = [self.params[f"k_{side}"] * sizes ** self.params[f"alpha_{side}"] for side in SIDES]
        return np.stack(edges, axis=-1)


class _Edge(NamedTuple):
    """One curve's (or size's) passes at an edge, in logarithms."""

    size: float
    at: float
    censored: int
    """0 where it was reached; 1 where it lies beyond `at`, -1 where it lies before."""


Edges = dict[str, list[_Edge]]


def fit_band(
    *,
    columns: Mapping[str, Floats],
    fix: Mapping[str, float] | None = None,
    tie: Sequence[str] = (),
    n_replicates: int | None = None,
    seed: int = 0,
) -> FittedLaw:
    """The band from columns by role: params, passes, fraction, excess (nats, or -ln of a size multiplier).

    Rows that share size, fraction and passes are averaged. A curve whose worst passes are at the edge of its
    grid shows no peak and is left out with a warning; an edge beyond the grid is censored, not dropped.
    Least squares of ln E; intervals are t intervals over sizes, or with `n_replicates` percentiles over
    curves drawn with replacement. Raises SpecError when fewer than two sizes have an edge.
    """
    curves, warnings = _curves(columns)
    by_curve = _edges(curves)
    _check(by_curve, n_dropped=len(warnings))
    by_size = {side: _by_size(edges) for side, edges in by_curve.items()}
    known = _parameters(by_size)
    whole = space(known, fix=fix, tie=tie)  # Names every mistake in fix and tie.
    blocks = [SIDES] if any("_left" in owner and "_right" in owner for owner in whole.owner) else list(SIDES)
    values: dict[str, Estimate] = {}
    for block in blocks:
        sides = (block,) if isinstance(block, str) else block
        values |= _fit_block(sides, by_size, known, fix or {}, tie, warnings)
    if n_replicates and whole.owner:
        values = _bootstrapped(values, by_curve, whole, n_replicates, seed)
    params = {name: float(one.value) for name, one in values.items() if one.value is not None}
    values = {one.name: values[one.name] for one in known}
    observed = np.array([e.at for side in SIDES for e in by_size[side] if not e.censored])
    predicted = np.array(
        [
            math.log(params[f"k_{side}"]) + params[f"alpha_{side}"] * e.size
            for side in SIDES
            for e in by_size[side]
            if not e.censored
        ]
    )
    objective = 0.5 * float(((observed - predicted) ** 2).sum())
    return FittedLaw(
        law="band",
        formula=FORMULA,
        values=values,
        n=len(columns["excess"]),
        fit=BandFit(params),
        objective=objective,
        r2=explained(observed, predicted=predicted),
        optima=(LawOptimum(objective, params),),
        warnings=(*warnings, *undecided(values)),
    )


def _curves(columns: Mapping[str, Floats]) -> tuple[dict[tuple[float, float], HalfDamage], list[str]]:
    """Half-damage by size and fraction, and what is said of the curves that have none."""
    rows: dict[tuple[float, float], dict[float, list[float]]] = {}
    read = (columns[name].tolist() for name in (*INPUTS, "excess"))
    for n_params, passes, fraction, excess in zip(*read, strict=True):
        rows.setdefault((n_params, fraction), {}).setdefault(passes, []).append(excess)
    found, without = {}, dict[str, list[str]]()
    for key, by_passes in sorted(rows.items()):
        name = f"{key[0]:.6g} parameters at f = {key[1]:g}"
        means = {passes: float(np.mean(values)) for passes, values in by_passes.items()}
        if len(means) < _FEWEST:
            without.setdefault(f"fewer than {_FEWEST} passes", []).append(name)
        elif max(means.values()) <= 0:
            without.setdefault("no damage at any passes", []).append(name)
        elif (half := half_damage(list(means), effect=list(means.values()))).peak_at_edge:
            without.setdefault("a peak at the edge of the grid of passes", []).append(name)
        else:
            found[key] = half
    warnings = [
        f"left out for {why}: {', '.join(names[:4])}"
        + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        for why, names in without.items()
    ]
    return found, warnings


def _edges(curves: Mapping[tuple[float, float], HalfDamage]) -> Edges:
    edges: Edges = {side: [] for side in SIDES}
    for (n_params, _), half in curves.items():
        for side, crossing in zip(SIDES, (half.left, half.right), strict=True):
            assert crossing is not None
            if crossing.x is not None:
                edges[side].append(_Edge(math.log(n_params), math.log(crossing.x), 0))
            else:
                beyond = crossing.high if crossing.low is None else crossing.last
                assert beyond is not None
                sign = -1 if crossing.low is None else 1
                edges[side].append(_Edge(math.log(n_params), math.log(beyond), sign))
    return edges


def _check(edges: Edges, *, n_dropped: int) -> None:
    for side in SIDES:
        if len({e.size for e in edges[side] if not e.censored}) < 2:
            why = " (see the curves that have no peak inside their grid)" if n_dropped else ""
            raise SpecError(
                f"the {side} edge of the band is reached at fewer than two sizes{why}; give passes on both "
                "sides of the worst, for at least two sizes"
            )


def _by_size(edges: Sequence[_Edge]) -> list[_Edge]:
    """Mean of ln E over the fractions of a size; censored where one of them is."""
    found = []
    for size in sorted({e.size for e in edges}):
        own = [e for e in edges if e.size == size]
        sign = next((e.censored for e in own if e.censored), 0)
        found.append(_Edge(size, float(np.mean([e.at for e in own])), sign))
    return found


def _parameters(by_size: Edges) -> tuple[Parameter, ...]:
    known = []
    for side in SIDES:
        centre = -float(np.mean([e.size for e in by_size[side]]))
        known += [
            Parameter(f"k_{side}", "coefficient", -1e3, 1e3, True, f"alpha_{side}", centre),
            Parameter(f"alpha_{side}", "exponent", -1e3, 1e3),
        ]
    return tuple(known)


def _fit_block(
    sides: Sequence[str],
    by_size: Edges,
    known: Sequence[Parameter],
    fix: Mapping[str, float],
    tie: Sequence[str],
    warnings: list[str],
) -> dict[str, Estimate]:
    """The parameters of edges that share none with other edges."""
    own = [one for one in known if one.name.rpartition("_")[2] in sides]
    names = [one.name for one in own]
    held = {name: value for name, value in fix.items() if name in names}
    censored = sum(e.censored != 0 for side in sides for e in by_size[side])
    n_reached = sum(not e.censored for side in sides for e in by_size[side])
    if censored and len(sides) == 1 and not held and n_reached >= _FEWEST:
        return _trend(sides[0], by_size[sides[0]])
    if censored:
        verb = "is" if censored == 1 else "are"
        warnings.append(
            f"{censored} of {censored + n_reached} sizes do not reach the {' or '.join(sides)} edge within "
            f"their passes and {verb} left out, which draws that edge inwards"
        )
    if len(held) == len(own):
        return {name: Estimate(value, value, value, n_reached, "fixed") for name, value in held.items()}
    where = space(own, fix=held, tie=tie if len(sides) > 1 else ())
    design, y = _design(sides, by_size)
    phi, wide = _least_squares(design, y, where)
    n, df = len(y), len(y) - len(where.owner)
    eta = where.eta(phi)
    found = {}
    for i, one in enumerate(own):
        value = math.exp(eta[i]) if one.log else float(eta[i])
        if one.name in held:
            found[one.name] = Estimate(held[one.name], held[one.name], held[one.name], n, "fixed")
            continue
        low = high = None
        if df > 0:
            half = t_quantile(LEVEL, df) * math.sqrt(float(where.matrix[i] @ wide @ where.matrix[i]))
            ends = float(eta[i]) - half, float(eta[i]) + half
            low, high = (math.exp(end) if one.log else end for end in ends)
        found[one.name] = Estimate(
            value, low, high, n, "least squares of ln E, t over sizes", contains="sizes about the law"
        )
    return found


def _trend(side: str, edges: Sequence[_Edge]) -> dict[str, Estimate]:
    """One edge with sizes at which it lies beyond the passes tried: maximum likelihood with censoring."""
    crossings = [
        Crossing(math.exp(e.at), None, None, math.exp(e.at), "pass")
        if not e.censored
        else Crossing(None, None, math.exp(e.at), math.exp(e.at), "pass")
        if e.censored < 0
        else Crossing(None, math.exp(e.at), None, math.exp(e.at), "pass")
        for e in edges
    ]
    sizes = np.array([e.size for e in edges])
    trend = fit_power_trend(np.exp(sizes), crossings=crossings)
    alpha, n = trend.exponent, trend.n
    assert alpha.value is not None
    own = t_quantile(LEVEL, n - trend.n_censored - 2) * trend.sd / math.sqrt(n)
    # At N = 1, far outside the sizes, an edge moves with its exponent: the two errors add in squares.
    bounds = [
        None if end is None else math.hypot(own, (end - alpha.value) * float(sizes.mean()))
        for end in (alpha.high, alpha.low)
    ]
    low, high = (
        None if width is None else trend.coefficient * math.exp(sign * width)
        for sign, width in zip((-1, 1), bounds, strict=True)
    )
    k = Estimate(trend.coefficient, low, high, n, alpha.method, contains=alpha.contains)
    return {f"k_{side}": k, f"alpha_{side}": alpha}


def _design(sides: Sequence[str], by_size: Edges) -> tuple[Floats, Floats]:
    """Rows of (ln k, alpha) for each side in turn, and ln E, of the edges that were reached."""
    rows, y = [], []
    for i, side in enumerate(sides):
        for edge in by_size[side]:
            if not edge.censored:
                row = [0.0] * (2 * len(sides))
                row[2 * i : 2 * i + 2] = [1.0, edge.size]
                rows.append(row)
                y.append(edge.at)
    return np.array(rows), np.array(y)


def _least_squares(design: Floats, y: Floats, where: Space) -> tuple[Floats, Floats]:
    """Free coordinates and their covariance (zero without degrees of freedom)."""
    free = design @ where.matrix
    rest = y - design @ where.base
    phi = np.linalg.lstsq(free, rest, rcond=None)[0]
    df = max(len(y) - len(phi), 1)
    residual = rest - free @ phi
    return np.asarray(phi), np.linalg.pinv(free.T @ free) * float(residual @ residual) / df


def _bootstrapped(
    values: Mapping[str, Estimate], by_curve: Edges, whole: Space, n_replicates: int, seed: int
) -> dict[str, Estimate]:
    """The same values with percentiles over curves drawn with replacement, never all of one size."""
    rng = seeds.generator(seed, "bootstrap")
    reached = {side: [e for e in edges if not e.censored] for side, edges in by_curve.items()}
    draws = []
    for _ in range(20 * n_replicates):
        drawn = {s: [own[i] for i in rng.integers(0, len(own), len(own))] for s, own in reached.items()}
        if min(len({e.size for e in own}) for own in drawn.values()) < 2:
            continue
        design, y = _design(SIDES, {side: _by_size(own) for side, own in drawn.items()})
        draws.append(whole.eta(_least_squares(design, y, whole)[0]))
        if len(draws) == n_replicates:
            break
    n_sizes = sum(len({e.size for e in own}) for own in reached.values())
    low_tail, high_tail = tails(n_sizes, n_free=len(whole.owner))
    table, found = np.array(draws), {}
    for i, one in enumerate(whole.parameters):
        estimate = values[one.name]
        if estimate.method != "fixed" and len(table):
            ends = (float(np.quantile(table[:, i], tail)) for tail in (low_tail, high_tail))
            low, high = (math.exp(end) if one.log else end for end in ends)
            method = f"least squares of ln E, bootstrap over curves ({len(table)})"
            estimate = estimate._replace(low=low, high=high, method=method)
        found[one.name] = estimate
    return found
