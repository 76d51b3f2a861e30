"""Worker processes on this machine that take run after run, one thread each."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from repetita.study.engines import Ended, Errand, Needs
from repetita.study.progress import Sight, read_sight

ROOM_TO_SPEAK = 1 << 14
"""Free bytes below which a worker may have had no room to say why it ended."""

GRACE_SECONDS = 60.0
"""How long a worker may take to write its checkpoint after it was asked to stop."""


class Worker:
    """One worker process; it takes order after order, so that torch is imported once."""

    def __init__(self, number: int, *, command: Sequence[str], folder: Path) -> None:
        self.number = number
        self.run: str | None = None
        self.sight = Sight()
        self.log = folder / f"worker-{number}.log"
        self._command = [*command, "--progress", str(folder / f"worker-{number}.json")]
        self._file = folder / f"worker-{number}.json"
        self._order = 0
        self._process: subprocess.Popen[str] | None = None

    def send(self, run: str) -> None:
        """Gives the worker a run (its fingerprint) to do."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._order += 1
        self.run, self.sight = run, Sight(order=self._order)
        with suppress(BrokenPipeError):  # A worker that died at once is noticed by `poll`.
            self._process.stdin.write(f"{self._order} {run}\n")
            self._process.stdin.flush()

    def poll(self) -> Ended | None:
        """How the present order ended, None while it goes on."""
        if self.run is None or self._process is None:
            return None
        code = self._process.poll()  # Before the file is read: what a dead worker wrote last is then there.
        sight = read_sight(self._file)
        if sight is not None and sight.order == self._order:
            self.sight = sight
        if self.sight.ended:
            ended = Ended(self.run, self.sight.state, self.sight.message, self.log, self.sight.seconds)
        elif code is not None:
            ended = Ended(self.run, "died", _how(code, log=self.log), self.log, self.sight.seconds)
        else:
            return None
        self.run = None
        return ended

    def ask_to_stop(self) -> None:
        """Asks for a checkpoint and an end (SIGTERM)."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, *, until: float) -> None:
        """Waits for the process to end, and kills it at `until` (monotonic seconds)."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def dismiss(self) -> None:
        """Tells an idle worker that there is nothing more to do."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _start(self) -> None:
        # One thread each: results are bit-equal per thread count, and small models gain nothing from more.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C goes to the driver alone, which passes it on once.
            )


class LocalEngine:
    """As many worker processes as asked for on this machine, spread over its devices."""

    def __init__(
        self, processes: int, *, errand: Errand, folder: Path, devices: Sequence[str] = ("cpu",)
    ) -> None:
        commands = [errand._replace(device=device).command() for device in devices]
        self._workers = [
            Worker(number, command=commands[number % len(commands)], folder=folder)
            for number in range(processes)
        ]

    @property
    def width(self) -> int:
        """See `Engine.width`."""
        return len(self._workers)

    def takes(self, needs: Needs) -> bool:  # noqa: ARG002
        """Whether a worker is without an order."""
        return any(worker.run is None for worker in self._workers)

    def send(self, run: str, *, needs: Needs) -> None:  # noqa: ARG002
        """Gives a run to a worker without an order."""
        next(worker for worker in self._workers if worker.run is None).send(run)

    def running(self) -> Mapping[str, Sight]:
        """See `Engine.running`."""
        return {worker.run: worker.sight for worker in self._workers if worker.run is not None}

    def poll(self) -> list[Ended]:
        """See `Engine.poll`."""
        return [ended for worker in self._workers if (ended := worker.poll()) is not None]

    def stop(self) -> None:
        """Asks all workers to write their checkpoints and end, and waits for them."""
        for worker in self._workers:
            worker.ask_to_stop()
            worker.dismiss()  # One that was at its last step ends its run, and is to wait for no other.
        self._wait()

    def close(self) -> None:
        """Lets idle workers end."""
        for worker in self._workers:
            worker.dismiss()
        self._wait()

    def kill(self) -> None:
        """Ends at once what is still there."""
        for worker in self._workers:
            worker.wait(until=0.0)

    def _wait(self) -> None:
        until = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            worker.wait(until=until)


def _how(code: int, *, log: Path) -> str:
    if code >= 0:
        lines = log.read_text(errors="replace").splitlines()
        if not lines and shutil.disk_usage(log.parent).free < ROOM_TO_SPEAK:
            return f"the worker ended with exit code {code} on a full disk; free space and run it again"
        return f"the worker ended with exit code {code}" + (f": {lines[-1]}" if lines else "")
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the worker was ended by {name}{hint}"
