"""`repetita train`: bring one run, written as JSON, to its end."""

from pathlib import Path
from typing import Annotated

import typer

from repetita.cli.options import ROOT, AsJson, Root, Storage, print_json, print_table, speaker


def train(
    context: typer.Context,
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC.json", help="A RunSpec as JSON; see docs/elsewhere.md.")
    ],
    threads: Annotated[int, typer.Option(help="Threads of the one process.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    micro_batch: Annotated[int | None, typer.Option(help="Sequences in one forward pass.")] = None,
    as_json: AsJson = False,
    storage: Storage = None,
    root: Root = ROOT,
) -> None:
    """Train one run, or what is missing of it, and measure loss and M(f) on its sets at log-spaced steps."""
    from repetita.study.run_file import read_run_file
    from repetita.study.single import train_run
    from repetita.train.loop import Options

    run = read_run_file(spec)
    options = Options(threads=threads, device=device, micro_batch=micro_batch)
    done = train_run(run, root=root, options=options, storage=storage, say=speaker(context))
    if as_json:
        print_json({"path": done.path, "trained_steps": done.trained_steps, "last": done.last})
        return
    typer.echo(f"{done.path}: {done.trained_steps} of {run.steps} steps trained now")
    print_table(done.last, right=("step", "tokens", "value", "n"))
