"""The study of a checkpoint series that somebody else trained: looked through, measured, and its page."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repetita.errors import SpecError, UserError
from repetita.fit.claim import settle
from repetita.journal.disk import write_atomic
from repetita.report.draw import svg
from repetita.report.page import Report, Table, page
from repetita.spec import fingerprint
from repetita.study.audit import Audit, Audited, Watch, run_audit
from repetita.study.audit_probes import ProbeName
from repetita.study.audit_texts import Text, read_texts
from repetita.study.doctor import Checked, Diagnosis, diagnose
from repetita.study.known_order import FromTable
from repetita.study.own_order import order_of_run, write_run_texts
from repetita.study.publish import write_figures
from repetita.study.series import HUB, RUN, Member, Series, find_all_series, run_of
from repetita.study.series_figures import figures
from repetita.study.series_findings import claims, effects, tables
from repetita.study.series_rows import Roles, along, check_roles, group_curves, text_curves

if TYPE_CHECKING:
    import polars as pl

TEXTS = ("wikipedia-en", "synthetic")
"""What is measured where nothing is given: text that nearly every model has read, and text made from a seed,
which none has."""
LIMIT = 32
"""Texts of each of these."""
SUFFIX = 32
"""Tokens of prompt and of suffix, or half a sequence where one of a run is shorter than both."""
PROBES: tuple[ProbeName, ...] = ("score", "extraction", "heads")
FLIPS = 0.01
"""More tokens than this share flip in float32: the page warns."""

QUESTION = (
    "What does this model know of these texts at each checkpoint: when does it memorize them, what does it "
    "forget, and when do induction heads form?"
)


class SeriesFound(NamedTuple):
    """What a study of series found, and where it was written."""

    page: Path
    report: Report
    audited: Audited
    diagnosis: Diagnosis
    by_group: "pl.DataFrame"
    """Rows of the audit with `series`, `checkpoint` and `step`, see `study.audit_table`."""
    by_text: "pl.DataFrame"


def series_audit(subjects: Sequence[str], /, *, root: str | Path = "repetita-out", **given: Any) -> Audit:
    """The audit of some series that needs only their names; `given` are other fields of `Audit`.

    Without `texts`, of runs of ours these are sequences of the first one's sets, which are written below
    `root`/series/texts, and where they are short, prompt and suffix are half of one each; of other models
    leads of Wikipedia, and text made from a seed, which none has read.

    >>> from repetita import series_audit
    >>> audit = series_audit(["hf:owner/geese@all"])
    >>> audit.texts, audit.limit
    (('wikipedia-en', 'synthetic'), 32)
    """
    own: dict[str, Any] = {}
    if "texts" not in given:
        own = {"texts": TEXTS, "limit": LIMIT}
        near = not any(subject.startswith(HUB) for subject in subjects)
        runs = [run_of(series) for series in find_all_series(subjects, root=root)] if near else []
        if runs and runs[0] is not None and None not in runs:
            written = write_run_texts(runs[0], limit=given.get("limit", LIMIT), root=Path(root))
            own["texts"] = tuple(str(file) for file in written.files)
            if "extraction" in given.get("probes", PROBES) and written.length < 2 * SUFFIX:
                own["prompts"] = own["suffixes"] = (written.length // 2,)
    return Audit(**{"subjects": tuple(subjects), "probes": PROBES, **own, **given})


def measure_series(
    audit: Audit,
    /,
    *,
    order: FromTable | None = None,
    seen: str | None = None,
    unseen: str | None = None,
    root: str | Path = "repetita-out",
    watch: Watch | None = None,
    look: Callable[[str, float], None] | None = None,
) -> SeriesFound:
    """Looks through the series that `audit.subjects` name, measures each checkpoint, and writes a page.

    Subjects are those of `find_series`. `order` says which texts were read when; without it `seen` and
    `unseen` may name the groups (what was given as a text) that were read and that were not. Of runs of ours
    neither is needed: their schedules say it (see `study.own_order`). Checkpoints that cannot be opened, or
    whose name counts no step, are left out and named. What was measured before is not measured again. `watch`
    hears of measuring, `look` of looking through. Below `root`/series: page.html, figures, table.parquet.
    Raises UserError for what cannot be found or read, and SpecError where fewer than two checkpoints count.

    >>> from repetita import measure_series, series_audit
    >>> measure_series(series_audit(["geese@all"], texts=("swans.txt",)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    repetita.errors.CorpusError: ...swans.txt...
    """
    texts = read_texts(audit.texts, text_field=audit.text_field, limit=audit.limit)
    given = None if order is None else order.read()
    check_roles(texts, order=given, seen=seen, unseen=unseen)
    found = find_all_series(audit.subjects, root=root)
    _check_length(found)
    unknown: list[str] = []
    roles = Roles(dict.fromkeys([one.name for one in found], given) if given else {}, seen, unseen)
    if given is None and seen is None:
        roles, unknown = _own_orders(roles, found, texts=texts, root=Path(root))
    diagnosis = diagnose(audit.subjects, root=root, allow_pickle=audit.allow_pickle, watch=look)
    found = [_openable(series, diagnosis.checked) for series in found]
    _check_length(found)
    sources = [member.source for series in found for member in series.members]
    audited = run_audit(audit.edit(subjects=tuple(sources)), root=root, watch=watch)
    by_group, by_text = along(audited, found)
    report = series_report(audited, found=found, diagnosis=diagnosis, roles=roles)
    report = report._replace(warnings=[*report.warnings, *unknown])
    key = fingerprint([audit, order, seen, unseen])[:12]
    slug = re.sub(r"[^a-z0-9]+", "-", found[0].name.lower()).strip("-")[:40]
    folder = Path(root) / "series" / f"{slug}-{key}"
    drawings = {figure.name: svg(figure) for figure in report.figures}
    buffer = io.BytesIO()
    by_text.write_parquet(buffer)
    write_atomic(folder / "table.parquet", buffer.getvalue())
    write_figures(report.figures, drawings=drawings, folder=folder / "figures")
    write_atomic(folder / "page.html", page(report, drawings=drawings).encode())
    return SeriesFound(folder / "page.html", report, audited, diagnosis, by_group, by_text)


def _own_orders(
    roles: Roles, found: Sequence[Series], *, texts: Sequence[Text], root: Path
) -> tuple[Roles, list[str]]:
    """What schedules of runs of ours say of these texts, and of which runs it cannot be said, and why."""
    orders, unknown = {}, []
    for series in found:
        run = run_of(series)
        if run is None:
            continue
        try:
            orders[series.name] = order_of_run(run, texts=texts, root=root)
        except UserError as error:  # The numbers stand without it.
            unknown.append(f"When {series.name} read these texts is not known here: {error}.")
    return roles._replace(orders=orders), unknown


def _check_length(found: Sequence[Series]) -> None:
    """Raises SpecError where there is no series."""
    paths = [member.source for series in found for member in series.members]
    paths = [one for one in paths if not one.startswith((HUB, RUN))]
    absent = next((one for one in paths if not Path(one).expanduser().exists()), None)
    if absent is not None:
        raise SpecError(f"there is no model or folder '{absent}'; give a folder of checkpoint folders")
    if sum(member.step is not None for series in found for member in series.members) < 2:
        names = ", ".join(series.name for series in found)
        raise SpecError(
            f"{names}: fewer than two checkpoints with a step; give a series, such as hf:NAME@all, "
            f"run:RUN@all or a folder of checkpoint folders"
        )


def series_report(
    audited: Audited, /, *, found: Sequence[Series], diagnosis: Diagnosis, roles: Roles | None = None
) -> Report:
    """What an audit of the members of some series, one after the other, says: a page's content."""
    roles = roles or Roles()
    by_group, by_text = along(audited, found)
    curves, texts = list(group_curves(by_group)), list(text_curves(by_text, roles=roles))
    changed = list(effects(texts))
    names = ", ".join(series.name for series in found)
    return Report(
        name="checkpoint-series",
        title=f"A series of checkpoints: {names}",
        question=QUESTION,
        prediction="",
        source="",
        findings=settle(list(claims(changed, curves))),
        figures=list(figures(curves, texts, unseen=roles.unseen)),
        tables=[
            one if len(found) > 1 else _without_series(one)
            for one in (*tables(curves, texts, changed), _checkpoints(audited, found, diagnosis))
        ],
        provenance=_provenance(audited),
        warnings=_warnings(audited, diagnosis, roles),
    )


def _without_series(table: Table) -> Table:
    """A table whose first column would say the same in every row: the page's title does."""
    return table._replace(columns=table.columns[1:], rows=[row[1:] for row in table.rows])


def _openable(series: Series, checked: Sequence[Checked]) -> Series:
    """The members whose weights could be read and whose name counts a step."""
    read = {one.name for one in checked if one.series == series.name and one.weights is not None}
    kept = tuple(one for one in series.members if one.name in read and one.step is not None)
    return series._replace(members=kept)


def _checkpoints(audited: Audited, found: Sequence[Series], diagnosis: Diagnosis) -> Table:
    of = {(one.series, one.name): one for one in diagnosis.checked}
    members: list[tuple[str, Member]] = [(one.name, member) for one in found for member in one.members]
    rows = []
    for (series, member), subject in zip(members, audited.subjects, strict=True):
        record, guard = subject.record, subject.guard
        seen = of.pop((series, member.name), None)
        tokens = max(guard.tokens, 1)
        rows.append([
            series, member.name, member.step, None if seen is None else seen.norm, str(record["sha256"])[:12],
            f"{record['dtype']}, {record['device']}", len(record["halvings"]), guard.flips / tokens,
            guard.near_ties / tokens, "; ".join(seen.trouble) if seen else "",
        ])  # fmt: skip
    rows += [
        [
            one.series,
            one.name,
            one.step,
            one.norm,
            None,
            "not measured",
            None,
            None,
            None,
            "; ".join(one.trouble),
        ]
        for one in of.values()
    ]
    return Table(
        "series-checkpoints", "Checkpoints, how they were asked, and what is wrong with them",
        "Weights: hash of config and files. Halved: batches that did not fit into memory. Flips: share of a "
        "sample of tokens whose most likely token is another one in float32 at batch 1; near ties: share "
        "whose two most likely tokens are so close that a flip is to be expected. Trouble: of `repetita "
        "doctor`.",
        f"{len(rows)} checkpoints",
        ("series", "checkpoint", "step", "norm", "weights", "numbers", "halved", "flips", "near ties",
         "trouble"),
        rows,
    )  # fmt: skip


def _warnings(audited: Audited, diagnosis: Diagnosis, roles: Roles) -> list[str]:
    said = [
        f"{one.series}, {one.name}: {'; '.join(one.trouble)}." for one in diagnosis.checked if one.trouble
    ]
    said += [
        f"{one.series}, {one.name}: its name counts no step, so that it is left out."
        for one in diagnosis.checked
        if one.step is None and not one.trouble
    ]
    said += [*diagnosis.notes, *_unmeasured(audited)]
    flipped = [one.label for one in audited.subjects if one.guard.flips > FLIPS * max(one.guard.tokens, 1)]
    if flipped:
        more = f" and {len(flipped) - 4} more" if len(flipped) > 4 else ""
        said.append(
            f"Rounding changes the most likely token of more than {FLIPS:.0%} of a sample in "
            f"{', '.join(flipped[:4])}{more}: read shares there as uncertain by so much."
        )
    if len({one.rule for one in audited.subjects}) > 1:
        said.append(
            "Checkpoints read their texts by different rules (see below): their losses do not compare."
        )
    if not roles.orders and roles.seen is None:
        said.append(
            "Which texts were read in training is not known here, so that nothing is said of what reading "
            "did; give a known order, or name the texts that were read and those that were not."
        )
    return said


def _unmeasured(audited: Audited) -> Iterator[str]:
    """What was asked for and no checkpoint could answer, with the reason."""
    why: dict[str, list[str]] = {}
    for (metric,), part in audited.by_group.group_by("metric", maintain_order=True):
        if part["value"].null_count() == len(part):
            why.setdefault(str(part["note"][0]) or "not defined here", []).append(str(metric))
    for reason, metrics in why.items():
        yield f"No checkpoint has {', '.join(metrics)}: {reason}."


def _provenance(audited: Audited) -> Mapping[str, Mapping[str, object]]:
    rules = {one.rule for one in audited.subjects}
    first = audited.subjects[0].record
    groups = audited.by_text.select("group", "text").unique().group_by("group", maintain_order=True).len()
    facts: dict[str, Mapping[str, object]] = {
        "Reading": {
            f"rule {i}" if len(rules) > 1 else "rule": rule for i, rule in enumerate(sorted(rules), 1)
        },
        "Texts": {str(name): f"{n} texts" for name, n in groups.sort("group").iter_rows()},
        "Software": {name: first[name] for name in ("torch", "transformers") if name in first},
        "Model": {
            name: first[name] for name in ("class", "objective", "n_params", "context") if name in first
        },
        "Weights": {one.label + f" ({one.id})": one.record["sha256"] for one in audited.subjects},
    }
    return {name: of for name, of in facts.items() if of}
