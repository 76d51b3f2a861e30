"""`repetita measure`: a checkpoint of a run on sets of its corpus, or any models on any texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from repetita.cli import measure_options as of
from repetita.cli.options import ROOT, AsJson, Root, TextField, print_json, print_table, speaker
from repetita.errors import SpecError

if TYPE_CHECKING:
    from repetita.study.audit import Audit, Audited


def measure(
    context: typer.Context,
    subjects: of.Subjects,
    texts: of.Texts = None,
    on: of.On = None,
    step: of.Step = None,
    max_sequences: of.MaxSequences = None,
    source: of.Source = None,
    probes: of.Probes = None,
    prompts: of.Prompts = None,
    suffixes: of.Suffixes = None,
    temperature: of.Temperature = None,
    top_k: of.TopK = None,
    top_p: of.TopP = None,
    canaries: of.Canaries = None,
    bos: of.Bos = None,
    window: of.Window = None,
    stride: of.Stride = None,
    first_token: of.FirstToken = None,
    text_field: TextField = "text",
    limit: of.Limit = None,
    device: of.Device = None,
    dtype: of.DType = None,
    batch_tokens: of.BatchTokens = None,
    allow_pickle: of.AllowPickle = False,
    out: of.Out = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Measure a checkpoint on sets of its run's corpus, which writes nothing, or any models on texts."""
    sets = {"--on": on, "--step": step, "--max-sequences": max_sequences, "--source": source}
    rule = {"bos": bos, "window": window, "stride": stride, "first_token": first_token}
    asked: dict[str, Any] = {
        "probes": probes, "prompts": prompts, "suffixes": suffixes, "temperature": temperature,
        "top_k": top_k, "top_p": top_p, "canaries": canaries, "limit": limit, "device": device,
        "dtype": dtype, "batch_tokens": batch_tokens, "allow_pickle": allow_pickle or None,
    }  # fmt: skip
    if texts:
        _check_unused(sets, why="beside --text; leave it out")
        audit = _spec(asked, rule, subjects=tuple(subjects), texts=tuple(texts), text_field=text_field)
        _audit(context, audit, root=root, out=out, as_json=as_json)
    else:
        given = {
            "--" + name.replace("_", "-"): value for name, value in (asked | rule | {"out": out}).items()
        }
        _check_sets(subjects, given)
        _measure_sets(context, subjects[0], sets=sets, root=root, as_json=as_json)


def _spec(asked: dict[str, Any], rule: dict[str, Any], **values: Any) -> "Audit":
    """The audit that the options say."""
    from repetita.study.audit import Audit

    values |= {name: value for name, value in asked.items() if value not in (None, [])}
    read = {name: value for name, value in rule.items() if value is not None}
    if str(read.get("stride", "")).isdecimal():
        read["stride"] = int(read["stride"])
    for name in ("prompts", "suffixes"):
        if name in values:
            values[name] = _numbers(values[name], f"--{name.removesuffix('es').removesuffix('s')}")
    return Audit(**values, rule=read)


def _check_sets(subjects: list[str], given: dict[str, Any]) -> None:
    """Raises SpecError for what only texts can be measured with."""
    from repetita.study.series import HUB, RUN

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
            option = {"--prompts": "--prompt", "--suffixes": "--suffix", "--probes": "--probe"}.get(
                name, name
            )
            raise SpecError(f"{option} has no effect {why}")


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
