"""Runs that are pushed to a storage: any machine goes on with them, whenever the one before it went."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repetita.corpus.sequences import Corpus
from repetita.journal import storage
from repetita.journal.folder import read_journal, run_path
from repetita.journal.storage import Storage
from repetita.journal.stored_run import StoredRun
from repetita.model import checkpoint
from repetita.train.loop import Due, Options, train
from repetita.train.recipe import RunSpec, run_fingerprint, run_slug
from tests.train.conftest import Make, same, weights

ALWAYS = -1.0


class Killed(BaseException):
    """The machine is gone."""


class Dying(Storage):
    """A storage whose user is killed before its n-th write."""

    left: int

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        self.count()
        return super().put(name, data, new=new)

    def upload(self, file: Path, *, name: str) -> None:
        self.count()
        super().upload(file, name=name)

    def remove(self, names: Any) -> None:
        for name in names:
            self.count()
            super().remove([name])

    def count(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


def dying(url: str, *, writes: int) -> Storage:
    at = Storage.open(url)
    made = Dying(url, files=at._files, base=at._base)
    made.left = writes
    return made


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WAITS", (0.0, 0.0))


def place(root: Path, spec: RunSpec, corpus: Corpus) -> Path:
    name = run_fingerprint(spec, corpus_fingerprint=corpus.fingerprint)
    return run_path(root, name, run_slug(spec))


def work(
    spec: RunSpec, *, corpus: Corpus, root: Path, at: Storage, seconds: float = ALWAYS, **more: Any
) -> StoredRun:
    """A run as a worker with a storage does it."""
    stored = StoredRun(at, path=place(root, spec, corpus))
    stored.take()
    stored.pull()
    options = Options(resume_every_seconds=seconds, push=stored.push, retry_failed=True)
    train(spec, corpus=corpus, root=root, options=options, **more)
    stored.push()
    return stored


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_between_any_two_writes_leaves_a_state_that_another_machine_goes_on_from(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], stride: int
) -> None:
    few = spec(steps=4)
    given: dict[str, Any] = {"probes": [probe(1, 2, 4)], "keep": frozenset({2})}
    train(few, corpus=corpus, root=tmp_path / "straight", **given)
    straight = place(tmp_path / "straight", few, corpus)
    writes, resumed = 0, set[int]()
    while True:
        url = f"memory://{uuid.uuid4().hex}"
        here, there = tmp_path / f"{writes}-a", tmp_path / f"{writes}-b"
        try:
            work(few, corpus=corpus, root=here, at=dying(url, writes=writes), **given)
            break
        except Killed:
            pass
        work(few, corpus=corpus, root=there, at=Storage.open(url), **given)
        path = place(there, few, corpus)
        assert same(path, straight, step=4) and weights(path, 2) == weights(straight, 2)
        resumed |= {
            line["step"] for line in read_journal(path, journal="events") if line["kind"] == "resumed"
        }
        # What is in the storage is then the finished run, too, with nothing left of the checkpoints between.
        again = tmp_path / f"{writes}-c"
        StoredRun(Storage.open(url), path=place(again, few, corpus)).pull()
        path = place(again, few, corpus)
        assert same(path, straight, step=4) and checkpoint.steps_on_disk(path) == (2, 4)
        assert not checkpoint.steps_on_disk(path, kind="resume")
        writes += stride
    assert writes > 40 and resumed == {0, 1, 2, 3}
