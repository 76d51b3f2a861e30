"""Run folders to one table: a study's measurements beside the labels of their runs, and what is missing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from repetita.errors import DamagedError, RunFolderError, SpecError, UserError, nearest
from repetita.journal import table
from repetita.journal.folder import Key, check_run, failure, read_header, status
from repetita.study.expand import Job, expand, in_run, labels_of, measurement_key
from repetita.study.manifest import Manifest, read_manifest
from repetita.study.plan import Label, PlannedRun
from repetita.study.prepare import Portion
from repetita.train.recipe import fingerprint_among


class Absent(NamedTuple):
    """A planned run that is not in the table, or not with all of its measurements."""

    run: str
    """Name of its folder."""
    labels: Mapping[str, Label]
    state: Literal["missing", "unfinished", "failed", "damaged", "incomplete"]
    """`incomplete`: it is in the table, but some of its probes failed or were planned later."""
    reason: str = ""


class _Arm(NamedTuple):
    """A planned run that is there, with its labels and the names of its probes by key."""

    job: Job
    labels: Mapping[str, Label]
    probes: Mapping[str, str]


@dataclass(frozen=True)
class Collected:
    """What there is of a study. Frames share the columns of the labels; finished runs only."""

    study: str
    scale: str
    labels: tuple[str, ...]
    """Names of the label columns."""
    runs: pl.DataFrame
    """One row a planned run that is there: folder, run (fingerprint), path, and its labels."""
    measurements: pl.DataFrame
    """One row a measurement and planned run: the labels, folder, run, step, tokens (trained on before),
    tokens_total (with those of the runs that it started from), probe (its name), key, metric, on, set and
    batch (of `special/3`: special and 3), value, n, detail."""
    absent: tuple[Absent, ...]
    manifest: Manifest

    def where(self, **labels: Label) -> pl.DataFrame:
        """The measurements with these values in these columns (labels, probe, metric, on, set, ...)."""
        frame = self.measurements
        for name, value in labels.items():
            if name not in frame.columns:
                raise SpecError(f"the table has no column '{name}'; {nearest(name, frame.columns)}")
            frame = frame.filter(pl.col(name).eq_missing(pl.lit(value)))
        return frame

    @cached_property
    def steps(self) -> pl.DataFrame:
        """One row a step and lane of each planned run, beside its labels (see `journal.table.steps`)."""
        return self._beside_labels(table.steps(self._paths()))

    @cached_property
    def corruption(self) -> pl.DataFrame:
        """One row a step and kind of corruption of each masked run (see `journal.table.corruption`)."""
        return self._beside_labels(table.corruption(self._paths()))

    @cached_property
    def events(self) -> pl.DataFrame:
        """One row an event of each planned run, beside its labels (see `journal.table.events`)."""
        return self._beside_labels(table.events(self._paths()))

    def items(self, folder: str, *, key: str, step: int) -> dict[str, NDArray[np.generic]]:
        """The arrays that a measurement kept, by `<on>/<name>`; `folder` and `key` as in `measurements`."""
        return table.items(self._path_of(folder), probe=key, step=step)

    def header(self, folder: str) -> dict[str, Any]:
        """The `run.json` of a run: spec, versions, device."""
        return read_header(self._path_of(folder))

    def _path_of(self, folder: str) -> Path:
        paths = dict(zip(self.runs["folder"].to_list(), self.runs["path"].to_list(), strict=True))
        if folder not in paths:
            raise SpecError(f"no run of this study is in the folder '{folder}'; {nearest(folder, paths)}")
        return Path(paths[folder])

    def _paths(self) -> list[Path]:
        return [Path(path) for path in self.runs["path"].unique(maintain_order=True)]

    def _beside_labels(self, frame: pl.DataFrame) -> pl.DataFrame:
        given = self.runs.select("run", "folder", *self.labels)
        # A journal's own columns win: a run's label `steps` is no column of it, but `tokens` could be.
        return given.join(frame.drop("path"), on="run", how="inner", suffix="_journal")


def collect(part: Portion, *, root: Path) -> Collected:
    """Everything that `root` holds of a study at a scale.

    Works on a study that is half done, and lists what is missing in `absent`. Raises UserError where the
    study was never run there.
    """
    manifest = read_manifest(root, folder=part.folder)
    if manifest is None:
        name = part.found.reference
        of = part.text.options if part.text else ""
        raise UserError(
            f"{root} has no study {part.folder}; run it first: repetita study run {name} --scale "
            f"{part.scale}{of}"
        )
    jobs = {job.fingerprint: job for job in expand(part.planned, root=root, corpora=manifest.corpus)}
    by_spec = {job.spec: job for job in jobs.values()}
    lines, damaged = _read([job for job in jobs.values() if job.arms and status(job.path) == "done"])
    there = _there(lines)
    arms: list[_Arm] = []
    absent: list[Absent] = []
    for run in part.planned:
        job = by_spec.get(run.spec) or jobs[fingerprint_among(run.spec, corpora=manifest.corpus)]
        labels, missing = labels_of(run), _missing(job, damaged=damaged)
        if missing is not None:
            absent.append(Absent(job.path.name, labels, *missing))
            continue
        arm = _Arm(job, labels, dict(_keys(run, manifest)))
        arms.append(arm)
        absent += _incomplete(arm, there=there.get(job.fingerprint, frozenset()))
    names = tuple(dict.fromkeys(name for run in part.planned for name in labels_of(run)))
    return Collected(
        study=part.found.study.name,
        scale=part.scale,
        labels=names,
        runs=_runs(arms, labels=names),
        measurements=_measurements(arms, lines=lines, labels=names),
        absent=tuple(absent),
        manifest=manifest,
    )


def _read(jobs: Sequence[Job]) -> tuple[pl.DataFrame, dict[str, str]]:
    """The measurements of finished runs, and by fingerprint what is wrong with those that are damaged."""
    try:
        for job in jobs:
            check_run(job.path, fingerprint=job.fingerprint)
        return table.measurements(job.path for job in jobs), {}
    except (DamagedError, RunFolderError) as error:
        if len(jobs) == 1:
            return table.measurements([]), {jobs[0].fingerprint: str(error)}
    parts = [_read(jobs[: len(jobs) // 2]), _read(jobs[len(jobs) // 2 :])]
    return pl.concat([lines for lines, _ in parts]), parts[0][1] | parts[1][1]


def _there(lines: pl.DataFrame) -> dict[str, frozenset[Key]]:
    """By run, the key and step of each of its measurements."""
    pairs = lines.group_by("run").agg(pl.struct("probe", "step").unique())
    return {
        run: frozenset((one["probe"], one["step"]) for one in measured) for run, measured in pairs.iter_rows()
    }


def _missing(
    job: Job, *, damaged: Mapping[str, str]
) -> tuple[Literal["missing", "unfinished", "failed", "damaged"], str] | None:
    """Why a run cannot be in the table; None when it is in it."""
    if job.fingerprint in damaged:
        return "damaged", damaged[job.fingerprint]
    found = status(job.path)
    try:
        return None if found == "done" else (found, failure(job.path) if found == "failed" else "")
    except DamagedError as error:
        return "damaged", str(error)


def _keys(run: PlannedRun, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Key and name of each probe of a planned run."""
    for probe in run.probes:
        taken = in_run(probe, spec=run.spec)
        yield measurement_key(taken, spec=run.spec, corpora=manifest.corpus), probe.name


