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
from repetita.study.together import settled

ROOM_TO_SPEAK = 1 << 14
"""Free bytes below which a worker may have had no room to say why it ended."""

GRACE_SECONDS = 60.0
"""How long a worker may take to write its checkpoint after it was asked to stop."""


class Worker:
    """One worker process; it takes order after order, so that torch is imported once."""

    def __init__(self, number: int, *, command: Sequence[str], folder: Path, device: str = "cpu") -> None:
        self.number, self.device = number, device
        self.run: str | None = None
        self.lent_to: Worker | None = None
        """Whose run has this one's core or GPU as well."""
        self.sight = Sight()
        self.log = folder / f"worker-{number}.log"
        self._command = [*command, "--progress", str(folder / f"worker-{number}.json")]
        self._file = folder / f"worker-{number}.json"
        self._order = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def idle(self) -> bool:
        """Whether it has no order, and lends nothing to one that has."""
        if self.lent_to is not None and self.lent_to.run is None:
            self.lent_to = None
        return self.run is None and self.lent_to is None

    def send(self, run: str, *, devices: Sequence[str] = ()) -> None:
        """Gives the worker a run (its fingerprint) to do, by a process on each of several devices if told."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._order += 1
        self.run, self.sight = run, Sight(order=self._order)
        with suppress(BrokenPipeError):  # A worker that died at once is noticed by `poll`.
            self._process.stdin.write(" ".join((str(self._order), run, *devices)) + "\n")
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
    """As many worker processes as asked for on this machine, spread over its devices.

    A run of several processes is given to one worker, and takes the cores or GPUs of others, which wait.
    """

    def __init__(
        self,
        processes: int,
        *,
        errand: Errand,
        folder: Path,
        devices: Sequence[str] = ("cpu",),
        gpu_bytes: int = 0,
        widest: int = 1,
        at_once: int | None = None,
    ) -> None:
        commands = [errand._replace(device=device).command() for device in devices]
        self._workers = [
            Worker(number, command=commands[at], folder=folder, device=devices[at])
            for number in range(processes)
            for at in (number % len(commands),)
        ]
        self._gpu_bytes, self._widest, self._at_once = gpu_bytes, widest, at_once

    @property
    def width(self) -> int:
        """See `Engine.width`; where runs take several workers, how many of the widest there is room for."""
        return max(1, len(self._workers) // self._widest)

    def takes(self, needs: Needs) -> bool:
        """Whether enough workers are without an order."""
        return self._free(needs) is not None

    def send(self, run: str, *, needs: Needs) -> None:
        """Gives a run to a worker without an order."""
        free = self._free(needs)
        assert free is not None
        first, *others = free
        first.send(run, devices=[worker.device for worker in free] if others else ())
        for other in others:
            other.lent_to = first

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

    def _free(self, needs: Needs) -> list[Worker] | None:
        """The workers that a run would take, each with a GPU of its own; None where they are not free."""
        world = settled(needs, cuda=bool(self._gpu_bytes), gpu_bytes=self._gpu_bytes).world
        if self._at_once is not None and len(self.running()) >= self._at_once:
            return None
        idle = [worker for worker in self._workers if worker.idle]
        if world > 1 and any(worker.device != "cpu" for worker in idle):
            idle = list({worker.device: worker for worker in idle}.values())
        return idle[:world] if len(idle) >= world else None

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
