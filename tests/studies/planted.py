"""Studies that never ran: the table of a scale filled with losses that are known."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from repetita.corpus.treatment import steps_per_pass
from repetita.fit.claim import Claim
from repetita.report.figure import Figure
from repetita.study.collect import Absent, Collected
from repetita.study.expand import in_run, labels_of
from repetita.study.manifest import Manifest
from repetita.study.plan import Analysis, Label, PlannedRun, Study

Value = Callable[[Mapping[str, Any], str, str, int], float | None]
"""What is read: by the labels of the run, the probe's name, the set, and the step; None is not measured."""
LENGTH = 128


def everything(labels: Mapping[str, Label]) -> bool:
    return True


def charts(analysis: Analysis) -> list[Figure]:
    """The figures that have axes."""
    return [figure for figure in analysis.figures if isinstance(figure, Figure)]


def planted(
    study: Study,
    *,
    scale: str,
    metric: str = "loss",
    value: Value,
    there: Callable[[Mapping[str, Label]], bool] = everything,
    probes: tuple[str, ...] | None = None,
) -> Collected:
    """The table of `study` at `scale`, as if the runs that are `there` had measured `value`."""
    planned = study.runs(scale)
    runs: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    absent: list[Absent] = []
    for place, run in enumerate(planned):
        labels = labels_of(run)
        if not there(labels):
            absent.append(Absent(str(place), labels, "missing"))
            continue
        runs.append({"folder": str(place), "run": str(place), "path": str(place), **labels})
        length = steps_per_pass(run.spec.treatment, batch_size=run.spec.batch_size)
        for given in run.probes:
            if probes is not None and given.name not in probes:
                continue
            for on in in_run(given, spec=run.spec).on:
                name, _, batch = on.partition("/")
                for step in sorted(given.cadence.steps(run.spec.steps, steps_per_pass=length)):
                    found = value(labels, given.name, on, step)
                    if found is not None:
                        rows.append({
                            **labels, "folder": str(place), "run": str(place), "step": step,
                            "tokens": step * run.spec.batch_size * LENGTH,
                            "probe": given.name, "key": given.name,
                            "metric": metric, "on": on, "set": name,
                            "batch": int(batch) if batch.isdecimal() else None,
                            "value": found, "n": 2048, "detail": None,
                        })  # fmt: skip
    names = tuple(dict.fromkeys(name for run in planned for name in labels_of(run)))
    return Collected(
        study=study.name,
        scale=scale,
        labels=names,
        runs=pl.DataFrame(runs, infer_schema_length=None),
        measurements=pl.DataFrame(rows, infer_schema_length=None),
        absent=tuple(absent),
        manifest=Manifest(study.name, scale, study.name, "", "", {}, []),
    )


def both(one: Collected, other: Collected) -> Collected:
    """Two metrics of the same runs in one table."""
    joined = pl.concat([one.measurements, other.measurements], how="vertical_relaxed")
    return Collected(one.study, one.scale, one.labels, one.runs, joined, one.absent, one.manifest)


def noise(*parts: object, sd: float) -> float:
    """A keyed number with this standard deviation: equal parts, equal noise."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    uniform = int.from_bytes(digest[:8], "big") / 2**64
    return sd * (uniform - 0.5) * 12**0.5


def said(run: PlannedRun, /) -> dict[str, Any]:
    """Labels of a planned run, of whatever type."""
    return dict(labels_of(run))


def effect(claim: Claim, /) -> float:
    """The value of a claim's estimate, which it must have."""
    assert claim.estimate is not None
    assert claim.estimate.value is not None
    return claim.estimate.value
