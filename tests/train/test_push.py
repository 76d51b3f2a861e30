"""Runs that are pushed to a storage: any machine goes on with them, whenever the one before it went."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repetita.corpus.sequences import Corpus
from repetita.corpus.treatment import Passes, SpecialBatch
from repetita.errors import DamagedError, RunFolderError, RunStopped, StorageError, TrainingDiverged
from repetita.journal import folder, storage
from repetita.journal.folder import read_journal, run_path, status
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
    assert writes > 40 and resumed >= {1, 2, 3}


def test_a_push_that_fails_is_an_event_and_the_next_one_brings_everything(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], url: str
) -> None:
    few = spec(steps=4)
    path, at = place(tmp_path, few, corpus), Storage.open(url)
    stored = StoredRun(at, path=path)
    pushes = list[int]()

    def push() -> None:
        pushes.append(len(pushes))
        if len(pushes) in (1, 2):
            raise StorageError("no network")
        stored.push()

    options = Options(resume_every_seconds=ALWAYS, push=push)
    train(few, corpus=corpus, root=tmp_path, options=options, probes=[probe(1)])
    stored.push()
    events = [line for line in read_journal(path, journal="events") if line["kind"] == "not_pushed"]
    assert [line["step"] for line in events] == [0, 1] and len(pushes) == 4
    assert not any("network" in line["message"] for line in events)
    elsewhere = place(tmp_path / "b", few, corpus)
    StoredRun(at, path=elsewhere).pull()
    assert same(path, elsewhere, step=4)
    assert list(read_journal(path, journal="events")) == list(read_journal(elsewhere, journal="events"))


def test_of_two_writers_the_later_goes_on_and_the_other_stops_and_harms_nothing(
    tmp_path: Path, spec: Make, corpus: Corpus, url: str
) -> None:
    few, at = spec(steps=6), Storage.open(url)
    train(few, corpus=corpus, root=tmp_path / "straight")

    def options(root: str, *, pushes: int, then: Callable[[], None]) -> Options:
        """Takes the run, and after so many pushes does something else."""
        stored, done = StoredRun(at, path=place(tmp_path / root, few, corpus)), list[int]()
        stored.take()
        stored.pull()

        def push() -> None:
            if len(done) == pushes:
                then()
            stored.push()
            done.append(1)

        return Options(resume_every_seconds=ALWAYS, push=push)

    def stop() -> None:
        raise RunStopped("for now")

    def other() -> None:
        # The first one is not dead, as was thought.
        with pytest.raises(RunStopped):
            train(few, corpus=corpus, root=tmp_path / "b", options=options("b", pushes=2, then=stop))

    with pytest.raises(RunFolderError, match="attempt 2 has taken over"):
        train(few, corpus=corpus, root=tmp_path / "a", options=options("a", pushes=3, then=other))
    work(few, corpus=corpus, root=tmp_path / "c", at=at)
    assert same(place(tmp_path / "c", few, corpus), place(tmp_path / "straight", few, corpus), step=6)


def test_a_folder_that_is_farther_than_the_storage_stays(
    tmp_path: Path, spec: Make, corpus: Corpus, url: str
) -> None:
    few, at = spec(steps=4), Storage.open(url)
    path = place(tmp_path, few, corpus)
    stored = StoredRun(at, path=path)
    pushed = list[int]()

    def push() -> None:
        if len(pushed) < 2:
            stored.push()
        pushed.append(1)
        if len(pushed) == 4:
            raise RunStopped("for now")

    with pytest.raises(RunStopped):
        train(few, corpus=corpus, root=tmp_path, options=Options(resume_every_seconds=ALWAYS, push=push))
    assert checkpoint.steps_on_disk(path) == (2, 3)
    before = (path / "steps.jsonl").read_bytes()
    StoredRun(at, path=path).pull()
    assert checkpoint.steps_on_disk(path)[-1] == 3 and (path / "steps.jsonl").read_bytes() == before
    work(few, corpus=corpus, root=tmp_path, at=at)
    assert [line["message"] for line in read_journal(path, journal="events") if line["kind"] == "resumed"]


def test_a_run_that_diverged_says_so_elsewhere_and_is_tried_again(
    tmp_path: Path, spec: Make, corpus: Corpus, url: str
) -> None:
    wild, at = spec(recipe={"learning_rate": 1e38}), Storage.open(url)
    path = place(tmp_path / "a", wild, corpus)
    stored = StoredRun(at, path=path)
    with pytest.raises(TrainingDiverged):
        train(
            wild,
            corpus=corpus,
            root=tmp_path / "a",
            options=Options(resume_every_seconds=ALWAYS, push=stored.push),
        )
    stored.push()
    there = place(tmp_path / "b", wild, corpus)
    StoredRun(at, path=there).pull(checkpoints=False)
    assert status(there) == "failed" and not (there / "checkpoints").exists()
    with pytest.raises(TrainingDiverged):
        work(wild, corpus=corpus, root=tmp_path / "b", at=at)


def test_pages_need_no_checkpoints(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], url: str
) -> None:
    few, at = spec(steps=4), Storage.open(url)
    work(few, corpus=corpus, root=tmp_path / "a", at=at, probes=[probe(2)])
    path = place(tmp_path / "b", few, corpus)
    StoredRun(at, path=path).pull(checkpoints=False)
    folder.verify(path)
    assert status(path) == "done" and not (path / "checkpoints").exists() and list((path / "items").iterdir())
    # Whoever then works here has all of it.
    again = work(few, corpus=corpus, root=tmp_path / "b", at=at, probes=[probe(2, 4)])
    assert same(again.path, again.path, step=4) and len(list((path / "items").iterdir())) == 2
    work(few, corpus=corpus, root=tmp_path / "a", at=at, probes=[probe(2, 4)])
    assert same(place(tmp_path / "a", few, corpus), path, step=4)


def test_what_is_damaged_in_the_storage_is_not_gone_on_with(
    tmp_path: Path, spec: Make, corpus: Corpus, url: str
) -> None:
    few, at = spec(steps=4), Storage.open(url)
    path = place(tmp_path / "a", few, corpus)
    stored, pushed = StoredRun(at, path=path), list[int]()

    def push() -> None:
        stored.push()
        pushed.append(1)
        if len(pushed) == 3:
            raise RunStopped("for now")

    with pytest.raises(RunStopped):
        train(
            few, corpus=corpus, root=tmp_path / "a", options=Options(resume_every_seconds=ALWAYS, push=push)
        )
    run = f"runs/{path.name}"
    name = next(one for one in at.names(run) if one.startswith("checkpoints/00000002/model"))
    at.put(f"{run}/{name}", b"\0" * at.names(run)[name])
    there = place(tmp_path / "b", few, corpus)
    StoredRun(at, path=there).pull()
    assert checkpoint.steps_on_disk(there) == (1,)
    train(few, corpus=corpus, root=tmp_path / "straight")
    work(few, corpus=corpus, root=tmp_path / "b", at=at)
    assert same(there, place(tmp_path / "straight", few, corpus), step=4)


def test_a_folder_that_was_damaged_before_its_push_takes_nothing_away(
    tmp_path: Path, spec: Make, corpus: Corpus, url: str
) -> None:
    few, at = spec(steps=4), Storage.open(url)
    path = place(tmp_path / "a", few, corpus)
    stored = StoredRun(at, path=path)
    train(
        few,
        corpus=corpus,
        root=tmp_path / "a",
        options=Options(resume_every_seconds=ALWAYS, push=stored.push),
    )
    before, journal = at.names(f"runs/{path.name}"), path / "steps.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(DamagedError, match=r"steps\.jsonl is damaged"):
        stored.push()
    assert {name for name in before if name.startswith("steps.jsonl")} <= set(at.names(f"runs/{path.name}"))
    there = place(tmp_path / "b", few, corpus)
    StoredRun(at, path=there).pull()
    assert checkpoint.steps_on_disk(there, kind="resume")
    journal.write_bytes(whole)
    stored.push()
    model = next((path / "checkpoints" / "00000004").glob("model*"))
    model.write_bytes(b"\0" * model.stat().st_size)
    other = Storage.open(f"memory://{uuid.uuid4().hex}")
    StoredRun(other, path=path).push()
    assert not [name for name in other.names(f"runs/{path.name}") if "/00000004/" in name]


@pytest.mark.parametrize("name", ["done", "run.json"])
@pytest.mark.parametrize(
    "harm", [lambda said: b"{", lambda said: said.replace(b'"schema": 1', b'"schema": 1.0')]
)
def test_an_end_or_header_that_is_damaged_in_the_storage_is_said(
    tmp_path: Path, spec: Make, corpus: Corpus, url: str, name: str, harm: Callable[[bytes], bytes]
) -> None:
    few, at = spec(steps=2), Storage.open(url)
    path = work(few, corpus=corpus, root=tmp_path / "a", at=at).path
    at.put(f"runs/{path.name}/{name}", harm(at.get(f"runs/{path.name}/{name}")))
    there = place(tmp_path / "b", few, corpus)
    with pytest.raises(DamagedError, match=f"{name} is damaged; delete it"):
        StoredRun(at, path=there).pull()
    assert status(there) == ("missing" if name == "run.json" else "unfinished")


def test_what_could_not_be_brought_leaves_nothing_behind(
    tmp_path: Path, spec: Make, corpus: Corpus, url: str
) -> None:
    few, at = spec(steps=2), Storage.open(url)
    path = work(few, corpus=corpus, root=tmp_path / "a", at=at).path
    for name, size in at.names(f"runs/{path.name}").items():
        if "model" in name:
            at.put(f"runs/{path.name}/{name}", b"\0" * size)
    there = place(tmp_path / "b", few, corpus)
    StoredRun(at, path=there).pull()
    assert status(there) == "done" and not list(there.glob("checkpoints/.*"))


def test_weights_that_a_fork_took_over_are_pushed_without_the_trunk_s_journal(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], url: str
) -> None:
    whole, at = spec(treatment=SpecialBatch(base=Passes(n_sequences=16), size=4, at=6)), Storage.open(url)
    trunk = train(
        whole.until(6),
        corpus=corpus,
        root=tmp_path,
        probes=[probe(0, 2)],
        keep=frozenset({3}),
        forkable=True,
    ).path
    forked = work(whole, corpus=corpus, root=tmp_path, at=at, trunk=trunk, keep=frozenset({3})).path
    assert not (forked / "items").exists() and list((trunk / "items").iterdir())
    there = place(tmp_path / "b", whole, corpus)
    StoredRun(at, path=there).pull()
    assert checkpoint.steps_on_disk(there) == (3, 12) and weights(there, 3) == weights(trunk, 3)
