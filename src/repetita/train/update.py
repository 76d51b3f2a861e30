"""One update of a model from the rows of one step, and what the step's record says about it."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from repetita import seeds
from repetita.corpus.masking import KINDS, training_masks
from repetita.corpus.schedule import LANES, Batch
from repetita.errors import SpecError, TrainingDiverged
from repetita.journal.records import StepRecord
from repetita.model.adopted import Adopted
from repetita.model.loss import Objective
from repetita.model.transformer import Transformer
from repetita.subject import Rows
from repetita.train.optimizer import Optimizer
from repetita.train.recipe import RunSpec

Floats = NDArray[np.float64]


class Updater(NamedTuple):
    """What an update needs beside the rows: the spec, the model, its optimizer, and how to compute."""

    spec: RunSpec
    model: Transformer | Adopted
    optimizer: Optimizer
    device: torch.device
    micro_batch: int | None

    def update(self, rows: Rows, *, batch: Batch, tokens: int) -> StepRecord:
        """One optimizer step on the mean loss over the scored tokens of `rows`; its record.

        Loss and hits by lane are those of the same forward pass, before the update. A masked model scores
        what is masked at this step, and the record also has the sums by kind of corruption. Rows are taken
        `micro_batch` at a time, gradients added up, so that the objective is that of the whole batch.
        A batch without scored tokens makes no update. Raises TrainingDiverged, the weights untouched,
        where loss or gradient is not finite.
        """
        began = time.perf_counter()
        learning_rate = self.spec.recipe.lr(batch.step)
        kind = None
        if self.model.mask_id is not None:
            vocab_size, seed = self.spec.model.vocab_size, self.spec.seed
            rows, kind = training_masks(rows, vocab_size=vocab_size, seed=seed, step=batch.step)
        lane = np.repeat(batch.lane, rows.scored.sum(axis=1))
        shown = None if kind is None else kind[rows.scored]
        kept = rows.scored.any(axis=1)
        gradient_norm, sets, corruption = 0.0, dict[str, list[float]](), dict[str, list[float]]()
        if len(lane):
            self.optimizer.clear()
            if not kept.all():
                rows = Rows(rows.tokens[kept], rows.targets[kept], rows.scored[kept])
            loss, hits = self._accumulate(rows, scale=1.0 / len(lane), step=batch.step)
            gradient_norm = self.optimizer.clip()
            _must_be_finite(float(loss.sum()), gradient_norm, batch.step, learning_rate)
            self.optimizer.update(learning_rate=learning_rate)
            sets = _sums(lane, names=LANES, loss=loss, hits=hits)
            if shown is not None:
                corruption = _sums(shown, names=KINDS, loss=loss, hits=hits)
        seconds = round(time.perf_counter() - began, 6)
        return StepRecord(batch.step, tokens, learning_rate, gradient_norm, sets, seconds, corruption)

    def _accumulate(self, rows: Rows, *, scale: float, step: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Adds the gradients of all rows; loss and hit of each scored token, row by row."""
        size = self.micro_batch or len(rows.tokens)
        dropout, generator = self.spec.recipe.dropout, None
        if dropout:
            # Keyed by the step, so that a resumed run draws the same masks.
            generator = torch.Generator(self.device)
            generator.manual_seed(seeds.key(self.spec.seed, f"dropout/{step}"))
        parts: list[Objective] = []
        for start in range(0, len(rows.tokens), size):
            tokens, targets, scored = (values[start : start + size] for values in rows)
            at_N = torch.from_numpy(np.flatnonzero(scored)).to(self.device)
            part = self.model.objective(
                self.model.states(
                    torch.from_numpy(tokens).to(self.device), at_N=at_N, dropout=dropout, generator=generator
                ),
                targets_N=torch.from_numpy(targets[scored]).to(self.device),
                scale=scale,
            )
            part.value.backward()  # type: ignore[no-untyped-call]
            parts.append(part)
        loss, hits = (torch.cat([part[place] for part in parts]).cpu().numpy() for place in (1, 2))
        return loss.astype(np.float64), hits


def check_micro_batch(micro_batch: int | None, *, spec: RunSpec) -> None:
    """Raises SpecError for a micro-batch that is none, or that would change the masks of dropout."""
    if micro_batch is None:
        return
    if micro_batch < 1:
        raise SpecError(f"micro_batch = {micro_batch} is no number of sequences; give 1 or more")
    if spec.recipe.dropout:
        raise SpecError(
            f"micro_batch = {micro_batch} would change the masks of dropout {spec.recipe.dropout}, and so "
            f"the result; leave one of them out"
        )


def _sums(
    code: NDArray[np.int8], *, names: Sequence[str], loss: Floats, hits: NDArray[np.bool_]
) -> dict[str, list[float]]:
    """Loss, hits and number of the tokens of each code that there is."""
    n = np.bincount(code, minlength=len(names)).tolist()
    loss_sum = np.bincount(code, weights=loss, minlength=len(names)).tolist()
    n_hits = np.bincount(code[hits], minlength=len(names)).tolist()
    return {name: [loss_sum[i], n_hits[i], n[i]] for i, name in enumerate(names) if n[i]}


def _must_be_finite(loss: float, gradient_norm: float, step: int, learning_rate: float) -> None:
    for name, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the {name} of step {step} is {value} at learning rate {learning_rate:.3g}; lower "
                f"learning_rate, lengthen warmup_steps or set clip"
            )
