"""The only training loop: measure, save, stop, or take the step's sequences and make one update."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypedDict

from repetita.corpus.sequences import Corpus, compose
from repetita.errors import RunFolderError, RunStopped, SpecError, StorageError, TrainingDiverged
from repetita.journal import folder
from repetita.journal.records import Event
from repetita.model import checkpoint
from repetita.train.options import Options
from repetita.train.ranks import SharedStop
from repetita.train.recipe import RunSpec, run_fingerprint, run_slug
from repetita.train.replay import lacking, measure_missing, regain_optimizer
from repetita.train.run import Due, Parent, Run
from repetita.train.stopping import StopRequests

__all__ = ["Due", "Options", "Outcome", "Parent", "Progress", "train"]

log = logging.getLogger(__name__)

AS_USUAL = Options()


class AsGiven(TypedDict):
    """What a run is opened with, wherever that is."""

    spec: RunSpec
    corpus: Corpus
    options: Options
    parent: Parent | None


PROGRESS_SECONDS = 0.2
"""Least time between two reports of progress."""


class Progress(NamedTuple):
    """How far a run is, given to `on_progress` a few times a second."""

    step: int
    steps: int
    tokens: int
    loss: float | None
    """Mean loss of the newest batch in nats a token, None before the first."""
    tokens_per_second: float
    """Of this process so far, probes and checkpoints included."""


class Outcome(NamedTuple):
    """Where a finished run is, and how much of it this call had to do."""

    path: Path
    trained_steps: int
    """Steps that this call trained; 0 where the run was done before."""
    failed: tuple[tuple[str, int], ...]
    """(probe fingerprint, step) of probes that failed in this call; each is an event of the run."""


OnProgress = Callable[[Progress], None]


def train(
    spec: RunSpec,
    *,
    corpus: Corpus,
    root: Path,
    probes: Sequence[Due] = (),
    keep: frozenset[int] = frozenset(),
    options: Options = AS_USUAL,
    trunk: Path | None = None,
    forkable: bool = False,
    parent: Parent | None = None,
    needs_optimizer: bool = False,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Brings a run to its end, from wherever its folder says it is, and measures what is due.

    The folder is `run_path(root, spec, corpus_fingerprint, parent)`. A run that is done is not trained again;
    measurements that it lacks are added (from kept checkpoints, else by `replay`). A run that was
    stopped or killed goes on from its newest intact checkpoint and ends with the same weights and
    journal, bit for bit, as one that never stopped. `keep` are steps whose weights are kept, beside
    the last. `trunk` is the folder of a run that begins in the same way, to start from its newest
    common state; `forkable` keeps the optimizer at the end, so that this run can be a trunk.
    `parent` is the run that it starts from, if it does (`RunSpec.start`), brought to its end before;
    `needs_optimizer` keeps the optimizer at the end, too, and trains a run that is done without it once more:
    for runs that start from this one and carry it on. A run that names its `trainer` is only looked at.

    Raises RunStopped after SIGTERM or SIGINT, the state saved; TrainingDiverged for a loss or gradient
    that is not finite (the folder then says `failed`, and raises it again unless `retry_failed`); UserError.
    """
    path = _place(spec, corpus=corpus, root=root, parent=parent)
    beyond = {step for probe in probes for step in probe.steps if not 0 <= step <= spec.steps}
    if beyond:
        raise SpecError(f"a probe is due at step {min(beyond)} of a run of {spec.steps} steps; leave it out")
    if folder.status(path) == "failed" and not options.retry_failed:
        raise TrainingDiverged(folder.failure(path))
    if spec.trainer is not None:
        return _from_elsewhere(path, spec=spec, probes=probes)
    as_given: AsGiven = {"spec": spec, "corpus": corpus, "options": options, "parent": parent}
    failed = set[folder.Key]()
    with SharedStop(options.team) if options.team else StopRequests() as stop:

        def follow(run: Run, due: Sequence[Due], until: int, keep: Collection[int] = ()) -> None:
            _follow(run, due, until, stop=stop, options=options, keep=keep, on_progress=on_progress)
            failed.update(run.failed)

        began = spec.steps
        if folder.status(path) != "done":
            run = Run.open(path, **as_given)
            with run.folder:
                if folder.status(path) != "done":  # another process may have got there before the lock
                    began = _begin(run, trunk=trunk, probes=probes, keep=keep)
                    with _failure_kept(run):
                        follow(run, probes, spec.steps, keep)
                    _finish(run, keep=keep, forkable=forkable or needs_optimizer)
        missing = lacking(path, probes=probes, but=failed)
        if missing:
            failed |= measure_missing(path, probes=missing, follow=follow, **as_given)
        if needs_optimizer and spec.steps not in checkpoint.steps_on_disk(path, kind="resume"):
            regain_optimizer(path, follow=follow, **as_given)
    return Outcome(path=path, trained_steps=spec.steps - began, failed=tuple(sorted(failed)))


