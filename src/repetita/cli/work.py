"""`repetita work`: a worker of a study; started by engines, not by people."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from repetita.cli.options import ROOT, Root, Storage


def work(
    study: Annotated[list[str], typer.Option("--study", help="A study: name or file.")],
    scale: Annotated[list[str], typer.Option("--scale", help="Its scale.")],
    sha256: Annotated[list[str], typer.Option("--sha256", help="Hash of its file when it was planned.")],
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Another text than its own as JSON, or empty.")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Fingerprint of a run; none: orders from stdin.")
    ] = None,
    progress: Annotated[Path | None, typer.Option("--progress", help="File to say progress in.")] = None,
    device: Annotated[str, typer.Option("--device", help="What to compute on: cpu, cuda or cuda:1.")] = "cpu",
    storage: Storage = None,
    root: Root = ROOT,
) -> None:
    """Bring runs of studies to their end, one after the other."""
    from repetita.study.engines import Given
    from repetita.study.work import watch_parent, work

    logging.getLogger("repetita").setLevel(logging.INFO)
    if run is None:
        watch_parent()
    orders = sys.stdin if run is None else [f"{number} {name}" for number, name in enumerate(run, start=1)]
    given = [Given(*one) for one in zip(study, scale, sha256, text or [""] * len(study), strict=True)]
    work(given, root=root, orders=orders, progress=progress, device=device, storage=storage)
