"""Claims: a statement, the rule fixed beforehand that decides it, the verdict, and how sure it is."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from repetita.errors import SpecError
from repetita.fit.estimate import LEVEL, Estimate, t_interval, t_quantile

Verdict = Literal["supported", "contradicted", "inconclusive", "illustrated"]
Direction = Literal["above", "below"]

MAX_PRIMARY = 8
"""At most this many primary claims on a page (experiment design, rule 32)."""

SEEDS_FOR_EQUIVALENCE = 5
"""Fewest seeds that can support equality within a margin (rule 29)."""


class Claim(NamedTuple):
    """A finding. One seed can illustrate, never support (rule 32)."""

    name: str
    statement: str
    source: str
    """Paper, section or figure of the statement."""
    rule: str
    """The decision rule in words, fixed in the study's file."""
    verdict: Verdict
    estimate: Estimate | None
    n: int
    """Independent runs (seeds) behind the verdict."""
    note: str = ""
    primary: bool = True
    """Primary claims share one error rate by Holm's method; the rest is descriptive."""
    p: float | None = None
    """Two-sided p-value of the direction found (for equivalence: of the two one-sided tests); unadjusted."""
    leaning: Literal["supported", "contradicted"] | None = None
    """The verdict if `p` survives."""
    unit: str = ""
    """What the estimate counts."""

    @property
    def measured(self) -> str:
        """The estimate with its interval and unit, "" where there is none."""
        if self.estimate is None:
            return ""
        return f"{self.estimate.text()} {self.unit}".strip()


def directional(
    values: ArrayLike,
    *,
    name: str,
    statement: str,
    source: str,
    threshold: float = 0.0,
    direction: Direction = "above",
    scale: Literal["linear", "log"] = "linear",
    unit: str = "",
    note: str = "",
    primary: bool = True,
) -> Claim:
    """Whether the mean over seeds lies on the stated side of `threshold`; `values` hold one effect a seed.

    Two-sided t test: supported when significant on the stated side, contradicted on the other.

    >>> from repetita import directional
    >>> given = {"name": "cost", "statement": "It costs", "source": "nobody", "unit": "nats"}
    >>> claim = directional([0.11, 0.13, 0.10], **given)
    >>> claim.verdict, claim.measured
    ('supported', '0.113 [0.0754, 0.151] nats')
    >>> directional([0.11], **given).verdict
    'illustrated'
    """
    estimate = t_interval(values, scale=scale)
    x = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if scale == "log":
        if threshold <= 0:
            raise SpecError(
                f"claim '{name}': threshold = {threshold} on the log scale; give a ratio above zero"
            )
        work, against = np.log(x), math.log(threshold)
    else:
        work, against = x, threshold
    rule = _rule(
        direction, threshold, unit, f"t test over seeds{' on the log scale' if scale == 'log' else ''}"
    )
    p, side = (None, 0.0) if len(x) < 2 else _t_test(work, against)
    note = _join(note, *_all_equal(x))
    leaning = _leaning(side, direction)
    return _draft(
        Claim(
            name, statement, source, rule, "inconclusive", estimate, len(x), note, primary, p, leaning, unit
        )
    )


def from_estimate(
    estimate: Estimate,
    *,
    name: str,
    statement: str,
    source: str,
    threshold: float = 0.0,
    direction: Direction = "above",
    n: int | None = None,
    unit: str = "",
    note: str = "",
    primary: bool = True,
) -> Claim:
    """As `directional` where only an interval is at hand (a fit); `n` counts the seeds in it.

    With an open bound on the deciding side the claim stays inconclusive. The p-value for Holm's method reads
    the interval's half on the side of the threshold as a normal quantile.

    >>> from repetita import Estimate, from_estimate
    >>> slope = Estimate(0.4, 0.1, 0.7, 3, "a fit")
    >>> from_estimate(slope, name="rises", statement="It rises", source="nobody").verdict
    'supported'
    """
    seeds = estimate.n if n is None else n
    rule = _rule(direction, threshold, unit, estimate.method)
    p, side = _interval_p(estimate, threshold)
    leaning = _leaning(side, direction) if p is not None else None
    return _draft(
        Claim(name, statement, source, rule, "inconclusive", estimate, seeds, note, primary, p, leaning, unit)
    )


