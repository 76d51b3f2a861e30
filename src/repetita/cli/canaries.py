"""`repetita canaries`: write random secrets into a text a known number of times, with the key to them."""

from pathlib import Path
from typing import Annotated

import typer

from repetita.cli.options import AsJson, inert, print_json

app = typer.Typer(no_args_is_help=True, help="Random secrets in a text, to find out what a model keeps.")


@app.command()
def make(
    source: Annotated[str, typer.Argument(help="A text, as of `repetita corpus build`.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where documents.jsonl and canaries.json go.")
    ],
    counts: Annotated[
        str, typer.Option(help="How often canaries are written, with commas; 0: only kept to compare.")
    ] = "0,1,4,16,64",
    each: Annotated[int, typer.Option(min=1, help="Canaries of each count.")] = 8,
    n_digits: Annotated[int, typer.Option("--digits", min=1, max=18, help="Digits of a secret.")] = 9,
    prefix: Annotated[str, typer.Option(help="The words before it.")] = "The random number is",
    seed: Annotated[int, typer.Option(help="Another one draws other secrets and places.")] = 0,
    text_field: Annotated[str, typer.Option("--text-field", help="Field or column of the text.")] = "text",
    as_json: AsJson = False,
) -> None:
    """Write canaries into a text: train on documents.jsonl, and measure with canaries.json."""
    from repetita.corpus.canaries import KEY, TEXTS, CanarySpec, make_canaries
    from repetita.errors import SpecError

    try:
        often = tuple(int(count) for count in counts.split(","))
    except ValueError:
        raise SpecError(f"--counts {counts}: not whole numbers; write 0,1,4 for example") from None
    spec = CanarySpec(counts=often, each=each, n_digits=n_digits, prefix=prefix, seed=seed)
    made = make_canaries(spec, source=source, folder=folder, text_field=text_field)
    if as_json:
        print_json(made | {"texts": folder / TEXTS, "key": folder / KEY})
        return
    typer.echo(
        inert(
            f"{made['canaries']} canaries, written {made['insertions']} times into {made['documents']} "
            f"documents: {folder / TEXTS}; the key to them: {folder / KEY}"
        )
    )
