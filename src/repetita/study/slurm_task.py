"""What a job of Slurm does: the runs that share it, told by strings, each to its end or to a checkpoint."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repetita.study.work import Bench
    from repetita.train.stopping import StopRequests


class Batch:
    """Runs that are brought to their end one after the other; submitit pickles it and calls it on a node.

    SIGTERM (preemption, scancel) and SIGUSR2 (the time limit is near) have the run in hand write its
    checkpoint. After SIGUSR2 submitit requeues the job, whether its driver lives or not; after SIGTERM the
    runs are `lost`, and the driver, if there is one, gives them out again. Each is computed by `world`
    processes.
    """

    def __init__(
        self, errand: str, *, orders: Sequence[tuple[int, str]], folder: str, world: int = 1
    ) -> None:
        self.errand, self.orders, self.folder, self.world = errand, list(orders), folder, world

    def __call__(self) -> None:
        """Does all orders that have not ended; what became of each is in its progress file."""
        os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        from repetita.train.stopping import StopRequests

        with StopRequests() as stop, _heard_as_terminate() as limit:
            reason = self._do(stop, limit=limit)
        if not reason:
            return
        if limit:
            self._leave("starting", "")
            try:
                signal.raise_signal(signal.SIGUSR2)  # To submitit, which requeues this job and exits.
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                reason = f"at its time limit it was not requeued ({error})"
        self._leave("lost", reason)

    def checkpoint(self) -> Any:
        """What submitit submits in place of this when it requeues the job: the same, to be done anew."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _do(self, stop: "StopRequests", *, limit: Sequence[int]) -> str:
        """Why it stopped before its end, empty where it did not."""
        from repetita.errors import RunStopped, UserError
        from repetita.study.progress import ProgressFile, Sight
        from repetita.study.work import do_order

        bench: Bench | None = None
        for number, run in self._open():
            if stop.asked or limit:  # A run at its last step may have heard of the limit, and ended.
                return f"its job was stopped by {stop.asked or 'SIGUSR2'}"
            file = ProgressFile(self._path(run, number))
            file.show(Sight(order=number, state="running"))
            try:
                bench = bench or self._bench()
                devices = [bench.errand.device] * self.world
                file.show(do_order(run, number=number, bench=bench, file=file, devices=devices))
            except RunStopped as error:
                return f"its job was {error}".partition(";")[0]
            except UserError as error:
                file.show(Sight(order=number, state="failed", message=str(error)))
        return ""

    def _bench(self) -> "Bench":
        from repetita.study.engines import Errand
        from repetita.study.work import Bench

        return Bench.of(Errand.from_json(self.errand))

    def _open(self) -> list[tuple[int, str]]:
        """The orders that have not ended: a job that was requeued has done some of them."""
        from repetita.study.progress import read_sight

        sights = {run: read_sight(self._path(run, number)) for number, run in self.orders}
        return [
            (number, run) for number, run in self.orders if (sight := sights[run]) is None or not sight.ended
        ]

    def _leave(self, state: Any, message: str) -> None:
        from repetita.study.progress import ProgressFile, Sight

        for number, run in self._open():
            ProgressFile(self._path(run, number)).show(Sight(order=number, state=state, message=message))

    def _path(self, run: str, number: int) -> Path:
        return progress_path(Path(self.folder), run=run, number=number)


def progress_path(folder: Path, *, run: str, number: int) -> Path:
    """Where a job says how far a run is; each order has a file of its own, that no two jobs write one."""
    return folder / f"{run[:12]}-{number}.json"


@contextmanager
def _heard_as_terminate() -> Iterator[list[int]]:
    """Has SIGUSR2 do what SIGTERM does, also to a training loop that knows nothing of it; notes it."""
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGUSR2, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGUSR2, before)
