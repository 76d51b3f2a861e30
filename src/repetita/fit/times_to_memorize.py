"""T(N, tau): how long until M(f) reaches tau, in four units; over seeds; its slope against N."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.fit.curves import crossing
from repetita.fit.estimate import Crossing, Estimate, t_interval

Floats = NDArray[np.float64]

Unit = Literal["passes", "updates", "exposures", "tokens"]
UNITS: tuple[Unit, ...] = ("passes", "updates", "exposures", "tokens")
WORDS: Mapping[Unit, str] = {
    "passes": "pass", "updates": "update", "exposures": "exposure", "tokens": "token",
}  # fmt: skip

Bound = Literal["exact", "at_most", "at_least", "unknown"]


class State(NamedTuple):
    """One state of a run, read between those that were measured."""

    passes: float
    memorized: float


class Progress(NamedTuple):
    """M(f) over one run, each array with one entry a measured state, in order of updates."""

    updates: Floats
    passes: Floats
    """Times the set was read."""
    exposures: Floats
    """Times a position of the set was a scored target, on average; in causal models the passes."""
    tokens: Floats
    """Tokens read, scored or not."""
    memorized: Floats

    def along(self, unit: Unit, /) -> Floats:
        """The states in this unit."""
        found: Floats = getattr(self, unit)
        return found

    def at(self, x: float, /, unit: Unit = "updates") -> State:
        """The state after `x` updates (or passes ...), linear in between; the last state beyond the end."""
        along = self.along(unit)
        return State(float(np.interp(x, along, self.passes)), float(np.interp(x, along, self.memorized)))


def time_to(progress: Progress, *, tau: float, window: float) -> dict[Unit, Crossing]:
    """T(N, tau) of one run by unit: where M(f) crosses `tau` and stays there for `window` tokens read.

    Two states in a row at least must lie at or above tau: late in a run, states can be further apart than
    the window. The same crossing is expressed in each unit, so that the units agree on what was reached.
    """
    found = crossing(
        progress.tokens,
        y=progress.memorized,
        threshold=tau,
        window=window,
        evaluations=2,
    )

    def turned(x: float | None, unit: Unit) -> float | None:
        return None if x is None else float(np.interp(x, progress.tokens, progress.along(unit)))

    return {
        unit: Crossing(
            turned(found.x, unit),
            turned(found.low, unit),
            turned(found.high, unit),
            float(progress.along(unit)[-1]),
            WORDS[unit],
        )
        for unit in UNITS
    }


def over_seeds(crossings: Mapping[Hashable, Crossing], /) -> Estimate:
    """Geometric mean over seeds with a t interval on the log scale; "above ..." where a seed is censored.

    A seed that was not reached counts with the last x that was seen, which it lies above: what is left is a
    lower bound, and value and upper bound stay open (experiment design, rule 14).
    """
    values = [one.last if one.x is None else one.x for one in crossings.values()]
    found = t_interval(values, scale="log")
    missed = sum(one.x is None for one in crossings.values())
    if not missed:
        return found
    low = values[0] if found.low is None else found.low
    method = f"{found.method}, {missed} of {found.n} not reached"
    return Estimate(None, low, None, found.n, method, found.level, found.contains)


class Slope(NamedTuple):
    """Slope of ln T against ln N in one seed, or another number that censored times enter."""

    value: float
    bound: Bound
    """`at_most`: the slope is this or steeper downwards, as small models were not seen to the end."""


def log_slope(n_params: ArrayLike, *, crossings: Sequence[Crossing]) -> Slope:
    """Least-squares slope of ln T on ln N, one crossing a size; censored ones at the last x that was seen.

    A censored T lies above the x it is given. Where it has a negative weight in the slope (N below the
    geometric mean of the sizes) the true slope is lower, where a positive one, higher; with both, or with
    nothing reached, nothing is known of its sign.
    """
    u = np.log(np.asarray(n_params, dtype=np.float64))
    if len(u) != len(crossings) or len(np.unique(u)) < 2:
        raise SpecError("log_slope: one crossing for each of at least two different sizes")
    at = np.array([one.last if one.x is None else one.x for one in crossings])
    missed = np.array([one.x is None for one in crossings])
    each = [Slope(math.log(x), "at_least" if late else "exact") for x, late in zip(at, missed, strict=True)]
    found = combined(slope_weights(n_params), slopes=each)
    return found._replace(bound="unknown") if missed.all() else found


def slope_weights(n_params: ArrayLike, /) -> Floats:
    """Weights w of the least-squares slope against ln N: slope = w @ values, one value a size."""
    u = np.log(np.asarray(n_params, dtype=np.float64))
    return np.asarray((u - u.mean()) / float(((u - u.mean()) ** 2).sum()))


def combined(weights: ArrayLike, *, slopes: Sequence[Slope]) -> Slope:
    """A weighted sum of values of which some are bounds, and what is then known of it.

    An `at_least` with a positive weight pushes the sum up, with a negative one down; with both nothing is
    known. Weights that are zero but for rounding do not count.
    """
    weight = np.asarray(weights, dtype=np.float64)
    weight = np.where(np.abs(weight) < 1e-9 * np.abs(weight).max(), 0.0, weight)
    value = float(sum(w * slope.value for w, slope in zip(weight, slopes, strict=True)))
    turned: Mapping[Bound, Bound] = {"at_most": "at_least", "at_least": "at_most"}
    pushed = {
        slope.bound if w > 0 else turned.get(slope.bound, slope.bound)
        for w, slope in zip(weight, slopes, strict=True)
        if w and slope.bound != "exact"
    }
    if not pushed:
        return Slope(value, "exact")
    return Slope(value, pushed.pop() if len(pushed) == 1 else "unknown")


def mean_of(slopes: Sequence[Slope], /) -> Slope:
    """The mean of some values of which some are bounds."""
    return combined([1 / len(slopes)] * len(slopes), slopes=slopes)


def largest(slopes: Sequence[Slope], /) -> Slope:
    """The largest of some values of which some are bounds, and what is then known of it."""
    value, kinds = max(slope.value for slope in slopes), {slope.bound for slope in slopes} - {"exact"}
    if not kinds:
        return Slope(value, "exact")
    if kinds == {"at_most"}:
        exact = [slope.value for slope in slopes if slope.bound == "exact"]
        return Slope(value, "exact" if exact and max(exact) == value else "at_most")
    return Slope(value, "at_least" if kinds == {"at_least"} else "unknown")


def bound_of(slopes: Sequence[Slope], /) -> Bound:
    """What a mean over these slopes is: exact, a bound on one side, or nothing that can be used."""
    kinds = {slope.bound for slope in slopes} - {"exact"}
    if not kinds:
        return "exact"
    return kinds.pop() if len(kinds) == 1 else "unknown"
