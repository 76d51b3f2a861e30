"""The page of one or several studies: findings first, in one HTML file that opens anywhere, offline."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.report.figure import Cell, Figure

if TYPE_CHECKING:
    from repetita.fit.claim import Claim


class Table(NamedTuple):
    """A small table of the page; numbers are written as given, None is an en dash."""

    name: str
    """Lower-case words joined by hyphens, unique in a page; names the downloaded file."""
    title: str
    caption: str
    n: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Deviation(NamedTuple):
    """A parameter that differs from the paper's."""

    parameter: str
    paper: str
    ours: str
    why: str = ""


class Report(NamedTuple):
    """One study as its page shows it."""

    name: str
    title: str
    question: str
    prediction: str
    source: str
    """Where the prediction comes from: paper, section or figure."""
    findings: "Sequence[Claim]" = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    deviations: Sequence[Deviation] = ()
    provenance: Mapping[str, Mapping[str, object]] = {}
    """Groups of facts, in order: {"Software": {"torch": "2.13"}, "Corpus": {...}, "Runs": {slug: fingerprint}}."""
    warnings: Sequence[str] = ()


def page(reports: Report | Sequence[Report], *, title: str | None = None, lead: str = "") -> str:
    """One HTML file with everything inside: works from disk, offline, and asks nothing of the network."""
    raise NotImplementedError
