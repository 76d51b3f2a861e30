"""`repetita series`: a series of checkpoints looked through, measured on texts, and written up as a page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from repetita.cli.measure import numbers
from repetita.cli.measure_options import AllowPickle, Checkpoints, Device, DType, Limit, Prompts, Suffixes
from repetita.cli.options import ROOT, AsJson, Root, TextField, inert, print_json, speaker


def series(
    context: typer.Context,
    subjects: Checkpoints,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="A text, a .csv, .jsonl or .parquet file of texts, or a folder; several. [default: of runs "
            "sequences of their own; else leads of Wikipedia, and synthetic text that nobody has read]",
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="A table (.parquet, .csv, .jsonl) of step and text: what was read when. [default: of runs "
            "their own schedules]"
        ),
    ] = None,
    seen: Annotated[str | None, typer.Option(help="Without --order: the --text that was read.")] = None,
    unseen: Annotated[str | None, typer.Option(help="Without --order: the --text that was not.")] = None,
    probes: Annotated[
        list[str] | None,
        typer.Option("--probe", help="As of `repetita measure`. [default: score, extraction, heads]"),
    ] = None,
    prompts: Prompts = None,
    suffixes: Suffixes = None,
    text_field: TextField = "text",
    limit: Limit = None,
    device: Device = None,
    dtype: DType = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Write a page on a series of checkpoints: what it memorizes, forgets, and when induction heads form."""
    from repetita.study.audit import Audit
    from repetita.study.known_order import FromTable
    from repetita.study.series_study import series_audit

    given = {"limit": limit, "device": device, "dtype": dtype, "probes": tuple(probes) if probes else None}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    values |= {"text_field": text_field, "allow_pickle": allow_pickle}
    if texts:
        values["texts"] = tuple(texts)
    for name, option, asked in (("prompts", "--prompt", prompts), ("suffixes", "--suffix", suffixes)):
        if asked is not None:
            values[name] = numbers(asked, option)
    audit: Audit = series_audit(subjects, root=root, **values)
    table = None if order is None else FromTable(path=order)
    _measure(context, audit, order=table, seen=seen, unseen=unseen, root=root, as_json=as_json)


def _measure(context: typer.Context, audit: Any, *, root: Path, as_json: bool, **roles: Any) -> None:
    from repetita.cli.standing import standing_shown
    from repetita.study.series_study import measure_series

    say = speaker(context)
    with standing_shown(quiet=context.obj == "quiet") as watch:
        found = measure_series(
            audit,
            **roles,
            root=root,
            watch=watch,
            look=lambda name, share: say(f"{share:4.0%} looking through {name}"),
        )
    report = found.report
    if as_json:
        print_json({
            "page": found.page,
            "healthy": found.diagnosis.healthy,
            "claims": [claim._asdict() for claim in report.findings],
            "tables": {one.name: [dict(zip(one.columns, row, strict=True)) for row in one.rows]
                       for one in report.tables},
            "warnings": report.warnings,
            "checkpoints": [one._asdict() for one in found.diagnosis.checked],
        })  # fmt: skip
        return
    for claim in report.findings:
        typer.echo(inert(f"{claim.verdict}: {claim.statement}: {claim.measured or claim.note}"))
    for warning in report.warnings:
        typer.echo(inert(f"! {warning}"))
    typer.echo(inert(str(found.page)))
