"""`repetita train`: bring one run, written as JSON, to its end."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from repetita.cli.options import ROOT, AsJson, Root, Storage, print_json, print_table, speaker

if TYPE_CHECKING:
    from repetita.train.ranks import Team


def train(
    context: typer.Context,
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC.json", help="A RunSpec as JSON; see docs/elsewhere.md.")
    ],
    threads: Annotated[int, typer.Option(help="Threads of each process.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    micro_batch: Annotated[int | None, typer.Option(help="Sequences in one forward pass.")] = None,
    parallel: Annotated[
        str | None,
        typer.Option(
            help="How the processes that torchrun started share the run: ddp, fsdp2, auto (by memory). "
            "[default: auto]",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="What training multiplies matrices in: float32, bfloat16.")
    ] = "float32",
    compiled: Annotated[bool, typer.Option("--compile", help="Have torch compile the layers.")] = False,
    recompute: Annotated[
        bool,
        typer.Option("--checkpoint-activations", help="Compute activations again instead of keeping them."),
    ] = False,
    as_json: AsJson = False,
    storage: Storage = None,
    root: Root = ROOT,
) -> None:
    """Train one run, or what is missing of it, and measure loss and M(f) on its sets at log-spaced steps.

    Processes that torchrun starts train it together: torchrun --nproc-per-node 8 -m repetita train ...
    """
    from repetita.model.acceleration import dtype_of
    from repetita.study.run_file import read_run_file
    from repetita.study.single import train_run
    from repetita.train.loop import Options
    from repetita.train.ranks import joined

    with joined(parallel, device=device) as team:
        if team is not None and team.rank:
            assist_in(team, root=root, storage=storage)
        run = read_run_file(spec)
        options = Options(
            threads=threads,
            device=team.device if team else device,
            micro_batch=micro_batch,
            dtype=dtype_of(dtype),
            compiled=compiled,
            recompute=recompute,
            team=team,
        )
        done = train_run(run, root=root, options=options, storage=storage, say=speaker(context))
    if as_json:
        print_json({"path": done.path, "trained_steps": done.trained_steps, "last": done.last})
        return
    typer.echo(f"{done.path}: {done.trained_steps} of {run.steps} steps trained now")
    print_table(done.last, right=("step", "tokens", "value", "n"))


def assist_in(team: "Team", *, root: Path, storage: str | None = None) -> NoReturn:
    """What a process beside rank 0 does, without a word, with corpora from a folder or a storage."""
    from repetita.study.work import corpora_in
    from repetita.train.assistant import assist

    logging.disable()
    raise typer.Exit(assist(team, open_corpus=corpora_in(root, storage=storage)))
