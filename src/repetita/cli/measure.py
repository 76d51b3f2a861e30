"""`repetita measure`: a checkpoint of a run on sets of its corpus, or any models on any texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repetita.cli.options import ROOT, AsJson, Root, TextField, print_json, print_table, speaker
from repetita.errors import SpecError

if TYPE_CHECKING:
    from repetita.study.audit import Audit, Audited

SUBJECTS = (
    "A run's folder, or its name below runs/; with --text also run:FOLDER@STEP, hf:NAME@REVISION, a folder "
    "in transformers' layout, a .gguf file; several."
)


def measure(
    context: typer.Context,
    subjects: Annotated[list[str], typer.Argument(metavar="SUBJECT...", help=SUBJECTS)],
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--text", help="A text, a .csv, .jsonl or .parquet file of texts, or a folder; several."
        ),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on", help="Without --text: a set, several times: test, repeated, special/0 ... [default: test]"
        ),
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="Without --text: step of a kept checkpoint. [default: the last]")
    ] = None,
    max_sequences: Annotated[
        int | None, typer.Option(help="Without --text: at most this many sequences a set. [default: all]")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Without --text: where the corpus lies, when it is a file that was moved."),
    ] = None,
    probes: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            help="Several times: score, unit_length, extraction, membership, probabilistic, copying, heads, "
            "canaries. [default: the first four]",
        ),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option("--prompt", help="Tokens of a prompt, with commas. [default: 32]")
    ] = None,
    suffixes: Annotated[
        str | None, typer.Option("--suffix", help="Tokens asked for behind it, with commas. [default: 32]")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="For probabilistic extraction. [default: 1]")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="For probabilistic extraction. [default: no cut]")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="For probabilistic extraction. [default: no cut]")
    ] = None,
    canaries: Annotated[
        str | None, typer.Option(help="canaries.json of `repetita canaries make`, for their exposure.")
    ] = None,
    bos: Annotated[
        str | None, typer.Option(help="auto, always, never or eos: the token before a text. [default: auto]")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Tokens read at once. [default: the context]")] = None,
    stride: Annotated[
        str | None,
        typer.Option(help="New tokens of each later window, disjoint, or refuse. [default: disjoint]"),
    ] = None,
    first_token: Annotated[
        str | None, typer.Option(help="auto, scored or skipped: a text's first token. [default: auto]")
    ] = None,
    text_field: TextField = "text",
    limit: Annotated[int | None, typer.Option(help="At most this many texts of each --text.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps ... [default: what is there]")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16. [default: float32 where it fits]")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(help="Tokens read at once. [default: what fits]")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Weights as a pickle where there are no safetensors.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A Parquet file for the rows by text.")] = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Measure a checkpoint on sets of its run's corpus, which writes nothing, or any models on texts."""
    sets = {"--on": on, "--step": step, "--max-sequences": max_sequences, "--source": source}
    rule = {"bos": bos, "window": window, "stride": stride, "first_token": first_token}
    plain = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "canaries": canaries, "limit": limit,
        "device": device, "dtype": dtype, "batch_tokens": batch_tokens,
    }  # fmt: skip
    if not texts:
        given = {"--probe": probes, "--prompt": prompts, "--suffix": suffixes, "--out": out}
        given |= {"--" + name.replace("_", "-"): value for name, value in (rule | plain).items()}
        _check_sets(subjects, given | {"--allow-pickle": allow_pickle or None})
        _measure_sets(context, subjects[0], sets=sets, root=root, as_json=as_json)
        return
    _check_unused(sets, why="beside --text; leave it out")
    values: dict[str, Any] = {name: value for name, value in plain.items() if value is not None}
    read = {name: value for name, value in rule.items() if value is not None}
    if stride is not None and stride.isdecimal():
        read["stride"] = int(stride)
    values |= {"rule": read} if read else {}
    values |= {"probes": tuple(probes)} if probes else {}
    values |= {"prompts": _numbers(prompts, "--prompt")} if prompts else {}
    values |= {"suffixes": _numbers(suffixes, "--suffix")} if suffixes else {}
    from repetita.study.audit import Audit

    audit = Audit(
        subjects=tuple(subjects),
        texts=tuple(texts),
        text_field=text_field,
        allow_pickle=allow_pickle,
        **values,
    )
    _audit(context, audit, root=root, out=out, as_json=as_json)


