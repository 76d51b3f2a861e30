"""Several processes that compute one run, forked from this one as torchrun would start them."""

import gc
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from repetita.corpus.sequences import Corpus, CorpusSpec
from repetita.errors import RepetitaError
from repetita.train import ranks
from repetita.train.assistant import assist
from repetita.train.loop import Options, Outcome, train
from repetita.train.ranks import Team, joined
from repetita.train.recipe import RunSpec

PATIENCE = 60.0
"""Seconds after which processes that have not ended count as hanging."""


class Ended(NamedTuple):
    """How all processes ended."""

    path: Path | None
    error: str
    """What rank 0 raised: the name of its class and the sentence; empty where it raised nothing."""
    codes: list[int | None]
    """Exit codes by rank; None for one that hangs."""


def together(
    spec: RunSpec,
    world: int,
    parallel: str | None = None,
    *,
    corpus: Corpus,
    root: Path,
    options: Options | None = None,
    at_start: Callable[[Team], None] | None = None,
    open_corpus: Callable[[CorpusSpec], Corpus] | None = None,
    **given: Any,
) -> Ended:
    """One run in `world` processes; `at_start` is called in each of them, with its place in the team."""
    fork = multiprocessing.get_context("fork")
    hear, tell = fork.Pipe(duplex=False)

    def work(team: Team) -> Outcome:
        at = (options or Options())._replace(team=team)
        return train(spec, corpus=corpus, root=root, options=at, **given)

    def live(rank: int, environment: Mapping[str, str]) -> None:
        gc.disable()  # What earlier tests left may end threads, which a forked process has not.
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
        os._exit(
            _code(
                rank, parallel, work=work, tell=tell, at_start=at_start, of=open_corpus or (lambda _: corpus)
            )
        )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    processes = [fork.Process(target=live, args=(rank, environment)) for rank in range(world)]
    for process in processes:
        process.start()
    tell.close()
    said: tuple[Path | None, str] = (None, "")
    try:
        if hear.poll(PATIENCE):
            said = hear.recv()
    except EOFError:
        pass
    for process in processes:
        process.join(PATIENCE)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return Ended(*said, codes)


def _code(
    rank: int,
    parallel: str | None,
    *,
    work: Callable[[Team], Outcome],
    tell: Connection,
    at_start: Callable[[Team], None] | None,
    of: Callable[[CorpusSpec], Corpus],
) -> int:
    """The exit code of one process."""
    ranks.LINGER_SECONDS = 0.2  # Nothing here ends the others when one has ended.
    try:
        with joined(parallel) as team:
            assert team is not None
            if at_start is not None:
                at_start(team)
            if rank:
                return assist(team, open_corpus=of)
            path = work(team).path
        tell.send((path, ""))
        return 0
    except RepetitaError as error:
        if not rank:
            tell.send((None, f"{type(error).__name__}: {error}"))
        return error.exit_code
    except BaseException:  # noqa: BLE001
        if not rank:
            tell.send((None, traceback.format_exc()))
        return 99
