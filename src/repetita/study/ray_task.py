"""What a study has done on the nodes of a Ray cluster: told by strings, answered by strings."""

import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repetita.study.work import Bench

TOKEN = "token"
"""File in the driver's folder that a node must be able to read, and that says the folder's name."""

MIB = 1 << 20


def look(errand: str, folder: str) -> str:
    """Whether this node can take part: as JSON its fault, empty for none, and its GPUs' bytes."""
    # As in `do`, which may follow in this process: what a study's file imports counts its threads only once.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    from repetita.errors import UserError
    from repetita.journal.storage import Storage
    from repetita.study.engines import Errand

    told = Errand.from_json(errand)
    if not told.storage and not _sees(Path(folder)):
        return json.dumps([_blind(folder), []])
    try:
        if told.storage:
            Storage.open(told.storage)
        for part in told.given:
            part.planned()
    except UserError as error:
        return json.dumps([str(error), []])
    return json.dumps(["", _gpu_bytes()])


def do(errand: str, run: str, number: int, folder: str, world: int = 1) -> str:
    """Brings a run to its end, or to the stop that was asked for; what became of it as a `Sight` in JSON.

    One of several processes by torchrun.

    In the Ray worker itself, which keeps its plan and takes run after run. A process for each run costs 3.8 s
    of a core more, for torch and the plan, where a tiny run takes 0.3 (dataset_size at tiny, measured). With
    a GPU, though, each run gets a new worker, so that no memory of the GPU is left behind.
    """
    # Before torch and numpy are there: what the machine's owner set for Ray would hold here, too.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    from repetita.errors import EngineError
    from repetita.journal.storage import Storage
    from repetita.study.engines import Errand
    from repetita.study.progress import ProgressFile, Sight
    from repetita.study.stored_progress import StoredProgress
    from repetita.study.work import do_order

    began, url = time.monotonic(), Errand.from_json(errand).storage
    path = Path(folder) / f"{run[:12]}.json"
    if url:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not _sees(Path(folder)):
        raise EngineError(_blind(folder))
    file = StoredProgress(path, storage=Storage.open(url)) if url else ProgressFile(path)
    file.show(Sight(order=number, state="running"))
    with _logging_to(Path(folder) / f"{run[:12]}.log"):
        bench = _bench(errand)
        devices = [bench.errand.device] * world
        sight = do_order(run, number=number, bench=bench, file=file, devices=devices)
    return json.dumps(sight._replace(seconds=round(time.monotonic() - began, 3))._asdict())


def make_part(job: str) -> str:
    """Makes a part of a corpus; see `repetita.corpus.parts.make`."""
    # Ray gives each task its cores; the libraries would take all of the node.
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    from repetita.corpus.parts import make

    return make(job)


@lru_cache(maxsize=1)
def _bench(errand: str) -> "Bench":
    """What a worker works with, found once: planning takes seconds."""
    from repetita.study.engines import Errand
    from repetita.study.work import Bench

    return Bench.of(Errand.from_json(errand))


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Has what is logged of a run written where its driver looks for it."""
    log = logging.getLogger("repetita")
    handler = logging.FileHandler(path)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _sees(folder: Path) -> bool:
    try:
        return (folder / TOKEN).read_text() == folder.name
    except OSError:
        return False


def _blind(folder: str) -> str:
    return f"it does not see {folder}; give a folder that all nodes share by --root, or a URL by --storage"


def _gpu_bytes() -> list[int]:
    """Memory of each GPU of this machine; nothing where its driver does not say."""
    # Not by torch: to a task without a GPU, Ray shows none.
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return [int(line) * MIB for line in said.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
