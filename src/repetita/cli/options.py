"""Options that several verbs share, and how results are printed."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Root = Annotated[
    Path,
    typer.Option(
        "--root", envvar="REPETITA_ROOT", show_envvar=True, help="Folder of corpora, runs and studies."
    ),
]
ROOT = Path("repetita-out")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Scale = Annotated[
    str | None, typer.Option("--scale", help="tiny, laptop, ... [default: laptop, else the study's first]")
]
Processes = Annotated[
    int | None, typer.Option("--processes", "-p", help="Worker processes. [default: number of cores]")
]


def inert(text: str) -> str:
    """The text with nothing in it that a terminal would act on."""
    if text.isprintable():
        return text
    from repetita.report.terminal import printable

    return printable(text)


def print_json(value: Any) -> None:
    """Prints a value as JSON: paths as text, NamedTuples as they were told to become."""
    typer.echo(json.dumps(value, indent=1, default=str, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, object]], *, right: Sequence[str] = ()) -> None:
    """Prints rows as an aligned table with the keys of the first row as heads."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in rows[0]:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if row.get(head) is None else inert(str(row[head]))) for head in rows[0]))
    console = Console()
    # A pipe has no width: rows then stay whole.
    console.print(table, width=None if console.is_terminal else 400)


def speaker(context: typer.Context) -> Callable[[str], None]:
    """A function that says a line of progress on stderr, or nothing with --quiet."""

    def say(text: str) -> None:
        if context.obj != "quiet":
            typer.echo(text, err=True)

    return say
