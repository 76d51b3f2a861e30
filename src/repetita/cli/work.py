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
        list[str] | None, typer.Option("--fingerprint", help="A run; none: orders from stdin.")
    ] = None,
    progress: Annotated[Path | None, typer.Option("--progress", help="File to say progress in.")] = None,
    device: Annotated[str, typer.Option("--device", help="What to compute on: cpu, cuda or cuda:1.")] = "cpu",
    until_eof: Annotated[bool, typer.Option("--until-eof", help="Stop when stdin ends.")] = False,
    storage: Storage = None,
    root: Root = ROOT,
) -> None:
    """Bring runs of studies to their end, one after the other; processes of torchrun do each together."""
    from repetita.cli.train import assist_in
    from repetita.study.engines import Errand, Given
    from repetita.study.work import watch_parent, watch_stdin, work
    from repetita.train.ranks import joined

    logging.getLogger("repetita").setLevel(logging.INFO)
    if run is None:
        watch_parent()
    orders = sys.stdin if run is None else [f"{number} {name}" for number, name in enumerate(run, start=1)]
    given = [Given(*one) for one in zip(study, scale, sha256, text or [""] * len(study), strict=True)]
    errand = Errand(tuple(given), str(root.resolve()), device, storage or "")
    with joined(None, device=device) as team:
        if team is not None and team.rank:
            assist_in(team, root=root, storage=storage)
        if until_eof:
            watch_stdin()
        work(errand, orders=orders, progress=progress, team=team)
