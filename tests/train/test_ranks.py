"""Processes of one run end together and in one sentence, whichever of them fails and however."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.corpus.sequences import Corpus, CorpusSpec
from repetita.errors import CorpusError, EngineError, RunFolderError, SpecError
from repetita.journal import folder
from repetita.journal.folder import RunFolder, read_journal
from repetita.journal.records import Reading
from repetita.model.live import LiveSubject
from repetita.subject import Rows, Scores, Subject
from repetita.train.loop import Due, train
from repetita.train.ranks import Place, Team, joined
from repetita.train.update import Updater
from tests.train.conftest import Make
from tests.train.processes import together


def failing(monkeypatch: pytest.MonkeyPatch, *, rank: int, error: BaseException) -> Callable[[Team], None]:
    """Has the update of step 3 fail in one process."""
    real = Updater.update

    def at_start(team: Team) -> None:
        def update(self: Updater, rows: Rows, *, batch: Any, tokens: int) -> Any:
            if team.rank == rank and batch.step == 3:
                raise error
            return real(self, rows, batch=batch, tokens=tokens)

        monkeypatch.setattr(Updater, "update", update)

    return at_start


@pytest.mark.parametrize(
    ("kind", "rank", "error", "said"),
    [
        ("ddp", 1, MemoryError(), "process 1 of 2: no memory is left on cpu; give a smaller"),
        (
            "fsdp2",
            1,
            ValueError("of no kind\nat all"),
            "process 1 of 2: ValueError: of no kind; run it",
        ),
        (
            "ddp",
            0,
            CorpusError("the text is gone"),
            "process 0 of 2: the text is gone; run it again to go on",
        ),
    ],
)
def test_a_failure_in_one_process_ends_all(
    tmp_path: Path,
    spec: Make,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    rank: int,
    error: BaseException,
    said: str,
) -> None:
    at_start = failing(monkeypatch, rank=rank, error=error)
    ended = together(spec(), 2, kind, corpus=corpus, root=tmp_path, at_start=at_start)
    assert ended.error.startswith(f"EngineError: {said}"), ended.error
    assert ended.codes == [2, 2]
    (path,) = (tmp_path / "runs").iterdir()
    assert folder.status(path) == "unfinished"


def test_divergence_is_seen_by_all(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    wild = spec(recipe={"learning_rate": 1e30, "clip": None})
    ended = together(wild, 2, "ddp", corpus=corpus, root=tmp_path)
    assert ended.error.startswith("TrainingDiverged") and ended.codes == [1, 1]
    (path,) = (tmp_path / "runs").iterdir()
    assert folder.status(path) == "failed"


def test_a_full_disk_at_rank_0_ends_all(
    tmp_path: Path, spec: Make, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunFolder) -> None:
        raise RunFolderError("no room")

    monkeypatch.setattr(RunFolder, "commit", full)
    ended = together(spec(), 2, "ddp", corpus=corpus, root=tmp_path)
    assert ended.error == "RunFolderError: no room" and ended.codes == [2, 2]


def test_a_process_that_sees_no_corpus_says_so(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    """So that the third, which could open the run, does not wait for the others."""
    ranks: list[int] = []

    def nowhere(of: CorpusSpec) -> Corpus:
        if ranks == [2]:
            raise CorpusError(f"no corpus of {of.source} is here")
        return corpus

    how: dict[str, Any] = {"open_corpus": nowhere, "at_start": lambda team: ranks.append(team.rank)}
    ended = together(spec(), 3, "ddp", corpus=corpus, root=tmp_path, **how)
    assert ended.error == "EngineError: process 2 of 3: no corpus of synthetic is here"
    assert ended.codes == [2, 2, 2]


def test_a_probe_that_fails_in_one_process_is_an_event(
    tmp_path: Path, spec: Make, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(subject: Subject) -> Iterator[Reading]:
        test = corpus.sets["test"]
        subject.score(test.rows(np.arange(300) % len(test)))
        return iter([Reading("loss", "test", 1.0, 1)])

    def at_start(team: Team) -> None:
        def score(self: LiveSubject, rows: Rows) -> Scores:
            raise ValueError("no answer")

        if team.rank:
            monkeypatch.setattr(LiveSubject, "score", score)

    due = Due("7" * 12, "asking", frozenset({3}), measure)
    ended = together(spec(), 2, "ddp", corpus=corpus, root=tmp_path, probes=[due], at_start=at_start)
    assert ended.path is not None and ended.codes == [0, 0]
    (event,) = read_journal(ended.path, journal="events")
    assert event["kind"] == "probe_failed"
    assert event["message"].endswith("process 1 of 2: ValueError: no answer")


def test_processes_that_are_gone_are_no_mistake_of_a_probe(
    tmp_path: Path, spec: Make, corpus: Corpus
) -> None:
    def measure(subject: Subject) -> Iterator[Reading]:
        raise EngineError("process 1 of 2: another process is gone")

    due = Due("8" * 12, "asking", frozenset({12}), measure)
    with pytest.raises(EngineError, match="is gone"):
        train(spec(), corpus=corpus, root=tmp_path, probes=[due])
    (path,) = (tmp_path / "runs").iterdir()
    assert folder.status(path) == "unfinished"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 1}, "2 processes for batches of 1 sequences leave some without any; start at most 1"),
        ({"recipe": {"dropout": 0.1}}, "train this run in one, or with dropout 0"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    tmp_path: Path, spec: Make, corpus: Corpus, changes: dict[str, Any], said: str
) -> None:
    ended = together(spec(**changes), 2, "ddp", corpus=corpus, root=tmp_path)
    assert ended.error.startswith("SpecError") and said in ended.error and ended.codes == [2, 2]
    assert not (tmp_path / "runs").exists()


def test_one_process_joins_no_team(monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(None) as team:
        assert team is None
    with pytest.raises(SpecError, match="start it with torchrun"), joined("ddp"):
        pass
    with pytest.raises(SpecError, match="did you mean 'fsdp2'"), joined("fsdp"):
        pass
    launched = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert Place.of_environment() == Place(0, 1, 0, 1)
    with joined(None) as team:
        assert team is None


def test_a_device_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in (launched | {"MASTER_ADDR": "here", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("repetita.train.ranks.LINGER_SECONDS", 0.0)
    with pytest.raises(SpecError, match="write cuda or cpu"), joined(None, device="cuda:1"):
        pass
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(SpecError, match="torch sees 0 CUDA devices"), joined(None, device="cuda"):
        pass
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(SpecError, match="4 processes on a machine with 2 GPUs"), joined(None, device="cuda"):
        pass
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: False)
    with pytest.raises(SpecError, match="has no NCCL"), joined(None, device="cuda"):
        pass
    monkeypatch.setattr("torch.distributed.is_gloo_available", lambda: False)
    with pytest.raises(SpecError, match="has no gloo"), joined(None):
        pass
