"""`repetita measure`: loss and M(f) of a checkpoint of a run on sets of its corpus."""

from pathlib import Path
from typing import Annotated

import typer

from repetita.cli.options import ROOT, AsJson, Root, print_json, print_table, speaker


def measure(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name below runs/.")],
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="A set, several times: test, train, repeated, special/0 ..."),
    ] = None,
    step: Annotated[int | None, typer.Option(help="Step of a kept checkpoint. [default: the last]")] = None,
    max_sequences: Annotated[
        int | None, typer.Option(help="At most this many sequences a set. [default: all]")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Where the corpus lies, when it is a file that was moved.")
    ] = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Measure a checkpoint; prints, and writes nothing into the run."""
    from repetita.study.single import measure_run

    path = Path(run) if Path(run).is_dir() else root / "runs" / run
    rows = measure_run(
        path,
        root=root,
        on=tuple(on or ("test",)),
        step=step,
        max_sequences=max_sequences,
        source=source,
        say=speaker(context),
    )
    if as_json:
        print_json(rows)
    else:
        print_table(rows, right=("step", "value", "n"))
