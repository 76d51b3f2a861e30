"""The parts of a corpus made by the nodes of a Ray cluster, a task each."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from repetita.corpus.by_file import Make, Makers
from repetita.corpus.parts import Job
from repetita.errors import EngineError, first_line
from repetita.study import ray_cluster
from repetita.study.engines import Errand
from repetita.study.ray_task import make_part

MEMORY = 1 << 29
"""Bytes that a task is given: reading and encoding take less, whatever the size of the file."""
COUNT_SECONDS = 5.0
"""How often the nodes are looked at while no part comes back."""
TRIES = 3
"""How often a part is tried again whose node is gone."""


def ray_makers(*, address: str | None = None, processes: int | None = None) -> Makers:
    """Nodes of the Ray cluster at `address`, or of one that is started here; at most so many tasks at a time.

    All nodes must see the folder of the corpora and the files. Raises EngineError, SpecError where none
    answers, or a node cannot take part.
    """

    @contextmanager
    def opened(folder: Path) -> Iterator[Make]:
        ray_cluster.check_address(address)
        started = ray_cluster.connect(address, processes=processes)
        ray = sys.modules["ray"]
        sent: dict[object, int] = {}
        try:
            ray_cluster.look_around(Errand((), str(folder)).as_json(), folder=folder)
            yield lambda jobs: _made(jobs, sent, most=processes)
        finally:
            for reference in sent:
                with suppress(ray.exceptions.RayError):
                    ray.cancel(reference, force=True, recursive=False)
            if started:
                ray.shutdown()

    return opened


def _made(jobs: Sequence[str], sent: dict[object, int], *, most: int | None) -> Iterator[tuple[int, str]]:
    ray = sys.modules["ray"]
    task = ray.remote(num_cpus=1, memory=MEMORY, max_retries=TRIES)(make_part)
    left, without = list(enumerate(jobs))[::-1], ray_cluster.Without()
    while left or sent:
        while left and (most is None or len(sent) < most):
            number, job = left.pop()
            sent[task.remote(_absolute(job))] = number
        ready, _ = ray.wait(list(sent), num_returns=1, timeout=COUNT_SECONDS)
        if not ready:
            without.note(room=any(node.memory >= MEMORY for node in ray_cluster.nodes()))
        for reference in ready:
            number = sent.pop(reference)
            try:
                yield number, ray.get(reference)
            except ray.exceptions.RayError as error:
                why = first_line(getattr(error, "cause", None) or error)
                raise EngineError(
                    f"a part of the corpus could not be made ({why}); build again to go on"
                ) from None


def _absolute(text: str) -> str:
    """A job whose files are found from any folder."""
    job = Job.from_json(text)
    files = [file if file.piece else file._replace(path=str(Path(file.path).resolve())) for file in job.files]
    return job._replace(files=tuple(files)).as_json()
