"""One worker: it takes the fingerprints of runs, finds them in its plan, and brings them to their end."""

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from repetita.corpus.sequences import Corpus, CorpusSpec
from repetita.errors import (
    EngineError,
    RepetitaError,
    RunBusy,
    RunFolderError,
    RunStopped,
    StorageError,
    TrainingDiverged,
)
from repetita.journal.names import write_names
from repetita.journal.storage import Storage
from repetita.journal.stored_run import StoredRun
from repetita.study.corpora import Corpora
from repetita.study.engines import Errand
from repetita.study.expand import Job, corpora_of, expand
from repetita.study.expected import plan_corpora
from repetita.study.prepare import read_by
from repetita.study.progress import ProgressFile, Sight, State
from repetita.study.stored import pull_corpora
from repetita.study.together import do_together
from repetita.train.loop import Due, Options, Outcome, Parent, Progress, train
from repetita.train.ranks import Team

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class Bench(NamedTuple):
    """What a worker works with: the jobs of its plan, their corpora, and where and on what they are done."""

    jobs: Mapping[str, Job]
    corpora: Corpora
    root: Path
    errand: Errand
    storage: Storage | None = None
    team: Team | None = None
    """The processes that do each of its orders together, of which this is rank 0."""

    @classmethod
    def of(cls, errand: Errand, *, team: Team | None = None) -> "Bench":
        """The bench for what a worker was told; SpecError where a file is not as it was planned with."""
        root, portions = Path(errand.root), [part.planned() for part in errand.given]
        corpora = plan_corpora(portions, root=root)
        planned = [run for part in portions for run in part.planned]
        shared = Storage.open(errand.storage) if errand.storage else None
        if shared is not None:
            pull_corpora(shared, corpora_of(planned), corpora=corpora, root=root, decided=True)
        jobs = {job.fingerprint: job for job in expand(planned, root=root, corpora=corpora.fingerprint)}
        return cls(jobs, corpora, root, errand, shared, team)


def work(
    errand: Errand, *, orders: Iterable[str], progress: Path | None = None, team: Team | None = None
) -> None:
    """Does one order after the other until there are no more.

    An order is a line `<number> <fingerprint>`, and behind it the devices of a run that several processes are
    to compute; what becomes of it is written to the file `progress`. Raises SpecError when a study's file is
    not the one that was planned with, and RunStopped when the process was asked to stop (the state of the run
    is then saved).
    """
    bench = Bench.of(errand, team=team)
    file = ProgressFile(progress)
    for line in orders:
        number, name, *devices = line.split() or ("", "")
        if name:
            file.show(do_order(name, number=int(number), bench=bench, file=file, devices=devices))


def corpora_in(root: Path, *, storage: str | None = None) -> Callable[[CorpusSpec], Corpus]:
    """What opens the corpora that the first of several processes has, on its machine or another."""
    corpora, shared = Corpora(root), Storage.open(storage) if storage else None

    def open_corpus(spec: CorpusSpec) -> Corpus:
        if shared is not None:
            pull_corpora(shared, [spec], corpora=corpora, root=root, decided=True)
        return corpora.open(spec)

    return open_corpus


def bring_to_end(
    job: Job,
    *,
    jobs: Mapping[str, Job],
    corpora: Corpora,
    root: Path,
    options: Options | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    storage: Storage | None = None,
) -> Outcome:
    """Trains what is missing of a job and measures what is due; raises what `train.loop.train` raises.

    A run that failed before is tried again: who runs a study again has changed something. With a `storage` it
    goes on from what is kept there, and what becomes of it is pushed; StorageError where the end is not, the
    run then being whole in its folder.
    """
    options = (options or Options())._replace(retry_failed=True)
    stored = storage and _taken(job, jobs=jobs, storage=storage)
    if stored:
        options = options._replace(push=stored.push)
    sets = read_by(job, corpora=corpora)
    probes = [
        Due(due.key, due.probe.name, due.steps, partial(due.probe.measure, sets=sets[due.key]))
        for due in job.probes
    ]
    names = {due.fingerprint: due.name for due in probes}

    def report(at: Progress) -> None:
        write_names(job.path, names=names)
        if on_progress is not None:
            on_progress(at)

    with _pushed(stored, path=job.path) if stored else nullcontext():
        outcome = train(
            job.spec,
            corpus=corpora.open(job.spec.corpus),
            root=root,
            probes=probes,
            keep=job.keep,
            options=options,
            trunk=jobs[job.trunk].path if job.trunk else None,
            forkable=any(other.trunk == job.fingerprint for other in jobs.values()),
            parent=Parent(job.parent, jobs[job.parent].path) if job.parent else None,
            needs_optimizer=job.carried,
            on_progress=report,
        )
        write_names(job.path, names=names)
    return outcome


