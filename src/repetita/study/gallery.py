"""What may be kept of a study or paper: its figures, findings and tables in a folder, without its runs."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from repetita.errors import StorageError
from repetita.fit.claim import Claim
from repetita.journal.disk import write_atomic
from repetita.report.coloured import Drawing
from repetita.report.legend import label
from repetita.report.page import Deviation, Table
from repetita.study.prepare import Bundle
from repetita.study.publish import Published, write_figures

FINDINGS = "findings.json"
"""A folder that holds it is a gallery: what an earlier one left there is replaced."""

ROWS = 40
"""Tables of more rows are only linked: their CSV is beside them."""


class Section(NamedTuple):
    """One figure of a paper, or a study."""

    title: str
    says: str
    """The paper's claim, or the study's prediction."""
    state: str
    claims: Sequence[Claim]
    figures: Sequence[Drawing]
    tables: Sequence[Table]
    deviations: Sequence[Deviation]
    warnings: Sequence[str]


def write_gallery(published: Published, *, bundle: Bundle, folder: Path) -> Path:
    """Writes `README.md`, `findings.json`, `figures/*.svg|csv` and `tables/*.csv`; returns the folder.

    The same runs give the same bytes, and no path of this machine is in them. Raises StorageError where the
    folder holds something else or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / FINDINGS).exists():
        raise StorageError(f"{folder} is there and is no gallery; give a folder that is empty or new")
    sections = list(_sections(published))
    figures = [figure for section in sections for figure in section.figures]
    tables = [table for section in sections for table in section.tables]
    if published.walk is not None:
        tables += published.walk.tables
    _remove(folder, but={figure.name for figure in figures} | {table.name for table in tables})
    write_figures(figures, drawings=published.drawings, folder=folder / "figures")
    for table in tables:
        write_atomic(folder / "tables" / f"{table.name}.csv", table.csv().encode())
    found = json.dumps(_findings(sections, bundle=bundle), indent=1, ensure_ascii=False, default=str)
    write_atomic(folder / FINDINGS, found.encode() + b"\n")
    text = "\n".join(_text(published, sections, bundle=bundle))
    write_atomic(folder / "README.md", text.encode() + b"\n")
    return folder


def _sections(published: Published) -> Iterator[Section]:
    if published.walk is None:
        for report in published.reports:
            yield Section(
                report.title,
                report.prediction,
                "",
                report.findings,
                report.figures,
                report.tables,
                report.deviations,
                report.warnings,
            )
        return
    for step in published.walk.steps:
        yield Section(
            f"{step.label}: {step.title}",
            step.says,
            step.state,
            [*([step.headline] if step.headline else []), *step.findings, *step.more_findings],
            [*step.figures, *step.more_figures],
            [*step.tables, *step.more_tables],
            step.deviations,
            step.warnings,
        )


def _remove(folder: Path, *, but: set[str]) -> None:
    """Removes what an earlier gallery held and this one does not."""
    for place in ("figures", "tables"):
        for file in (folder / place).glob("*.*"):
            if file.suffix in (".svg", ".csv") and file.stem not in but:
                file.unlink()


def _findings(sections: Sequence[Section], *, bundle: Bundle) -> dict[str, Any]:
    """Everything that was concluded, as JSON types."""
    return {
        "schema": 1,
        "name": _name(bundle),
        "scale": bundle.scale,
        "corpus": bundle.text.name or None if bundle.text else None,
        "sections": [
            {
                "title": section.title,
                "claims": [_claim(claim) for claim in section.claims],
                "warnings": list(section.warnings),
            }
            for section in sections
        ],
    }


def _claim(claim: Claim) -> dict[str, Any]:
    estimate = None if claim.estimate is None else claim.estimate._asdict()
    return claim._asdict() | {"estimate": estimate}


def _text(published: Published, sections: Sequence[Section], *, bundle: Bundle) -> Iterator[str]:
    """The lines of the README."""
    walk = published.walk
    name, corpus = _name(bundle), bundle.text.options if bundle.text else ""
    yield f"# {walk.title if walk else sections[0].title}"
    if walk:
        yield from ("", walk.lead, "", walk.source)
    yield from ("", "```bash")
    yield f"repetita study run {name} --scale {bundle.scale}{corpus}"
    yield f"repetita study report {name} --scale {bundle.scale}{corpus} --gallery FOLDER"
    yield "```"
    for section in sections:
        yield from ("", f"## {section.title}", "", section.says)
        if section.state:
            yield from ("", f"*{section.state}*")
        yield from _bullets(section)
        for figure in section.figures:
            yield from ("", f"![{figure.title}](figures/{figure.name}.svg)")
            yield from (
                "",
                f"**{figure.title}** {figure.caption} n: {figure.n} ([CSV](figures/{figure.name}.csv))",
            )
        for table in section.tables:
            yield from _table(table)
        if section.deviations:
            yield from ("", "What differs from the paper:", "")
            rows = [(line.parameter, line.paper, line.ours, line.why) for line in section.deviations]
            yield from _grid(("parameter", "the paper", "here", "why"), rows)
    for table in walk.tables if walk else ():
        yield from _table(table)


def _bullets(section: Section) -> Iterator[str]:
    if section.warnings:
        yield ""
        yield from (f"- Read with care: {warning}" for warning in section.warnings)
    for i, claim in enumerate(section.claims):
        if not i:
            yield ""
        kind = "" if claim.primary else " (descriptive)"
        measured = f": {claim.measured}" if claim.measured else ""
        note = f"; {claim.note}" if claim.note else ""
        yield f"- **{claim.verdict}**{kind} {claim.statement}{measured} (n = {claim.n}{note})"


def _table(table: Table) -> Iterator[str]:
    yield from ("", f"**{table.title}** {table.caption} n: {table.n} ([CSV](tables/{table.name}.csv))")
    if len(table.rows) <= ROWS:
        yield ""
        yield from _grid(table.columns, [[label(cell) for cell in row] for row in table.rows])


def _grid(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table in Markdown, with nothing in a cell that would end it."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    heads = list(columns)
    yield line(heads)
    yield line(["---"] * len(heads))
    yield from (line(row) for row in rows)


def _name(bundle: Bundle) -> str:
    """The public name: built-in, or that of a file."""
    if bundle.paper:
        return Path(bundle.paper.reference).name
    return Path(bundle.portions[0].found.reference).name
