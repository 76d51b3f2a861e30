"""The schedule in other trainers' hands: every slot once and in order, however it is dealt out."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from repetita.corpus.document_ids import DocumentIds
from repetita.corpus.masking import training_masks
from repetita.corpus.sequences import Corpus, compose
from repetita.corpus.treatment import RepeatedSubset, SpecialBatch, Stream
from repetita.errors import SpecError
from repetita.train.dataset import IGNORED, Labels, ScheduledRows, StepBatches
from repetita.train.recipe import RunSpec, open_ids, open_schedule
from tests.train.conftest import MODEL, Make

PLACES: tuple[Labels, Labels] = ("in_place", "next")
TREATMENTS = [
    RepeatedSubset(fraction="1/2", passes=2),
    RepeatedSubset(fraction="1/2", passes=2, slots="empty"),
    SpecialBatch(base=Stream(), size=4, at=6, n_batches=2),
]


def rows_of(spec: RunSpec, corpus: Corpus, step: int) -> Any:
    schedule = open_schedule(spec, corpus=corpus)
    return compose(schedule.batch(step), corpus.sets, ids=open_ids(spec, corpus=corpus, schedule=schedule))


@pytest.mark.parametrize("treatment", TREATMENTS, ids=["repeated", "starved", "special"])
def test_next_labels_are_what_our_loop_reads(spec: Make, corpus: Corpus, treatment: Any) -> None:
    run = spec(treatment=treatment)
    rows = ScheduledRows(run, corpus=corpus, labels="next")
    assert len(rows) == 12 * 4
    for step in (11, 0, 6, 5):
        ours = rows_of(run, corpus, step)
        items = rows.__getitems__(range(step * 4, step * 4 + 4))
        assert torch.equal(torch.stack([item["input_ids"] for item in items]), torch.tensor(ours.tokens))
        labels = np.where(ours.scored, ours.targets, IGNORED)
        assert torch.equal(torch.stack([item["labels"] for item in items]), torch.tensor(labels))
        assert rows.n_scored(step).tolist() == ours.scored.sum(axis=1).tolist()


def test_labels_in_place_are_shifted_by_models_to_the_same(spec: Make, corpus: Corpus) -> None:
    place, after = (ScheduledRows(spec(), corpus=corpus, labels=labels) for labels in PLACES)
    for slot in (0, 7, 47):
        one, other = place[slot], after[slot]
        assert len(one["input_ids"]) == 17 and len(other["input_ids"]) == 16
        assert torch.equal(one["input_ids"][:-1], other["input_ids"])
        assert torch.equal(one["labels"][1:], other["labels"]) and one["labels"][0] == IGNORED
        kept = one["labels"] != IGNORED
        assert torch.equal(one["labels"][kept], one["input_ids"][kept]), "a label stands at its own token"


def test_masks_are_those_of_the_step(spec: Make, corpus: Corpus) -> None:
    run = spec(model=MODEL.edit(objective="masked"))
    rows = ScheduledRows(run, corpus=corpus)
    for step in (0, 3):
        ours = training_masks(rows_of(run, corpus, step), vocab_size=257, seed=run.seed, step=step).rows
        for slot in range(4):
            item = rows[step * 4 + slot]
            assert torch.equal(item["input_ids"], torch.tensor(ours.tokens[slot]))
            assert (item["labels"] != IGNORED).tolist() == ours.scored[slot].tolist()
            assert item["attention_mask"].all()
    with pytest.raises(SpecError, match="labels = 'next' has no effect on a masked model"):
        ScheduledRows(run, corpus=corpus, labels="next")


def test_padding_is_left_out_of_a_masked_models_sight(spec: Make, corpus: Corpus) -> None:
    run = spec(model=MODEL.edit(objective="masked"), treatment=TREATMENTS[1])
    rows = ScheduledRows(run, corpus=corpus)
    masks = torch.stack([rows[slot]["attention_mask"] for slot in range(len(rows))])
    # An empty slot keeps one token: a row without any would have nothing to read.
    assert sorted(set(masks.sum(dim=1).tolist())) == [1, 16]
    assert masks[:, 0].all()


def test_document_ids_stand_before_the_rows(spec: Make, corpus: Corpus) -> None:
    model = MODEL.edit(vocab_size=257 + 200, context=16 + 13)
    run = spec(model=model, document_ids=DocumentIds())
    items = ScheduledRows(run, corpus=corpus, labels="next").__getitems__([0, 1, 2, 3])
    ours = rows_of(run, corpus, 0)
    assert np.array_equal(np.stack([item["input_ids"] for item in items]), ours.tokens)
    assert ours.tokens.shape[1] == 29


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, None), (1, 2), (2, None), (2, 1), (4, 1)])
def test_every_slot_comes_once_whoever_reads_it(
    spec: Make, corpus: Corpus, world_size: int, micro_batch: int | None
) -> None:
    rows = ScheduledRows(spec(), corpus=corpus)
    dealt: dict[int, list[int]] = {}
    for rank in range(world_size):
        batches = StepBatches(rows, start=5, rank=rank, world_size=world_size, micro_batch=micro_batch)
        listed = list(batches)
        assert len(batches) == len(listed)
        updates = len(listed) // 7
        for at, slots in enumerate(listed):
            assert len(slots) == (micro_batch or 4 // world_size)
            dealt.setdefault(5 + at // updates, []).extend(slots)
    assert {step: sorted(slots) for step, slots in dealt.items()} == {
        step: list(range(step * 4, step * 4 + 4)) for step in range(5, 12)
    }


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_loader_of_torch_gives_the_steps_in_order(spec: Make, corpus: Corpus, n_workers: int) -> None:
    run = spec()
    rows = ScheduledRows(run, corpus=corpus, labels="next")
    loader = DataLoader(rows, batch_sampler=StepBatches(rows, start=3), num_workers=n_workers)
    steps = list(loader)
    assert len(steps) == 9
    for step, batch in enumerate(steps, start=3):
        assert torch.equal(batch["input_ids"], torch.tensor(rows_of(run, corpus, step).tokens))


def test_what_cannot_be_dealt_out_is_said_in_one_sentence(spec: Make, corpus: Corpus) -> None:
    rows = ScheduledRows(spec(), corpus=corpus)
    for given, said in (
        ({"world_size": 3}, "4 sequences is not dealt out evenly to 3 processes"),
        ({"micro_batch": 3}, "in batches of 3"),
        ({"micro_batch": 0}, "in batches of 0"),
        ({"world_size": 0}, "rank = 0 is none of 0 processes"),
        ({"rank": 1}, "rank = 1 is none of 1 processes"),
        ({"start": 13}, "start = 13 is outside the run of 12 steps"),
    ):
        with pytest.raises(SpecError, match=said):
            StepBatches(rows, **given)
    with pytest.raises(SpecError, match="labels = 'shifted' is no place"):
        ScheduledRows(spec(), corpus=corpus, labels="shifted")  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        rows[48]