def _from_elsewhere(path: Path, *, spec: RunSpec, probes: Sequence[Due]) -> Outcome:
    """A run that another trainer trained; RunFolderError where it has not, or has not measured everything."""
    what = "is not done" if folder.status(path) != "done" else "lacks measurements"
    if what == "is not done" or lacking(path, probes=probes):
        raise RunFolderError(
            f"{path} {what}, and it is '{spec.trainer}' that trains it; let that write it, as "
            f"docs/elsewhere.md shows, or take the probe out"
        )
    return Outcome(path, 0, ())


def _place(spec: RunSpec, *, corpus: Corpus, root: Path, parent: Parent | None) -> Path:
    """The folder of a run; RunFolderError where another run is in it."""
    if (parent is None) != (spec.start is None):
        raise SpecError(
            "a run with a start needs its parent, and any other has none; give parent exactly with a start"
        )
    before = None if parent is None else parent.fingerprint
    name = run_fingerprint(spec, corpus_fingerprint=corpus.fingerprint, parent=before)
    path = folder.run_path(root, name, run_slug(spec))
    if folder.status(path) != "missing":
        folder.check_run(path, fingerprint=name)
    return path


def _follow(
    run: Run,
    probes: Sequence[Due],
    until: int,
    *,
    stop: StopRequests,
    options: Options,
    keep: Collection[int],
    on_progress: OnProgress | None,
) -> None:
    """The loop: from the run's step to the step `until`, which is measured and not trained."""
    began, saved = run.step, time.monotonic()
    pace = _Pace(run, on_progress)
    for step in range(run.step, until + 1):
        run.step = step
        for probe in probes:
            if step in probe.steps:
                run.measure(probe)
        if step in keep and step != until and not step == began > 0:
            run.save(optimizer=False)
        if step == until:
            break
        if stop.asked:
            run.note_use()
            run.save(optimizer=True)
            _push(run, options)
            raise RunStopped(f"stopped by {stop.asked} at step {step} of {until}; run it again to continue")
        if time.monotonic() - saved > options.resume_every_seconds:
            run.save(optimizer=True)
            checkpoint.prune(run.folder.path, weights=keep)
            _push(run, options)
            saved = time.monotonic()
        batch = run.schedule.batch(step)
        rows = compose(batch, run.corpus.sets, ids=run.ids)
        run.record(run.updater.update(rows, batch=batch, tokens=run.tokens))
        pace.report(run, until)


def _push(run: Run, options: Options) -> None:
    """Hands the run's folder on; where that fails the run goes on, and the next checkpoint is another try."""
    try:
        if options.push is not None:
            options.push()
    except StorageError as error:
        log.warning("%s", error)
        # Not why: that would name hosts, and a journal goes wherever its run does.
        message = "this checkpoint could not be pushed; the next one is tried"
        run.folder.write_event(Event(run.step, "not_pushed", message))


def _begin(run: Run, *, trunk: Path | None, probes: Sequence[Due], keep: Collection[int]) -> int:
    """Puts the run where it can start from, at best: its own checkpoint, the trunk's, or step 0."""
    (run.folder.path / "failed").unlink(missing_ok=True)
    if run.resume():
        return run.step
    if trunk is not None:
        if run.fork(trunk, probes=probes, keep=keep):
            run.save(optimizer=True)
            return run.step
        run.folder.write_event(
            Event(0, "straight", f"{trunk.name} has no state that this run could start from")
        )
    run.begin()
    return run.step


@contextmanager
def _failure_kept(run: Run) -> Iterator[None]:
    """Writes down that a run diverged, so that it is not tried again unasked."""
    try:
        yield
    except TrainingDiverged as error:
        run.folder.write_event(Event(run.step, "diverged", str(error)))
        run.folder.finish("failed", message=str(error))
        raise


def _finish(run: Run, *, keep: Collection[int], forkable: bool) -> None:
    """Keeps the last weights, says `done`, and removes what only an unfinished run needs."""
    last = run.spec.steps
    run.note_use()
    run.save(optimizer=forkable)
    run.folder.finish("done")
    checkpoint.prune(run.folder.path, newest=0, whole={last}, weights=keep)


class _Pace:
    """Reports progress now and then."""

    def __init__(self, run: Run, on_progress: OnProgress | None) -> None:
        self.on_progress = on_progress
        self.began, self.tokens = time.monotonic(), run.tokens
        self.last = self.began

    def report(self, run: Run, until: int) -> None:
        now = time.monotonic()
        if self.on_progress is None or (now - self.last < PROGRESS_SECONDS and run.step < until):
            return
        self.last = now
        rate = (run.tokens - self.tokens) / max(now - self.began, 1e-9)
        self.on_progress(Progress(run.step, until, run.tokens, run.loss, rate))
