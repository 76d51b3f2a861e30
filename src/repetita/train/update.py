"""One update of a model from the rows of one step, and what the step's record says about it."""

import math
import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repetita import seeds
from repetita.corpus.schedule import LANES, Batch
from repetita.errors import SpecError, TrainingDiverged
from repetita.journal.records import StepRecord
from repetita.model.loss import objective
from repetita.model.transformer import Transformer
from repetita.subject import Rows
from repetita.train.optimizer import Optimizer
from repetita.train.recipe import RunSpec


class Updater(NamedTuple):
    """What an update needs beside the rows: the spec, the model, its optimizer, and how to compute."""

    spec: RunSpec
    model: Transformer
    optimizer: Optimizer
    device: torch.device
    micro_batch: int | None

    def update(self, rows: Rows, *, batch: Batch, tokens: int) -> StepRecord:
        """One optimizer step on the mean loss over the scored tokens of `rows`; its record.

        Loss and hits by lane are those of the same forward pass, before the update. Rows are taken
        `micro_batch` at a time, gradients added up, so that the objective is that of the whole batch.
        A batch without scored tokens makes no update. Raises TrainingDiverged, the weights untouched,
        where loss or gradient is not finite.
        """
        began = time.perf_counter()
        learning_rate = self.spec.recipe.lr(batch.step)
        kept = rows.scored.any(axis=1)
        if not kept.all():
            rows = Rows(rows.tokens[kept], rows.targets[kept], rows.scored[kept])
        scored = rows.scored.sum(axis=1)
        gradient_norm, sets = 0.0, dict[str, list[float]]()
        if scored.size:
            self.optimizer.clear()
            sums = self._accumulate(rows, scale=1.0 / float(scored.sum()), step=batch.step)
            gradient_norm = self.optimizer.clip()
            _must_be_finite(float(sums[0].sum()), gradient_norm, batch.step, learning_rate)
            self.optimizer.update(learning_rate=learning_rate)
            sets = _by_lane(batch.lane[kept], loss=sums[0], hits=sums[1], scored=scored)
        seconds = time.perf_counter() - began
        return StepRecord(batch.step, tokens, learning_rate, gradient_norm, sets, round(seconds, 6))

    def _accumulate(self, rows: Rows, *, scale: float, step: int) -> NDArray[np.float64]:
        """Adds the gradients of all rows; sum of loss and hits of each row, shape (2, rows)."""
        size = self.micro_batch or len(rows.tokens)
        dropout, generator = self.spec.recipe.dropout, None
        if dropout:
            # Keyed by the step, so that a resumed run draws the same masks.
            generator = torch.Generator(self.device)
            generator.manual_seed(seeds.key(self.spec.seed, f"dropout/{step}"))
        sums: list[Tensor] = []
        for start in range(0, len(rows.tokens), size):
            tokens, targets, scored = (
                torch.from_numpy(values[start : start + size]).to(self.device) for values in rows
            )
            part = objective(
                self.model.hidden(tokens, dropout=dropout, generator=generator),
                weight_VD=self.model.output_weight,
                targets_BL=targets,
                scored_BL=scored,
                scale=scale,
            )
            part.value.backward()  # type: ignore[no-untyped-call]
            sums.append(torch.stack((part.loss_BL.double().sum(1), part.hit_BL.double().sum(1))))
        return np.asarray(torch.cat(sums, dim=1).cpu().numpy(), dtype=np.float64)


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


def _by_lane(
    lane: NDArray[np.int8],
    *,
    loss: NDArray[np.float64],
    hits: NDArray[np.float64],
    scored: NDArray[np.int64],
) -> dict[str, list[float]]:
    loss_sum, n_hits, n = (
        np.bincount(lane, weights=values, minlength=len(LANES)).tolist() for values in (loss, hits, scored)
    )
    return {
        name: [loss_sum[place], int(n_hits[place]), int(n[place])]
        for place, name in enumerate(LANES)
        if n[place]
    }


def _must_be_finite(loss: float, gradient_norm: float, step: int, learning_rate: float) -> None:
    for name, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the {name} of step {step} is {value} at learning rate {learning_rate:.3g}; lower "
                f"learning_rate, lengthen warmup_steps or set clip"
            )
