"""All verbs together, and what holds for each of them."""

import logging
from importlib.metadata import version
from typing import Annotated

import typer

from repetita.cli import (
    canaries,
    corpus,
    demo,
    doctor,
    export,
    fit,
    measure,
    new,
    series,
    study,
    train,
    watch,
    work,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.add_typer(corpus.app, name="corpus")
app.add_typer(canaries.app, name="canaries")
app.command("train")(train.train)
app.command("measure")(measure.measure)
study.app.command("new")(new.new)
app.add_typer(study.app, name="study")
app.command("fit")(fit.fit)
app.command("export")(export.export)
app.command("doctor")(doctor.doctor)
app.command("series")(series.series)
app.command("watch")(watch.watch)
app.command("work", hidden=True)(work.work)


def _say_version(value: bool) -> None:
    if value:
        typer.echo(f"repetita {version('repetita')}")
        raise typer.Exit


@app.callback()
def every(
    context: typer.Context,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more; twice: all.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What language models memorize, how fast, what they forget, and what repeated data costs them."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    context.obj = "quiet" if quiet else "usual"
