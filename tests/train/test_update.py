"""One update: the mean over scored tokens, however the batch is cut, with losses by lane."""

from typing import Any

import numpy as np
import pytest
import torch

from repetita.corpus.schedule import LANES, Batch
from repetita.corpus.sequences import Corpus, compose
from repetita.corpus.treatment import RepeatedSubset
from repetita.errors import SpecError, TrainingDiverged
from repetita.model.config import ModelConfig
from repetita.model.transformer import Transformer
from repetita.subject import Rows
from repetita.train.optimizer import Optimizer
from repetita.train.recipe import RunSpec, open_schedule
from repetita.train.update import Updater, check_micro_batch
from tests.train.conftest import Make


def updater(spec: RunSpec, *, micro_batch: int | None = None) -> Updater:
    assert isinstance(spec.model, ModelConfig)
    model = Transformer(spec.model, seed=spec.seed)
    optimizer = Optimizer(model, recipe=spec.recipe)
    return Updater(spec, model, optimizer, torch.device("cpu"), micro_batch)


def gradients(one: Updater) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in one.optimizer.parameters.items() if p.grad is not None}


def uneven(corpus: Corpus, spec: RunSpec) -> tuple[Batch, Rows]:
    """A batch of eight rows, each with another number of scored tokens, one with none."""
    batch = open_schedule(spec, corpus=corpus).batch(0)
    rows = compose(batch, corpus.sets)
    scored = rows.scored.copy()
    for row in range(len(scored)):
        scored[row, 16 - 2 * row :] = False
    scored[5] = False
    return batch, rows._replace(scored=scored)


@pytest.fixture
def eight(spec: Make) -> RunSpec:
    return spec(batch_size=8, recipe={"clip": None})


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 8, 100])
def test_accumulation_equals_the_big_batch(eight: RunSpec, corpus: Corpus, micro_batch: int) -> None:
    batch, rows = uneven(corpus, eight)
    whole, parts = updater(eight), updater(eight, micro_batch=micro_batch)
    expected = whole.update(rows, batch=batch, tokens=0)
    got = parts.update(rows, batch=batch, tokens=0)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parts)[name], gradient, rtol=1e-5, atol=1e-7)
    assert got.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)
    for lane, values in expected.sets.items():
        assert got.sets[lane] == pytest.approx(values, rel=1e-6)


def test_the_objective_is_the_mean_over_the_scored_tokens(eight: RunSpec, corpus: Corpus) -> None:
    batch, rows = uneven(corpus, eight)
    one, other = updater(eight), updater(eight)
    record = one.update(rows, batch=batch, tokens=0)
    tokens, targets, scored = (torch.from_numpy(values) for values in rows)
    assert isinstance(other.model, Transformer)
    logits = other.model.hidden(tokens) @ other.model.output_weight.T
    loss = torch.nn.functional.cross_entropy(logits[scored], targets[scored])
    loss.backward()  # type: ignore[no-untyped-call]
    for name, gradient in gradients(other).items():
        torch.testing.assert_close(gradients(one)[name], gradient, rtol=1e-4, atol=1e-6)
    assert sum(values[0] for values in record.sets.values()) / rows.scored.sum() == pytest.approx(loss.item())


def test_losses_and_hits_are_kept_by_lane(eight: RunSpec, corpus: Corpus) -> None:
    batch, rows = uneven(corpus, eight)
    record = updater(eight).update(rows, batch=batch, tokens=7)
    assert record.tokens == 7
    assert set(record.sets) == {"train", "repeated"}
    for lane, values in record.sets.items():
        assert values[2] == rows.scored[batch.lane == LANES.index(lane)].sum()
        assert isinstance(values[1], int)


def test_an_empty_batch_changes_nothing(eight: RunSpec, corpus: Corpus) -> None:
    batch, rows = uneven(corpus, eight)
    one = updater(eight)
    one.update(rows, batch=batch, tokens=0)
    before = {name: tensor.clone() for name, tensor in {**one.weights(), **one.optimizer_state()}.items()}
    record = one.update(rows._replace(scored=np.zeros_like(rows.scored)), batch=batch, tokens=0)
    after = {**one.weights(), **one.optimizer_state()}
    assert (record.sets, record.gradient_norm) == ({}, 0.0)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_empty_slots_are_left_out(spec: Make, corpus: Corpus) -> None:
    starved = spec(treatment=RepeatedSubset(fraction="1/2", passes=2, slots="empty"), batch_size=8)
    schedule = open_schedule(starved, corpus=corpus)
    rows = compose(schedule.batch(0), corpus.sets)
    record = updater(starved).update(rows, batch=schedule.batch(0), tokens=0)
    assert list(record.sets) == ["train"]
    assert record.sets["train"][2] == rows.scored.sum() <= 4 * 16


@pytest.mark.parametrize("name", ["embedding.weight", "final_norm.bias"])
def test_what_is_not_finite_stops_before_the_update(eight: RunSpec, corpus: Corpus, name: str) -> None:
    batch, rows = uneven(corpus, eight)
    one = updater(eight)
    with torch.no_grad():
        one.optimizer.parameters[name][0] = float("nan")
    before = {key: tensor.clone() for key, tensor in one.model.state_dict().items()}
    with pytest.raises(TrainingDiverged, match=r"the loss of step 0 is nan at learning rate"):
        one.update(rows, batch=batch, tokens=0)
    assert all(
        torch.equal(
            before[key],
            t,
        )
        or key == name
        for key, t in one.model.state_dict().items()
    )


def test_dropout_is_keyed_by_the_step(spec: Make, corpus: Corpus) -> None:
    wet = spec(recipe={"dropout": 0.3})
    schedule = open_schedule(wet, corpus=corpus)
    rows = compose(schedule.batch(0), corpus.sets)

    def losses(step: int) -> Any:
        return updater(wet).update(rows, batch=schedule.batch(0)._replace(step=step), tokens=0).sets

    state = torch.get_rng_state()
    assert losses(0) == losses(0) != losses(1)
    assert torch.equal(state, torch.get_rng_state())
    assert losses(0) != updater(spec()).update(rows, batch=schedule.batch(0), tokens=0).sets


def test_a_micro_batch_that_would_change_the_result_is_refused(spec: Make) -> None:
    with pytest.raises(SpecError, match="micro_batch = 2 would change the masks of dropout"):
        check_micro_batch(2, spec=spec(recipe={"dropout": 0.1}))
    with pytest.raises(SpecError, match="micro_batch = 0"):
        check_micro_batch(0, spec=spec())
