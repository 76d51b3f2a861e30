"""`repetita measure`: a checkpoint of a run on sets of its corpus, or any models on any texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from repetita.cli import measure_options as of
from repetita.cli.options import ROOT, AsJson, Root, TextField, print_json, print_table, speaker
from repetita.errors import SpecError

if TYPE_CHECKING:
    import polars as pl

    from repetita.study.audit import Audit, Audited, AuditedSubject

MOST_SHOWN = 10
"""Texts whose counterfactual memorization is printed."""


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
    indices: of.Indices = None,
    eidetic: of.Eidetic = None,
    reference: of.Reference = None,
    trained_with: of.TrainedWith = None,
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
        "top_k": top_k, "top_p": top_p, "canaries": canaries, "indices": indices, "eidetic": eidetic,
        "reference": reference, "trained_with": trained_with, "limit": limit, "device": device,
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
    for name, option in (("prompts", "--prompt"), ("suffixes", "--suffix"), ("indices", "--indices")):
        if name in values:
            values[name] = numbers(values[name], option)
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


def numbers(text: str, option: str) -> tuple[int, ...]:
    """What stands between commas; SpecError for what is no whole number."""
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
        second, apart = audited.reference, audited.counterfactual
        print_json(
            {
                "subjects": [_said(one) for one in audited.subjects],
                "reference": None if second is None else _said(second),
                "by_group": audited.by_group.to_dicts(),
                "counterfactual": None if apart is None else apart.to_dicts(),
            }
        )
    else:
        _print(audited)


def _said(one: "AuditedSubject") -> dict[str, Any]:
    return one._asdict() | {"guard": one.guard._asdict()}


def _write(audited: "Audited", out: Path) -> None:
    import io

    from repetita.journal.disk import write_atomic

    buffer = io.BytesIO()
    audited.by_text.write_parquet(buffer)
    write_atomic(out, buffer.getvalue())


def _print(audited: "Audited") -> None:
    for one in audited.subjects:
        _print_subject(one)
    if audited.reference is not None:
        _print_subject(audited.reference, what="reference ")
    several = len(audited.subjects) > 1
    rows = []
    for row in audited.by_group.iter_rows(named=True):
        metric = f"{row['metric']} ({row['on']})" if row["on"] else row["metric"]
        revision = "" if row["revision"] is None else f"@{row['revision']}"
        shown = {"subject": f"{row['name']}{revision}"} if several else {}
        shown |= {"text": row["group"], "metric": metric, "value [95%]": _value(row)}
        rows.append(shown | {"n": _counted(row["n"], row["unit"])})
    typer.echo("")
    print_table(rows, right=("n",))
    typer.echo("\n[95%]: over texts, of exposure over canaries; of a single one there is none")
    for row in audited.by_group.iter_rows(named=True):
        if row["instrument"] == "canaries" and row["value"] is not None and row["note"]:
            of = f"{row['name']}, {row['group']}: " if several else ""
            _paragraph(f"{of}{row['metric']}: {row['note']}", indent="")
    if audited.counterfactual is not None:
        _print_counterfactual(audited.counterfactual)


def _value(row: dict[str, Any]) -> str:
    from repetita.fit.estimate import Estimate

    if row["value"] is None:
        return row["note"] or "not applicable"
    return Estimate(row["value"], row["low"], row["high"], 0, "").text()


def _counted(n: int, unit: str) -> str:
    """`1 text`, `2 texts`."""
    return f"{n} {unit[:-1] if n == 1 and unit.endswith('s') else unit}".strip()


def _paragraph(text: str, *, indent: str = "  ") -> None:
    """A sentence, cut where a terminal ends."""
    import textwrap

    from rich.console import Console

    from repetita.cli.options import inert

    console = Console()
    width = console.width if console.is_terminal else 10_000
    typer.echo(
        textwrap.fill(
            inert(text),
            width,
            initial_indent=indent,
            subsequent_indent=indent + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _print_subject(one: "AuditedSubject", *, what: str = "") -> None:
    record = one.record
    places = [record["device"], record["dtype"], f"{record['batch_tokens']} tokens at once"]
    if record["halvings"]:
        places.append(f"{len(record['halvings'])} times a batch did not fit and was halved")
    _paragraph(f"{what}{one.label} ({one.id}): {', '.join(places)}", indent="")
    _paragraph(f"read in {one.rule}")
    _paragraph(one.guard.text)
    _paragraph(f"{_counted(one.measured, 'texts')} measured now, rows in {one.folder}")


def _print_counterfactual(found: "pl.DataFrame") -> None:
    """The texts with the largest values, and how many there are besides."""
    known = found.filter(found["value"].is_not_null()).sort("value", descending=True, maintain_order=True)
    typer.echo("")
    _paragraph(
        "counterfactual memorization: mean M(f) of the subjects that were trained with a text less that of "
        "the others; intervals over subjects",
        indent="",
    )
    print_table(
        [
            {
                "text": row["text_name"],
                "in": row["group"],
                "value [95%]": _value(row),
                "with": row["n_in"],
                "without": row["n_out"],
            }
            for row in known.head(MOST_SHOWN).iter_rows(named=True)
        ],
        right=("with", "without"),
    )
    if len(known) > MOST_SHOWN:
        typer.echo(f"and {_counted(len(known) - MOST_SHOWN, 'texts')} with less; --json has all")
    for (note,), part in found.filter(found["value"].is_null()).group_by("note", maintain_order=True):
        _paragraph(f"{_counted(len(part), 'texts')} left out: {note}", indent="")
