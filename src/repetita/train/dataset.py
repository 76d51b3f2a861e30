"""The schedule as a map-style dataset and a batch sampler, for trainers that are not ours.

Shapes: B slots of a step, L tokens of a sequence.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from repetita.corpus.masking import training_masks
from repetita.corpus.sequences import Corpus, compose
from repetita.errors import SpecError
from repetita.subject import Mask, Rows
from repetita.train.recipe import RunSpec, open_ids, open_schedule

IGNORED = -100
"""The label of what is not scored (torch's `ignore_index`)."""

KEPT = 4
"""Steps that stay composed."""

Labels = Literal["in_place", "next"]
Item = dict[str, Tensor]


class _Step(NamedTuple):
    """What one step reads, as a model reads it, and which tokens are text (B L)."""

    rows: Rows
    text: Mask


class ScheduledRows(Dataset[Item]):
    """The slots of a run in their order: item g is slot g mod B of step g // B, whoever asks for it.

    A map-style dataset: read in order, B items an update, it gives every update what it would read here, on
    any number of processes and from any step on. An item has `input_ids` and `labels`, which are -100 where
    nothing is scored.

    `labels` of a causal model: `in_place`, as models of transformers want them, which shift them: the label
    of a token stands at the token, so that an item is the start token and L tokens, and the model must read
    L + 1; `next`: what follows `input_ids[i]` stands at i, and both have L. A masked model's are always in
    place, at the masked tokens, and an item has an `attention_mask` that leaves padding out.

    Ids are those of this package: 0 is the start token, the separator and (at the end of a row) the padding;
    the mask is the last one, `spec.model.vocab_size`.
    """

    def __init__(self, spec: RunSpec, *, corpus: Corpus, labels: Labels = "in_place") -> None:
        if labels not in ("in_place", "next"):
            raise SpecError(f"labels = '{labels}' is no place for them; valid: in_place, next")
        self._masked = spec.model.objective == "masked"
        if self._masked and labels != "in_place":
            raise SpecError("labels = 'next' has no effect on a masked model; leave it out")
        self.spec, self.labels = spec, labels
        self.schedule = open_schedule(spec, corpus=corpus)
        self._sets = corpus.sets
        self._ids = open_ids(spec, corpus=corpus, schedule=self.schedule)
        self._newest: dict[int, _Step] = {}

    def __len__(self) -> int:
        return self.spec.steps * self.spec.batch_size

    def __getitem__(self, slot: int) -> Item:
        """One slot; IndexError outside the run."""
        return self.__getitems__([slot])[0]

    def __getitems__(self, slots: Sequence[int]) -> list[Item]:
        """Several slots at once: a step is composed once for all of them."""
        return [self._item(*divmod(int(slot), self.spec.batch_size)) for slot in slots]

    def _item(self, step: int, slot: int) -> Item:
        rows, text = self._at(step)
        scored = rows.scored[slot]
        labels = np.where(scored, rows.targets[slot], IGNORED)
        tokens = rows.tokens[slot]
        if self._masked:
            return {
                "input_ids": torch.from_numpy(tokens.copy()),
                "labels": torch.from_numpy(labels),
                "attention_mask": torch.from_numpy(text[slot].astype(np.int64)),
            }
        if self.labels == "in_place":
            tokens = np.append(tokens, rows.targets[slot, -1])
            labels = np.append(IGNORED, labels)
        return {"input_ids": torch.tensor(tokens), "labels": torch.from_numpy(labels)}

    def n_scored(self, step: int) -> NDArray[np.int64]:
        """Scored tokens of each slot of a step, shape (B,)."""
        n: NDArray[np.int64] = self._at(step).rows.scored.sum(axis=1)
        return n

    def _at(self, step: int) -> _Step:
        """The step, composed once while it is one of the newest: trainers read a little ahead."""
        if step not in self._newest:
            if len(self._newest) == KEPT:
                del self._newest[next(iter(self._newest))]
            self._newest[step] = self._read(step)
        return self._newest[step]

    def _read(self, step: int) -> _Step:
        rows = compose(self.schedule.batch(step), self._sets, ids=self._ids)
        text = np.flip(np.logical_or.accumulate(np.flip(rows.targets != 0, 1), axis=1), 1)
        if self._masked:
            vocab_size, seed = self.spec.model.vocab_size, self.spec.seed
            rows = training_masks(rows, vocab_size=vocab_size, seed=seed, step=step).rows
            text[:, 0] = True  # A row without text would have nothing to read.
        return _Step(rows, text)


class StepBatches(Sampler[list[int]]):
    """The slots of one step after the other, as lists, for `DataLoader(rows, batch_sampler=...)`.

    Each of `world_size` processes takes its own stretch of a step, `micro_batch` slots at a time (default:
    all of them), from step `start` on. Raises SpecError where a step cannot be dealt out evenly.
    """

    def __init__(
        self,
        rows: ScheduledRows,
        *,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int | None = None,
    ) -> None:
        size = rows.spec.batch_size
        if not 0 <= rank < world_size:
            raise SpecError(f"rank = {rank} is none of {world_size} processes; give 0 to {world_size - 1}")
        self._start, self._rank, self._size = start, rank, size
        self._own = size // world_size
        self._micro_batch = self._own if micro_batch is None else micro_batch
        self._steps = rows.spec.steps
        if not 0 <= start <= rows.spec.steps:
            raise SpecError(f"start = {start} is outside the run of {rows.spec.steps} steps")
        if size % world_size or self._micro_batch < 1 or self._own % self._micro_batch:
            raise SpecError(
                f"a step of {size} sequences is not dealt out evenly to {world_size} processes in batches of "
                f"{self._micro_batch}; choose numbers whose product divides it"
            )

    def __len__(self) -> int:
        """Batches that are left for this process."""
        return (self._steps - self._start) * (self._own // self._micro_batch)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._start, self._steps):
            first = step * self._size + self._rank * self._own
            for at in range(first, first + self._own, self._micro_batch):
                yield list(range(at, at + self._micro_batch))
