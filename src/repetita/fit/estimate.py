"""A value with its interval: t intervals for runs, exact ones for proportions, a bootstrap for documents.

Few runs take t intervals, paired by seed where they pair: a percentile bootstrap over 3 runs covers 67-75%
instead of 95% (experiment design, rule 28). A bound that the data do not give is open: None.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita import seeds
from repetita.errors import SpecError

LEVEL = 0.95
FEW_CLUSTERS = 10
"""Under this many clusters a bootstrap over them is replaced by a t interval (rule 28)."""

Scale = Literal["linear", "log"]
BySeed = Mapping[Any, float] | Sequence[float]


class Estimate(NamedTuple):
    """A value and its interval at `level`; None is a bound (or a value) that stays open."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Independent things behind the interval: runs, documents or tokens, as `method` says."""
    method: str
    level: float = LEVEL
    contains: str = ""
    """Components of variance in the interval: "seeds", "documents" ... (rule 28)."""

    def text(self, *, digits: int = 3) -> str:
        """`0.031 [0.012, 0.050]`, without an interval the value alone; open bounds and missing values in
        words."""
        if self.value is None:
            if self.low is None and self.high is None:
                return "undetermined"
            if self.low is None:
                return f"below {_number(self.high, digits)}"
            if self.high is None:
                return f"above {_number(self.low, digits)}"
            return f"between {_number(self.low, digits)} and {_number(self.high, digits)}"
        shown = _number(self.value, digits)
        if self.low is None and self.high is None:
            return shown
        return f"{shown} [{_number(self.low, digits)}, {_number(self.high, digits)}]"

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval; None where a bound is open."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def holds(self, value: float) -> bool:
        """Whether the interval contains `value`; an open bound excludes nothing."""
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


class Crossing(NamedTuple):
    """Where a curve crosses a threshold; `x` is None when it did not by `last` (right-censored).

    `low` and `high` are the evaluations around the crossing: the curve is not known between them.
    """

    x: float | None
    low: float | None
    high: float | None
    last: float
    unit: str = "step"

    @property
    def reached(self) -> bool:
        """Whether the threshold was crossed within what was seen."""
        return self.x is not None

    def text(self, *, digits: int = 3) -> str:
        """The crossing, or `not reached by step 300`."""
        if self.x is None:
            return f"not reached by {self.unit} {_number(self.last, max(digits, 6))}"
        return f"{self.unit} {_number(self.x, digits)}"


def t_interval(
    values: ArrayLike, *, scale: Scale = "linear", level: float = LEVEL, contains: str = "seeds"
) -> Estimate:
    """Mean of independent values and its t interval; on the log scale the geometric mean.

    One value has no interval: both bounds are open. Raises SpecError for no value, a value that is not
    finite, or one that is not positive on the log scale.
    """
    x = _finite(values)
    if scale == "log" and np.any(x <= 0):
        raise SpecError("t_interval: a value is not above zero; use scale='linear'")
    work = np.log(x) if scale == "log" else x
    back = math.exp if scale == "log" else float
    method = "t over runs" + (" on the log scale" if scale == "log" else "")
    mean, n = float(work.mean()), len(x)
    if n == 1:
        return Estimate(back(mean), None, None, 1, "one run", level, "")
    half = t_quantile(level, n - 1) * float(work.std(ddof=1)) / math.sqrt(n)
    return Estimate(back(mean), back(mean - half), back(mean + half), n, method, level, contains)


def paired(
    treated: BySeed,
    *,
    control: BySeed,
) -> NDArray[np.float64]:
    """Treated minus control, by key (seed) where both are mappings; keys without a partner are left out.

    >>> from repetita import paired
    >>> paired({0: 2.5, 1: 3.0, 2: 2.0}, control={0: 2.0, 1: 2.25}).tolist()
    [0.5, 0.75]
    """
    if isinstance(treated, Mapping) and isinstance(control, Mapping):
        keys = sorted(set(treated) & set(control), key=str)
        if not keys:
            raise SpecError(
                "paired: no seed has both a treated and a control run; run both arms with the same seeds"
            )
        return np.array([treated[key] - control[key] for key in keys], dtype=np.float64)
    if isinstance(treated, Mapping) or isinstance(control, Mapping) or len(treated) != len(control):
        raise SpecError("paired: give two mappings by seed or two sequences of equal length")
    return np.asarray(treated, dtype=np.float64) - np.asarray(control, dtype=np.float64)


