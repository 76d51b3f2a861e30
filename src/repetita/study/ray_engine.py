"""Runs as tasks of a Ray cluster, each with the CPU, memory and share of a GPU that the plan estimates."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repetita.errors import EngineError, RunStopped, first_line
from repetita.journal.storage import Storage
from repetita.study import ray_cluster
from repetita.study.engines import Ended, Errand, Needs
from repetita.study.progress import Sight, read_sight
from repetita.study.ray_task import do
from repetita.study.stored_progress import StoredSights
from repetita.study.together import settled

if TYPE_CHECKING:
    from repetita.study.where import Where

GRACE_SECONDS = 60.0
"""How long tasks may take to write their checkpoints after they were cancelled."""
AHEAD = 8
"""One more run is queued for so many that are computed, so that Ray, and whatever adds nodes by the length of
its queue, have something to go by. More would lose the desk's order: what is queued is not overtaken."""


class Sent(NamedTuple):
    """A run that was given out."""

    run: str
    number: int
    sight: Sight
    needs: Needs


class RayEngine:
    """Tasks of a Ray cluster that all share the root folder.

    Ray tries nothing again: the desk does, and a run whose node is gone continues on another from its newest
    checkpoint. Tasks of a driver that is gone are ended by Ray; until they are, their runs are `busy`.
    """

    def __init__(self, where: "Where", *, errand: Errand, folder: Path, needs: Mapping[str, Needs]) -> None:
        self._folder = folder
        self._most = where.processes
        self._sights = StoredSights(Storage.open(errand.storage), work=folder) if errand.storage else None
        cores = where.processes and where.processes * (where.per_run or 1)
        self._opened = ray_cluster.connect(where.address, processes=cores)
        self._ray = sys.modules["ray"]
        self._sent: dict[Any, Sent] = {}
        self._orders = 0
        try:
            cuda = where.device != "cpu" and any(node.gpus for node in ray_cluster.nodes())
            if where.device == "cuda" and not cuda:
                raise EngineError(
                    "--device cuda: no node of the cluster has a GPU; leave it out, or say --device auto"
                )
            self._cuda, self._gpu_bytes = cuda, ray_cluster.look_around(errand.as_json(), folder=folder)
            needs = {name: settled(one, cuda=cuda, gpu_bytes=self._gpu_bytes) for name, one in needs.items()}
            ray_cluster.check_room(needs, cuda=cuda, gpu_bytes=self._gpu_bytes)
        except BaseException:
            self.kill()
            raise
        self._errand = errand._replace(device="cuda" if cuda else "cpu").as_json()
        # A worker that had a GPU is not used again, as Ray does by itself where it knows of GPUs this early.
        self._task = self._ray.remote(max_retries=0, max_calls=1 if cuda else 0)(do)
        widest = max(one.world for one in needs.values())
        self._largest = Needs(
            max(one.memory for one in needs.values()),
            0.0,
            cpus=widest,
            gpu_memory=max(one.gpu_memory for one in needs.values()),
            world=widest,
        )
        self._head = ray_cluster.Head(self._ray.get_runtime_context().gcs_address)
        self._counted = -ray_cluster.COUNT_SECONDS
        self._width = 1
        self._without = ray_cluster.Without()

    @property
    def width(self) -> int:
        """See `Engine.width`: as many of the largest runs as fit now, others' runs aside."""
        if self._head.ask() and time.monotonic() - self._counted >= ray_cluster.COUNT_SECONDS:
            self._counted, share, nodes = time.monotonic(), self._share(self._largest), ray_cluster.nodes()
            room = sum(node.holds(self._largest, gpu_share=share) for node in nodes)
            self._width = max(1, min(room, self._most or room))
            self._without.note(room=self._goes_on(nodes))
        return self._width

    def takes(self, needs: Needs) -> bool:  # noqa: ARG002
        """Whether there seems to be room, or what waits is but a small part of what is computed."""
        if not self._head.ask() or (self._most is not None and len(self._sent) >= self._most):
            return False
        waiting = sum(sent.sight.state == "starting" for sent in self._sent.values())
        return len(self._sent) < self.width or waiting < 1 + self.width // AHEAD

    def send(self, run: str, *, needs: Needs) -> None:
        """Makes a run a task."""
        self._orders += 1
        needs = settled(needs, cuda=self._cuda, gpu_bytes=self._gpu_bytes)
        task = self._task.options(
            name=f"repetita {run[:12]}",
            num_cpus=needs.cpus,
            num_gpus=self._share(needs),
            memory=ray_cluster.memory_asked(needs),
        )
        reference = task.remote(self._errand, run, self._orders, str(self._folder), needs.world)
        self._sent[reference] = Sent(run, self._orders, Sight(order=self._orders), needs)

    def running(self) -> Mapping[str, Sight]:
        """See `Engine.running`."""
        return {sent.run: sent.sight for sent in self._sent.values()}

    def poll(self) -> list[Ended]:
        """See `Engine.poll`."""
        if not self._sent or not self._head.ask():
            return []
        if self._sights is not None:
            self._sights.refresh()
        for reference, sent in self._sent.items():
            sight = read_sight(self._folder / f"{sent.run[:12]}.json")
            # Until the task answers it has not ended for the driver, whatever its file says.
            if sight is not None and sight.order == sent.number and not sight.ended:
                self._sent[reference] = sent._replace(sight=sight)
        ready, _ = self._ray.wait(list(self._sent), num_returns=len(self._sent), timeout=0)
        return [self._end(reference) for reference in ready]

    def stop(self) -> None:
        """Cancels all tasks, which to those that are computed is Ctrl-C, and waits for them."""
        for reference in self._sent:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=False, recursive=False)
        if self._sent:
            self._ray.wait(list(self._sent), num_returns=len(self._sent), timeout=GRACE_SECONDS)

    def close(self) -> None:
        """Nothing is left to be told: workers belong to Ray."""

    def kill(self) -> None:
        """Leaves the cluster, which ends the tasks of this driver, or ends the one that was started here."""
        if self._opened:
            self._ray.shutdown()
        else:
            for reference in self._sent:
                with suppress(self._ray.exceptions.RayError):
                    self._ray.cancel(reference, force=True, recursive=False)
        if self._sights is not None:
            self._sights.forget()

    def _goes_on(self, nodes: Sequence[ray_cluster.Node]) -> bool:
        """Whether a run is computed, or will be: some node has room for one that waits."""
        return not self._sent or any(
            sent.sight.state != "starting"
            or any(node.holds(sent.needs, gpu_share=self._share(sent.needs)) for node in nodes)
            for sent in self._sent.values()
        )

    def _share(self, needs: Needs) -> float:
        return ray_cluster.gpu_share(needs, gpu_bytes=self._gpu_bytes) if self._cuda else 0.0

    def _end(self, reference: Any) -> Ended:
        """What became of a task that answered or is gone."""
        sent, log = self._sent.pop(reference), self._folder
        log /= f"{sent.run[:12]}.log"
        errors = self._ray.exceptions
        try:
            sight = Sight(**json.loads(self._ray.get(reference)))
        except errors.NodeDiedError as error:
            node = str(error).partition("Node IP: ")[2].partition(",")[0]
            return Ended(sent.run, "lost", f"the node {node} died", log, sent.sight.seconds)
        except errors.RayTaskError as error:
            cause = error.cause or error
            if isinstance(cause, EngineError):  # It would take, and fail, one run after the other.
                self.stop()
                raise EngineError(f"a node that joined the cluster cannot take part: {cause}") from None
            state = "died" if isinstance(cause, RunStopped) else "failed"
            return Ended(sent.run, state, first_line(cause), log, sent.sight.seconds)
        except errors.RayError as error:
            return Ended(sent.run, "died", _how(error), log, sent.sight.seconds)
        return Ended(sent.run, sight.state, sight.message, log, sight.seconds)


def _how(error: BaseException) -> str:
    kind = type(error).__name__
    if kind == "OutOfMemoryError":
        return "the worker was ended by Ray, its node being out of memory"
    return f"the worker is gone ({kind})"