def equivalent(
    values: ArrayLike,
    *,
    name: str,
    statement: str,
    source: str,
    margin: float,
    unit: str = "",
    note: str = "",
    primary: bool = True,
) -> Claim:
    """Whether the mean over seeds lies within +-margin: two one-sided t tests (TOST), rule 29.

    Supported when both tests reject and there are at least 5 seeds, contradicted when the 95% interval lies
    outside the margin, inconclusive otherwise. The smallest margin that could be shown goes into the note.

    >>> from repetita import equivalent
    >>> effects = [0.01, -0.02, 0.00, 0.01, -0.01]
    >>> equivalent(effects, name="same", statement="Both are equal", source="nobody", margin=0.05).verdict
    'supported'
    """
    if margin <= 0:
        raise SpecError(f"claim '{name}': margin = {margin}; give a margin above zero")
    estimate = t_interval(values)
    x = np.atleast_1d(np.asarray(values, dtype=np.float64))
    n, mean = len(x), float(x.mean())
    rule = (
        f"supported if the 90% t interval lies within +-{margin:g}{_unit(unit)} (two one-sided tests) with "
        f"at least {SEEDS_FOR_EQUIVALENCE} seeds; contradicted if the 95% interval lies outside; "
        f"else inconclusive"
    )
    p: float | None = None
    leaning: Literal["supported", "contradicted"] | None = None
    if n >= 2:
        if abs(mean) <= margin:
            p = max(_one_sided(x, -margin), _one_sided(-x, -margin))
            leaning = "supported" if n >= SEEDS_FOR_EQUIVALENCE else None
        else:
            p, leaning = 2 * _one_sided(math.copysign(1, mean) * x, margin), "contradicted"
        shown = detectable_margin(sd=float(x.std(ddof=1)), n=n)
        note = _join(note, *_all_equal(x))
        note = _join(note, f"smallest margin that {n} seeds could show: {shown:.2g}{_unit(unit)}")
        if n < SEEDS_FOR_EQUIVALENCE and leaning is None:
            note = _join(note, f"equality needs {SEEDS_FOR_EQUIVALENCE} seeds, here are {n}")
    return _draft(
        Claim(name, statement, source, rule, "inconclusive", estimate, n, note, primary, p, leaning, unit)
    )


def undecided(
    *,
    name: str,
    statement: str,
    source: str,
    rule: str,
    note: str,
    estimate: Estimate | None = None,
    n: int = 0,
    primary: bool = False,
) -> Claim:
    """A claim that its data cannot decide (a peak at the grid's edge, a scale too small); `note` says why.

    >>> from repetita import undecided
    >>> rule = "needs two sizes"
    >>> undecided(name="size", statement="It grows", source="nobody", rule=rule, note="one size").verdict
    'inconclusive'
    """
    return Claim(name, statement, source, rule, "inconclusive", estimate, n, note, primary)


def settle(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """The claims with verdicts adjusted by Holm's method within the primary ones.

    Raises SpecError for two claims of one name and for more than 8 primary ones.
    """
    names = [claim.name for claim in claims]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"two claims are named '{name}'; give each its own name")
    tested = [i for i, claim in enumerate(claims) if claim.primary]
    if len(tested) > MAX_PRIMARY:
        raise SpecError(
            f"{len(tested)} primary claims, {MAX_PRIMARY} are allowed; make the others primary=False"
        )
    # An undecided primary claim counts as a test: dropping what failed would flatter the rest.
    adjusted = holm([1.0 if claims[i].p is None else float(claims[i].p or 0.0) for i in tested])
    settled = list(claims)
    for i, p in zip(tested, adjusted, strict=True):
        settled[i] = _after_holm(claims[i], p=p, n_tests=len(tested))
    return tuple(settled)


def jointly(claims: Sequence[Claim], *, n_tests: int) -> tuple[Claim, ...]:
    """Claims of several families as one family of `n_tests`, those that have no result yet included.

    What Holm's method decided in each claim's own family is undone first. Raises SpecError for more than 8.
    """
    if n_tests > MAX_PRIMARY:
        raise SpecError(f"{n_tests} primary claims on one page, {MAX_PRIMARY} are allowed; leave some out")
    alone = [_before_holm(claim)._replace(primary=True) for claim in claims]
    p_values = [1.0 if claim.p is None else claim.p for claim in alone]
    adjusted = holm(p_values + [1.0] * (n_tests - len(alone)))
    return tuple(_after_holm(claim, p=p, n_tests=n_tests) for claim, p in zip(alone, adjusted, strict=False))


_HOLM = re.compile(r"(; )?p = \S+ alone, \S+ among \d+ primary claims \(Holm\)")


def _after_holm(claim: Claim, *, p: float, n_tests: int) -> Claim:
    """The claim where its adjusted p-value says that it could be chance."""
    if claim.verdict not in ("supported", "contradicted") or p <= 1 - LEVEL:
        return claim
    note = _join(claim.note, f"p = {claim.p:.2g} alone, {p:.2g} among {n_tests} primary claims (Holm)")
    return claim._replace(verdict="inconclusive", note=note)


