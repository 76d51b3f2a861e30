"""From a collected study to what a person reads: its report, the page and the table beside it."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repetita.errors import RepetitaError, UserError
from repetita.journal.disk import write_atomic
from repetita.report.coloured import Drawing
from repetita.report.draw import svg
from repetita.report.page import Deviation, Report, page
from repetita.study.collect import Collected, collect
from repetita.study.manifest import sole_scale, study_path
from repetita.study.plan import Analysis
from repetita.study.prepare import Portion, portion
from repetita.study.text import text_of

if TYPE_CHECKING:
    import polars as pl

    from repetita.report.walk import Walk

NAMED = 5
"""Runs of one kind of absence that are named before the rest is only counted."""


class Published(NamedTuple):
    """What was written, and what the study found."""

    page: Path
    reports: tuple[Report, ...]
    collected: tuple[Collected, ...]
    drawings: Mapping[str, str]
    """SVG by name of figure."""
    walk: "Walk | None" = None
    """What the page of a paper shows."""


def table(
    study: str | Path,
    *,
    scale: str | None = None,
    corpus: str | Path | None = None,
    text_field: str = "text",
    subset: str | None = None,
    text: str | Path | None = None,
    root: str | Path = "repetita-out",
) -> "pl.DataFrame":
    """All measurements of a study beside the labels of their runs; see `study.collect.Collected`.

    >>> from repetita import table
    >>> frame = table("my_question.py", scale="tiny")
    >>> loss = frame.filter(frame["metric"] == "loss", frame["on"] == "test", frame["step"] == 120)
    >>> loss.select("arm", "seed", "value").shape
    (6, 3)
    """
    root, given = Path(root), text_of(corpus, text_field=text_field, subset=subset, passage=text)
    scale = scale or sole_scale(root, study=study, text=given)
    return collect(portion(study, scale=scale, text=given), root=root).measurements


def publish(
    portions: Sequence[Portion], *, root: Path, title: str | None = None, lead: str = ""
) -> Published:
    """Writes `page.html` (of all portions, in the folder of the first), and in each portion's folder its
    `table.parquet` and every figure as `figures/<name>.svg` and `.csv`.

    Works on studies that are half done: the page says what is missing. Raises UserError where a study was
    never run in `root`, StorageError where it cannot be written.
    """
    collected = tuple(collect(part, root=root) for part in portions)
    reports = [report_of(part, collected=there) for part, there in zip(portions, collected, strict=True)]
    # Drawing takes longer than all the rest; the page shows what the files hold.
    drawings = {figure.name: svg(figure) for report in reports for figure in report.figures}
    for part, there, report in zip(portions, collected, reports, strict=True):
        folder = study_path(root, folder=part.folder)
        buffer = io.BytesIO()
        there.measurements.write_parquet(buffer)
        write_atomic(folder / "table.parquet", buffer.getvalue())
        write_figures(report.figures, drawings=drawings, folder=folder / "figures")
    path = study_path(root, folder=portions[0].folder) / "page.html"
    write_atomic(path, page(reports, title=title, lead=lead, drawings=drawings).encode())
    return Published(path, tuple(reports), collected, drawings)


def write_figures(figures: Sequence[Drawing], *, drawings: Mapping[str, str], folder: Path) -> None:
    """Every figure as SVG and CSV. Raises StorageError."""
    for figure in figures:
        write_atomic(folder / f"{figure.name}.svg", drawings[figure.name].encode())
        write_atomic(folder / f"{figure.name}.csv", figure.csv().encode())


def report_of(part: Portion, *, collected: Collected) -> Report:
    """What a study says about what there is of it.

    An analysis that fails on a study that is half done becomes a warning; on a whole one it is an error.
    """
    study = part.found.study
    analysis, trouble = Analysis(), list[str]()
    if collected.runs.is_empty():
        trouble.append("No run of this study is finished yet.")
    else:
        try:
            analysis = study.analyse(collected)
        except Exception as error:
            if not collected.absent:
                if isinstance(error, RepetitaError):
                    raise
                raise UserError(
                    f"the analysis of study {study.name} failed: {type(error).__name__}: {error}; mend it"
                ) from error
            trouble.append(f"The analysis needs the missing runs ({type(error).__name__}: {error}).")
    return Report(
        name=study.name.replace("_", "-"),
        title=study.title if part.text is None or not part.own else f"{study.title} ({part.text.name})",
        question=study.question,
        prediction=study.prediction,
        source=study.source,
        findings=analysis.claims,
        figures=analysis.figures,
        tables=analysis.tables,
        deviations=[_of_text(line, part=part) for line in study.deviations(part.scale)],
        provenance=_provenance(part, collected=collected),
        warnings=[*trouble, *absence(collected), *_mixtures(collected), *analysis.warnings],
    )


def _of_text(line: Deviation, *, part: Portion) -> Deviation:
    """A study's deviations name its own text; where another was read, they name that."""
    return (
        line
        if part.text is None or not part.own
        else line._replace(ours=line.ours.replace(part.own, part.text.name))
    )


