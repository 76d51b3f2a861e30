"""Runs that are pushed by several machines once they are done, and to storages that are long in refusing."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repetita.corpus.sequences import Corpus
from repetita.errors import StorageError
from repetita.journal import folder, stored_run
from repetita.journal.disk import write_atomic
from repetita.journal.storage import Storage
from repetita.journal.stored_run import StoredRun
from repetita.train.loop import Due, train
from tests.train.conftest import Make
from tests.train.test_push import place, url, work

__all__ = ["url"]


def test_what_two_machines_add_to_a_finished_run_is_all_there(
    tmp_path: Path,
    spec: Make,
    corpus: Corpus,
    probe: Callable[..., Due],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, at = spec(steps=4), Storage.open(url)
    both, first, second = (probe(4, fingerprint=digit * 12) for digit in "123")
    begun = work(few, corpus=corpus, root=tmp_path / "a", at=at, probes=[both])
    one, two, third = (StoredRun(at, path=place(tmp_path / name, few, corpus)) for name in "abc")
    assert not begun.pull() and not two.pull()
    for stored, name, own in ((one, "a", first), (two, "b", second)):
        train(few, corpus=corpus, root=tmp_path / name, probes=[both, own])
        assert stored.pull()  # It lacks what is here.
    one.push()
    two.push()

    def written(*given: Any) -> None:
        original(*given)
        folder.verify(one.path)  # Whoever reads meanwhile.

    original = write_atomic
    monkeypatch.setattr("repetita.journal.stored_rows.write_atomic", written)
    for stored in (one, two, third):
        assert not stored.pull(checkpoints=False)
        folder.verify(stored.path)
        assert folder.measured(stored.path) == {(due.fingerprint, 4) for due in (both, first, second)}
        assert len(list((stored.path / "items").iterdir())) == 3
    before = at.names(f"runs/{one.path.name}")
    for stored in (one, two, third):
        StoredRun(at, path=stored.path).push()
    assert at.names(f"runs/{one.path.name}") == before  # In another order, and nothing to write.


def test_a_run_asks_a_storage_that_was_long_in_refusing_only_now_and_then(
    tmp_path: Path, spec: Make, corpus: Corpus, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, at = spec(steps=4), Storage.open(url)
    stored = StoredRun(at, path=place(tmp_path, few, corpus))
    asked, now = list[float](), [100.0]

    def refuse(_: object) -> None:
        asked.append(now[0])
        now[0] += 30.0
        raise StorageError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(stored_run, "time", SimpleNamespace(monotonic=lambda: now[0]))
        patch.setattr(StoredRun, "_push", refuse)
        for _ in range(9):
            now[0] += 60.0
            with pytest.raises(StorageError):
                stored.push()
    assert asked == [160.0, 490.0]
    train(few, corpus=corpus, root=tmp_path)
    stored.push()  # The end of a run is always tried.
    assert "done" in at.names(f"runs/{stored.path.name}")
