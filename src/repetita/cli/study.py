"""`repetita study`: list, plan, run and report studies."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repetita.cli.options import ROOT, AsJson, Processes, Root, Scale, inert, print_json, print_table, speaker

if TYPE_CHECKING:
    from repetita.fit.claim import Claim
    from repetita.study.prepare import Portion
    from repetita.study.summary import Summary

app = typer.Typer(no_args_is_help=True, help="Questions that runs can answer: list, plan, run, report.")

Name = Annotated[str, typer.Argument(metavar="STUDY", help="A built-in name, or the path of a study file.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """The built-in studies."""
    from repetita.study.find import built_in, find_study

    studies = [find_study(name).study for name in built_in()]
    if as_json:
        fields = ("name", "title", "question", "prediction", "source")
        print_json(
            [{name: getattr(one, name) for name in fields} | {"scales": list(one.scales)} for one in studies]
        )
        return
    print_table([{"study": one.name, "title": one.title, "scales": ", ".join(one.scales)} for one in studies])


@app.command()
def plan(
    context: typer.Context,
    study: Name,
    scale: Scale = None,
    processes: Processes = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """What a study would run: tokens, minutes, memory, disk, what is there already. Trains nothing."""
    from repetita.study.corpora import Corpora
    from repetita.study.prepare import portion, prepare
    from repetita.study.summary import summarise

    part = portion(study, scale=scale)
    prepared = prepare([part], root=root, corpora=Corpora(root, say=speaker(context)))
    summary = summarise(prepared, processes=processes or os.cpu_count() or 1)
    detectable = dict(part.found.study.detectable(part.scale))
    if as_json:
        named = {"study": part.found.study.name, "scale": part.scale}
        print_json(named | summary.as_json() | {"detectable": detectable})
        return
    typer.echo(f"{part.found.study.title} ({part.scale})\n{part.found.study.question}")
    typer.echo(f"Prediction: {part.found.study.prediction} [{part.found.study.source}]\n")
    _print_summary(summary)
    if detectable:
        typer.echo("\nSmallest effect that each claim can detect")
        print_table([{"claim": name, "detects": text} for name, text in detectable.items()])


@app.command()
def run(
    context: typer.Context,
    study: Name,
    scale: Scale = None,
    processes: Processes = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Run what is missing of a study. Stop it at any time; the same command continues."""
    from repetita.study.prepare import portion

    part = portion(study, scale=scale)
    quiet = context.obj == "quiet"
    if run_portions([part], root=root, processes=processes, quiet=quiet, as_json=as_json, show=True):
        raise typer.Exit(1)


@app.command()
def report(
    study: Name,
    scale: Scale = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Judge the claims and write the page, also of a study that is half done."""
    from repetita.study.manifest import sole_scale
    from repetita.study.prepare import portion

    part = portion(study, scale=scale or sole_scale(root, study=study))
    report_portions([part], root=root, open_page=open_page, as_json=as_json)


def run_portions(
    portions: Sequence["Portion"],
    *,
    root: Path,
    processes: int | None,
    quiet: bool,
    as_json: bool,
    show: bool,
) -> bool:
    """Runs portions with a display and prints what became of them; whether a run failed."""
    from repetita.study.display import choose_display
    from repetita.study.execute import execute
    from repetita.study.price import time_text

    outcome = execute(portions, root=root, processes=processes, display=choose_display(quiet=quiet))
    if as_json:
        failed = [failure._asdict() for failure in outcome.failed]
        print_json(outcome._asdict() | {"failed": failed, "folders": list(outcome.folders)})
        return bool(outcome.failed)
    if show:
        there = f", {outcome.n_present} were there" if outcome.n_present else ""
        took = time_text(outcome.seconds)
        typer.echo(f"{outcome.n_done} runs done in {took}{there}, {len(outcome.failed)} failed")
    for failure in outcome.failed:
        typer.echo(inert(f"failed: {failure.run}: {failure.reason} (see {failure.journal})"), err=True)
    return bool(outcome.failed)


def report_portions(
    portions: Sequence["Portion"],
    *,
    root: Path,
    open_page: bool,
    as_json: bool,
    title: str | None = None,
    lead: str = "",
) -> None:
    """Writes the page of portions and prints what they found."""
    from repetita.report.terminal import findings_lines, findings_table
    from repetita.study.publish import publish

    published = publish(portions, root=root, title=title, lead=lead)
    page = published.page.resolve()
    if as_json:
        print_json(
            {
                "page": str(page),
                "studies": [
                    {
                        "study": one.name,
                        "findings": [_claim(claim) for claim in one.findings],
                        "warnings": list(one.warnings),
                    }
                    for one in published.reports
                ],
            }
        )
    else:
        from rich.console import Console

        console = Console()
        for one in published.reports:
            for warning in one.warnings:
                typer.echo(inert(f"{one.name}: {warning}"), err=True)
            if console.is_terminal:
                console.print(findings_table(one.findings, title=one.title))
            else:
                for line in (one.title, *findings_lines(one.findings)):
                    typer.echo(inert(line))
        typer.echo(f"page: {page}")
    if open_page:
        import webbrowser

        webbrowser.open(page.as_uri())


def _claim(claim: "Claim") -> dict[str, Any]:
    estimate = None if claim.estimate is None else claim.estimate._asdict()
    return claim._asdict() | {"estimate": estimate}


def _print_summary(summary: "Summary") -> None:
    from repetita.study.price import count_text, share_text, size_text, time_text

    heads = ("runs", "done", "train tokens", "measuring", "of the time", "one process")
    rows = [
        {
            "group": group.name,
            "runs": group.n_runs,
            "done": group.n_present,
            "train tokens": count_text(group.training_tokens),
            "measuring": count_text(group.measuring_tokens),
            "of the time": share_text(group.measuring_share),
            "one process": time_text(group.seconds) if group.seconds else "-",
        }
        for group in summary.groups
    ]
    print_table(rows, right=heads)
    if summary.probes:
        typer.echo("\nMeasuring, by probe")
        lines = [
            {
                "probe": probe.name,
                "times": probe.times,
                "tokens": count_text(probe.tokens),
                "of the time": share_text(probe.share),
            }
            for probe in summary.probes
        ]
        print_table(lines, right=("times", "tokens", "of the time"))
    trunks = f" ({summary.n_trunks} only as shared trunks)" if summary.n_trunks else ""
    typer.echo(
        f"\n{summary.n_runs} runs{trunks}, {summary.n_present} complete already\n"
        f"left: {count_text(summary.training_tokens)} tokens of training, "
        f"{count_text(summary.measuring_tokens)} of measuring "
        f"({share_text(summary.measuring_share)} of the time)"
    )
    if summary.replayed_steps:
        typer.echo(
            f"{summary.replayed_steps} steps of finished runs are trained again to measure what they lack "
            f"(no checkpoint was kept there)"
        )
    wall = time_text(summary.seconds) if summary.seconds else "nothing to do"
    typer.echo(
        f"time: {wall} on {summary.processes} process{'es' if summary.processes > 1 else ''} "
        f"(rates from {summary.rates}); memory {size_text(summary.memory)}, disk {size_text(summary.disk)}"
    )
