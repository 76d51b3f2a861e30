"""Options that several verbs share, and how results are printed."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from repetita.study.corpora import Corpora

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
Corpus = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        help="Another text than the study's own: a path, hf:NAME or a built-in name; tokenizer, length and "
        "splits stay.",
    ),
]
TextField = Annotated[str, typer.Option("--text-field", help="Field or column of its text.")]
Subset = Annotated[str | None, typer.Option("--subset", help="Its configuration, for a data set of the hub.")]
PassageFile = Annotated[
    Path | None,
    typer.Option("--text", help="A text file that models are shown beside the study's own passages."),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="REPETITA_STORAGE",
        show_envvar=True,
        help="An object store that runs are pushed to and continued from: s3://BUCKET/FOLDER, gs://...",
    ),
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
    # A pipe has no width: rows then stay whole.
    (Console() if Console().is_terminal else Console(width=400)).print(table)


def speaker(context: typer.Context) -> Callable[[str], None]:
    """A function that says a line of progress on stderr, or nothing with --quiet."""

    def say(text: str) -> None:
        if context.obj != "quiet":
            typer.echo(inert(text), err=True)

    return say


@contextmanager
def open_corpora(context: typer.Context, root: Path, **built: Any) -> Iterator["Corpora"]:
    """The corpora of a root folder; one that is built draws a bar on a terminal and says lines elsewhere.

    `built` says how they are built where they are missing: see `Corpora`.
    """
    from rich.console import Console

    from repetita.study.corpora import Corpora

    console = Console(stderr=True)
    drawn = sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal
    if context.obj == "quiet" or not drawn:
        yield Corpora(root, say=speaker(context), **built)
        return
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        stages: dict[str, TaskID] = {}

        def progress(text: str, share: float) -> None:
            if text not in stages:
                for stage in stages.values():
                    bars.update(stage, visible=False)
                stages[text] = bars.add_task(escape(inert(text)), total=None, words="")
            if share:
                words = getattr(share, "words", "")
                bars.update(stages[text], total=1.0, completed=share, words=words)

        yield Corpora(root, progress=progress, **built)
