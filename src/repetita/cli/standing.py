"""How far an audit is: a bar with the time left on a terminal, a line every 20 seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from repetita.cli.options import inert

if TYPE_CHECKING:
    from repetita.study.audit import Standing

LINE_EVERY_SECONDS = 20.0


def line(standing: "Standing") -> str:
    """A standing in one line."""
    from repetita.study.price import time_text

    left = "" if standing.seconds_left is None else f", about {time_text(standing.seconds_left)} left"
    return f"{standing.subject}: {standing.done} of {standing.texts} texts, {standing.share:.0%} of all{left}"


@contextmanager
def standing_shown(*, quiet: bool) -> Iterator[Callable[["Standing"], None] | None]:
    """What an audit tells of its progress to, on stderr; None with `quiet`."""
    from rich.console import Console

    if quiet:
        yield None
        return
    console = Console(stderr=True)
    if not (sys.stderr.isatty() and console.is_terminal) or console.is_dumb_terminal:
        yield _lines()
        return
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda one: bars.update(task, completed=one.share, description=escape(inert(line(one))))


def _lines() -> Callable[["Standing"], None]:
    last = time.monotonic()

    def show(standing: "Standing") -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_SECONDS:
            last = time.monotonic()
            typer.echo(inert(line(standing)), err=True)

    return show
