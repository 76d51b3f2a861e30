"""Two processes, full disks and folders that cannot be written, end to end."""

import errno
import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import StorageError
from repetita.journal.folder import status
from repetita.study.progress import ProgressFile, Sight, read_sight
from tests.bad_input.worlds import Say, World, refused
from tests.train.conftest import same


def test_two_processes_in_one_folder(say: Say, stopped: World, done_once: World) -> None:
    before = stopped.kept()
    with (stopped.run / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = say("train", stopped.write(), "--root", stopped.root)
        refused(said, stopped.run.name, "another process is writing", "wait until it ends or stop it")
        assert stopped.kept() == before
    assert say("train", stopped.write(), "--root", stopped.root).code == 0
    assert same(stopped.run, done_once.run, step=12)


@pytest.fixture
def room() -> Iterator[Callable[[int], None]]:
    """Sets the largest size that a file may have, in bytes; -1 for any."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def room(n_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes if n_bytes >= 0 else before[0], before[1]))

    yield room
    room(-1)


@pytest.mark.parametrize("n_bytes", [500, 4000, 9000])
def test_a_file_that_may_not_grow(
    say: Say, built: World, done_once: World, room: Callable[[int], None], n_bytes: int
) -> None:
    spec = built.write()
    room(n_bytes)
    said = say("train", spec, "--root", built.root)
    room(-1)
    refused(said, "cannot write", str(built.root), "ulimit -f", "run again")
    assert status(built.run) != "done"
    assert say("train", spec, "--root", built.root).code == 0
    assert same(built.run, done_once.run, step=12)


@pytest.mark.parametrize("call", [1, 2, 5, 9, 14])
def test_a_disk_that_is_full(
    say: Say, stopped: World, done_once: World, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    calls = 0

    def full(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spec = stopped.write()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        refused(
            say("train", spec, "--root", stopped.root), "cannot write", "the disk is full", "free some space"
        )
    assert status(stopped.run) == "unfinished"
    assert say("train", spec, "--root", stopped.root).code == 0
    assert same(stopped.run, done_once.run, step=12)


def test_a_disk_that_is_full_while_a_corpus_is_built(
    say: Say, tmp_path: Path, done_once: World, room: Callable[[int], None]
) -> None:
    build = ("corpus", "build", done_once.text, "--tokenizer", "bytes", "--root", tmp_path / "out")
    room(2000)
    said = say(*build)
    room(-1)
    refused(said, "cannot write", "ulimit -f")
    assert not list(tmp_path.glob("out/corpora/[!.]*"))
    assert say(*build).code == 0


@pytest.mark.parametrize(("number", "part"), [(errno.EROFS, "is read-only"), (errno.EACCES, "not permitted")])
@pytest.mark.parametrize("verb", ["corpus", "train", "study"])
def test_a_folder_that_cannot_be_written(
    say: Say, built: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, number: int, part: str
) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    root = built.root if verb == "train" else tmp_path / "locked"
    options = {
        "corpus": ("build", built.text, "--tokenizer", "bytes"),
        "train": (built.write(),),
        "study": ("run", "forgetting", "--scale", "tiny"),
    }[verb]
    monkeypatch.setattr(os, "mkdir", refuse)
    refused(say(verb, *options, "--root", root), f"cannot write {root}", part, "--root")


def test_a_root_that_is_a_file(say: Say, built: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(
        say("train", built.write(), "--root", tmp_path / "file"), "a part of the path is a file", "--root"
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_a_worker_without_room_for_its_words(tmp_path: Path, room: Callable[[int], None]) -> None:
    file = ProgressFile(tmp_path / "worker-0.json")
    file.show(Sight(order=1, state="running"))
    room(10)
    file.show(Sight(order=1, state="starting", step=5))
    with pytest.raises(StorageError, match="run again"):
        file.show(Sight(order=1, state="done"))
    room(-1)
    sight = read_sight(tmp_path / "worker-0.json")
    assert sight is not None
    assert sight.step == 0
