"""From the studies of a paper to its page: each figure's claim beside what was found of it."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from repetita.errors import UserError
from repetita.fit.claim import Claim, jointly
from repetita.journal.disk import write_atomic
from repetita.report.page import Report
from repetita.report.walk import Step, Walk, walk_page
from repetita.study.collect import Collected
from repetita.study.ledger import ledger_table, read_ledger, read_sessions
from repetita.study.manifest import read_manifest, sole_scale, study_path
from repetita.study.paper import Entry, Paper
from repetita.study.prepare import Bundle, Portion, bundle
from repetita.study.publish import Published, publish
from repetita.study.text import text_of

NOT_RUN = "not run yet"


class Told(NamedTuple):
    """A study of a paper that was begun."""

    part: Portion
    report: Report
    collected: Collected


def report_study(
    study: str | Path,
    *,
    scale: str | None = None,
    corpus: str | Path | None = None,
    text_field: str = "text",
    subset: str | None = None,
    text: str | Path | None = None,
    root: str | Path = "repetita-out",
) -> Published:
    """Judges the claims of a study or paper on what `root` holds of it and writes its page.

    >>> from repetita import report_study
    >>> published = report_study("my_question.py", scale="tiny")
    >>> published.page.name
    'page.html'
    >>> [claim.name for claim in published.reports[0].findings]
    ['repetition costs', 'the subset is memorized']
    """
    root, given = Path(root), text_of(corpus, text_field=text_field, subset=subset, passage=text)
    scale = scale or sole_scale(root, study=study, text=given)
    return publish_bundle(bundle(study, scale=scale, text=given), root=root)


def publish_bundle(whole: Bundle, *, root: Path) -> Published:
    """Writes the page of a study, or those of a paper and of each of its studies that was begun.

    Raises UserError where nothing of it was ever run in `root`.
    """
    if whole.paper is None:
        return publish(whole.portions, root=root)
    paper = whole.paper.paper
    told: dict[str, Told] = {}
    drawings: dict[str, str] = {}
    for name, part in zip(paper.studies, whole.portions, strict=True):
        if read_manifest(root, folder=part.folder) is not None:
            published = publish([part], root=root)
            drawings |= published.drawings
            told[name] = Told(part, published.reports[0], published.collected[0])
    if not told:
        of = whole.text.options if whole.text else ""
        raise UserError(
            f"{root} has nothing of {whole.folder}; run it first: repetita study run {whole.paper.reference} "
            f"--scale {whole.scale}{of}"
        )
    walk = _walk(whole, paper=paper, told=told, root=root)
    path = study_path(root, folder=whole.folder) / "page.html"
    write_atomic(path, walk_page(walk, drawings=drawings).encode())
    reports, collected = (
        tuple(getattr(one, name) for one in told.values()) for name in ("report", "collected")
    )
    return Published(path, reports, collected, drawings, walk)


def _walk(whole: Bundle, *, paper: Paper, told: Mapping[str, Told], root: Path) -> Walk:
    headlines = _headlines(paper, told=told)
    kept = read_ledger(root, folder=whole.folder)
    sessions = read_sessions(root, folder=whole.folder)
    text = f" All studies read {whole.text.name} here." if whole.text and whole.text.source else ""
    return Walk(
        title=paper.title,
        lead=f"{paper.lead} Scale: {whole.scale}.{text}",
        source=paper.source,
        steps=[
            _step(entry, paper=paper, told=told.get(entry.study), headline=headlines.get(entry.figure))
            for entry in paper.entries
        ],
        tables=() if kept is None else (ledger_table(kept, sessions=sessions),),
        provenance=_provenance(told.values()),
    )


def _headlines(paper: Paper, *, told: Mapping[str, Told]) -> dict[str, Claim]:
    """By figure of the paper, the first claim of its study, judged together with those of the others."""
    primary = [entry for entry in paper.entries if entry.primary]
    found = {
        entry.figure: told[entry.study].report.findings[0]
        for entry in primary
        if entry.study in told and told[entry.study].report.findings
    }
    return dict(zip(found, jointly(list(found.values()), n_tests=len(primary)), strict=True))


def _step(entry: Entry, *, paper: Paper, told: Told | None, headline: Claim | None) -> Step:
    bare = Step(entry.figure, entry.title, says=entry.claim, later=entry.later, primary=entry.primary)
    if told is None:
        return bare._replace(state=NOT_RUN)
    report, home = told.report, paper.home(entry.study) is entry
    others = [one for one in paper.entries if one.study == entry.study and one is not entry]
    findings = [claim for claim in report.findings if headline is None or claim.name != headline.name]
    if home:
        elsewhere = [name for one in others for name in one.claims]
        findings = [claim for claim in findings if not _named(claim.name, elsewhere)]
    else:
        findings = [claim for claim in findings if _named(claim.name, entry.claims)]
    findings = [claim._replace(primary=False) for claim in findings]
    # Where a study is at home its headline is shown, and what else it found is folded.
    n_shown = len(findings) if not home else 0 if headline else 1
    figures = [one for one in report.figures if _named(one.name, entry.figures)]
    tables = [one for one in report.tables if _named(one.name, entry.tables)]
    if home and not figures:
        elsewhere = [name for one in others for name in one.figures]
        figures = [one for one in report.figures if not _named(one.name, elsewhere)][:1]
    shown = [one.name for one in figures] + [one.name for one in tables]
    shown += [name for one in others for name in (*one.figures, *one.tables)]
    return bare._replace(
        power=_power(told, headline=headline),
        headline=headline,
        findings=findings[:n_shown],
        more_findings=findings[n_shown:],
        figures=figures,
        tables=tables,
        more_figures=[one for one in report.figures if not _named(one.name, shown)] if home else (),
        more_tables=[one for one in report.tables if not _named(one.name, shown)] if home else (),
        deviations=report.deviations if home else (),
        warnings=report.warnings if home else (),
    )


def _named(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _power(told: Told, *, headline: Claim | None) -> str:
    """Scale, seeds, runs, and the smallest effect that the headline's seeds could show."""
    part = told.part
    seeds, runs = len({run.spec.seed for run in part.planned}), len(part.planned)
    said = (
        f"Study {part.found.study.name} at scale {part.scale}: {len(told.collected.runs)} of {runs} runs, "
        f"up to {seeds} {'seed' if seeds == 1 else 'seeds'}."
    )
    effect = part.found.study.detectable(part.scale).get(headline.name) if headline else None
    return said + (f" Smallest effect that could be found: {effect}." if effect else "")


def _provenance(told: Iterable[Told]) -> dict[str, dict[str, object]]:
    """The facts of all studies, each once."""
    facts: dict[str, dict[str, object]] = {}
    for one in told:
        for group, values in one.report.provenance.items():
            name = f"Study {one.part.found.study.name}" if group == "Study" else group
            facts[name] = {**facts.get(name, {}), **values}
    runs = facts.pop("Runs", {})
    return {**facts, "Runs": runs}
