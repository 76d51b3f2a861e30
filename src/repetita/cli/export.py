"""`repetita export`: a checkpoint of a run as a folder that transformers opens without this package."""

from pathlib import Path
from typing import Annotated

import typer

from repetita.cli.options import ROOT, AsJson, Root, inert, print_json, speaker


def export(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name below runs/.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    to: Annotated[str, typer.Option(help="hf: model and tokenizer in the layout of transformers.")] = "hf",
    step: Annotated[int | None, typer.Option(help="Step of a kept checkpoint. [default: the last]")] = None,
    source: Annotated[
        str | None, typer.Option(help="Where the corpus lies, when it is a file that was moved.")
    ] = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Write a checkpoint of a run, and its tokenizer, for other libraries; logits are compared."""
    from repetita.study.export import export_run

    path = Path(run) if Path(run).is_dir() else root / "runs" / run
    done = export_run(path, out=out, to=to, root=root, step=step, source=source, say=speaker(context))
    if as_json:
        print_json(done._asdict())
        return
    typer.echo(inert(f"{done.path}: {done.architecture}, logits equal to {done.difference:.1g}"))
