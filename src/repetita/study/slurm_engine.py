"""Runs as jobs of a Slurm cluster, in arrays, several short ones in a job; they outlive their driver."""

import hashlib
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from repetita.errors import EngineError
from repetita.study import slurm_jobs, slurm_options
from repetita.study.engines import Ended, Errand, Needs
from repetita.study.progress import Sight
from repetita.study.slurm_options import ARRAY, FOLDER
from repetita.study.slurm_queue import Queue
from repetita.study.slurm_task import Batch
from repetita.study.slurm_watch import Out, Watch

if TYPE_CHECKING:
    from repetita.study.where import Where

log = logging.getLogger(__name__)

READ_SECONDS = 1.0
"""How often the progress of a hundred runs is read; that of more less often."""
LOOK_SECONDS = 15.0
"""How often squeue is asked. A job that it lacks twice has ended."""
GATHER_SECONDS = 20.0
"""How long runs that become ready are gathered for a job, where they do not fill one."""
AGAIN_SECONDS = 60.0
"""How long sbatch is left alone after it refused while other jobs are in the queue: it may be full."""
GRACE_SECONDS = 120.0
"""How long jobs may take to write their checkpoints after they were asked to stop."""
AT_ONCE = 256
"""Jobs that are counted on to run at the same time; of an array submitit asks for no more."""


class SlurmEngine:
    """Jobs that all see the root folder; what they are told and say lies in the study's folder `slurm`.

    A driver that dies leaves its jobs in the queue, and the next one takes up those that are still there. A
    run is submitted when its trunk is done.
    """

    def __init__(self, where: "Where", *, errand: Errand, folder: Path, needs: Mapping[str, Needs]) -> None:
        self._folder = folder.resolve().parent / FOLDER
        self._most = where.processes
        self._cuda = slurm_options.uses_cuda(where.device, given=slurm_options.options(where.slurm))
        self._errand = errand._replace(device="cuda" if self._cuda else "cpu").as_json()
        self._told = hashlib.sha256(self._errand.encode()).hexdigest()
        self._submitted, self._again = -GATHER_SECONDS, 0.0
        self._read_at = self._look_at = 0.0
        self._width = min(self._most or AT_ONCE, len(slurm_options.jobs(needs, cuda=self._cuda)))
        self._open = ExitStack()
        self._open.enter_context(slurm_jobs.only_driver(self._folder))
        try:
            self._queue = Queue(self._folder, given=where.slurm, cuda=self._cuda)
            self._watch = Watch(self._folder, queue=self._queue)
            present = self._queue.present()
            if present is None:
                raise EngineError(
                    "squeue does not answer, so that jobs could be submitted twice; try again later"
                )
            self._taken_up = slurm_jobs.take_up(self._folder, present=present, errand=self._told)
            (self._folder / slurm_options.TOKEN).write_text("")
            for one in {ask for ask, _ in slurm_options.jobs(needs, cuda=self._cuda)}:
                self._queue.check(one)
        except BaseException:
            self.kill()
            raise

    @property
    def width(self) -> int:
        """See `Engine.width`: the jobs that are there, of which the queue decides how many run."""
        return max(1, min(self._most or AT_ONCE, len(self._watch.jobs)) or self._width)

    def takes(self, needs: Needs) -> bool:  # noqa: ARG002
        """Whether a run would be queued: always, or as long as there are fewer jobs than were asked for."""
        return self._most is None or len(self._watch.jobs) < self._most

    def send(self, run: str, *, needs: Needs) -> None:
        """Has a run submitted with the next jobs, or takes up the job that does it already."""
        out = Out.new(needs)
        number, job = self._taken_up.pop(run, (out.number, ""))
        self._watch.out[run] = out._replace(number=number, job=job, sight=Sight(order=number))

    def running(self) -> Mapping[str, Sight]:
        """See `Engine.running`."""
        return {run: out.sight for run, out in self._watch.out.items()}

    def poll(self) -> list[Ended]:
        """See `Engine.poll`."""
        self._submit()
        ended: list[Ended] = []
        if time.monotonic() >= self._read_at:
            ended += self._watch.read()
            self._read_at = time.monotonic() + READ_SECONDS * max(1.0, len(self._watch.out) / 100)
        if time.monotonic() >= self._look_at:
            ended += self._watch.look()
            self._look_at = time.monotonic() + LOOK_SECONDS
        return ended

    def stop(self) -> None:
        """Takes this study's jobs out of the queue, and waits for the checkpoints of those that run."""
        jobs = self._watch.jobs | {job for _, job in self._taken_up.values()}
        self._queue.stop(jobs)
        until = time.monotonic() + GRACE_SECONDS
        while jobs and time.monotonic() < until:
            time.sleep(READ_SECONDS)
            present = self._queue.present()
            jobs = jobs if present is None else jobs & present.keys()
        self._queue.cancel(jobs)

    def close(self) -> None:
        """Nothing is left to be told: a job ends with its last run."""

    def kill(self) -> None:
        """Lets go of the study; jobs that are in the queue stay there for the next driver."""
        self._open.close()

    def _submit(self) -> None:
        """Submits what waits, those that ask the same as an array, once it is enough or has waited enough."""
        now, waiting, jobs = time.monotonic(), self._watch.waiting, self._watch.jobs
        room = None if self._most is None else max(0, self._most - len(jobs))
        if not waiting or room == 0 or now < self._again:
            return
        seconds = sum(needs.seconds for needs in waiting.values())
        enough = not jobs or seconds >= slurm_options.BATCH_SECONDS
        if not enough and now < self._submitted + GATHER_SECONDS:
            return
        arrays: dict[slurm_options.Asked, list[list[str]]] = {}
        for ask, share in slurm_options.jobs(waiting, cuda=self._cuda)[:room]:
            arrays.setdefault(ask, []).append(share)
        for ask, listed in arrays.items():
            for first in range(0, len(listed), ARRAY):
                try:
                    self._submit_array(ask, listed[first : first + ARRAY])
                except EngineError as error:
                    if not self._watch.jobs:
                        raise
                    log.warning("%s (tried again later, as there are jobs in the queue)", error)
                    self._again = now + AGAIN_SECONDS
                    return
        self._submitted = time.monotonic()

    def _submit_array(self, ask: slurm_options.Asked, listed: list[list[str]]) -> None:
        out = self._watch.out
        told = [[(out[run].number, run) for run in share] for share in listed]
        tasks = [
            Batch(self._errand, orders=orders, folder=str(self._folder), world=ask.world) for orders in told
        ]
        timeouts = max(
            slurm_options.timeouts([out[run].needs for run in share], minutes=self._queue.minutes(ask))
            for share in listed
        )
        ids = self._queue.submit(ask, tasks=tasks, timeouts=timeouts)
        jobs = [
            slurm_jobs.Job(job, self._told, {run: number for number, run in orders})
            for job, orders in zip(ids, told, strict=True)
        ]
        slurm_jobs.note(self._folder, jobs=jobs)
        for job in jobs:
            for run in job.orders:
                out[run] = out[run]._replace(job=job.id)
