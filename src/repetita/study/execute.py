"""Does what is missing of a study: trunks before forks, longest first, each failure alone."""

import hashlib
import heapq
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from repetita.corpus.sequences import CorpusSpec
from repetita.errors import RunStopped, SpecError
from repetita.journal.disk import storage_errors
from repetita.study.corpora import Corpora
from repetita.study.display import Display, Running, Silent, View
from repetita.study.engines import Ended, Engine, Errand
from repetita.study.expand import Job, corpora_of
from repetita.study.expected import plan_corpora
from repetita.study.ledger import Session, add_session, ledger, write_ledger
from repetita.study.manifest import study_path, write_manifests
from repetita.study.prepare import Portion, Prepared, bundle, prepare, tag_corpora
from repetita.study.price import chains, makespan, time_text
from repetita.study.progress import Sight
from repetita.study.stored import Kept, open_shared
from repetita.study.text import text_of
from repetita.study.together import needs_of
from repetita.study.where import Where, check_engine, open_engine
from repetita.train.stopping import StopRequests

POLL_SECONDS = 0.05
LOOK_SECONDS = 0.5
"""Least time between two forecasts of the end: over hundreds of runs each takes milliseconds that the workers
need."""
BUSY_SECONDS = 5.0
"""How long a run that another process writes is left alone before it is asked for again."""
TRIES = {"died": 2, "lost": 10}
"""How often a run is given out whose worker dies without a word, or whose machine does: that happens to any
run that is long enough, and costs but the steps since its newest checkpoint."""
STILL_SECONDS = 86_400.0
HERE = Where()


class Failure(NamedTuple):
    """A run that did not come to its end."""

    run: str
    """Slug and first 12 digits of the fingerprint: the name of its folder."""
    reason: str
    journal: Path
    """Where to read on: the events of the run, or the worker's log when it left none."""


class Outcome(NamedTuple):
    """What became of a study."""

    folders: tuple[Path, ...]
    """Where manifest, table and page of each portion are."""
    n_runs: int
    n_present: int
    """Runs that were complete before."""
    n_done: int
    """Runs that were brought to their end now."""
    failed: tuple[Failure, ...]
    seconds: float


def run_study(
    study: str | Path,
    *,
    scale: str | None = None,
    corpus: str | Path | None = None,
    text_field: str = "text",
    subset: str | None = None,
    text: str | Path | None = None,
    root: str | Path = "repetita-out",
    processes: int | None = None,
    engine: str = "local",
    address: str | None = None,
    device: str = "cpu",
    slurm: Mapping[str, Any] | None = None,
    storage: str | None = None,
    per_run: int | None = None,
) -> Outcome:
    """Runs what is missing of a study or paper (a built-in name or a path of a file) and says how it went.

    `scale` defaults to laptop, or to the first that the study has; `processes` to the number of cores.
    `engine`, `address`, `device` (cpu, cuda, auto) and `slurm` say where runs are computed, as `Where`
    explains: in processes of this machine, on a Ray cluster, whose nodes must all see `root` or else the
    `storage`, or by Slurm, whose nodes must all see `root`. `storage` is a URL such as s3://BUCKET/FOLDER
    that runs are pushed to at their checkpoints. `per_run` processes, or GPUs, of one machine compute each
    run together; by default one, or as many GPUs as hold it.
    `corpus` is read instead of the study's own text, under the same tokenizer, length and splits; `text` is a
    file that models are shown beside a study's own passages. Runs that
    are complete in `root` are not run again, and those that were stopped continue. Raises UserError
    before anything is trained, and RunStopped after SIGINT or SIGTERM, the state of all runs saved.

    >>> from repetita import run_study
    >>> outcome = run_study("my_question.py", scale="tiny", processes=2)
    >>> outcome.n_runs, outcome.failed
    (6, ())
    """
    where = Where(
        engine=engine,
        processes=processes,
        address=address,
        device=device,
        slurm=dict(slurm or {}),
        storage=storage,
        per_run=per_run,
    )
    given = text_of(corpus, text_field=text_field, subset=subset, passage=text)
    whole = bundle(study, scale=scale, text=given)
    return execute(whole.portions, root=Path(root), where=where, paper=whole.folder if whole.paper else None)


