"""The loop: repeatable to the bit, undisturbed by probes, and plain about how it ended."""

import errno
import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repetita.corpus.sequences import Corpus
from repetita.corpus.treatment import Passes, RepeatedSubset, SpecialBatch, Stream
from repetita.errors import CorpusError, RunStopped, SpecError, StorageError, TrainingDiverged
from repetita.journal import folder
from repetita.journal.folder import read_journal
from repetita.journal.records import Reading
from repetita.model import checkpoint, device
from repetita.subject import Subject
from repetita.train import loop
from repetita.train.loop import Due, Options, Progress, train
from repetita.train.recipe import RunSpec, open_schedule
from tests.train.conftest import Make, journal, same, weights

GOLDEN = Path(__file__).parents[1] / "golden" / "train_30_steps.json"
RECIPES = [{}, {"dropout": 0.2, "weight_decay": 0.1, "curve": "cosine"}]


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_runs_are_equal_bit_for_bit(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], recipe: dict[str, Any]
) -> None:
    paths: list[Path] = []
    for name in ("one", "other"):
        np.random.seed(len(paths))  # noqa: NPY002, TID251  (the global generators must not matter)
        torch.manual_seed(len(paths))  # noqa: TID251
        paths.append(
            train(spec(recipe=recipe), corpus=corpus, root=tmp_path / name, probes=[probe(0, 12)]).path
        )
    assert same(paths[0], paths[1], step=12)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_in_pieces_equals_one_in_one_piece(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], recipe: dict[str, Any]
) -> None:
    whole = train(spec(recipe=recipe), corpus=corpus, root=tmp_path / "whole", probes=[probe(0, 12)]).path

    def piece() -> Path:
        return train(spec(recipe=recipe), corpus=corpus, root=tmp_path / "pieces", probes=[due]).path

    def stop(subject: Subject) -> Iterator[Reading]:
        os.kill(os.getpid(), signal.SIGTERM)
        return probe().measure(subject)  # type: ignore[return-value]

    for at in (0, 4, 5, 11):
        due = Due("f" * 12, "stop", frozenset({at}), stop)
        with pytest.raises(RunStopped, match=f"SIGTERM at step {at} of 12"):
            piece()
    due = probe(0, 12)
    path = piece()
    assert weights(whole, 12) == weights(path, 12)
    assert journal(whole)[0] == journal(path)[0]
    kinds = [line["kind"] for line in read_journal(path, journal="events")]
    assert kinds == ["resumed"] * 4


