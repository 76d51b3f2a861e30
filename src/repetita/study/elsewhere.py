"""A run that another trainer trains: it reads our schedule, and its journal is what our instruments write."""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from repetita.corpus.schedule import LANES
from repetita.corpus.sequences import Corpus
from repetita.errors import RunFolderError, SpecError, TrainingDiverged
from repetita.journal.folder import Key, RunFolder, measured, read_journal, status
from repetita.journal.names import write_names
from repetita.journal.prefix import position_at
from repetita.journal.records import Event, StepRecord
from repetita.measure.probe import Probe
from repetita.model.device import Device
from repetita.study.corpora import Corpora, Say, quiet
from repetita.study.expand import expand
from repetita.study.plan import PlannedRun
from repetita.study.prepare import read_by
from repetita.subject import Subject
from repetita.train.dataset import Labels, ScheduledRows
from repetita.train.header import header
from repetita.train.recipe import RunSpec
from repetita.train.run import Due, write_what_it_says
from repetita.train.spikes import Spikes

Floats = NDArray[np.float64]


BEFORE = -1
"""The step of a run that has not begun."""


class RunElsewhere:
    """The folder and the rows of a run whose spec names its `trainer`; made by `open_elsewhere`.

    The trainer calls `begin`, `measure` before the first update and after each one, `record` for each update,
    and `finish`. What is then in the folder is a run like any other: probes have measured it under the keys
    that a study looks for, and its steps are split by lane. It has no checkpoints: those are the trainer's.

    Of several processes the first one writes; in the others `folder` is None, nothing is due, and all that is
    left is the rows and the checks.
    """

    def __init__(
        self, spec: RunSpec, *, rows: ScheduledRows, probes: Sequence[Due], folder: RunFolder | None,
        path: Path,
    ) -> None:  # fmt: skip
        self.spec, self.rows, self.folder = spec, rows, folder
        self.path = path
        """The run's folder."""
        self._probes = tuple(probes) if folder is not None else ()
        self.step, self.tokens = BEFORE, 0
        self._measured: set[Key] = set()
        self._spikes = Spikes()

    def begin(self, step: int = 0) -> None:
        """Takes the journal to the state after `step` updates, from which the trainer begins or goes on.

        Raises RunFolderError where the journal ends before that.
        """
        self.step = step
        if self.folder is None:
            return
        self.folder.truncate(position_at(self.path, step=step) if step else None)
        lines = [StepRecord(**line) for line in read_journal(self.path, journal="steps")]
        self.tokens = int(sum(lane[2] for line in lines for lane in line.sets.values()))
        self._measured = set(measured(self.path))
        self._spikes = Spikes()
        self._spikes.recall(lines)
        if step:
            self.folder.write_event(Event(step, "resumed", f"attempt {self.folder.attempt}"))

    @property
    def due(self) -> tuple[str, ...]:
        """Names of the probes that are to measure the state of now and have not yet."""
        return tuple(probe.name for probe in self._due())

    def measure(self, subject: Subject) -> None:
        """Lets what is due measure the model of now; a probe that fails becomes an event."""
        for probe in self._due():
            assert self.folder is not None
            write_what_it_says(probe, subject, folder=self.folder, at=(self.step, self.tokens, None))
            self._measured.add((probe.fingerprint, self.step))

    def record(self, sums: Floats, /, *, learning_rate: float, gradient_norm: float, seconds: float) -> None:
        """Writes down an update: of each slot of its batch, in order, loss (nats), hits and scored tokens.

        `sums` has shape (batch_size, 3) and is of the forward pass before the update. Raises SpecError for
        another shape, or where these are not the tokens that the step was given, and TrainingDiverged for a
        loss or gradient that is not finite.
        """
        if self.step == BEFORE:
            raise SpecError("nothing was begun; call begin(step) with the step that the trainer is at")
        batch = self.rows.schedule.batch(self.step)
        if sums.shape != (self.spec.batch_size, 3):
            raise SpecError(
                f"step {self.step} has {self.spec.batch_size} sequences, and sums of shape {sums.shape} were "
                f"recorded; read the rows in order, {self.spec.batch_size} of them an update"
            )
        if not np.array_equal(sums[:, 2], self.rows.n_scored(self.step)):
            raise SpecError(
                f"step {self.step}: the scored tokens that were recorded are not those that it reads; read "
                f"the rows in order (a trainer that shuffles them trains another run)"
            )
        for what, value in (("loss", sums[:, 0].sum()), ("gradient", gradient_norm)):
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"the {what} of step {self.step} is {value}, and a journal ends there; lower the "
                    f"learning rate, or train in float32"
                )
        sets = {}
        for code in np.unique(batch.lane[sums[:, 2] > 0]).tolist():
            loss, hits, n = sums[batch.lane == code].sum(axis=0).tolist()
            sets[LANES[code]] = [loss, int(hits), int(n)]
        if self.folder is not None:
            record = StepRecord(self.step, self.tokens, learning_rate, gradient_norm, sets, round(seconds, 6))
            self.folder.write_step(record)
            for message in self._spikes.see(record):
                self.folder.write_event(Event(self.step, "spike", message))
        self.tokens += int(sums[:, 2].sum())
        self.step += 1

    def commit(self) -> None:
        """Makes durable what was written; to be called when the trainer writes a checkpoint."""
        if self.folder is not None:
            self.folder.commit()

    def finish(self) -> None:
        """Says that the run is done; RunFolderError where steps or measurements are missing."""
        if self.step != self.spec.steps or self.due:
            lacks = f"probes {', '.join(self.due)}" if self.due else f"{self.spec.steps - self.step} steps"
            raise RunFolderError(f"{self.path} is not done: it lacks {lacks}; let the trainer go on")
        if self.folder is not None:
            self.folder.finish("done")

    def close(self) -> None:
        """Gives the folder free."""
        if self.folder is not None:
            self.folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _due(self) -> list[Due]:
        return [
            probe
            for probe in self._probes
            if self.step in probe.steps and (probe.fingerprint, self.step) not in self._measured
        ]