@contextmanager
def _pushed(stored: StoredRun, *, path: Path) -> Iterator[None]:
    """Pushes how a run ended; of one that diverged that is said, whatever the storage says."""
    try:
        yield
    except TrainingDiverged:
        with suppress(StorageError):
            stored.push()
        raise
    try:
        stored.push()
    except StorageError as error:
        raise StorageError(f"{path} is done here, but could not be pushed: {error}") from None


def _taken(job: Job, *, jobs: Mapping[str, Job], storage: Storage) -> StoredRun:
    """A job's run, taken from who may write it and brought here, with the runs that it starts from."""
    stored = StoredRun(storage, path=job.path)
    if _is_locked(job.path):  # To take it would end, at its next push, a run that is to be waited for.
        raise RunBusy(f"{job.path}: another process is writing this run; wait until it ends or stop it")
    stored.take()
    stored.pull()
    for other in filter(None, (job.trunk, job.parent)):
        with suppress(RunFolderError):  # Another process writes it here.
            StoredRun(storage, path=jobs[other].path).pull()
    return stored


def do_order(
    name: str, *, number: int, bench: Bench, file: ProgressFile, devices: Sequence[str] = ()
) -> Sight:
    """Does one order and says how it ended; whatever fails, fails alone, but for RunStopped.

    With several `devices` it is done by as many processes, which torchrun starts.
    """
    jobs, team = bench.jobs, bench.team
    sight = Sight(order=number, state="running")
    file.show(sight)

    def on_progress(at: Progress) -> None:
        now = sight._replace(step=at.step, steps=at.steps, tokens_per_second=at.tokens_per_second)
        file.show(now)

    if name not in jobs:
        return sight._replace(state="failed", message=f"no run {name[:12]} in the plan; run the study again")
    if len(devices) > 1:
        return do_together(name, number=number, errand=bench.errand, devices=devices, file=file)
    try:
        outcome = bring_to_end(
            jobs[name],
            jobs=jobs,
            corpora=bench.corpora,
            root=bench.root,
            options=Options(device=team.device if team else bench.errand.device, team=team),
            on_progress=on_progress,
            storage=bench.storage,
        )
    except RunStopped:
        raise
    except RunFolderError as error:
        # Who wrote it may have ended since; it is asked for again all the same.
        busy = isinstance(error, RunBusy) or _is_locked(jobs[name].path)
        state: State = "busy" if busy else "failed"
        return sight._replace(state=state, message=str(error))
    except RepetitaError as error:
        if team is not None and isinstance(error, EngineError):  # It may be that one of them was killed.
            return sight._replace(state="died", message=str(error).removesuffix("; run it again to go on"))
        return sight._replace(state="failed", message=str(error))
    except Exception as error:
        log.exception("run %s", name[:12])
        return sight._replace(state="failed", message=f"{type(error).__name__}: {error}")
    names = {due.key: due.probe.name for due in jobs[name].probes}
    failed = [f"probe {names[key]} failed at step {step}" for key, step in outcome.failed]
    return sight._replace(state="done", message="; ".join(failed[:3]))


def _is_locked(path: Path) -> bool:
    """Whether another process writes the run in this folder."""
    try:
        with (path / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def watch_parent() -> None:
    """Ends this process, as SIGTERM would, when the one that started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def watch_stdin() -> None:
    """Ends this process, as SIGTERM would, when its stdin does: who started it is gone, or closed it."""

    def watch() -> None:
        while os.read(0, 1 << 10):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
