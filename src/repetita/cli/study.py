"""`repetita study`: list, plan, run and report studies."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repetita.cli.options import (
    ROOT,
    AsJson,
    Corpus,
    PassageFile,
    Processes,
    Root,
    Scale,
    Storage,
    Subset,
    TextField,
    inert,
    print_json,
    print_table,
    speaker,
)

if TYPE_CHECKING:
    from repetita.fit.claim import Claim
    from repetita.study.prepare import Portion
    from repetita.study.publish import Published
    from repetita.study.where import Where

app = typer.Typer(no_args_is_help=True, help="Questions that runs can answer: list, plan, run, report.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A built-in study or paper, or the path of a file that defines STUDY or PAPER."
    ),
]

SlurmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm", metavar="KEY=VALUE", help="Told to sbatch: partition, account, time (minutes), mem, ..."
    ),
]
PerRun = Annotated[
    int | None,
    typer.Option(
        "--per-run",
        metavar="N",
        help="Processes, or GPUs, of one machine that compute each run together. [default: as many GPUs as "
        "hold it]",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the scripts for --engine slurm; submit nothing.")
]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """The built-in studies, and the papers whose studies run together."""
    from repetita.study.find import built_in, find_paper, find_study, papers

    studies = {name: find_study(name).study for name in built_in()}
    whole = [found.paper for name in papers() if (found := find_paper(name))]
    scales = {
        one.name: [
            scale
            for scale in studies[one.studies[0]].scales
            if all(scale in studies[name].scales for name in one.studies)
        ]
        for one in whole
    }
    if as_json:
        fields = ("name", "title", "question", "prediction", "source")
        listed = [
            {name: getattr(one, name) for name in fields} | {"scales": list(one.scales)}
            for one in studies.values()
        ]
        for one in whole:
            words = {"name": one.name, "title": one.title, "question": one.lead, "source": one.source}
            listed.append(words | {"scales": scales[one.name], "studies": list(one.studies)})
        print_json(listed)
        return
    rows = [(one.name, one.title, ", ".join(one.scales)) for one in studies.values()]
    rows += [
        (one.name, f"{one.title} ({len(one.studies)} studies)", ", ".join(scales[one.name])) for one in whole
    ]
    print_table([dict(zip(("study", "title", "scales"), row, strict=True)) for row in rows])


@app.command()
def plan(
    context: typer.Context,
    study: Name,
    scale: Scale = None,
    corpus: Corpus = None,
    text_field: TextField = "text",
    subset: Subset = None,
    text: PassageFile = None,
    processes: Processes = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Price it on GPUs: v100, a100, h100, h200, b200.")
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option("--utilisation", help="Share of the GPU's peak. [default: 0.4]")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="GPUs to spread the runs over. [default: the fewest]")
    ] = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """What a study would run: tokens, minutes, memory, disk, what is there already. Trains nothing."""
    from repetita.cli.plan import show_plan
    from repetita.study.prepare import bundle
    from repetita.study.text import text_of

    given = text_of(corpus, text_field=text_field, subset=subset, passage=text)
    whole = bundle(study, scale=scale, text=given)
    show_plan(
        whole,
        root=root,
        processes=processes or os.cpu_count() or 1,
        gpus=gpus_asked(whole.scale, device=device, utilisation=utilisation, n_gpus=gpus),
        say=speaker(context),
        as_json=as_json,
    )


def gpus_asked(
    scale: str, *, device: str | None, utilisation: float | None, n_gpus: int | None
) -> dict[str, Any] | None:
    """What the options say of GPUs, None where none is meant; SpecError for an option without effect."""
    from repetita.errors import SpecError
    from repetita.study.accelerators import DEFAULT_DEVICE, DEFAULT_UTILISATION, PAPER_SCALE

    if device is None and scale != PAPER_SCALE:
        for name, value in (("--utilisation", utilisation), ("--gpus", n_gpus)):
            if value is not None:
                raise SpecError(
                    f"{name} has no effect without --device; name a device, such as --device h100"
                )
        return None
    return {
        "device": device or DEFAULT_DEVICE,
        "utilisation": DEFAULT_UTILISATION if utilisation is None else utilisation,
        "n_gpus": n_gpus,
    }


@app.command()
def run(
    context: typer.Context,
    study: Name,
    scale: Scale = None,
    corpus: Corpus = None,
    text_field: TextField = "text",
    subset: Subset = None,
    text: PassageFile = None,
    processes: Processes = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Where runs are computed: local (this machine), ray, or slurm.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option("--address", help="A Ray cluster, HOST:PORT or auto. [default: one on this machine]"),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="What they are computed on: cpu, cuda, or auto.")
    ] = "cpu",
    per_run: PerRun = None,
    storage: Storage = None,
    slurm: SlurmOptions = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Run what is missing of a study. Stop it at any time; the same command continues."""
    from repetita.study.prepare import bundle
    from repetita.study.slurm_options import parse
    from repetita.study.text import text_of
    from repetita.study.walkthrough import publish_bundle
    from repetita.study.where import Where

    where = Where(
        engine=engine,
        processes=processes,
        address=address,
        device=device,
        slurm=parse(slurm or []),
        storage=storage,
        per_run=per_run,
    )
    given = text_of(corpus, text_field=text_field, subset=subset, passage=text)
    whole = bundle(study, scale=scale, text=given)
    if dry_run:
        show_scripts(whole.portions, root=root, where=where, as_json=as_json)
        return
    failed = run_portions(
        whole.portions,
        root=root,
        where=where,
        quiet=context.obj == "quiet",
        as_json=as_json,
        show=True,
        paper=whole.folder if whole.paper else None,
    )
    if whole.paper and not as_json:
        typer.echo(f"page: {publish_bundle(whole, root=root).page.resolve()}")
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    study: Name,
    scale: Scale = None,
    corpus: Corpus = None,
    text_field: TextField = "text",
    subset: Subset = None,
    text: PassageFile = None,
    gallery: Annotated[
        Path | None,
        typer.Option("--gallery", help="Also copy figures, findings and tables into this folder, not runs."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Judge the claims and write the page, also of a study that is half done."""
    from repetita.study.gallery import write_gallery
    from repetita.study.manifest import sole_scale
    from repetita.study.prepare import bundle
    from repetita.study.stored import pull_reported, pull_studies
    from repetita.study.text import text_of
    from repetita.study.walkthrough import publish_bundle

    given = text_of(corpus, text_field=text_field, subset=subset, passage=text)
    if storage:
        pull_studies(storage, root=root)
    whole = bundle(study, scale=scale or sole_scale(root, study=study, text=given), text=given)
    if storage:
        pull_reported(storage, root=root, folders=[part.folder for part in whole.portions])
    published = publish_bundle(whole, root=root)
    if gallery is not None:
        write_gallery(published, bundle=whole, folder=gallery)
    show_published(published, open_page=open_page, as_json=as_json)


def show_scripts(portions: Sequence["Portion"], *, root: Path, where: "Where", as_json: bool) -> None:
    """Prints what would be submitted to Slurm, each script under a line that says for how many runs it is."""
    from repetita.study.execute import job_scripts

    scripts = job_scripts(portions, root=root, where=where)
    if as_json:
        print_json(scripts)
    elif not scripts:
        typer.echo("nothing to do: all runs are complete")
    else:
        typer.echo("\n".join(scripts))


def run_portions(
    portions: Sequence["Portion"],
    *,
    root: Path,
    where: "Where",
    quiet: bool,
    as_json: bool,
    show: bool,
    paper: str | None = None,
) -> bool:
    """Runs portions with a display and prints what became of them; whether a run failed."""
    from repetita.study.display import choose_display
    from repetita.study.execute import execute
    from repetita.study.price import time_text

    display = choose_display(quiet=quiet)
    outcome = execute(portions, root=root, where=where, display=display, paper=paper)
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


def show_published(published: "Published", *, open_page: bool, as_json: bool) -> None:
    """Prints what was found, and opens the page where that is asked for."""
    from repetita.report.terminal import findings_lines, findings_table

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
            | _headlines(published)
        )
    else:
        from rich.console import Console

        console = Console()
        for one in published.reports:
            for warning in one.warnings:
                typer.echo(inert(f"{one.name}: {warning}"), err=True)
        for title, findings in _printed(published):
            if console.is_terminal:
                console.print(findings_table(findings, title=title))
            else:
                for line in (title, *findings_lines(findings)):
                    typer.echo(inert(line))
        typer.echo(f"page: {page}")
    if open_page:
        import webbrowser

        webbrowser.open(page.as_uri())


def _printed(published: "Published") -> list[tuple[str, Sequence["Claim"]]]:
    """Findings under their titles: of a paper its own claims, figure by figure."""
    if published.walk is None:
        return [(one.title, one.findings) for one in published.reports]
    steps = [step for step in published.walk.steps if step.headline]
    return [(f"{step.label}: {step.title}", [step.headline]) for step in steps if step.headline]


def _headlines(published: "Published") -> dict[str, Any]:
    """The claims that a paper's page judges together, by figure of the paper."""
    if published.walk is None:
        return {}
    steps = [step for step in published.walk.steps if step.headline]
    return {"paper": {step.label: _claim(step.headline) for step in steps if step.headline}}


def _claim(claim: "Claim") -> dict[str, Any]:
    estimate = None if claim.estimate is None else claim.estimate._asdict()
    return claim._asdict() | {"estimate": estimate}
