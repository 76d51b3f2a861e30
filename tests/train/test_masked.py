"""Masked runs: the same loop, their own masks at each step, and sums by what the model was shown."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from repetita.corpus.masking import KINDS, MASK_SHARE
from repetita.corpus.sequences import Corpus, compose
from repetita.corpus.treatment import Passes
from repetita.errors import RunStopped
from repetita.journal.folder import read_journal
from repetita.journal.records import Reading
from repetita.measure.memorization import MemorizationProbe
from repetita.measure.probe import EvalSet
from repetita.subject import Subject
from repetita.train.loop import Due, Options, train
from repetita.train.recipe import RunSpec, open_schedule, run_fingerprint
from tests.train.conftest import MODEL, Make, journal, same
from tests.train.test_update import gradients, updater


@pytest.fixture
def masked(spec: Make) -> RunSpec:
    return spec(model=MODEL.edit(objective="masked"))


def test_two_runs_are_equal_bit_for_bit(
    tmp_path: Path, masked: RunSpec, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    paths = [
        train(masked, corpus=corpus, root=tmp_path / name, probes=[probe(0, 12)]).path for name in ("a", "b")
    ]
    assert same(paths[0], paths[1], step=12)


def test_a_stopped_run_draws_the_masks_it_would_have_drawn(
    tmp_path: Path, masked: RunSpec, corpus: Corpus
) -> None:
    whole = train(masked, corpus=corpus, root=tmp_path / "whole").path

    def stop(subject: Subject) -> Iterator[Reading]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield Reading("nothing", "test", None, 0)

    due = Due("ffffffffffff", "stop", frozenset({5}), stop)
    with pytest.raises(RunStopped):
        train(masked, corpus=corpus, root=tmp_path / "pieces", probes=[due])
    pieces = train(masked, corpus=corpus, root=tmp_path / "pieces").path
    assert journal(whole)[0] == journal(pieces)[0]


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_have_the_masks_of_the_batch(masked: RunSpec, corpus: Corpus, micro_batch: int) -> None:
    batch = open_schedule(masked, corpus=corpus).batch(0)
    rows = compose(batch, corpus.sets)
    whole, parts = updater(masked), updater(masked, micro_batch=micro_batch)
    expected, got = (one.update(rows, batch=batch, tokens=0) for one in (whole, parts))
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parts)[name], gradient, rtol=1e-4, atol=1e-6)
    for kind, sums in expected.corruption.items():
        assert got.corruption[kind] == pytest.approx(sums, rel=1e-5)


def test_the_record_splits_the_same_tokens_by_lane_and_by_what_was_shown(
    tmp_path: Path, masked: RunSpec, corpus: Corpus
) -> None:
    path = train(masked, corpus=corpus, root=tmp_path).path
    seen = 0
    for line in read_journal(path, journal="steps"):
        assert set(line["corruption"]) <= set(KINDS)
        by_lane, by_kind = (np.sum(list(line[name].values()), axis=0) for name in ("sets", "corruption"))
        np.testing.assert_allclose(by_lane, by_kind, rtol=1e-12)
        assert line["tokens"] == seen
        seen += int(by_lane[2])
        assert abs(by_lane[2] - MASK_SHARE * 4 * 16) < 4 + MASK_SHARE * 4
    causal = train(masked.edit(model=MODEL), corpus=corpus, root=tmp_path).path
    assert not any("corruption" in line for line in read_journal(causal, journal="steps"))


def test_a_masked_run_memorizes(tmp_path: Path, masked: RunSpec, corpus: Corpus) -> None:
    """Four sequences read 600 times: what is hidden is then found from both sides."""
    few = masked.edit(
        model=MODEL.edit(objective="masked", d_model=32, n_head=2, n_layer=2),
        treatment=Passes(n_sequences=4),
        steps=600,
        recipe=masked.recipe.edit(learning_rate=1e-2, warmup_steps=10),
    )
    sets = {
        "train": EvalSet("train", corpus.sets["train"], open_schedule(few, corpus=corpus).members("train"))
    }
    probe = MemorizationProbe(on=("train",))
    due = Due(
        probe.fingerprint, probe.name, frozenset({0, 600}), lambda subject: probe.measure(subject, sets)
    )
    path = train(few, corpus=corpus, root=tmp_path, probes=[due], options=Options()).path
    first, last = (line for line in read_journal(path, journal="measurements"))
    n_scored = sets["train"].sequences.rows(sets["train"].indices).scored.sum()
    assert first["n"] == last["n"] == n_scored, "every token of the set is scored once"
    assert first["value"] < 0.1 and last["value"] > 0.8


def test_the_objective_is_part_of_a_run_s_identity(masked: RunSpec, spec: Make) -> None:
    names = {run_fingerprint(one, corpus_fingerprint="x") for one in (masked, spec())}
    assert len(names) == 2
