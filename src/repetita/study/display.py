"""What a person sees while a study runs: one live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from repetita.study.price import count_text, time_text
from repetita.study.progress import Sight

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

LINE_EVERY_SECONDS = 20.0


class Running(NamedTuple):
    """One run that a worker is at."""

    name: str
    sight: Sight


class View(NamedTuple):
    """The state of a study while it runs."""

    n_runs: int
    n_done: int
    n_failed: int
    running: Sequence[Running]
    seconds_left: float

    @property
    def tokens_per_second(self) -> float:
        """Training tokens a second of all workers together."""
        return sum(one.sight.tokens_per_second for one in self.running)

    def line(self) -> str:
        """The view in one line."""
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        return (
            f"{self.n_done}/{self.n_runs} done{failed}, {len(self.running)} running, "
            f"{count_text(self.tokens_per_second)} tokens/s, about {time_text(self.seconds_left)} left"
        )


class Plain:
    """A line for each run that ended, and one for all of them every 20 seconds."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = sys.stderr if file is None else file
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._file.write(text + "\n")
        self._file.flush()

    def update(self, view: View) -> None:
        """Prints the view when the last time is long enough ago."""
        if time.monotonic() - self._last >= LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            self.say(view.line())

    def close(self) -> None:
        """Nothing is left open."""


class Silent(Plain):
    """Says nothing at all."""

    def say(self, text: str) -> None:
        """Swallows a line."""


class OnTerminal:
    """A table that is drawn anew in place, with a bar for each run that a worker is at."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self._console.print(text, markup=False, highlight=False)

    def update(self, view: View) -> None:
        """Draws the view."""
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        self._live.update(_table(view))

    def close(self) -> None:
        """Removes the table."""
        if self._live is not None:
            self._live.stop()
            self._live = None


Display = Plain | OnTerminal


def choose_display(*, quiet: bool = False) -> Display:
    """A live table where stderr is a terminal, else plain lines; NO_COLOR takes the colours away."""
    if quiet:
        return Silent()
    if not sys.stderr.isatty():
        return Plain()
    from rich.console import Console

    console = Console(stderr=True)
    return OnTerminal(console) if console.is_terminal and not console.is_dumb_terminal else Plain()


def _table(view: View) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for one in view.running:
        steps = one.sight.steps or 1
        share = f"{100 * one.sight.step / steps:3.0f}%" if one.sight.steps else one.sight.state
        rate = f"{count_text(one.sight.tokens_per_second)} tokens/s" if one.sight.tokens_per_second else ""
        table.add_row(
            Text(one.name), ProgressBar(total=steps, completed=one.sight.step, width=30), share, rate
        )
    failed = f"{view.n_failed} failed" if view.n_failed else ""
    whole = ProgressBar(total=view.n_runs, completed=view.n_done + view.n_failed, width=30)
    left = f"{time_text(view.seconds_left)} left"
    table.add_row(Text(f"{view.n_done} of {view.n_runs} runs done", style="bold"), whole, left, failed)
    return table