def paired_t(
    treated: BySeed,
    *,
    control: BySeed,
    scale: Scale = "linear",
    level: float = LEVEL,
) -> Estimate:
    """Mean difference treated minus control by seed; on the log scale the mean ratio treated / control."""
    if scale == "log":
        logs = paired(_logs(treated), control=_logs(control))
        ratio = t_interval(np.exp(logs), scale="log", level=level)
        return ratio._replace(method=ratio.method.replace("t over runs", "t over runs paired by seed"))
    found = t_interval(paired(treated, control=control), level=level)
    return found._replace(method=found.method.replace("t over runs", "t over runs paired by seed"))


def proportion(hits: int, *, n: int, level: float = LEVEL) -> Estimate:
    """Share of n independent trials with its exact (Clopper-Pearson) interval, defined at 0 and 1 too."""
    from scipy.special import betaincinv

    if not 0 <= hits <= n or n == 0:
        raise SpecError(f"proportion: {hits} hits of {n} trials; give 0 <= hits <= n with n > 0")
    tail = (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Estimate(hits / n, low, high, n, "Clopper-Pearson", level, "trials")


def cluster_ratio(
    sums: ArrayLike,
    *,
    counts: ArrayLike,
    clusters: ArrayLike,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = LEVEL,
    contains: str = "documents",
) -> Estimate:
    """sum(sums) / sum(counts) with clusters (documents) as the independent units: evaluation error only.

    For a paired difference give the differences of the sums. From 10 clusters on a percentile bootstrap
    whose tails are widened as t widens the normal (Hesterberg 2015, section 5.3); below, a t interval on the
    linearised ratio.
    """
    top, bottom, labels = _finite(sums), _finite(counts), np.asarray(clusters)
    if not len(top) == len(bottom) == len(labels) or bottom.sum() <= 0:
        raise SpecError(
            "cluster_ratio: sums, counts and clusters need equal lengths and a positive total count"
        )
    _, inverse = np.unique(labels, return_inverse=True)
    k = int(inverse.max()) + 1
    num = np.bincount(inverse, weights=top, minlength=k)
    den = np.bincount(inverse, weights=bottom, minlength=k)
    value = float(num.sum() / den.sum())
    if k == 1:
        return Estimate(value, None, None, 1, "one cluster", level, "")
    if k < FEW_CLUSTERS:
        residual = (num - value * den) / den.mean()
        half = t_quantile(level, k - 1) * float(residual.std(ddof=1)) / math.sqrt(k)
        return Estimate(value, value - half, value + half, k, f"t over {contains}", level, contains)
    from scipy.special import ndtr

    draws = seeds.generator(seed, "bootstrap").multinomial(k, np.full(k, 1 / k), size=n_resamples)
    ratios = (draws @ num) / np.maximum(draws @ den, np.finfo(float).tiny)
    tail = float(ndtr(-math.sqrt(k / (k - 1)) * t_quantile(level, k - 1)))
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), k, f"bootstrap over {contains}", level, contains)


def t_quantile(level: float, df: float, /) -> float:
    """Half-width of a two-sided t interval in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + level / 2))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    x = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if x.size == 0 or not np.all(np.isfinite(x)):
        raise SpecError(
            "an estimate needs at least one value and all values finite; leave out runs that failed"
        )
    return x


def _logs(values: BySeed) -> BySeed:
    plain = list(values.values()) if isinstance(values, Mapping) else list(values)
    if any(value <= 0 for value in plain):
        raise SpecError("paired_t: a value is not above zero; use scale='linear'")
    if isinstance(values, Mapping):
        return {key: math.log(value) for key, value in values.items()}
    return [math.log(value) for value in plain]


def _number(value: float | None, digits: int) -> str:
    """Significant digits without an exponent where that stays short."""
    if value is None:
        return "open"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    shown = f"{value:.{digits}g}"
    return f"{float(shown):.0f}" if "e" in shown else shown
