"""The processes that compute one run together: rank 0 leads, the others do as it says, all end as one."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from repetita.errors import EngineError, RepetitaError, SpecError, TrainingDiverged, first_line, nearest
from repetita.model.device import present
from repetita.model.memory import out_of_memory
from repetita.train.stopping import StopRequests

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

log = logging.getLogger(__name__)

Parallel = Literal["auto", "ddp", "fsdp2"]

Order = Literal["open", "update", "whole", "fill", "subject", "ask", "end"]
"""All that rank 0 can say; each is a thing that all processes then do at the same time."""

JOIN = timedelta(minutes=5)
"""How long the processes wait for each other at the start."""
COLLECTIVE = timedelta(minutes=10)
"""How long one waits for the others within an update."""
ORDERS = timedelta(days=14)
"""How long one waits for the next order: rank 0 may be building a corpus, or measuring alone."""
POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0
"""How long a process may take to end by itself when another one has failed."""

LINGER_SECONDS = 3.0
"""How long others than rank 0 wait before they end after a failure: torchrun ends all when one has ended, and
rank 0 is to have said why."""

_BROKEN = "repetita/broken"
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SILENCE = ("closed by peer", "reset by peer", "timed out", "timeout", "broken pipe", "connection")


class Place(NamedTuple):
    """Where this process stands among those that torchrun started."""

    rank: int
    world: int
    local_rank: int
    local_world: int

    @classmethod
    def of_environment(cls) -> "Place | None":
        """As torchrun says it; None for a process that it did not start."""
        if not all(name in os.environ for name in _LAUNCHED):
            return None
        world = int(os.environ["WORLD_SIZE"])
        local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        return cls(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]), local_world)


class Team:
    """One process among those of a run; what `lead` and `follow` say goes over a group of its own.

    A process that fails says so in the store of the processes, because the others may be waiting for it
    inside a collective operation. Each process watches the store and ends when that is said.
    """

    def __init__(self, place: Place, *, parallel: Parallel, device: str, store: "Store") -> None:
        self.place, self.parallel, self.device = place, parallel, device
        self.rank, self.world = place.rank, place.world
        self.backend = "nccl" if device.startswith("cuda") else "gloo"
        self.store = store
        self.stop: str | None = None
        """The first stop signal that any of the processes was sent."""
        self.ended = threading.Event()
        distributed.init_process_group(
            f"cpu:gloo,cuda:{self.backend}" if self.backend == "nccl" else "gloo",
            store=distributed.PrefixStore("groups", store),  # type: ignore[attr-defined]
            rank=place.rank,
            world_size=place.world,
            timeout=COLLECTIVE,
        )
        self.control = distributed.new_group(backend="gloo", timeout=ORDERS)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def share(self, n: int, /) -> slice:
        """This process's part of n things; parts differ by one at most."""
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world)

    def lead(self, what: Order, *about: object) -> None:
        """Rank 0 says what all do next; in the others it does nothing, for they are told already."""
        if not self.rank:
            with self.together():
                distributed.broadcast_object_list([(what, about)], src=0, group=self.control)

    def follow(self) -> tuple[Order, tuple[Any, ...]]:
        """Waits for what rank 0 says."""
        order: list[Any] = [None]
        distributed.broadcast_object_list(order, src=0, group=self.control)
        return order[0]  # type: ignore[no-any-return]

    def gather(self, value: object) -> list[Any]:
        """What each process has, in the order of their ranks, at rank 0; elsewhere nothing."""
        found: list[Any] | None = None if self.rank else [None] * self.world
        distributed.gather_object(value, found, dst=0, group=self.control)
        return found or []

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes, in each of them."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        distributed.all_reduce(tensor, group=self.control)
        return tensor.numpy()

    def agree(self, failure: str | None) -> bool:
        """Whether no process has failed that can still say so; rank 0 raises EngineError where one has.

        All hear of it: those that went on would wait for one that does not come.
        """
        failures: list[str | None] = [None] * self.world
        distributed.all_gather_object(failures, failure, group=self.control)
        for rank, said in enumerate(failures):
            if said is not None and not self.rank:
                raise EngineError(f"process {rank} of {self.world}: {said}")
        return not any(failures)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work in which processes wait for each other: whatever ends it in one of them ends it in all.

        A loss that is not finite is no such thing, for all of them see it. Raises EngineError with what the
        first process that failed has to say.
        """
        try:
            yield
        except (EngineError, TrainingDiverged):
            raise
        except BaseException as error:
            raise EngineError(self._broken(error)) from error

    def leave(self, *, failed: bool = False) -> None:
        """Ends what connects this process with the others, which notice it."""
        if self.ended.is_set():
            return
        broken = self.broken()
        self.ended.set()
        # A thread that is still at work when the interpreter ends takes the process down with it.
        self._watcher.join()
        if self.backend == "gloo" or broken is None:  # NCCL would wait for what will never come.
            with suppress(distributed.DistError, RuntimeError):
                distributed.destroy_process_group()
        if failed and self.rank:
            time.sleep(LINGER_SECONDS)

    def broken(self) -> str | None:
        """What the process that failed has said, if one has."""
        try:
            there = self.store.check([_BROKEN])
            return self.store.get(_BROKEN).decode() if there else None
        except (distributed.DistError, RuntimeError):
            return "the process that the others meet at is gone; run it again to go on"

    def _broken(self, error: BaseException) -> str:
        """Tells the others that this process has failed, unless one of them did; the sentence to raise."""
        silent = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SILENCE)
        if silent:  # It may be that another process failed: that one knows why.
            self.ended.wait(2 * POLL_SECONDS)
        said = self.broken()
        if said is None:
            why = str(error) if isinstance(error, RepetitaError) else first_line(error)
            if out_of_memory(error):
                why = f"no memory is left on {self.device}; give a smaller --micro-batch, or --parallel fsdp2"
            elif silent:
                minutes = COLLECTIVE.seconds // 60
                log.info("process %d: %s", self.rank, error)
                why = f"another process is gone (killed?), or was silent for {minutes} minutes"
            said = f"process {self.rank} of {self.world}: {why}; run it again to go on"
            with suppress(distributed.DistError, RuntimeError):
                self.store.set(_BROKEN, said)
        return said

    def _watch(self) -> None:
        """Ends this process where another one has failed and it does not end by itself."""
        while not self.ended.wait(POLL_SECONDS):
            said = self.broken()
            grace = GRACE_SECONDS + (LINGER_SECONDS if self.rank else 0)
            if said is None or self.ended.wait(grace):
                continue
            if not self.rank:
                sys.stderr.write(f"repetita: {said}\n")
                sys.stderr.flush()
            os._exit(EngineError.exit_code)


@contextmanager
def joined(parallel: str | None, /, *, device: str = "cpu") -> Iterator[Team | None]:
    """The team of a process that torchrun started, until all are done; None for a process on its own.

    Whatever rank 0 raises ends the others. Raises SpecError for a way to share a run that is none, and where
    several processes would be needed or this torch cannot connect them; EngineError where not all come.
    """
    place = Place.of_environment()
    try:
        team = _team(parallel, place=place, device=device)
    except SpecError:
        if place and place.rank:  # Where rank 0 says the same, this one need not.
            time.sleep(LINGER_SECONDS)
        raise
    if team is None:
        yield None
        return
    code = 0
    try:
        yield team
    except BaseException as error:
        code = error.exit_code if isinstance(error, RepetitaError) else 1
        raise
    finally:
        if not team.rank and team.broken() is None:
            with suppress(RepetitaError):
                team.lead("end", code)
        team.leave()


def _team(parallel: str | None, *, place: Place | None, device: str) -> Team | None:
    """The team of a process, if it is to be in one."""
    if parallel is not None and parallel not in get_args(Parallel):
        raise SpecError(
            f"no way to share a run is named '{parallel}'; {nearest(parallel, get_args(Parallel))}"
        )
    if place is None and parallel is not None:
        raise SpecError(
            f"--parallel {parallel} shares a run among several processes, and this is one; start it with "
            f"torchrun --nproc-per-node N -m repetita train SPEC"
        )
    if place is None or (place.world == 1 and parallel is None):
        return None
    return _join(place, parallel=cast("Parallel", parallel or "auto"), device=_own_device(device, place))


def _join(place: Place, *, parallel: Parallel, device: str) -> Team:
    """This process among the others, once all are there."""
    if not distributed.is_available() or not distributed.is_gloo_available():
        raise SpecError("this torch cannot connect processes (it has no gloo); install another build of it")
    if device.startswith("cuda"):
        if not distributed.is_nccl_available():
            raise SpecError("this torch cannot connect GPUs (it has no NCCL); install a build of it that has")
        torch.cuda.set_device(device)
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", place.rank, place.world, timeout=JOIN))
        store.set_timeout(JOIN)
        return Team(place, parallel=parallel, device=device, store=store)
    except (distributed.DistError, RuntimeError) as error:
        raise EngineError(
            f"not all of the {place.world} processes came within {JOIN.seconds // 60} minutes "
            f"({first_line(error)}); see whether each was started, and reaches {os.environ['MASTER_ADDR']}"
        ) from error


def _own_device(device: str, place: Place) -> str:
    """The device of one of several processes: of GPUs the one with its number on this machine."""
    if device == "cuda" and place.local_world > torch.cuda.device_count() > 0:
        raise SpecError(
            f"{place.local_world} processes on a machine with {torch.cuda.device_count()} GPUs; start one "
            f"for each GPU (--nproc-per-node)"
        )
    if device.startswith(("cuda:", "mps")) and place.local_world > 1:
        raise SpecError(f"device '{device}' is one, and the processes here are several; write cuda or cpu")
    own = f"cuda:{place.local_rank}" if device == "cuda" else device
    present(own)
    return own


class SharedStop(StopRequests):
    """Stop requests to any process of a team; a second one changes nothing, for all must save together."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.team = team

    @property
    def asked(self) -> str | None:
        """The name of the first signal that any process was sent, as far as this one knows."""
        return self.team.stop

    def _note(self, number: int, _: FrameType | None) -> None:
        self.team.stop = self.team.stop or signal.Signals(number).name