def execute(
    portions: Sequence[Portion],
    *,
    root: Path,
    where: Where = HERE,
    display: Display | None = None,
    paper: str | None = None,
) -> Outcome:
    """`run_study` for several portions at once, which share the runs that they share.

    `paper` is the folder of the paper that they are all studies of: what was planned and how long it ran is
    kept there.
    """
    check_engine(where)
    display, began = display or Silent(), time.monotonic()
    kept = Kept(open_shared(where.storage), root=root)
    corpora = plan_corpora(portions, root=root, say=display.say)
    specs, prepared = _bring(portions, root=root, corpora=corpora, kept=kept)
    for spec in specs:
        prepared.corpora.open(spec)  # What is only expected is said to be missing.
    prepared.corpora.verify()
    tag_corpora(prepared)
    write_manifests(prepared, root=root)
    if paper:
        plan = ledger(prepared, root=root, processes=where.processes or os.cpu_count() or 1)
        write_ledger(plan, root=root, folder=paper)
    kept.keep(specs, corpora=corpora, folders=[*(part.folder for part in portions), paper or ""])
    needed = prepared.needed()
    folders = tuple(study_path(root, folder=part.folder) for part in portions)
    desk = Desk(needed, prepared=prepared, per_run=where.per_run)
    if needed:
        scratch = _scratch(folders[0])
        needs = {desk.jobs[name].path.name: needs for name, needs in desk.needs.items()}
        try:
            errand = Errand.of(portions, root=root, storage=where.storage)
            engine = open_engine(where, errand=errand, folder=scratch, needs=needs)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        processes = min(engine.width, len(needed))
        _say_plan(prepared, needed=needed, processes=processes, display=display)
        try:
            _drive(desk, engine=engine, display=display)
        finally:
            if paper:
                add_session(Session(time.monotonic() - began, processes), root=root, folder=paper)
        if not desk.failed:
            shutil.rmtree(scratch, ignore_errors=True)
        kept.fetch([desk.jobs[name].path for name in desk.done])
    return Outcome(
        folders=folders,
        n_runs=len(prepared.jobs),
        n_present=sum(state.complete for state in prepared.states.values()),
        n_done=len(desk.done),
        failed=tuple(desk.failed.values()),
        seconds=time.monotonic() - began,
    )


def job_scripts(portions: Sequence[Portion], *, root: Path, where: Where) -> list[str]:
    """What `execute` would submit to Slurm: a script for each kind of job. Nothing is submitted."""
    from repetita.study.slurm_queue import scripts

    if where.engine != "slurm":
        raise SpecError(
            f"--dry-run has no effect with --engine {where.engine}; leave it out, or say --engine slurm"
        )
    check_engine(where, submits=False)
    kept = Kept(open_shared(where.storage), root=root)
    _, prepared = _bring(portions, root=root, corpora=plan_corpora(portions, root=root), kept=kept)
    needs = {
        job.path.name: needs_of(job, cost=prepared.costs[job.fingerprint], per_run=where.per_run)
        for job in prepared.needed()
    }
    longest = sorted(needs, key=lambda name: needs[name].seconds, reverse=True)
    folder = study_path(root, folder=portions[0].folder)
    return scripts(where, folder=folder, needs={name: needs[name] for name in longest})


def _bring(
    portions: Sequence[Portion], *, root: Path, corpora: Corpora, kept: Kept
) -> tuple[tuple[CorpusSpec, ...], Prepared]:
    """The corpora of portions and what is to be done, after what is kept elsewhere was brought."""
    specs = tuple(dict.fromkeys(spec for part in portions for spec in corpora_of(part.planned)))
    kept.bring(specs, corpora=corpora)
    return specs, prepare(portions, root=root, corpora=corpora, fetch=kept.fetch)