def test_probes_do_not_disturb_training(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    bare = train(spec(), corpus=corpus, root=tmp_path / "bare").path

    def unruly(subject: Subject) -> Iterator[Reading]:
        np.random.seed(1)  # noqa: NPY002, TID251
        torch.manual_seed(1)  # noqa: TID251
        subject.score(corpus.sets["train"].rows(np.arange(5)))
        yield Reading("loss", "train", 1.0, 1)

    due = [probe(*range(13)), Due("e" * 12, "unruly", frozenset(range(13)), unruly)]
    probed = train(spec(), corpus=corpus, root=tmp_path / "probed", probes=due).path
    assert weights(bare, 12) == weights(probed, 12)
    assert journal(bare)[0] == journal(probed)[0]
    steps = {line["step"] for line in read_journal(probed, journal="measurements")}
    assert steps == set(range(13))


def test_a_measurement_is_of_the_weights_after_that_many_updates(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    steps = (0, 7, 12)
    path = train(spec(), corpus=corpus, root=tmp_path, probes=[probe(*steps)], keep=frozenset(steps)).path
    lines = {line["step"]: line for line in read_journal(path, journal="measurements")}
    from repetita.model.live import checkpoint_subject

    for step in steps:
        expected = list(probe().measure(checkpoint_subject(path, step=step)))[0].value  # noqa: RUF015
        assert lines[step]["value"] == expected
        assert lines[step]["tokens"] == sum(
            lane[2]
            for line in list(read_journal(path, journal="steps"))[:step]
            for lane in line["sets"].values()
        )


def test_a_failing_probe_is_an_event(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    def broken(subject: Subject) -> Iterator[Reading]:
        yield Reading("half", "test", 1.0, 1)
        raise KeyError("no such set")

    def silent(subject: Subject) -> list[Reading]:
        return []

    due = [
        Due("e" * 12, "broken", frozenset({0, 5}), broken),
        Due("d" * 12, "silent", frozenset({5}), silent),
        probe(0, 5, 12),
    ]
    outcome = train(spec(), corpus=corpus, root=tmp_path, probes=due)
    assert folder.status(outcome.path) == "done"
    assert outcome.failed == (("d" * 12, 5), ("e" * 12, 0), ("e" * 12, 5))
    events = [line for line in read_journal(outcome.path, journal="events") if line["kind"] == "probe_failed"]
    assert [line["step"] for line in events] == [0, 5, 5]
    assert events[0]["message"] == f"broken ({'e' * 12}): KeyError: 'no such set'"
    assert folder.measured(outcome.path) == {("0123456789ab", step) for step in (0, 5, 12)}


def test_a_run_that_is_done_returns_at_once(
    tmp_path: Path, spec: Make, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(spec(), corpus=corpus, root=tmp_path)
    monkeypatch.setattr(loop, "Run", None)
    again = train(spec(), corpus=corpus, root=tmp_path)
    assert (first.trained_steps, again.trained_steps) == (12, 0)
    assert again.path == first.path


def test_a_run_that_diverges_says_so_and_is_tried_again_only_if_asked(
    tmp_path: Path, spec: Make, corpus: Corpus
) -> None:
    wild = spec(recipe={"learning_rate": 1e30, "warmup_steps": 0, "clip": None})
    messages = []
    for options in (Options(), Options(), Options(retry_failed=True)):
        with pytest.raises(TrainingDiverged, match="lower learning_rate") as error:
            train(wild, corpus=corpus, root=tmp_path, options=options)
        messages.append(str(error.value))
    assert len(set(messages)) == 1
    path = next((tmp_path / "runs").iterdir())
    assert folder.status(path) == "failed"
    assert len(list((path / "attempts").iterdir())) == 2
    assert [line["kind"] for line in read_journal(path, journal="events")][-1] == "diverged"


def test_every_micro_batch_is_the_same_run(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    paths = [
        train(spec(), corpus=corpus, root=tmp_path / str(size), options=Options(micro_batch=size)).path
        for size in (None, 1, 3)
    ]
    assert len({path.name for path in paths}) == 1
    ends = [checkpoint.load(checkpoint.checkpoint_path(path, step=12)).model for path in paths]
    for end in ends[1:]:
        for name, tensor in end.items():
            torch.testing.assert_close(tensor, ends[0][name], rtol=1e-3, atol=1e-4)


def test_the_journal_counts_what_the_schedule_says(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    base = RepeatedSubset(fraction="1/2", passes=2)
    run = spec(treatment=SpecialBatch(base=base, size=4, at=4, times=2), steps=14)
    path = train(run, corpus=corpus, root=tmp_path).path
    schedule = open_schedule(run, corpus=corpus)
    lines = list(read_journal(path, journal="steps"))
    assert [line["step"] for line in lines] == list(range(14))
    assert [step for step, line in enumerate(lines) if "special" in line["sets"]] == [4, 5]
    for lane in ("train", "repeated", "special"):
        tokens = sum(line["sets"].get(lane, [0, 0, 0])[2] for line in lines)
        assert tokens <= schedule.ledger(14)[lane] * 16
        assert tokens > schedule.ledger(14)[lane] * 15


def test_empty_steps_make_no_update(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    starved = spec(treatment=RepeatedSubset(fraction=1, passes=12, slots="empty"))
    path = train(starved, corpus=corpus, root=tmp_path, keep=frozenset({0})).path
    assert weights(path, 0) == weights(path, 12)
    assert all(line["sets"] == {} for line in read_journal(path, journal="steps"))


def test_two_resume_checkpoints_are_kept_and_the_chosen_steps(
    tmp_path: Path, spec: Make, corpus: Corpus
) -> None:
    seen: list[tuple[int, ...]] = []

    def watch(subject: Subject) -> Iterator[Reading]:
        seen.append(checkpoint.steps_on_disk(next((tmp_path / "runs").iterdir()), kind="resume"))
        yield Reading("m", "test", 0.0, 1)

    always = Options(resume_every_seconds=-1.0)
    keep = frozenset({0, 4, 12})
    due = Due("a" * 12, "watch", frozenset(range(13)), watch)
    path = train(spec(), corpus=corpus, root=tmp_path, probes=[due], keep=keep, options=always).path
    assert seen[5:] == [(step - 2, step - 1) for step in range(5, 13)]
    assert checkpoint.steps_on_disk(path) == (0, 4, 12)
    assert checkpoint.steps_on_disk(path, kind="resume") == ()


def test_progress_ends_at_the_end(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    seen: list[Progress] = []
    train(spec(), corpus=corpus, root=tmp_path, on_progress=seen.append)
    assert (seen[-1].step, seen[-1].steps) == (12, 12)
    assert seen[-1].loss is not None
    assert seen[-1].tokens_per_second > 0


def test_a_spike_is_an_event_and_the_run_goes_on(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    # After the whole set was learned by heart, text never seen stands out.
    base = Passes(n_sequences=4)
    run = spec(treatment=SpecialBatch(base=base, size=4, at=140), steps=142)
    path = train(run, corpus=corpus, root=tmp_path).path
    spikes = [line for line in read_journal(path, journal="events") if line["kind"] == "spike"]
    assert 140 in [line["step"] for line in spikes]
    assert folder.status(path) == "done"


def test_a_probe_after_the_end_is_refused(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    with pytest.raises(SpecError, match="due at step 13 of a run of 12 steps"):
        train(spec(), corpus=corpus, root=tmp_path, probes=[probe(13)])


def test_a_corpus_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, spec: Make, corpus: Corpus
) -> None:
    with pytest.raises(CorpusError, match="train"):
        train(spec(treatment=Stream(), steps=100_000), corpus=corpus, root=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, spec: Make, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="--root"):
        train(spec(), corpus=corpus, root=tmp_path / "file")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="read-only"):
        train(spec(), corpus=corpus, root=tmp_path / "other")


def test_a_full_disk_leaves_a_run_that_can_be_continued(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    long = spec(treatment=Stream(), steps=60)
    whole = train(long, corpus=corpus, root=tmp_path / "whole").path

    def fill() -> None:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (9_000, 9_000)
        )  # the weights fit, all of the journal does not
        try:
            train(long, corpus=corpus, root=tmp_path / "full", options=Options(resume_every_seconds=0.0))
        except StorageError as error:
            os._exit(7 if "ulimit" in str(error) else 1)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=fill)
    child.start()
    child.join(60)
    assert child.exitcode == 7
    path = tmp_path / "full" / "runs" / whole.name
    assert folder.status(path) == "unfinished"
    train(long, corpus=corpus, root=tmp_path / "full")
    assert same(whole, path, step=60)


def golden_run(root: Path, *, spec: RunSpec, corpus: Corpus) -> dict[str, Any]:
    """What a 30-step run comes to, as JSON types."""
    path = train(spec, corpus=corpus, root=root).path
    model = checkpoint.load(checkpoint.checkpoint_path(path, step=30)).model
    return {
        "torch": str(torch.__version__),
        "instructions": device.describe(device.setup())["instructions"],
        "steps": [
            {"sets": line["sets"], "gradient_norm": line["gradient_norm"]}
            for line in read_journal(path, journal="steps")
        ],
        "weights": {name: float(tensor.double().norm()) for name, tensor in sorted(model.items())},
    }


def test_golden_numbers_do_not_move(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    """Exact on the torch build and CPU kind of the golden file, to 1e-5 elsewhere."""
    base = RepeatedSubset(fraction="1/2", passes=4)
    run = spec(treatment=base, steps=30, recipe={"weight_decay": 0.1, "curve": "cosine"})
    got = json.loads(json.dumps(golden_run(tmp_path, spec=run, corpus=corpus)))
    if not GOLDEN.exists():  # to write it anew, with a raised number in SEMANTICS: delete it
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(got, indent=1) + "\n")
        pytest.fail("the golden file was missing and is written anew; look at it and commit it")
    golden = json.loads(GOLDEN.read_text())
    if all(got[name] == golden[name] for name in ("torch", "instructions")):
        assert got == golden
    for step, expected in zip(got["steps"], golden["steps"], strict=True):
        assert step["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-4)
        for lane, values in expected["sets"].items():
            assert step["sets"][lane][0] == pytest.approx(values[0], rel=1e-5)
            assert step["sets"][lane][2] == values[2]
    assert got["weights"] == pytest.approx(golden["weights"], rel=1e-5)
