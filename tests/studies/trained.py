"""Studies that really run: every job of a scale brought to its end in this process."""

from pathlib import Path
from typing import NamedTuple

from repetita.report.page import Report
from repetita.study.collect import Collected, collect
from repetita.study.corpora import Corpora
from repetita.study.manifest import write_manifests
from repetita.study.prepare import Prepared, portion, prepare
from repetita.study.publish import report_of
from repetita.study.work import bring_to_end


class Trained(NamedTuple):
    """A study whose runs are all there."""

    collected: Collected
    report: Report
    prepared: Prepared


def trained(name: str, *, root: Path, scale: str = "tiny", report_after: int | None = None) -> Trained:
    """Trains a study's runs; a report is made at the end, and half-way where asked."""
    part = portion(name, scale=scale)
    prepared = prepare([part], root=root, corpora=Corpora(root))
    write_manifests(prepared, root=root)
    for place, job in enumerate(prepared.needed()):
        if place == report_after:
            report_of(part, collected=collect(part, root=root))
        bring_to_end(job, jobs=prepared.jobs, corpora=prepared.corpora, root=root)
    there = collect(part, root=root)
    assert not there.absent
    return Trained(there, report_of(part, collected=there), prepared)
