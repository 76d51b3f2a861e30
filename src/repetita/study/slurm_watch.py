"""The runs that were given to Slurm: what their jobs say of them, and what Slurm says of silent jobs."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from repetita.study.engines import Ended, Needs
from repetita.study.progress import Sight, read_sight
from repetita.study.slurm_queue import WAITING, Queue
from repetita.study.slurm_task import progress_path

logger = logging.getLogger(__name__)

CANCELLED = ("CANCELLED", "DEADLINE", "REVOKED")


class Out(NamedTuple):
    """A run that was given out."""

    number: int
    needs: Needs
    job: str
    """Empty until it is submitted."""
    sight: Sight

    @classmethod
    def new(cls, needs: Needs) -> "Out":
        """A run that is to be submitted, under a number that no order had before."""
        number = time.time_ns()
        return cls(number, needs, "", Sight(order=number))


class Watch:
    """Follows the runs in `out`, by fingerprint; those that came back are taken out of it."""

    def __init__(self, folder: Path, *, queue: Queue) -> None:
        self.out: dict[str, Out] = {}
        self._folder, self._queue = folder, queue
        self._states: dict[str, str] = {}
        self._gone = set[str]()
        self._answers = True

    @property
    def jobs(self) -> set[str]:
        """The jobs of the runs that did not come back yet."""
        return {out.job for out in self.out.values() if out.job}

    @property
    def waiting(self) -> dict[str, Needs]:
        """The runs that are to be submitted, in the order in which they were given out."""
        return {run: out.needs for run, out in self.out.items() if not out.job}

    def read(self) -> list[Ended]:
        """The runs that came back, by what their jobs say."""
        return self._read(list(self.out))

    def look(self) -> list[Ended]:
        """The runs whose jobs are in the queue no more, when asked twice, and said nothing of them."""
        jobs = self.jobs
        if not jobs:
            return []
        present = self._queue.present()
        if present is None:
            if self._answers:
                logger.warning("squeue does not answer; jobs go on, and it is asked again")
            self._answers = False
            return []
        self._states, self._answers = present, True
        gone, before = jobs - present.keys(), self._gone
        self._gone = gone
        if not gone & before:
            return []
        with suppress(OSError):  # Has a network file system look again at what is there.
            self._folder.chmod(self._folder.stat().st_mode)
        ended = self.read()
        fates = self._queue.fates(sorted(gone & before & self.jobs))
        return ended + [one for job, fate in fates.items() for one in self._bury(job, fate)]

    def _read(self, runs: Sequence[str]) -> list[Ended]:
        ended = []
        for run in runs:
            out = self.out[run]
            path = progress_path(self._folder, run=run, number=out.number)
            sight = read_sight(path) if out.job else None
            if sight is None:
                continue
            # Whether others needed its node or somebody cancelled it Slurm says, when the job is over.
            if sight.state == "lost" and self._states.get(out.job) not in WAITING:
                self.out[run] = out._replace(sight=sight)
                continue
            if sight.ended:
                del self.out[run]
                log = self._queue.log(out.job)
                ended.append(Ended(run, sight.state, sight.message, log, sight.seconds))
                continue
            if self._states.get(out.job) in WAITING:  # It was requeued.
                sight = sight._replace(state="starting", tokens_per_second=0.0)
            self.out[run] = out._replace(sight=sight)
        return ended

    def _bury(self, job: str, fate: tuple[str, str]) -> list[Ended]:
        """What becomes of the runs of a job that is over; those that it had not come to are sent again."""
        log = self._queue.log(job)
        state, message = why(*fate, job=job, log=log)
        runs = [run for run, out in self.out.items() if out.job == job]
        begun = [run for run in runs if self.out[run].sight.state == "running"]
        ended = []
        for run in runs:
            out = self.out.pop(run)
            if out.sight.state == "lost" and not fate[0].startswith(CANCELLED):
                ended.append(Ended(run, "lost", out.sight.message, log, out.sight.seconds))
            elif begun and run not in begun and not fate[0].startswith(CANCELLED):
                self.out[run] = Out.new(out.needs)
            else:
                ended.append(Ended(run, state, message, log, out.sight.seconds))
        return ended


def why(state: str, node: str, *, job: str, log: Path) -> tuple[str, str]:
    """The state of `Ended` and a clause that a job's last state in Slurm comes to."""
    kind, _, who = state.partition(" ")
    kind, at = kind.rstrip("+"), f" on {node}" if node and "None" not in node else ""
    name = f"its job {job}"
    if kind == "OUT_OF_MEMORY":
        return "failed", f"{name} took more memory{at} than it asked for; ask for more by --slurm mem=..."
    if kind in CANCELLED:
        return (
            "failed",
            f"{name} was cancelled{f' {who}' if who else ''}; run the same command again to continue",
        )
    if kind == "TIMEOUT":
        return "lost", f"{name} came to its time limit{at} before it could write a checkpoint"
    if kind in ("NODE_FAIL", "BOOT_FAIL"):
        return "lost", f"the node{at.removeprefix(' on')} of its job {job} failed"
    if kind == "PREEMPTED":
        return "lost", f"{name} gave way to another{at}"
    if not log.exists():
        return (
            "died",
            f"{name} ended ({kind}){at} and left no log; a node must see {log.parent}: give a folder "
            f"that all nodes share, by --root",
        )
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "died", f"{name} ended ({kind}){at}" + (f": {lines[-1][:300]}" if lines else "")