def absence(collected: Collected) -> Iterator[str]:
    """A sentence for each kind of absence."""
    by_state: dict[str, list[str]] = {}
    for one in collected.absent:
        by_state.setdefault(one.state, []).append(one.run + (f" ({one.reason})" if one.reason else ""))
    said = {
        "missing": "not started",
        "unfinished": "not finished",
        "failed": "failed",
        "damaged": "damaged",
        "incomplete": "without some measurements",
    }
    planned = len(collected.runs) + sum(one.state != "incomplete" for one in collected.absent)
    for state, runs in by_state.items():
        more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
        yield f"{len(runs)} of {planned} planned runs {said[state]}: {', '.join(runs[:NAMED])}{more}."


def _headers(collected: Collected) -> dict[str, dict[str, Any]]:
    return {folder: collected.header(folder) for folder in dict.fromkeys(collected.runs["folder"].to_list())}


def _mixtures(collected: Collected) -> Iterator[str]:
    """Arms that were not computed alike: pairs of them may differ by more than their treatment."""
    headers = _headers(collected).values()
    torch = Counter(str(header["versions"].get("torch")) for header in headers)
    devices = Counter(_computed_on(header["device"]) for header in headers)
    for what, found in (("versions of torch", torch), ("devices", devices)):
        if len(found) > 1:
            listed = ", ".join(f"{name} ({n} runs)" for name, n in found.most_common())
            yield f"Runs of this study were computed with different {what}: {listed}."


def _computed_on(device: Mapping[str, Any]) -> str:
    """What of a device changes last bits, in words."""
    dtype, world = device.get("dtype", "float32"), device.get("world")
    return (
        f"{device.get('name')}, {device.get('threads')} threads"
        + (f", {dtype}" if dtype != "float32" else "")
        + (f", {world} processes by {device.get('parallel')}" if world else "")
    )


def _provenance(part: Portion, *, collected: Collected) -> Mapping[str, Mapping[str, object]]:
    headers = _headers(collected)
    manifest = collected.manifest
    facts: dict[str, Mapping[str, object]] = {
        "Study": {
            "name": part.found.study.name,
            "scale": part.scale,
            "file": manifest.reference,
            "sha256 of the file": manifest.sha256,
            "planned runs": len(part.planned),
            "in the table": len(collected.runs),
        }
    }
    if headers:
        first = next(iter(headers.values()))
        git = {} if first.get("git") is None else {"git": first["git"]}
        facts["Software"] = {**first["versions"], **git}
        facts["Device"] = first["device"]
    for card in manifest.corpora.values():
        facts[f"Corpus {card.get('source', '')}"] = {
            name: value
            for name, value in card.items()
            if isinstance(value, str | int | float) and name != "moved"
        }
    facts["Runs"] = {folder: header["fingerprint"] for folder, header in headers.items()}
    return facts