def _check_sets(subjects: list[str], given: dict[str, Any]) -> None:
    """Raises SpecError for what only texts can be measured with."""
    from repetita.study.audit_subjects import HUB, RUN

    outside = next((one for one in subjects if one.startswith((HUB, RUN)) or one.endswith(".gguf")), None)
    config = next((one for one in subjects if (Path(one) / "config.json").exists()), None)
    if len(subjects) > 1 or outside or config:
        raise SpecError(
            f"'{outside or config or subjects[1]}' is measured on texts; say which with --text FILE"
        )
    _check_unused(given, why="without --text; give a text, or leave it out")


def _check_unused(given: dict[str, Any], *, why: str) -> None:
    for name, value in given.items():
        if value is not None and value != []:
            raise SpecError(f"{name} has no effect {why}")


def _measure_sets(
    context: typer.Context, run: str, *, sets: dict[str, Any], root: Path, as_json: bool
) -> None:
    from repetita.study.single import measure_run

    rows = measure_run(
        Path(run) if Path(run).is_dir() else root / "runs" / run,
        root=root,
        on=tuple(sets["--on"] or ("test",)),
        step=sets["--step"],
        max_sequences=sets["--max-sequences"],
        source=sets["--source"],
        say=speaker(context),
    )
    if as_json:
        print_json(rows)
    else:
        print_table(rows, right=("step", "value", "n"))


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(","))
    except ValueError:
        raise SpecError(f"{option} {text}: not whole numbers; write 16,32 for example") from None


def _audit(context: typer.Context, audit: "Audit", *, root: Path, out: Path | None, as_json: bool) -> None:
    from repetita.cli.standing import standing_shown
    from repetita.study.audit import run_audit

    with standing_shown(quiet=context.obj == "quiet") as watch:
        audited = run_audit(audit, root=root, watch=watch)
    if out is not None:
        _write(audited, out)
    if as_json:
        print_json(
            {
                "subjects": [one._asdict() | {"guard": one.guard._asdict()} for one in audited.subjects],
                "by_group": audited.by_group.to_dicts(),
            }
        )
    else:
        _print(audited)


def _write(audited: "Audited", out: Path) -> None:
    import io

    from repetita.journal.disk import write_atomic

    buffer = io.BytesIO()
    audited.by_text.write_parquet(buffer)
    write_atomic(out, buffer.getvalue())


def _print(audited: "Audited") -> None:
    from repetita.cli.options import inert
    from repetita.fit.estimate import Estimate

    for one in audited.subjects:
        record = one.record
        places = [record["device"], record["dtype"], f"{record['batch_tokens']} tokens at once"]
        places += [f"halved {len(record['halvings'])} times: out of memory"] if record["halvings"] else []
        typer.echo(inert(f"{one.label} ({one.id}): {', '.join(places)}"))
        typer.echo(inert(f"  read in {one.rule}"))
        typer.echo(inert(f"  {one.guard.text}"))
        typer.echo(inert(f"  {one.measured} texts measured now, rows in {one.folder}"))
    labels = {one.id: one.label for one in audited.subjects}
    rows = []
    for row in audited.by_group.iter_rows(named=True):
        value = Estimate(row["value"], row["low"], row["high"], row["n"], "")
        metric = f"{row['metric']} ({row['on']})" if row["on"] else row["metric"]
        shown = {"subject": labels[row["subject"]], "text": row["group"], "metric": metric}
        said = value.text() if row["value"] is not None else row["note"] or "not applicable"
        rows.append(shown | {"value [95%]": said, "n": f"{row['n']} {row['unit']}".strip()})
    typer.echo("")
    print_table(rows, right=("n",))
