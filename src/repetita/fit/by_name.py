"""Laws by name, fitted to the columns of a table; every number that comes back carries its interval."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from repetita.errors import SpecError, nearest
from repetita.fit import band, decay_fit
from repetita.fit.columns import Chosen, Columns, Rows, chosen, columns_of, to_numbers
from repetita.fit.estimate import Estimate
from repetita.fit.fitted_law import FittedLaw
from repetita.fit.forgetting import FORMS, Forgetting, Form, forgetting
from repetita.fit.laws import fit_power_law
from repetita.fit.loss_fit import N_REPLICATES, fit_loss_law
from repetita.fit.loss_laws import FORMS as LOSS_FORMS

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
"""Laws of two columns, x and y."""

TableLawName = Literal["chinchilla", "data-constrained", "forgetting", "band"]
ROLES: dict[str, tuple[str, ...]] = (
    {name: (*form.inputs, "loss") for name, form in LOSS_FORMS.items()}
    | dict.fromkeys(("forgetting", *decay_fit.FORMULAS), ("step", "value"))
    | {"band": (*band.INPUTS, "excess")}
)
"""By law the columns that it reads, what is explained last."""


def fit_law(
    law: LawName | TableLawName,
    *,
    table: "pl.DataFrame | Columns | Rows | Path | str",
    x: str | None = None,
    y: str | None = None,
    by: str = "seed",
    columns: Mapping[str, str] | None = None,
    drop_worst: int = 0,
    fix: Mapping[str, float] | None = None,
    tie: Iterable[str] = (),
    bootstrap: int | None = None,
    seed: int = 0,
) -> FittedLaw:
    """A law through the columns of a table: a polars frame, columns by name, rows, or a file of them.

    Laws of loss over runs: `power` loss = A / params^alpha, `power-with-offset` E + A / params^alpha,
    `chinchilla` E + A / params^alpha + B / tokens^beta, `data-constrained` the same of effective parameters
    and data, with R_D and R_N, from `unique_tokens`. What is minimised is Huber's loss (delta 1e-3) of ln
    loss, summed, from many starts. `forgetting` is value over step in the decay of least AICc; `band` the
    edges of damaging repetition, k and alpha on either side, from params, passes, fraction and excess.
    `columns` names columns that are called otherwise, as in {"params": "n_params"}. The `drop_worst` rows of
    highest loss are left out; `fix` holds parameters, `tie` ("alpha=beta") makes two one. Intervals come from
    `bootstrap` refits to rows (of a decay: residuals) drawn with replacement (0: none); see `fit.loss_fit`,
    `fit.decay_fit`, `fit.band`.

    With `x` and `y` a law of two columns is fitted as claims of studies do: `power` is y = coefficient
    x^-exponent with a delta of its own (`fit.laws`), a decay has floor, height and rate, and rows that share
    a value of `by` are one curve (`fit.forgetting`).

    Rows with an empty cell are left out. SpecError: an unknown name, no finite number, too few rows.

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
    >>> found = fit_law("power", table={"n_params": params, "loss": loss}, columns={"params": "n_params"})
    >>> found.formula, round(found.values["alpha"].value, 2)
    ('loss = A / params^alpha', 0.11)
    """
    names = dict.fromkeys((*LAWS, *ROLES))
    if law not in names:
        raise SpecError(f"there is no law '{law}'; {nearest(str(law), names)}")
    read = columns_of(table)
    if x is not None or y is not None:
        if columns or drop_worst or fix or tuple(tie) or bootstrap is not None:
            raise SpecError("columns, drop_worst, fix, tie and bootstrap have no effect with x and y")
        return _of_two(law, read, x=x, y=y, by=by)
    roles = _roles(law, columns or {})
    signed = {"value", "excess"}
    positive = [role for role in roles if role not in signed]
    rows = chosen(read, roles=roles, positive=positive, drop_worst=drop_worst)
    found = _of_roles(law, rows, read.get(by), fix, tuple(tie), bootstrap, seed)
    return found._replace(warnings=(*rows.warnings, *found.warnings))


def _roles(law: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each role that the law reads; SpecError for a role that it does not."""
    for role in columns:
        if role not in ROLES[law]:
            raise SpecError(f"the law '{law}' reads no {role}; {nearest(role, ROLES[law])}")
    return {role: columns.get(role, role) for role in ROLES[law]}


def _of_roles(
    law: str,
    rows: Chosen,
    groups: Sequence[Any] | NDArray[Any] | None,
    fix: Mapping[str, float] | None,
    tie: tuple[str, ...],
    bootstrap: int | None,
    seed: int,
) -> FittedLaw:
    if bootstrap is not None and bootstrap < 0:
        raise SpecError(f"bootstrap is a number of refits, got {bootstrap}; give 0 or more")
    if law in LOSS_FORMS:
        n_replicates = N_REPLICATES if bootstrap is None else bootstrap
        return fit_loss_law(law, columns=rows.numbers, fix=fix, tie=tie, n_replicates=n_replicates, seed=seed)
    if law == "band":
        return band.fit_band(columns=rows.numbers, fix=fix, tie=tie, n_replicates=bootstrap, seed=seed)
    own = None if groups is None else [groups[row] for row in rows.rows.tolist()]
    return decay_fit.fit_decay_law(
        law, columns=rows.numbers, groups=own, fix=fix, tie=tie, n_replicates=bootstrap, seed=seed
    )


def _of_two(law: str, columns: Columns, *, x: str | None, y: str | None, by: str) -> FittedLaw:
    if law not in LAWS:
        raise SpecError(f"the law '{law}' reads {', '.join(ROLES[law])}; name them with columns, not x and y")
    if x is None or y is None:
        raise SpecError("give both x and y, the names of two columns")
    for name in (x, y):
        if name not in columns:
            raise SpecError(f"the table has no column '{name}'; {nearest(name, columns)}")
    xs, ys = to_numbers(columns[x], name=x), to_numbers(columns[y], name=y)
    there = np.isfinite(xs) & np.isfinite(ys)
    if law in ("power", "power-with-offset"):
        return _power(law, xs[there], ys[there], x=x, y=y)
    groups = np.asarray(columns[by], dtype=object) if by in columns else np.zeros(len(xs), dtype=object)
    curves = {group: (xs[rows], ys[rows]) for group, rows in _rows_by(groups, there).items()}
    return _decay(law, curves, x=x, y=y)


def _power(law: str, xs: NDArray[np.float64], ys: NDArray[np.float64], *, x: str, y: str) -> FittedLaw:
    fitted = fit_power_law(xs, y=ys, offset="none" if law == "power" else "fitted")
    values = fitted.estimates()
    offset = "offset + " if law == "power-with-offset" else ""
    if not offset:
        del values["offset"]
    return FittedLaw(law, f"{y} = {offset}coefficient * {x}^-exponent", values, fitted.n, fitted)


def _decay(
    law: str, curves: Mapping[Any, tuple[NDArray[np.float64], NDArray[np.float64]]], *, x: str, y: str
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


def _rows_by(groups: NDArray[Any], there: NDArray[np.bool_]) -> dict[Any, NDArray[np.int64]]:
    rows: dict[Any, list[int]] = {}
    for row in np.flatnonzero(there).tolist():
        rows.setdefault(groups[row], []).append(row)
    return {group: np.array(places, dtype=np.int64) for group, places in rows.items()}