def open_elsewhere(
    run: RunSpec | PlannedRun,
    /,
    *,
    root: str | Path = "repetita-out",
    probes: Sequence[Probe] = (),
    labels: Labels = "in_place",
    device: str = "cpu",
    dtype: str = "float32",
    versions: Mapping[str, str] | None = None,
    rank: int | None = None,
    say: Say = quiet,
) -> RunElsewhere:
    """The folder of a run that another trainer trains, its corpus built where it is missing.

    A planned run of a study brings its own probes, so that the study finds what it looks for. `labels` is as
    in `ScheduledRows`; `device`, `dtype` and the `versions` of the trainer's libraries are for the header.
    Each process of a trainer opens it; `rank` 0 writes (default: the RANK that torchrun and accelerate set).
    Raises SpecError for a spec that names no trainer, and RunFolderError where the run is done or another
    process writes it.

    >>> from repetita import CorpusSpec, Recipe, RunSpec, Stream, TokenizerSpec, ladder, open_elsewhere
    >>> text = CorpusSpec(source="synthetic", tokenizer=TokenizerSpec(kind="bytes"), length=32)
    >>> model, recipe = ladder("laptop", vocab_size=257, context=32)["3.8k"], Recipe(learning_rate=0.01)
    >>> reads = {"corpus": text, "treatment": Stream(), "steps": 4, "batch_size": 4}
    >>> spec = RunSpec(**reads, model=model, recipe=recipe, trainer="my loop")
    >>> with open_elsewhere(spec, labels="next") as run:
    ...     run.begin()
    ...     len(run.rows), run.rows[0]["input_ids"].shape
    (16, torch.Size([32]))
    """
    planned = run if isinstance(run, PlannedRun) else PlannedRun(spec=run, labels={}, probes=tuple(probes))
    spec = planned.spec
    if spec.trainer is None:
        raise SpecError(
            "RunSpec: a run that is trained elsewhere names its trainer; write trainer = 'NAME AND VERSION'"
        )
    corpora = Corpora(Path(root), say=say)
    jobs = expand([planned], root=Path(root), corpora=corpora.fingerprint)
    job = next(job for job in jobs if job.arms)
    sets = read_by(job, corpora=corpora)
    if rank is None:
        rank = int(os.environ.get("RANK", "0"))
    if status(job.path) == "done":
        raise RunFolderError(f"{job.path} is done; delete the folder to train it again")
    corpus = corpora.open(spec.corpus)
    rows = ScheduledRows(spec, corpus=corpus, labels=labels)
    if rank:
        return RunElsewhere(spec, rows=rows, probes=(), folder=None, path=job.path)
    due = [
        Due(one.key, one.probe.name, one.steps, partial(one.probe.measure, sets=sets[one.key]))
        for one in job.probes
    ]
    head = _header(rows, corpus=corpus, device=device, dtype=dtype, versions=versions or {})
    opened = RunFolder.open(job.path, header=head)
    write_names(job.path, names={one.fingerprint: one.name for one in due})
    return RunElsewhere(spec, rows=rows, probes=due, folder=opened, path=job.path)


def _header(
    rows: ScheduledRows, *, corpus: Corpus, device: str, dtype: str, versions: Mapping[str, str]
) -> dict[str, Any]:
    """What `run.json` says; what `device.setup` would decide is the trainer's to decide."""
    place = Device(torch.device(device), threads=torch.get_num_threads())
    head = header(rows.spec, corpus=corpus, schedule=rows.schedule, place=place)
    head["device"] |= {"dtype": dtype}
    head["versions"] = dict(head["versions"]) | dict(versions)
    return head
