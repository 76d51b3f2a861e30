"""`repetita study new`: a commented study file that runs as it is."""

from pathlib import Path
from typing import Annotated

import typer

from repetita.cli.options import AsJson, inert, print_json


def new(
    name: Annotated[str, typer.Argument(help="Lower-case words joined by underscores.")],
    path: Annotated[Path, typer.Option("--path", help="Folder to write it to.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a study file to start from: it runs in seconds, and every part is to be changed."""
    from repetita.study.new import new_study

    file = new_study(name, folder=path)
    if as_json:
        print_json({"file": file})
        return
    typer.echo(inert(f"{file} runs as it is; edit it, and try: repetita study run {file} --scale tiny"))
