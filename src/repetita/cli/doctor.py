"""`repetita doctor`: whether checkpoints of a series are what their names say, before they are measured."""

import typer

from repetita.cli.measure_options import AllowPickle, Checkpoints
from repetita.cli.options import ROOT, AsJson, Root, inert, print_json, print_table, speaker


def doctor(
    context: typer.Context,
    subjects: Checkpoints,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Look for missing, repeated and damaged checkpoints; reads all weights, and exits with 1 on trouble."""
    from repetita.study.doctor import diagnose

    say = speaker(context)
    found = diagnose(
        subjects,
        root=root,
        allow_pickle=allow_pickle,
        watch=lambda name, share: say(f"{share:4.0%} reading {name}"),
    )
    if as_json:
        checked = [one._asdict() for one in found.checked]
        print_json({"healthy": found.healthy, "notes": found.notes, "checkpoints": checked})
    else:
        print_table(
            [
                {
                    "series": one.series,
                    "checkpoint": one.name,
                    "values": "" if one.n_params is None else f"{one.n_params:,}",
                    "norm": "" if one.norm is None else f"{one.norm:.5g}",
                    "change": "" if one.change is None else f"{one.change:+.2%}",
                    "as before": "" if one.unchanged is None else f"{one.unchanged:.0%}",
                    "weights": one.weights,
                    "config": one.config,
                    "tokenizer": one.tokenizer,
                    "trouble": "; ".join(one.trouble) or "-",
                }
                for one in found.checked
            ],
            right=("values", "norm", "change", "as before"),
        )
        for note in found.notes:
            typer.echo(inert(note))
    if not found.healthy:
        raise typer.Exit(1)