class Desk:
    """Which run is given out next, and what became of those that were."""

    def __init__(self, needed: Sequence[Job], *, prepared: Prepared, per_run: int | None = None) -> None:
        self.jobs: Mapping[str, Job] = {job.fingerprint: job for job in needed}
        self.seconds = {name: prepared.costs[name].seconds for name in self.jobs}
        self.needs = {
            name: needs_of(job, cost=prepared.costs[name], per_run=per_run) for name, job in self.jobs.items()
        }
        self.after = prepared.after()
        self.done: set[str] = set()
        self.failed: dict[str, Failure] = {}
        self._forks: dict[str | None, list[str]] = {}
        for name in self.jobs:
            before = self.after[name]
            self._forks.setdefault(before if before in self.jobs else None, []).append(name)
        urgency = chains(self.seconds, after=self.after)
        self._rank = {name: (-urgency[name], at, name) for at, name in enumerate(self.jobs)}
        self._ready = [self._rank[name] for name in self._forks.get(None, ())]
        heapq.heapify(self._ready)
        self._later: list[tuple[float, str]] = []
        """Runs that another process writes, by the time from which they are asked for again."""
        self._waiting = set[str]()
        self._deaths: dict[tuple[str, str], int] = {}
        self._worked = self._expected = 0.0

    @property
    def open(self) -> bool:
        """Whether a run is still to be given out or to come back."""
        return len(self.done) + len(self.failed) < len(self.jobs)

    def next(self) -> str | None:
        """The run to be given out next: of those whose trunk or parent is there that with most behind it."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._wait_for(heapq.heappop(self._later)[1])
        return self._ready[0][-1] if self._ready else None

    def give(self, name: str) -> None:
        """Notes that a run, the next one, was given out."""
        first = heapq.heappop(self._ready)[-1]
        assert first == name

    def _wait_for(self, name: str) -> None:
        heapq.heappush(self._ready, self._rank[name])

    def take_back(self, ended: Ended) -> str | None:
        """Notes how a run came back; a line about it, None where there is nothing to say."""
        job = self.jobs[ended.run]
        if ended.state == "done":
            self.done.add(ended.run)
            for fork in self._forks.get(ended.run, ()):
                self._wait_for(fork)
            self._worked += ended.seconds
            self._expected += self.seconds[ended.run]
            more = f" ({ended.message})" if ended.message else ""
            return f"done {job.path.name} in {time_text(ended.seconds)}{more}"
        if ended.state == "busy":
            heapq.heappush(self._later, (time.monotonic() + BUSY_SECONDS, ended.run))
            if ended.run in self._waiting:
                return None
            self._waiting.add(ended.run)
            return f"{job.path.name} is written by another process; it is waited for"
        if ended.state in TRIES:
            death = (ended.run, ended.state)
            self._deaths[death] = self._deaths.get(death, 0) + 1
            if self._deaths[death] < TRIES[ended.state]:
                self._wait_for(ended.run)
                return f"{ended.message} at {job.path.name}; it is tried once more"
        self._fail(job, reason=ended.message, log=ended.log)
        return f"failed {job.path.name}: {ended.message}"

    def left(self, running: Mapping[str, Sight], *, processes: int) -> float:
        """Expected seconds to the end, by what was seen of the runs that are given out."""
        worked = self._worked + sum(sight.seconds for sight in running.values())
        expected = self._expected + sum(sight.share * self.seconds[name] for name, sight in running.items())
        # The rates of the plan rule until something was seen; then the machine as it is today does.
        pace = (worked + 1.0) / (expected + 1.0)
        shares = {name: sight.share for name, sight in running.items()}
        rest = {
            name: seconds * (1 - shares.get(name, 0.0)) * pace
            for name, seconds in self.seconds.items()
            if name not in self.done and name not in self.failed
        }
        return makespan(rest, after=self.after, processes=processes)

    def _fail(self, job: Job, *, reason: str, log: Path) -> None:
        events = job.path / "events.jsonl"
        self.failed[job.fingerprint] = Failure(job.path.name, reason, events if events.exists() else log)
        for name in self._forks.get(job.fingerprint, ()):
            fork = self.jobs[name]
            what = "trunk" if fork.trunk == job.fingerprint else "parent"
            self._fail(fork, reason=f"its {what} {job.path.name} failed", log=log)


def _drive(desk: Desk, *, engine: Engine, display: Display) -> None:
    """Gives out runs until none is left; on a stop request stops the workers and raises RunStopped."""
    looked = -LOOK_SECONDS
    with StopRequests() as stop:
        try:
            while desk.open:
                if stop.asked:
                    display.close()
                    display.say(f"{stop.asked}: the runs write their checkpoints and stop")
                    engine.stop()
                    left = len(desk.jobs) - len(desk.done) - len(desk.failed)
                    raise RunStopped(
                        f"stopped with {left} runs to go; run the same command again to continue"
                    )
                while not stop.asked and (name := desk.next()) and engine.takes(desk.needs[name]):
                    desk.give(name)
                    engine.send(name, needs=desk.needs[name])
                time.sleep(POLL_SECONDS)
                for ended in engine.poll():
                    line = desk.take_back(ended)
                    if line:
                        display.say(line)
                if time.monotonic() - looked >= LOOK_SECONDS:
                    looked = time.monotonic()
                    display.update(_view(desk, engine))
            engine.close()
        finally:
            display.close()
            engine.kill()


def _view(desk: Desk, engine: Engine) -> View:
    running = engine.running()
    return View(
        n_runs=len(desk.jobs),
        n_done=len(desk.done),
        n_failed=len(desk.failed),
        running=[Running(desk.jobs[name].path.name, sight) for name, sight in running.items()],
        seconds_left=desk.left(running, processes=engine.width),
    )


def _scratch(folder: Path) -> Path:
    """A folder for the logs and progress of this driver's workers; those of drivers that are gone go, too.

    A process number says something on its own machine only: of a driver elsewhere, which writes to the same
    shared folder, nothing is removed before it has been still for a day.
    """
    here = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    for old in folder.glob("work-*"):
        process, _, machine = old.name.removeprefix("work-").partition("-")
        if machine.partition("-")[0] != here and process.isdigit():
            with suppress(OSError):
                if time.time() - old.stat().st_mtime > STILL_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
            continue
        try:
            os.kill(int(process), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(old, ignore_errors=True)
        except PermissionError:
            continue
    with storage_errors(folder):
        return Path(tempfile.mkdtemp(prefix=f"work-{os.getpid()}-{here}-", dir=folder)).resolve()


def _say_plan(prepared: Prepared, *, needed: Sequence[Job], processes: int, display: Display) -> None:
    there = len(prepared.jobs) - len(needed)
    already = f" ({there} are there already)" if there else ""
    display.say(
        f"{len(needed)} runs to do{already} on {processes} process{'es' if processes > 1 else ''}, "
        f"about {time_text(prepared.seconds(processes=processes))}"
    )