def _before_holm(claim: Claim) -> Claim:
    """The claim with the verdict that it had on its own."""
    if claim.leaning is None or not _HOLM.search(claim.note):
        return claim
    return claim._replace(verdict=claim.leaning, note=_HOLM.sub("", claim.note))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): reject where they are at most the level; order kept."""
    m = len(p_values)
    order = sorted(range(m), key=lambda i: p_values[i])
    adjusted, running = [0.0] * m, 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def detectable_effect(*, sd: float, n: int, power: float = 0.8, level: float = LEVEL) -> float:
    """Smallest mean that a two-sided t test over n seeds with this standard deviation finds with `power`."""
    if n < 2:
        return math.inf
    return sd / math.sqrt(n) * _noncentrality(n - 1, power, level)


def detectable_margin(*, sd: float, n: int, power: float = 0.8, level: float = LEVEL) -> float:
    """Smallest margin that two one-sided tests show with `power` when the true difference is zero."""
    if n < 2:
        return math.inf
    df = n - 1
    return sd / math.sqrt(n) * (t_quantile(2 * level - 1, df) + t_quantile(power, df))


def seeds_needed(
    *, effect: float, sd: float, power: float = 0.8, level: float = LEVEL, at_most: int = 1000
) -> int | None:
    """Fewest seeds with which `effect` is found with `power`; None where `at_most` is not enough."""
    for n in range(2, at_most + 1):
        if detectable_effect(sd=sd, n=n, power=power, level=level) <= abs(effect):
            return n
    return None


def by_seed(effects: Mapping[Any, float], /) -> list[float]:
    """Effects in the order of their seeds: what `directional` and `equivalent` take."""
    return [effects[key] for key in sorted(effects, key=str)]


def _draft(claim: Claim) -> Claim:
    """The verdict before Holm."""
    if claim.n < 2:
        return claim._replace(
            verdict="illustrated", p=None, note=_join(claim.note, "one seed illustrates only")
        )
    if claim.leaning is not None and claim.p is not None and claim.p <= 1 - LEVEL:
        return claim._replace(verdict=claim.leaning)
    return claim


def _t_test(
    values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", threshold: float
) -> tuple[float, float]:
    """Two-sided p-value and the side (-1, 0, 1) on which the mean lies."""
    side = float(np.sign(values.mean() - threshold))
    if side == 0:
        return 1.0, 0.0
    return min(1.0, 2 * _one_sided(side * values, side * threshold)), side


def _one_sided(values: ArrayLike, threshold: float) -> float:
    """p-value of "the mean is at most `threshold`"."""
    from scipy.special import stdtr

    x = np.asarray(values, dtype=np.float64)
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    gap = float(x.mean()) - threshold
    if error == 0:  # the same number n times: no variance to judge by, so nothing is shown
        return 1.0
    return float(stdtr(len(x) - 1, -gap / error))


def _interval_p(estimate: Estimate, threshold: float) -> tuple[float | None, float]:
    from scipy.special import ndtr, ndtri

    if estimate.value is None:
        # Only bounds are known: a bound beyond the threshold decides at the interval's own level.
        if estimate.low is not None and estimate.low > threshold:
            return 1 - estimate.level, 1.0
        if estimate.high is not None and estimate.high < threshold:
            return 1 - estimate.level, -1.0
        return None, 0.0
    gap = estimate.value - threshold
    bound = estimate.low if gap > 0 else estimate.high
    if bound is None or gap == 0:
        return None, 0.0
    error = abs(estimate.value - bound) / float(ndtri(0.5 + estimate.level / 2))
    p = 0.0 if error == 0 else float(2 * ndtr(-abs(gap) / error))
    return p, math.copysign(1.0, gap)


def _leaning(side: float, direction: Direction) -> Literal["supported", "contradicted"] | None:
    if side == 0:
        return None
    return "supported" if (side > 0) == (direction == "above") else "contradicted"


def _noncentrality(df: int, power: float, level: float) -> float:
    """Standard errors by which the mean must exceed zero (noncentral t, solved by bisection)."""
    from scipy.special import nctdtr

    critical = t_quantile(level, df)
    low, high = 0.0, 4 * critical + 10
    for _ in range(60):
        middle = (low + high) / 2
        if 1 - float(nctdtr(df, middle, critical)) < power:
            low = middle
        else:
            high = middle
    return high


def _rule(direction: Direction, threshold: float, unit: str, method: str) -> str:
    return (
        f"supported if {direction} {threshold:g}{_unit(unit)} at the 95% level, contradicted if on the other "
        f"side, else inconclusive ({method}; Holm within the primary claims)"
    )


def _all_equal(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", /) -> list[str]:
    """Why equal values decide nothing, where they are equal."""
    same = len(values) > 1 and bool((values == values[0]).all())
    return [f"all {len(values)} seeds give the same number: no variance to judge by"] if same else []


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
