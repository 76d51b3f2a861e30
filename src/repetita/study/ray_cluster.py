"""A Ray cluster: reached, looked at from each of its nodes, and left."""

import importlib
import importlib.util
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from repetita.errors import EngineError, SpecError, first_line
from repetita.study.engines import Needs
from repetita.study.price import size_text
from repetita.study.ray_task import TOKEN, look
from repetita.study.together import USABLE, check_width

log = logging.getLogger(__name__)

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray prints what its daemons complain of, such as a node that is gone, into the driver's output, whatever
    # it is told of logs; lines that match this are left out. Its log files have them.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
    "RAY_gcs_server_request_timeout_seconds": "10",
    # Ray gives its workers way to everything else on the machine (nice 15); those of --engine local do not.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Read by Ray when it is imported, and by the processes that it starts."""

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0 this makes Ray listen on 127.0.0.1 alone, on any system (otherwise whoever reaches its ports over
the network may run code)."""

CONNECT_SECONDS = 5.0
COUNT_SECONDS = 5.0
"""How often the head is asked whether it is there, and the nodes are counted anew: some go, others come."""
HEAD_SECONDS = 20.0
"""How long it is waited for a head that does not answer."""
WITHOUT_SECONDS = 900.0
"""How long it is waited for a node that has room, where none is left that has."""
LOOK_SECONDS = 180.0
"""How long a node may take to answer: its first worker starts and imports this package."""

MOST_ON_A_GPU = 8
"""Runs that share a GPU: they take turns, so that more gain nothing."""
BLOCK = 1 << 28
"""Requests of memory are rounded up to this: Ray keeps workers and queues by request, and few are best."""


class Node(NamedTuple):
    """What a node of the cluster has."""

    id: str
    name: str
    cpus: float
    memory: float
    """Bytes that Ray gives out."""
    gpus: float = 0.0

    def holds(self, needs: Needs, *, gpu_share: float) -> int:
        """Runs with these needs that it has room for at the same time."""
        room = min(self.cpus / needs.cpus, self.memory / memory_asked(needs))
        if not gpu_share:
            return int(room)
        return int(min(room, self.gpus // gpu_share if gpu_share >= 1 else self.gpus * int(1 / gpu_share)))


def check_address(address: str | None) -> None:
    """Raises EngineError, or SpecError for what is no address, where no cluster can be reached."""
    if importlib.util.find_spec("ray") is None:
        raise EngineError("--engine ray needs Ray, which is not installed; run: pip install 'repetita[ray]'")
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address in (None, "auto", "local"):
        return
    host, _, port = str(address).rpartition(":")
    if "://" in str(address) or not host or not port.isdigit():
        raise SpecError(
            f"--address {address} is no address of a Ray cluster; write HOST:PORT of its head, such as "
            f"10.0.0.1:6379, and start this on a machine of the cluster"
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(address, error) from None


def connect(address: str | None, *, processes: int | None) -> bool:
    """Connects this process to a cluster, or starts Ray on this machine; False where it was connected before.

    Raises EngineError where none answers, SpecError for an address beside a connection that is there.
    """
    meant = address or os.environ.get("RAY_ADDRESS") or "local"
    ray = _load(alone=meant == "local")
    if ray.is_initialized():
        if address:
            raise SpecError(f"--address {address}: this process is connected to Ray already; leave it out")
        return False
    own: dict[str, Any] = {"num_cpus": processes, "include_dashboard": False} if meant == "local" else {}
    try:
        ray.init(address=meant, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _no_answer(meant, error) from None
    return True


def nodes() -> list[Node]:
    """The nodes that are alive and compute: a head that only directs has no CPUs."""
    found = []
    for node in sys.modules["ray"].nodes():
        has = node["Resources"]
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        if node["Alive"] and has.get("CPU", 0) >= 1:
            found.append(Node(node["NodeID"], name, has["CPU"], has.get("memory", 0.0), has.get("GPU", 0.0)))
    return found


def look_around(errand: str, *, folder: Path) -> int:
    """Has every node say whether it can take part; bytes of the smallest GPU, 0 where none is known.

    Raises EngineError with the name of a node that cannot: it does not see the root, lacks this package or
    the study's file, or says nothing.
    """
    ray = sys.modules["ray"]
    (folder / TOKEN).write_text(folder.name)
    asked = {}
    for node in nodes():
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
        task = ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        asked[task.remote(errand, str(folder))] = node
    answered, silent = (
        ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS) if asked else ([], [])
    )
    gpus: list[int] = []
    for answer in answered:
        try:
            fault, sizes = json.loads(ray.get(answer))
        except ray.exceptions.RayError as error:
            fault, sizes = first_line(getattr(error, "cause", None) or error), []
        if fault:
            raise EngineError(f"node {asked[answer].name} cannot take part: {fault}")
        gpus += sizes
    if silent:
        raise EngineError(
            f"node {asked[silent[0]].name} cannot take part: it did not answer in {LOOK_SECONDS:.0f} s; look "
            f"at its logs, or take it out of the cluster"
        )
    return min(gpus, default=0)


def gpu_share(needs: Needs, *, gpu_bytes: int) -> float:
    """The share of a GPU that is asked for: 1/n, so that n runs fit; all of one whose memory is not known.

    0 where a run does not fit, and whole GPUs for one that several share.
    """
    if needs.world > 1 or not gpu_bytes:
        return float(needs.world)
    n = min(MOST_ON_A_GPU, int(USABLE * gpu_bytes / needs.gpu_memory))
    return int(1e4 / n) / 1e4 if n else 0.0  # Ray counts in ten-thousandths.


def memory_asked(needs: Needs) -> int:
    """Bytes that are asked for."""
    return -(-needs.memory // BLOCK) * BLOCK


def check_room(needs: Mapping[str, Needs], *, cuda: bool, gpu_bytes: int) -> None:
    """Raises EngineError for the first run, by name, that no node has room for."""
    there = nodes()
    for name, one in needs.items():
        share = gpu_share(one, gpu_bytes=gpu_bytes) if cuda else 0.0
        if cuda:
            at_most = int(max((node.gpus for node in there), default=0.0))
            check_width(name, one, at_most=at_most, gpu_bytes=gpu_bytes, where="a node of the cluster")
        if not any(node.holds(one, gpu_share=share) for node in there):
            most = max((node.memory for node in there), default=0.0)
            raise EngineError(
                f"{name} takes {one.cpus} CPU and {size_text(memory_asked(one))}"
                f"{' beside a GPU' if cuda else ''}, and no node has room for it (the largest of "
                f"{len(there)} gives out {size_text(most)}); add one that has, or choose another --scale"
            )


class Without:
    """Notes since when no node of the cluster has room for anything that waits."""

    def __init__(self) -> None:
        self._since: float | None = None

    def note(self, *, room: bool) -> None:
        """Says at once that there is no room; raises EngineError when that was so for WITHOUT_SECONDS."""
        now = time.monotonic()
        if room:
            self._since = None
        elif self._since is None:
            self._since = now
            log.warning(
                "no node of the Ray cluster that is alive has room for what waits; new ones are waited for "
                "%.0f minutes",
                WITHOUT_SECONDS / 60,
            )
        elif now - self._since > WITHOUT_SECONDS:
            raise EngineError(
                f"no node of the Ray cluster has had room for {WITHOUT_SECONDS / 60:.0f} minutes; add one, "
                f"and run the same command again to continue"
            )


class Head:
    """Whether the head of the cluster answers.

    Ray's own calls wait for one that does not, and after a minute Ray ends the process without a word.
    """

    def __init__(self, address: str) -> None:
        self._address, self._since = address, time.monotonic()
        self._asked, self.answers = -COUNT_SECONDS, True

    def ask(self) -> bool:
        """Whether it answered when it was last asked; EngineError when it did not for HEAD_SECONDS."""
        now = time.monotonic()
        if now - self._asked < COUNT_SECONDS:
            return self.answers
        host, _, port = self._address.rpartition(":")
        self._asked, self.answers = now, True
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            self._since = now
        except OSError:
            self.answers = False
        if now - self._since > HEAD_SECONDS:
            raise EngineError(
                f"the head of the Ray cluster at {self._address} answers no more; start it anew, and run the "
                f"same command again to continue"
            )
        return self.answers


def _load(*, alone: bool) -> Any:
    """Ray, told to keep its voice down, and `alone` to listen on this machine only."""
    os.environ |= SETTINGS
    if alone:
        os.environ[LOOPBACK_ONLY] = "0"
    importlib.import_module("ray.util.scheduling_strategies")
    return importlib.import_module("ray")


def _no_answer(address: object, error: BaseException) -> EngineError:
    return EngineError(
        f"no Ray cluster answers at {address} ({first_line(error)}); start one with 'ray start --head', run "
        f"this on one of its machines, or leave --address out"
    )
