"""`repetita fit`: a law through the rows of a table, with intervals and every optimum."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repetita.cli.options import AsJson, inert, print_json, print_table

if TYPE_CHECKING:
    from repetita.fit.estimate import Estimate
    from repetita.fit.fitted_law import FittedLaw

_ROLES = {
    "power": "params, loss",
    "chinchilla": "params, tokens, loss",
    "data-constrained": "params, tokens, unique_tokens, loss",
    "forgetting": "step, value",
    "band": "params, passes, fraction, excess",
}
_LISTED = "; ".join(f"{law} ({columns})" for law, columns in _ROLES.items())


COLUMNS = ("params", "tokens", "unique_tokens", "loss", "step", "value", "passes", "fraction", "excess")
"""What laws read, in the order of the options."""


def fit(
    law: Annotated[
        str, typer.Argument(metavar="LAW", help=f"A law and the columns that it reads: {_LISTED}.")
    ],
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="A row a run (or measurement): CSV, JSONL or Parquet.")
    ],
    params: Annotated[str | None, typer.Option(help="Column of the number of parameters.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Column of the tokens trained on.")] = None,
    unique_tokens: Annotated[str | None, typer.Option(help="Column of the distinct ones of them.")] = None,
    loss: Annotated[str | None, typer.Option(help="Column of the loss, nats.")] = None,
    step: Annotated[str | None, typer.Option(help="Column of the steps since the exposure.")] = None,
    value: Annotated[str | None, typer.Option(help="Column of what is remembered.")] = None,
    passes: Annotated[str | None, typer.Option(help="Column of the passes over what is repeated.")] = None,
    fraction: Annotated[str | None, typer.Option(help="Column of the repeated share of the tokens.")] = None,
    excess: Annotated[str | None, typer.Option(help="Column of the loss above the control's.")] = None,
    drop_worst: Annotated[
        int, typer.Option("--drop-worst", metavar="K", help="Leave out the K rows of highest loss.")
    ] = 0,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", metavar="NAME=VALUE", help="Hold a parameter, as in E=1.69; repeatable."),
    ] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option("--tie", metavar="NAME=NAME", help="Make two one, as in alpha=beta; repeatable."),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option("--bootstrap", metavar="N", help="Refits for the intervals; 0: none. [default: 400]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a law to anybody's table. Columns are called as the law calls them unless an option names others.

    Laws of loss minimise Huber's loss (delta 1e-3) of ln loss, summed over rows, from many starts, and list
    every optimum within 5% of the best. A published law is judged on a table by fixing all of its parameters.
    """
    from repetita.fit.by_name import fit_law

    given = (params, tokens, unique_tokens, loss, step, value, passes, fraction, excess)
    named = {role: name for role, name in zip(COLUMNS, given, strict=True) if name is not None}
    found = fit_law(
        law,  # type: ignore[arg-type]  # Any text; the function names the nearest law.
        table=table,
        columns=named,
        drop_worst=drop_worst,
        fix=_held(fix or []),
        tie=tie or [],
        bootstrap=bootstrap,
        seed=seed,
    )
    if as_json:
        print_json(_summary(found))
    else:
        _show(found, asked_for=bootstrap != 0)


def _held(texts: list[str]) -> dict[str, float]:
    """Parameters by name from texts such as E=1.69."""
    from repetita.errors import SpecError

    held: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise SpecError(f"--fix takes name=value, as in E=1.69; got '{text}'") from None
        if name.strip() in held:
            raise SpecError(f"--fix names '{name.strip()}' twice; give it once")
        held[name.strip()] = number
    return held


def _summary(found: "FittedLaw") -> dict[str, object]:
    """The fit as JSON: nothing rounded, an open bound null."""
    return {
        "law": found.law,
        "objective": found.objective,
        "r2": found.r2,
        "n": found.n,
        "params": {
            name: {"value": one.value, "low": one.low, "high": one.high} for name, one in found.values.items()
        },
        "optima": [{"objective": one.objective, "params": dict(one.params)} for one in found.optima],
        "warnings": list(found.warnings),
    }


def _show(found: "FittedLaw", *, asked_for: bool) -> None:
    """The fit as a small table, its warnings on stderr; `asked_for` is whether intervals are."""
    typer.echo(found.formula)
    rows = [
        {
            "parameter": name,
            "value": "" if one.value is None else f"{one.value:.6g}",
            "95% interval": _interval(one, asked_for=asked_for),
        }
        for name, one in found.values.items()
    ]
    print_table(rows, right=("value",))
    r2 = "" if found.r2 is None else f", R2 {found.r2:.5f}"
    typer.echo(f"objective {found.objective:.9g}{r2}, n = {found.n}")
    for other in found.optima[1:]:
        shown = ", ".join(f"{name} {value:.6g}" for name, value in other.params.items())
        typer.echo(f"another optimum: objective {other.objective:.9g} at {shown}")
    for warning in found.warnings:
        typer.echo(inert(f"warning: {warning}"), err=True)


def _interval(one: "Estimate", *, asked_for: bool) -> str:
    """An interval in words where it is not two numbers."""
    if one.method == "fixed":
        return "fixed"
    if one.low is None and one.high is None:
        return "open" if asked_for else "not asked for"
    return " to ".join("open" if end is None else f"{end:.6g}" for end in (one.low, one.high))
