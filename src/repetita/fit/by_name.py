"""Laws by name, fitted to the columns of a table; every number that comes back carries its interval."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError, nearest
from repetita.fit.estimate import Estimate
from repetita.fit.forgetting import FORMS, Decay, Forgetting, Form, forgetting
from repetita.fit.laws import PowerLaw, fit_power_law

if TYPE_CHECKING:
    import polars as pl

LawName = Literal[
    "power",
    "power-with-offset",
    "exponential-decay",
    "power-decay",
    "power-to-zero-decay",
    "logarithmic-decay",
]
LAWS: tuple[LawName, ...] = get_args(LawName)

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
Rows = Iterable[Mapping[str, Any]]


class FittedLaw(NamedTuple):
    """A law and its parameters."""

    law: LawName
    formula: str
    values: Mapping[str, Estimate]
    """Each parameter of the formula; a bound that the data do not give is open."""
    n: int
    """Points of a power law (runs), curves of a decay (seeds)."""
    fit: PowerLaw | Decay
    """The fit itself, with what else is known of it (AICc, scatter, range)."""

    def predict(self, x: ArrayLike, /) -> NDArray[np.float64]:
        """y of the law at x."""
        return self.fit.predict(x)


def fit_law(
    law: LawName, *, table: "pl.DataFrame | Columns | Rows", x: str, y: str, by: str = "seed"
) -> FittedLaw:
    """A law through the columns `x` and `y` of a table: a polars frame, columns by name, or rows.

    `power` is y = coefficient x^-exponent and `power-with-offset` adds an offset; each row is a point (loss
    against parameters, say); see `fit.laws.fit_power_law`.

    The decays are forgetting curves, x the steps since the exposure (above 0) and y what is remembered:
    `exponential-decay` is floor + height exp(-rate x), `power-decay` floor + height x^-rate,
    `power-to-zero-decay` height x^-rate, `logarithmic-decay` height - rate ln x. Rows that share a value of
    the column `by` (without such a column, all rows) are one curve, and all curves need the same x. The floor
    has an interval, height and rate have none; see `fit.forgetting.forgetting`.

    Rows without x or y are left out. Raises SpecError for an unknown law or column, and for too few points.

    >>> from repetita import fit_law
    >>> params = [1_000, 3_000, 10_000, 30_000, 100_000]
    >>> loss = [5.6, 4.9, 4.3, 3.8, 3.3]
    >>> found = fit_law("power", table={"n_params": params, "loss": loss}, x="n_params", y="loss")
    >>> found.formula
    'loss = coefficient * n_params^-exponent'
    >>> found.values["exponent"].text(digits=2)
    '0.11 [0.11, 0.12]'
    >>> float(found.predict(300_000).round(2))
    2.91
    """
    if law not in LAWS:
        raise SpecError(f"there is no law '{law}'; {nearest(str(law), LAWS)}")
    columns = _columns(table)
    for name in (x, y):
        if name not in columns:
            raise SpecError(f"the table has no column '{name}'; {nearest(name, columns)}")
    xs, ys = _numbers(columns[x], name=x), _numbers(columns[y], name=y)
    there = np.isfinite(xs) & np.isfinite(ys)
    if law in ("power", "power-with-offset"):
        return _power(law, xs[there], ys[there], x=x, y=y)
    groups = np.asarray(columns[by], dtype=object) if by in columns else np.zeros(len(xs), dtype=object)
    curves = {group: (xs[rows], ys[rows]) for group, rows in _rows_by(groups, there).items()}
    return _decay(law, curves, x=x, y=y)


def _power(law: LawName, xs: NDArray[np.float64], ys: NDArray[np.float64], *, x: str, y: str) -> FittedLaw:
    fitted = fit_power_law(xs, y=ys, offset="none" if law == "power" else "fitted")
    values = fitted.estimates()
    offset = "offset + " if law == "power-with-offset" else ""
    if not offset:
        del values["offset"]
    return FittedLaw(law, f"{y} = {offset}coefficient * {x}^-exponent", values, fitted.n, fitted)


def _decay(
    law: LawName, curves: Mapping[Any, tuple[NDArray[np.float64], NDArray[np.float64]]], *, x: str, y: str
) -> FittedLaw:
    if not curves:
        raise SpecError(f"fit_law: no row has both {x} and {y}; give at least 5 points")
    orders = {group: np.argsort(xs, kind="stable") for group, (xs, _) in curves.items()}
    at = [curves[group][0][order] for group, order in orders.items()]
    if any(not np.array_equal(one, at[0]) for one in at):
        raise SpecError(f"fit_law: the curves lie at different {x}; give all of them at the same ones")
    summed: Forgetting = forgetting(
        at[0], curves={group: curves[group][1][order] for group, order in orders.items()}
    )
    form: Form = FORMS[[f"{name}-decay" for name in FORMS].index(law)]
    (decay,) = (one for one in summed.decays if one.form == form)
    formula = {
        "exponential": f"{y} = floor + height * exp(-rate * {x})",
        "power": f"{y} = floor + height * {x}^-rate",
        "power-to-zero": f"{y} = height * {x}^-rate",
        "logarithmic": f"{y} = height - rate * ln({x})",
    }[form]
    n, method = len(curves), f"least squares, mean of {len(curves)} curves"
    free = {
        name: Estimate(value, None, None, n, method)
        for name, value in (("height", decay.height), ("rate", decay.rate))
    }
    return FittedLaw(law, formula, ({"floor": decay.floor} if decay.floor else {}) | free, n, decay)


def _columns(table: "pl.DataFrame | Columns | Rows") -> Columns:
    """The table as columns by name."""
    if hasattr(table, "get_columns"):
        return {column.name: column.to_list() for column in table.get_columns()}
    if isinstance(table, Mapping):
        return table
    rows = list(table)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _numbers(column: Sequence[Any] | NDArray[Any], *, name: str) -> NDArray[np.float64]:
    try:
        return np.array([np.nan if value is None else float(value) for value in column], dtype=np.float64)
    except (TypeError, ValueError):
        raise SpecError(f"the column '{name}' holds something that is no number; leave it out") from None


def _rows_by(groups: NDArray[Any], there: NDArray[np.bool_]) -> dict[Any, NDArray[np.int64]]:
    rows: dict[Any, list[int]] = {}
    for row in np.flatnonzero(there).tolist():
        rows.setdefault(groups[row], []).append(row)
    return {group: np.array(places, dtype=np.int64) for group, places in rows.items()}
