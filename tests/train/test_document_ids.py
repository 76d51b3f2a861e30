"""Runs with document IDs read the same text, end the same after a stop, and are refused where too small."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repetita.corpus.document_ids import DocumentIds
from repetita.corpus.masking import training_masks
from repetita.corpus.sequences import Corpus, compose
from repetita.corpus.treatment import Passes, RepeatedSubset, SpecialBatch, Treatment
from repetita.errors import RunStopped, SpecError
from repetita.journal.folder import read_header, read_journal
from repetita.journal.records import Reading
from repetita.measure.memorization import ScoreProbe
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject
from repetita.model.transformer import Transformer
from repetita.spec import canonical_json
from repetita.study.corpora import Corpora
from repetita.study.sets import RunSets
from repetita.subject import Rows, Subject
from repetita.train.loop import Due, train
from repetita.train.recipe import RunSpec, open_ids, open_schedule, run_fingerprint, run_slug
from tests.train.conftest import MODEL, Make, journal, same, weights

IDS = DocumentIds()
P = 13
BASE = Passes(n_sequences=8)
LARGER = MODEL.edit(vocab_size=257 + 24, context=16 + P)


@pytest.fixture
def with_ids(spec: Make) -> Callable[..., RunSpec]:
    def make(kind: str = "prepended", **changes: Any) -> RunSpec:
        values = {"treatment": BASE, "model": LARGER, "document_ids": DocumentIds(kind=kind)} | changes
        return spec(**values)

    return make


def sets_of(spec: RunSpec, corpus: Corpus) -> RunSets:
    schedule = open_schedule(spec, corpus=corpus)
    return RunSets(
        spec, corpus=corpus, schedule=schedule, ids=open_ids(spec, corpus=corpus, schedule=schedule)
    )


def stop_at(step: int) -> Due:
    def stop(subject: Subject) -> Iterator[Reading]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield Reading("nothing", "test", None, 0)

    return Due("f" * 12, "stop", frozenset({step}), stop)


@pytest.mark.parametrize("kind", ["prepended", "redrawn"])
def test_a_run_in_pieces_equals_one_in_one_piece(
    tmp_path: Path, with_ids: Callable[..., RunSpec], corpus: Corpus, kind: str
) -> None:
    spec = with_ids(kind)
    whole = train(spec, corpus=corpus, root=tmp_path / "whole").path
    with pytest.raises(RunStopped):
        train(spec, corpus=corpus, root=tmp_path / "pieces", probes=[stop_at(5)])
    pieces = train(spec, corpus=corpus, root=tmp_path / "pieces").path
    assert weights(whole, 12) == weights(pieces, 12)
    assert journal(whole)[0] == journal(pieces)[0]


@pytest.mark.parametrize("treatment", [BASE, RepeatedSubset(fraction="1/2", n_sequences=4)])
def test_a_fork_has_the_ids_of_its_trunk(
    tmp_path: Path, with_ids: Callable[..., RunSpec], corpus: Corpus, treatment: Treatment
) -> None:
    room = LARGER.edit(vocab_size=257 + 60)
    spec = with_ids(model=room, treatment=SpecialBatch(base=treatment, size=4, at=6))
    straight = train(spec, corpus=corpus, root=tmp_path / "straight").path
    trunk = train(spec.until(6), corpus=corpus, root=tmp_path / "forked", forkable=True).path
    forked = train(spec, corpus=corpus, root=tmp_path / "forked", trunk=trunk)
    assert forked.trained_steps == 6
    assert same(straight, forked.path, step=12)


def test_steps_count_the_tokens_of_the_text(
    tmp_path: Path, spec: Make, with_ids: Callable[..., RunSpec], corpus: Corpus
) -> None:
    bare = list(read_journal(train(spec(treatment=BASE), corpus=corpus, root=tmp_path).path, journal="steps"))
    for kind in ("prepended", "constant"):
        path = train(with_ids(kind), corpus=corpus, root=tmp_path).path
        for plain, line in zip(bare, read_journal(path, journal="steps"), strict=True):
            assert line["tokens"] == plain["tokens"]
            assert {lane: sums[2] for lane, sums in line["sets"].items()} == {
                lane: sums[2] for lane, sums in plain["sets"].items()
            }


def test_the_loss_of_an_update_is_that_of_the_text(with_ids: Callable[..., RunSpec], corpus: Corpus) -> None:
    """The prefix is read, so that another ID gives another loss, and never scored."""
    spec = with_ids()
    schedule = open_schedule(spec, corpus=corpus)
    ids = open_ids(spec, corpus=corpus, schedule=schedule)
    assert ids is not None
    assert isinstance(spec.model, ModelConfig)
    subject = LiveSubject(Transformer(spec.model, seed=0))
    batch = schedule.batch(0)
    body = compose(batch, corpus.sets)
    numbers = ids.of_batch(batch)
    one, other = (
        subject.score(ids.put_before(body, numbers=given)).loss for given in (numbers, numbers[::-1])
    )
    assert not one[:, :P].any()
    assert (one[:, P:][body.scored] > 0).all()
    assert (one[:, P:] != other[:, P:]).any()


def test_the_prefix_sees_nothing_of_its_text(with_ids: Callable[..., RunSpec], corpus: Corpus) -> None:
    spec = with_ids()
    ids = open_ids(spec, corpus=corpus, schedule=open_schedule(spec, corpus=corpus))
    assert ids is not None
    assert isinstance(spec.model, ModelConfig)
    model = Transformer(spec.model, seed=0)
    bodies = [corpus.sets["train"].rows(np.array([index])) for index in (0, 1)]
    rows = [ids.put_before(body, numbers=np.array([3])) for body in bodies]
    states = [
        model.states(torch.from_numpy(row.tokens), at_N=torch.arange(P + 1)).detach().numpy() for row in rows
    ]
    np.testing.assert_array_equal(states[0], states[1])


def test_masks_never_hide_the_prefix(with_ids: Callable[..., RunSpec], corpus: Corpus) -> None:
    spec = with_ids(model=LARGER.edit(objective="masked"))
    schedule = open_schedule(spec, corpus=corpus)
    ids = open_ids(spec, corpus=corpus, schedule=schedule)
    for batch in schedule.batches():
        rows = compose(batch, corpus.sets, ids=ids)
        masked, _ = training_masks(rows, vocab_size=spec.model.vocab_size, seed=0, step=batch.step)
        np.testing.assert_array_equal(masked.tokens[:, :P], rows.targets[:, :P])
        assert not masked.scored[:, :P].any()
        assert masked.scored.any()


def test_sets_as_trained_without_and_behind_another_id(
    with_ids: Callable[..., RunSpec], corpus: Corpus
) -> None:
    sets = sets_of(with_ids(), corpus)
    rows: dict[str, Rows] = {}
    for name in ("train", "train/plain", "train/drawn", "test", "test/plain", "test/drawn", "batch/3"):
        over = sets[name]
        assert over.name == name
        rows[name] = over.sequences.rows(over.indices)
        assert rows[name].targets.shape[1] == over.sequences.length
    body = rows["train/plain"].targets
    assert body.shape == (8, 16)
    for name in ("train", "train/drawn"):
        np.testing.assert_array_equal(rows[name].targets[:, P:], body)
    own, drawn = (rows[name].targets[:, P - 1] for name in ("train", "train/drawn"))
    assert sorted(own.tolist()) == list(range(257, 265))
    assert (own != drawn).all()
    np.testing.assert_array_equal(rows["test"].targets, rows["test/plain"].targets)
    np.testing.assert_array_equal(rows["test/drawn"].targets[:, P:], rows["test"].targets)
    spec = with_ids()
    schedule = open_schedule(spec, corpus=corpus)
    read = compose(schedule.batch(3), corpus.sets, ids=open_ids(spec, corpus=corpus, schedule=schedule))
    for ours, theirs in zip(rows["batch/3"], read, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    sampled = [sets[name].sample(3).indices for name in ("test", "test/drawn")]
    np.testing.assert_array_equal(sampled[0], sampled[1])
    assert "train/plain" not in sets_of(with_ids(document_ids=None), corpus)


def test_batches_of_redrawn_ids_are_what_the_update_reads(
    with_ids: Callable[..., RunSpec], corpus: Corpus
) -> None:
    spec = with_ids("redrawn")
    sets, schedule = sets_of(spec, corpus), open_schedule(spec, corpus=corpus)
    ids = open_ids(spec, corpus=corpus, schedule=schedule)
    for step in range(spec.steps):
        over = sets[f"batch/{step}"]
        expected = compose(schedule.batch(step), corpus.sets, ids=ids).targets
        np.testing.assert_array_equal(over.sequences.rows(over.indices).targets, expected)
        np.testing.assert_array_equal(over.sequences.rows(np.array([2])).targets, expected[2:3])


def test_special_batches_are_read_behind_their_ids_and_twins_without(
    with_ids: Callable[..., RunSpec], corpus: Corpus
) -> None:
    spec = with_ids(treatment=SpecialBatch(base=BASE, size=4, at=6, n_batches=2))
    sets = sets_of(spec, corpus)
    lengths = {name: sets[name].sequences.length for name in ("special/1", "special/1/plain", "placebo/1")}
    assert lengths == {"special/1": 16 + P, "special/1/plain": 16, "placebo/1": 16}
    over = sets["special/1"]
    assert sorted(over.sequences.rows(over.indices).targets[:, P - 1] - 257) == [12, 13, 14, 15]


def test_probes_measure_with_and_without(
    tmp_path: Path, with_ids: Callable[..., RunSpec], corpus: Corpus
) -> None:
    spec = with_ids()
    sets = sets_of(spec, corpus)
    probe = ScoreProbe(on=("train", "train/plain", "train/drawn", "test/drawn"), max_sequences=8)
    due = Due("0" * 12, "score", frozenset({12}), lambda subject: probe.measure(subject, sets=sets))
    path = train(spec, corpus=corpus, root=tmp_path, probes=[due]).path
    found = {
        line["on"]: line for line in read_journal(path, journal="measurements") if line["metric"] == "loss"
    }
    assert len({line["value"] for line in found.values()}) == 4
    assert {line["n"] for name, line in found.items() if name != "test/drawn"} == {found["train"]["n"]}


def test_run_json_gives_the_spec_back(
    tmp_path: Path, with_ids: Callable[..., RunSpec], corpus: Corpus
) -> None:
    spec = with_ids("redrawn")
    path = train(spec, corpus=corpus, root=tmp_path).path
    header = read_header(path)
    assert RunSpec.from_json(canonical_json(header["spec"])) == spec
    assert header["semantics"]["document_ids"] == 1
    assert "redrawn" in path.name


def test_identity_without_ids_is_what_it_was(spec: Make, with_ids: Callable[..., RunSpec]) -> None:
    bare = spec(treatment=BASE, model=LARGER)
    assert "document_ids" not in json.loads(canonical_json(bare))
    assert run_slug(bare) == "888-passes-s0"
    prints = {
        run_fingerprint(one, corpus_fingerprint="a")
        for one in (bare, with_ids(), with_ids("redrawn"), with_ids(document_ids=DocumentIds(text="x")))
    }
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": MODEL.edit(context=40)}, r"vocab_size = 257 has room for 0 .* needs 8; set it to 265"),
        ({"model": LARGER.edit(vocab_size=264)}, r"vocab_size = 264 has room for 7 .* needs 8"),
        ({"model": LARGER.edit(context=28)}, r"context = 28 does not hold .* the 13 of .* raise it to 29"),
        ({"kind": "constant", "model": LARGER.edit(vocab_size=257)}, "needs 1; set it to 258"),
        ({"kind": "redrawn", "model": LARGER.edit(vocab_size=258)}, "needs 2; set it to 259"),
    ],
)
def test_a_model_too_small_is_refused_before_anything_is_done(
    tmp_path: Path, with_ids: Callable[..., RunSpec], corpus: Corpus, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        train(with_ids(**changes), corpus=corpus, root=tmp_path)
    assert not list(tmp_path.glob("runs/*"))


def test_words_alone_need_no_vocabulary(
    tmp_path: Path, with_ids: Callable[..., RunSpec], corpus: Corpus
) -> None:
    spec = with_ids("words", model=MODEL.edit(context=28))
    assert train(spec, corpus=corpus, root=tmp_path).trained_steps == 12


def test_planning_says_what_a_run_would(tmp_path: Path, with_ids: Callable[..., RunSpec]) -> None:
    with pytest.raises(SpecError, match="room for 7 document IDs"):
        Corpora(tmp_path).sets(with_ids(model=LARGER.edit(vocab_size=264)))
