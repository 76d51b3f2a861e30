"""`repetita watch`: what runs have written so far, on the terminal or copied to TensorBoard or wandb."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from repetita.cli.options import ROOT, AsJson, Root, inert, print_json, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from repetita.study.watch import Seen

LINE_EVERY_SECONDS = 10.0
"""How often, at most, a run that goes on has a line of its own where there is no terminal."""

LISTED = 40
"""Runs in the live table; of the others only the number is said."""

HEADS = ("run", "state", "step", "loss", "tokens/s", "M(f)", "of")
RIGHT = ("step", "loss", "tokens/s", "M(f)")


def watch(
    context: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Runs, studies or root folders. [default: all of --root]"),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TRACKER", help="Copy to tensorboard or wandb.")
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option("--log-dir", help="Folder of the copy. [default: ROOT/TRACKER]")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Take what is there and end; do not follow.")] = False,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Follow runs from outside until they have ended, or Ctrl-C; the runs themselves do not notice."""
    from repetita.errors import SpecError
    from repetita.study.trackers import check_tracker
    from repetita.study.watch import watch_runs

    if log_dir is not None and to is None:
        raise SpecError("--log-dir has no effect without --to; say --to tensorboard or --to wandb")
    quiet = context.obj == "quiet"
    folder = None if to is None else log_dir or root / to
    tracker = None if to is None else check_tracker(to)
    if to is not None and not quiet and not as_json:
        typer.echo(inert(f"copying to {folder}; {_how_to_look(to, folder)}"), err=True)
    display = _Display(kind="nothing" if quiet or once else "json" if as_json else "text")
    try:
        seen = watch_runs(
            tuple(runs or ()),
            root=root,
            to=tracker,
            log_dir=log_dir,
            follow=not once,
            show=display.show,
        )
    except KeyboardInterrupt:
        display.close()
        if not quiet:
            typer.echo("stopped watching; the runs go on", err=True)
        return
    finally:
        display.close()
    _print_end(seen, copied=to is not None, as_json=as_json, once=once, quiet=quiet)


def _how_to_look(to: str, folder: Path | None) -> str:
    if to == "tensorboard":
        return f"look with: tensorboard --logdir {folder}"
    return f"WANDB_MODE=online sends it; until then: wandb sync {folder}/*/wandb/offline-run-*"


def _print_end(seen: Sequence["Seen"], *, copied: bool, as_json: bool, once: bool, quiet: bool) -> None:
    """What there is to say when the watch is over."""
    if as_json:
        if once:
            print_json([run._asdict() for run in seen])
        return
    if once and not quiet and not copied:
        print_table([row(run) for run in seen], right=RIGHT)
    states = [run.state for run in seen]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines = f", {sum(run.n_lines for run in seen)} new lines copied" if copied else ""
    typer.echo(f"{len(seen)} run{'s' if len(seen) != 1 else ''}: {counts}{lines}")
    for run in seen:
        if run.state == "failed":
            typer.echo(inert(f"failed: {run.run}: {run.message}"), err=True)


def row(run: "Seen") -> dict[str, str]:
    """A run as a row of the table."""
    from repetita.study.price import count_text

    return {
        "run": run.run,
        "state": run.state,
        "step": f"{run.step}/{run.steps}" if run.steps else "",
        "loss": "" if run.loss is None else f"{run.loss:.3f}",
        "tokens/s": "" if run.tokens_per_second is None else count_text(run.tokens_per_second),
        "M(f)": "" if run.memorized is None else f"{run.memorized:.3f}",
        "of": run.memorized_on,
    }


def line(run: "Seen") -> str:
    """A run in one line, for a log."""
    shown = row(run)
    parts = [f"{run.run}: {run.state}"]
    if run.steps:
        parts.append(f"step {shown['step']}")
    if run.loss is not None:
        parts.append(f"loss {shown['loss']}")
    if run.state == "running" and run.tokens_per_second is not None:
        parts.append(f"{shown['tokens/s']} tokens/s")
    if run.memorized is not None:
        parts.append(f"M(f) of {run.memorized_on}: {shown['M(f)']}")
    if run.message and run.state in ("failed", "damaged"):
        parts.append(run.message)
    return ", ".join(parts)


class _Display:
    """A table drawn in place on a terminal; elsewhere a line when a run's state changes, and now and then."""

    def __init__(self, *, kind: Literal["nothing", "json", "text"]) -> None:
        self._kind = kind
        self._live: Any = None
        self._said: dict[str, tuple[Seen, float]] = {}
        self._terminal = kind == "text" and sys.stdout.isatty()

    def show(self, seen: Sequence["Seen"]) -> None:
        """Shows the state of all runs."""
        if self._kind == "nothing":
            return
        if self._terminal:
            self._draw(seen)
        elif self._kind == "json":
            self._say(seen, as_text=lambda run: json.dumps(run._asdict(), ensure_ascii=False), every=0.0)
        else:
            self._say(seen, as_text=lambda run: inert(line(run)), every=LINE_EVERY_SECONDS)

    def close(self) -> None:
        """Leaves the last table standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _say(self, seen: Sequence["Seen"], *, as_text: Callable[["Seen"], str], every: float) -> None:
        now = time.monotonic()
        for run in seen:
            before, at = self._said.get(run.run, (None, 0.0))
            moved = before is None or before.state != run.state
            if run.state != "waiting" and (moved or (before != run and now - at >= every)):
                self._said[run.run] = (run, now)
                typer.echo(as_text(run))
        sys.stdout.flush()

    def _draw(self, seen: Sequence["Seen"]) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=Console(), auto_refresh=False)
            self._live.start()
        self._live.update(table(seen), refresh=True)


def table(seen: Sequence["Seen"]) -> "Table":
    """Runs that go on, then those that ended last, then a line for those that there was no room for."""
    from rich.table import Table
    from rich.text import Text

    order = {"running": 0, "quiet": 1, "damaged": 2, "failed": 3, "done": 4, "waiting": 5}
    shown = sorted(seen, key=lambda run: order[run.state])[:LISTED]
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for head in HEADS:
        drawn.add_column(head, justify="right" if head in RIGHT else "left", overflow="fold")
    for run in shown:
        style = {"done": "dim", "waiting": "dim", "failed": "red", "damaged": "red"}.get(run.state, "")
        drawn.add_row(*(Text(inert(text), style=style) for text in row(run).values()))
    states = [run.state for run in seen]
    counts = ", ".join(f"{states.count(state)} {state}" for state in order if state in states)
    drawn.add_row(Text(f"{len(seen)} runs: {counts}", style="bold"))
    return drawn
