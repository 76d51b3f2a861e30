"""Worker processes that encode or tag text, as many as there are cores, whose answers come in order."""

import json
import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from threading import Condition, local
from typing import Any, Generic, TypeVar

from repetita.corpus.encoding import receive, send
from repetita.errors import CorpusError

AHEAD = 4
"""Stretches a worker that may wait for one that comes before them."""

_ALONE = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Task = TypeVar("Task", bound=Sequence[Any])
Answer = TypeVar("Answer")


class Workers(Generic[Task, Answer]):
    """Processes of their own, not of `multiprocessing`.

    They import neither the user's program nor what it has loaded, need no shared memory, and end when this
    process does, however it ends. `program` is what each runs: it calls `encoding.answer`. They are `told`
    something at first; tasks go to them as JSON, and `decode` reads what they answer.
    """

    def __init__(
        self, n: int, *, told: Mapping[str, Any], program: str, decode: Callable[[bytes], Answer]
    ) -> None:
        self._decode = decode
        self._processes: list[subprocess.Popen[bytes]] = []
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._of_thread = local()
        self._answered, self._limit, self._turn = 0, AHEAD * n, Condition()
        self._threads = ThreadPoolExecutor(n, thread_name_prefix="encode")
        path = os.pathsep.join(entry for entry in sys.path if entry)
        try:
            if not sys.executable:
                raise OSError("the path of the interpreter is not known")
            for _ in range(n):
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", program],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | _ALONE | {"PYTHONPATH": path},
                    start_new_session=True,  # An interrupt from the keyboard is for the parent.
                )
                self._processes.append(process)
                self._free.put(process)
                assert process.stdin is not None
                send(process.stdin, json.dumps(dict(told)).encode())
        except BaseException:
            self.close()
            raise

    def encode(self, tasks: Iterable[Task], /) -> Iterator[tuple[Task, Answer]]:
        """Each task with what became of it, in order; tasks are taken as fast as they come."""
        pending: deque[tuple[Task, Future[Answer]]] = deque()
        for number, task in enumerate(tasks):
            pending.append((task, self._threads.submit(self._ask, number, task)))
            while pending and pending[0][1].done():
                yield self._answer(*pending.popleft())
        while pending:
            yield self._answer(*pending.popleft())

    def as_done(self, tasks: Iterable[Task], /) -> Iterator[tuple[int, Answer]]:
        """The number of each task with what became of it, in the order in which they are done."""
        # None waits for its turn: what is answered is not kept for one that comes before it.
        futures = {self._threads.submit(self._ask, 0, task): number for number, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()

    def close(self) -> None:
        """Ends the processes, whatever they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._answer_more(sys.maxsize)
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _answer(self, task: Task, future: "Future[Answer]") -> tuple[Task, Answer]:
        answer = future.result()
        self._answer_more(1)
        return task, answer

    def _answer_more(self, n: int) -> None:
        with self._turn:
            self._answered += n
            self._turn.notify_all()

    def _ask(self, number: int, task: Task) -> Answer:
        with self._turn:
            self._turn.wait_for(lambda: number < self._answered + self._limit)
        if not hasattr(self._of_thread, "process"):
            self._of_thread.process = self._free.get_nowait()
        process: subprocess.Popen[bytes] = self._of_thread.process
        assert process.stdin is not None and process.stdout is not None
        try:
            send(process.stdin, json.dumps(task).encode())
            answer = receive(process.stdout)
        except (OSError, ValueError):
            answer = None
        if answer is None:
            raise WorkerGone(
                f"a process that reads text ended with status {process.wait()} (what it wrote is above; "
                f"status -9 means that it was killed, mostly for want of memory); build again to go on"
            )
        return self._decode(answer)


class WorkerGone(CorpusError):
    """A worker ended before its time; what is committed stays."""