def _incomplete(arm: _Arm, *, there: frozenset[Key]) -> Iterator[Absent]:
    own = [due for due in arm.job.probes if due.key in arm.probes]
    lacking = sorted(
        {due.probe.name for due in own if any((due.key, step) not in there for step in due.steps)}
    )
    if lacking:
        reason = f"measurements of {', '.join(lacking)} are missing; run the study again to add them"
        yield Absent(arm.job.path.name, arm.labels, "incomplete", reason)


def _runs(arms: Sequence[_Arm], *, labels: Sequence[str]) -> pl.DataFrame:
    columns = {
        "folder": pl.Series([arm.job.path.name for arm in arms], dtype=pl.String),
        "run": pl.Series([arm.job.fingerprint for arm in arms], dtype=pl.String),
        "path": pl.Series([str(arm.job.path) for arm in arms], dtype=pl.String),
    }
    return pl.DataFrame(columns | {name: _column([arm.labels.get(name) for arm in arms]) for name in labels})


def _measurements(arms: Sequence[_Arm], *, lines: pl.DataFrame, labels: Sequence[str]) -> pl.DataFrame:
    """The journals of all arms, only what the arm itself asked for, beside the labels."""
    runs = _runs(arms, labels=labels).drop("path").with_row_index("arm_")
    asked = pl.DataFrame(
        [(place, key, name) for place, arm in enumerate(arms) for key, name in arm.probes.items()],
        schema={"arm_": pl.UInt32, "key": pl.String, "probe": pl.String},
        orient="row",
    )
    joined = runs.join(asked, on="arm_").join(
        lines.drop("path").rename({"probe": "key"}),
        on=["run", "key"],
        how="inner",
        maintain_order="left_right",
    )
    parts = pl.col("on").str.split_exact("/", 1).struct
    return joined.with_columns(
        set=parts.field("field_0"), batch=parts.field("field_1").cast(pl.Int64, strict=False)
    ).select(
        *labels,
        *(
            "folder",
            "run",
            "step",
            "tokens",
            "tokens_total",
            "probe",
            "key",
            "metric",
            "on",
            "set",
            "batch",
            "value",
            "n",
            "detail",
        ),
    )


def _column(values: Iterable[Label]) -> pl.Series:
    """Labels as one column: whole numbers, numbers or else text."""
    given = list(values)
    kinds = {type(value) for value in given if value is not None}
    if kinds <= {int}:
        return pl.Series(given, dtype=pl.Int64)
    if kinds <= {int, float}:
        return pl.Series(given, dtype=pl.Float64, strict=False)
    return pl.Series([None if value is None else str(value) for value in given], dtype=pl.String)
