"""A run that starts from another begins with its very weights, and is itself in all else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.corpus.places import public_corpus
from repetita.corpus.sequences import Corpus
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Passes, Stream
from repetita.errors import DamagedError, RunFolderError, SpecError
from repetita.journal import folder, table
from repetita.journal.folder import read_header, read_journal
from repetita.model import checkpoint
from repetita.spec import canonical_json
from repetita.train.loop import Due, Options, Parent, train
from repetita.train.recipe import (
    RunSpec,
    Start,
    fingerprint_among,
    run_fingerprint,
    run_slug,
    same_start,
    with_corpora,
)
from repetita.train.run import Run
from tests.train.conftest import CORPUS, MODEL, Make, same, weights
from tests.train.test_run import EVERY_STEP, count_down, flip, in_child

Probe = Callable[..., Due]
STEPS = 6


def parent_of(path: Path) -> Parent:
    return Parent(read_header(path)["fingerprint"], path)


@pytest.fixture
def parent(tmp_path: Path, spec: Make, corpus: Corpus, probe: Probe) -> Path:
    return train(spec(steps=STEPS), corpus=corpus, root=tmp_path, probes=[probe(0, STEPS)]).path


@pytest.fixture
def child(spec: Make) -> Callable[..., RunSpec]:
    """A run on other data, at another rate and with dropout, from the end of `parent`."""

    def make(optimizer: str = "fresh", **changes: Any) -> RunSpec:
        start = Start(run=spec(steps=STEPS), optimizer=optimizer)
        recipe = {"learning_rate": 5e-3, "warmup_steps": 1, "dropout": 0.1}
        values = {"treatment": Stream(), "seed": 7, "steps": 4, "start": start} | changes
        return spec(recipe=recipe, **values)

    return make


def rows(path: Path, *, step: int) -> list[tuple[Any, ...]]:
    return [
        (line["metric"], line["value"], line["n"])
        for line in read_journal(path, journal="measurements")
        if line["step"] == step
    ]


def test_it_begins_where_the_parent_ended_and_counts_the_tokens_of_both(
    parent: Path, child: Callable[..., RunSpec], corpus: Corpus, probe: Probe
) -> None:
    due = [probe(0, 4)]
    path = train(
        child(), corpus=corpus, root=parent.parents[1], probes=due, parent=parent_of(parent),
        keep=frozenset({0}),
    ).path  # fmt: skip
    assert rows(path, step=0) == rows(parent, step=STEPS)
    assert weights(path, 0) == weights(parent, STEPS)
    assert weights(path, 4) != weights(parent, STEPS)
    frame = table.measurements([path, parent])
    own = frame.filter(frame["path"] == str(path))
    spent = frame.filter((frame["path"] == str(parent)) & (frame["step"] == STEPS))["tokens"][0]
    assert own["tokens"][0] == 0
    assert (own["tokens_total"] - own["tokens"]).to_list() == [spent] * len(own)
    steps = table.steps([path])
    assert (steps["tokens_total"] - steps["tokens"]).unique().to_list() == [spent]
    assert all("tokens_total" not in line for line in read_journal(parent, journal="steps"))
    assert [line["kind"] for line in read_journal(path, journal="events")] == ["started"]
    folder.verify(path)


@pytest.mark.parametrize("optimizer", ["fresh", "carried"])
def test_killed_anywhere_it_ends_as_if_it_never_stopped(
    tmp_path: Path, child: Callable[..., RunSpec], spec: Make, corpus: Corpus, probe: Probe, optimizer: str
) -> None:
    before = train(spec(steps=STEPS), corpus=corpus, root=tmp_path, needs_optimizer=True).path

    def go(root: Path) -> Path:
        return train(
            child(optimizer), corpus=corpus, root=root, probes=[probe(0, 2, 4)], options=EVERY_STEP,
            parent=parent_of(before),
        ).path  # fmt: skip

    straight = go(tmp_path / "straight")
    total = tmp_path / "total"

    def count() -> None:
        seen = count_down(-1)
        go(tmp_path / "counted")
        total.write_text(str(seen[0]))

    assert in_child(count) == 0
    draw = np.random.Generator(np.random.Philox(4))
    for attempt, at in enumerate(draw.integers(int(total.read_text()), size=6).tolist()):
        root = tmp_path / f"killed{attempt}"

        def killed(root: Path = root, at: int = at) -> None:
            count_down(at)
            go(root)

        assert in_child(killed) != 0
        assert same(straight, go(root), step=4)


def test_the_optimizer_is_carried_on_or_begins_anew(
    tmp_path: Path, child: Callable[..., RunSpec], spec: Make, corpus: Corpus
) -> None:
    before = train(spec(steps=STEPS), corpus=corpus, root=tmp_path, needs_optimizer=True).path
    left = checkpoint.load(checkpoint.checkpoint_path(before, step=STEPS)).optimizer
    assert left is not None
    for optimizer in ("fresh", "carried"):
        run = Run.open(
            tmp_path / optimizer, spec=child(optimizer), corpus=corpus, options=Options(),
            parent=parent_of(before),
        )  # fmt: skip
        with run.folder:
            run.folder.truncate(None)
            run.begin()
        for name, tensor in run.updater.optimizer_state().items():
            expected = left[name].numpy() if optimizer == "carried" else 0.0
            np.testing.assert_array_equal(tensor.numpy(), expected)
    assert float(left["step"]) == STEPS


def test_an_optimizer_that_was_not_kept_is_had_by_training_again(
    tmp_path: Path, parent: Path, child: Callable[..., RunSpec], spec: Make, corpus: Corpus
) -> None:
    carried = child("carried")
    with pytest.raises(RunFolderError, match="optimizer of step 6 was not kept"):
        train(carried, corpus=corpus, root=tmp_path / "early", parent=parent_of(parent))
    before = (parent / "steps.jsonl").read_bytes(), (parent / "measurements.jsonl").read_bytes()
    again = train(spec(steps=STEPS), corpus=corpus, root=parent.parents[1], needs_optimizer=True)
    assert again.trained_steps == 0
    assert before == ((parent / "steps.jsonl").read_bytes(), (parent / "measurements.jsonl").read_bytes())
    whole = train(spec(steps=STEPS), corpus=corpus, root=tmp_path / "whole", needs_optimizer=True).path
    files = [checkpoint.checkpoint_path(path, step=STEPS) / checkpoint.OPTIMIZER for path in (whole, parent)]
    assert files[0].read_bytes() == files[1].read_bytes()
    train(carried, corpus=corpus, root=parent.parents[1], parent=parent_of(parent))
    folder.verify(parent)


def test_a_replay_starts_from_the_parent_s_weights(
    tmp_path: Path, parent: Path, child: Callable[..., RunSpec], corpus: Corpus, probe: Probe
) -> None:
    at: dict[str, Any] = {"corpus": corpus, "parent": parent_of(parent)}
    whole = train(child(), root=tmp_path / "whole", probes=[probe(0, 2, 4)], **at).path
    bare = train(child(), root=tmp_path / "bare", probes=[probe(4)], **at).path
    train(child(), root=tmp_path / "bare", probes=[probe(0, 2, 4)], **at)
    assert same(whole, bare, step=4)


def test_a_fork_of_such_a_run_equals_the_straight_one(
    tmp_path: Path, parent: Path, child: Callable[..., RunSpec], spec: Make, corpus: Corpus, probe: Probe
) -> None:
    at: dict[str, Any] = {"corpus": corpus, "parent": parent_of(parent)}
    straight = train(child(), root=tmp_path / "straight", probes=[probe(0, 4)], **at).path
    trunk = train(child().until(2), root=tmp_path / "forked", forkable=True, **at).path
    forked = train(child(), root=tmp_path / "forked", probes=[probe(0, 4)], trunk=trunk, **at)
    assert forked.trained_steps == 2
    assert same(straight, forked.path, step=4)
    other = train(spec(steps=STEPS, seed=1), corpus=corpus, root=tmp_path).path
    stranger = child(start=Start(run=spec(steps=STEPS, seed=1)))
    alone = train(
        stranger, corpus=corpus, root=tmp_path / "alone", trunk=trunk, parent=parent_of(other)
    )  # fmt: skip
    assert alone.trained_steps == 4


def test_a_run_can_start_from_one_that_started_from_another(
    parent: Path, child: Callable[..., RunSpec], corpus: Corpus, probe: Probe
) -> None:
    root, due = parent.parents[1], [probe(0, 4)]
    second = train(child(), corpus=corpus, root=root, probes=due, parent=parent_of(parent)).path
    grandchild = child(start=Start(run=child()), treatment=Passes(n_sequences=8))
    third = train(grandchild, corpus=corpus, root=root, probes=due, parent=parent_of(second)).path
    assert rows(third, step=0) == rows(second, step=4)
    frame = table.measurements([parent, second, third])
    ends = [frame.filter(frame["path"] == str(path))["tokens"].to_list()[-1] for path in (parent, second)]
    assert frame.filter(frame["path"] == str(third))["tokens_total"].min() == sum(ends)
    assert third.name.startswith("888-repeated_subset-then-stream-then-passes-s7-")


def test_identity_is_the_parent_s_too(child: Callable[..., RunSpec], spec: Make) -> None:
    one = child()
    before = fingerprint_among(spec(steps=STEPS), corpora=lambda corpus: "a")
    whole = run_fingerprint(one, corpus_fingerprint="b", parent=before)
    # The parent read another text; nothing else differs.
    other = fingerprint_among(spec(steps=STEPS), corpora=lambda corpus: "c")
    assert run_fingerprint(one, corpus_fingerprint="b", parent=other) != whole
    assert run_fingerprint(child("carried"), corpus_fingerprint="b", parent=before) != whole
    assert len({whole, fingerprint_among(child(start=None), corpora=lambda corpus: "b")}) == 2
    with pytest.raises(ValueError, match="parent"):
        run_fingerprint(one, corpus_fingerprint="b")
    assert RunSpec.from_json(canonical_json(one)) == one
    assert "start" not in canonical_json(spec())
    assert whole[:24] == "78782131d06f61496f107731"
    assert before[:24] == "d0e5b6c71fc872875c769952"  # as before a run could have a start


def test_the_same_start_said_in_two_ways_is_one(spec: Make) -> None:
    whole = spec(treatment=Passes(n_sequences=16), steps=12)
    cut, direct = Start(run=whole, step=5), Start(run=whole.until(5))
    assert cut == direct
    assert cut.edit(optimizer="carried").run.steps == 5
    ours = [spec(treatment=Stream(), start=start) for start in (cut, Start(run=whole))]
    assert not same_start(ours[0], other=ours[1], step=2)
    assert same_start(ours[0], other=ours[0].edit(steps=9), step=2)


def test_no_place_of_a_parent_is_written_down(child: Callable[..., RunSpec], spec: Make) -> None:
    lies = CORPUS.edit(source="/home/somebody/text", synthetic=None)
    moved = child(start=Start(run=spec(steps=STEPS, corpus=lies)))
    shown = canonical_json(with_corpora(moved, shown=public_corpus))
    assert "/home" not in shown
    assert '"source":"text"' in shown
    here, there = (fingerprint_among(one, corpora=lambda corpus: "a") for one in (moved, moved.edit(
        start=Start(run=spec(steps=STEPS, corpus=lies.edit(source="/elsewhere")))
    )))  # fmt: skip
    assert here == there


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": MODEL.edit(d_model=16, d_mlp=64)}, "model.d_model = 16 .* set it to 8"),
        ({"model": MODEL.edit(vocab_size=300)}, "model.vocab_size = 300 .* set it to 257"),
        ({"model": MODEL.edit(objective="masked")}, "model.objective = masked .* set it to causal"),
        (
            {"corpus": CORPUS.edit(tokenizer=TokenizerSpec())},
            "corpus.tokenizer.kind = bpe .* set it to bytes",
        ),
    ],
)
def test_weights_keep_their_vocabulary_and_shape(
    child: Callable[..., RunSpec], changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(SpecError, match=match):
        child(**changes)


def test_a_start_after_the_end_is_refused(spec: Make) -> None:
    with pytest.raises(SpecError, match=r"step = 7 is after the end .* \(6 steps\)"):
        Start(run=spec(steps=STEPS), step=7)


def test_a_parent_that_is_missing_another_or_damaged_is_said(
    tmp_path: Path, parent: Path, child: Callable[..., RunSpec], spec: Make, corpus: Corpus
) -> None:
    def go(before: Parent | None) -> Path:
        return train(child(), corpus=corpus, root=tmp_path / "child", parent=before).path

    with pytest.raises(SpecError, match="needs its parent"):
        go(None)
    name = parent_of(parent).fingerprint
    with pytest.raises(RunFolderError, match="no checkpoint at step 6; train it first"):
        go(Parent(name, tmp_path / "nowhere"))
    other = train(spec(steps=STEPS, seed=1), corpus=corpus, root=tmp_path).path
    with pytest.raises(RunFolderError, match="holds run"):
        go(Parent(name, other))
    flip(checkpoint.checkpoint_path(parent, step=STEPS) / checkpoint.MODEL)
    with pytest.raises(DamagedError, match="does not match"):
        go(parent_of(parent))
    assert run_slug(child()).endswith("then-stream-s7")
