"""Measurements that a finished run lacks are what they would have been, or are not there at all."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repetita.corpus.sequences import Corpus
from repetita.errors import RunFolderError
from repetita.journal import folder
from repetita.journal.folder import read_journal
from repetita.journal.records import Reading
from repetita.model import checkpoint
from repetita.subject import Subject
from repetita.train import replay
from repetita.train.loop import Due, train
from repetita.train.replay import lacking
from tests.train.conftest import Make, same

KEEP = frozenset({4, 9})


@pytest.fixture
def whole(tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]) -> Path:
    """The run that measured all from the start."""
    return train(spec(), corpus=corpus, root=tmp_path / "whole", probes=[probe(0, 4, 6, 12)], keep=KEEP).path


@pytest.fixture
def bare(tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]) -> Path:
    """The same run, measured at its last step only."""
    return train(spec(), corpus=corpus, root=tmp_path / "bare", probes=[probe(12)], keep=KEEP).path


def test_lacking_is_what_the_journal_has_not(bare: Path, probe: Callable[..., Due]) -> None:
    assert [due.steps for due in lacking(bare, probes=[probe(0, 12)])] == [{0}]
    assert lacking(bare, probes=[probe(12)]) == []
    assert lacking(bare, probes=[probe(0, 12)], but={("0123456789ab", 0)}) == []


def test_kept_checkpoints_are_enough(
    bare: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_replay", None)
    outcome = train(spec(), corpus=corpus, root=bare.parents[1], probes=[probe(4, 9, 12)])
    assert outcome.trained_steps == 0
    assert {step for _, step in folder.measured(bare)} == {4, 9, 12}
    folder.verify(bare)


def test_what_no_checkpoint_has_is_measured_by_a_replay(
    whole: Path, bare: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    before = (bare / "steps.jsonl").read_bytes()
    train(spec(), corpus=corpus, root=bare.parents[1], probes=[probe(0, 4, 6, 12)])
    assert same(whole, bare, step=12)
    assert (bare / "steps.jsonl").read_bytes() == before
    assert not (bare / ".replay").exists()
    folder.verify(bare)


def test_a_replay_stops_at_the_first_checkpoint_that_can_check_it(
    bare: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[int] = []
    original = replay._replay

    def watched(*arguments: object, **options: object) -> None:
        follow = options["follow"]
        assert callable(follow)

        def noted(run: object, due: object, until: int) -> None:
            stops.append(until)
            follow(run, due, until)

        original(*arguments, **(options | {"follow": noted}))  # type: ignore[arg-type]

    monkeypatch.setattr(replay, "_replay", watched)
    train(spec(), corpus=corpus, root=bare.parents[1], probes=[probe(0, 6)])
    assert stops == [9]


def test_a_replay_that_ends_elsewhere_adds_nothing(
    bare: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    before = {file: file.read_bytes() for file in bare.glob("*.jsonl")} | {
        bare / "done": (bare / "done").read_bytes()
    }
    found = checkpoint.load(checkpoint.checkpoint_path(bare, step=9))
    next(iter(found.model.values())).add_(1e-6)
    checkpoint.save(bare, **found._asdict())
    with pytest.raises(RunFolderError, match="other weights at step 9"):
        train(spec(), corpus=corpus, root=bare.parents[1], probes=[probe(6)])
    assert all(file.read_bytes() == data for file, data in before.items())


def test_a_damaged_checkpoint_is_passed_over_for_a_replay(
    whole: Path, bare: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    (bare / "checkpoints" / "00000004" / "model.safetensors").write_bytes(b"")
    train(spec(), corpus=corpus, root=bare.parents[1], probes=[probe(0, 4, 6, 12)])
    assert [line["kind"] for line in read_journal(bare, journal="events")] == ["damaged"]
    assert sorted(map(str, read_journal(whole, journal="measurements"))) == sorted(
        map(str, read_journal(bare, journal="measurements"))
    )


def test_a_probe_that_fails_in_a_replay_is_an_event(bare: Path, spec: Make, corpus: Corpus) -> None:
    def broken(subject: Subject) -> Iterator[Reading]:
        raise RuntimeError("no")

    due = Due("e" * 12, "broken", frozenset({4, 6}), broken)
    outcome = train(spec(), corpus=corpus, root=bare.parents[1], probes=[due])
    assert outcome.failed == (("e" * 12, 4), ("e" * 12, 6))
    events = [(line["kind"], line["step"]) for line in read_journal(bare, journal="events")]
    assert events == [("probe_failed", 4), ("probe_failed", 6)]
