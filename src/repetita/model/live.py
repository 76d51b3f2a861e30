"""A model made to answer as a Subject, in the middle of its training or from a checkpoint of a run."""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from repetita.errors import RunFolderError, SpecError
from repetita.model.checkpoint import checkpoint_path, load, steps_on_disk
from repetita.model.loss import scored_cross_entropy
from repetita.model.transformer import Transformer
from repetita.subject import Rows, Scores

BATCH_TOKENS = 2048
"""Tokens scored at once on a CPU: the states of a small model then stay in the caches."""


class Model(Protocol):
    """All that scoring asks of a model."""

    @property
    def output_weight(self) -> Tensor:
        """The output matrix (V D)."""
        ...

    @property
    def mask_id(self) -> int | None:
        """The id of the mask of a masked model, None for a causal one."""
        ...

    def states(self, tokens_BL: Tensor, /, *, at_N: Tensor) -> Tensor:
        """What the output matrix is applied to, at some of the flattened positions (N D)."""
        ...


class LiveSubject:
    """A model in memory as a Subject; asking it leaves weights, gradients and generators as they are.

    Rows are scored `batch_rows` at a time (default: as many as make 2,048 tokens), always in the
    same way for the same rows, so that equal weights give equal bits.
    """

    def __init__(
        self, model: Model, *, device: torch.device | None = None, batch_rows: int | None = None
    ) -> None:
        if batch_rows is not None and batch_rows < 1:
            raise SpecError(f"batch_rows = {batch_rows} scores nothing; give 1 or more")
        self.model = model
        self.device = device or torch.device("cpu")
        self.batch_rows = batch_rows

    @property
    def mask_id(self) -> int | None:
        """See `Subject.mask_id`."""
        return self.model.mask_id

    @torch.no_grad()
    def score(self, rows: Rows) -> Scores:
        """Teacher-forced loss and top-1 hit at every scored position; see `Subject.score`."""
        return self._ask(rows, predict=False)

    @torch.no_grad()
    def predict(self, rows: Rows) -> Scores:
        """As `score`, with the most likely token; see `Predicting.predict`."""
        return self._ask(rows, predict=True)

    def _ask(self, rows: Rows, *, predict: bool) -> Scores:
        n, length = rows.tokens.shape
        size = self.batch_rows or max(1, BATCH_TOKENS // length)
        loss_BL = torch.zeros(n, length)
        hit_BL = torch.zeros(n, length, dtype=torch.bool)
        predicted_BL = torch.zeros(n, length, dtype=torch.long) if predict else None
        for start in range(0, n, size):
            part = slice(start, start + size)
            scored_BL = torch.tensor(rows.scored[part])
            at_N = scored_BL.flatten().nonzero()[:, 0].to(self.device)
            if not len(at_N):
                continue
            tokens_BL = torch.tensor(rows.tokens[part], device=self.device)
            scores = scored_cross_entropy(
                self.model.states(tokens_BL, at_N=at_N),
                weight_VD=self.model.output_weight,
                targets_N=torch.tensor(rows.targets[part], device=self.device).flatten()[at_N],
                predict=predict,
            )
            loss_BL[part][scored_BL], hit_BL[part][scored_BL] = scores.loss_N.cpu(), scores.hit_N.cpu()
            if predicted_BL is not None and scores.predicted_N is not None:
                predicted_BL[part][scored_BL] = scores.predicted_N.cpu()
        predicted = None if predicted_BL is None else predicted_BL.numpy()
        return Scores(loss_BL.numpy(), hit_BL.numpy(), predicted)


def checkpoint_subject(run: Path, *, step: int, device: torch.device | None = None) -> LiveSubject:
    """The model of a run after `step` updates, from the checkpoint that was kept there.

    Raises RunFolderError where the run has none at this step and DamagedError where it does not verify.
    """
    if step not in steps_on_disk(run):
        kept = ", ".join(map(str, steps_on_disk(run)))
        if not kept:
            raise RunFolderError(
                f"{run} has no checkpoint; train it to its end, or delete the folder and train it again"
            )
        raise RunFolderError(
            f"{run}: no checkpoint of step {step} (kept: {kept}); ask for one of those steps"
        )
    checkpoint = load(checkpoint_path(run, step=step))
    model = Transformer(checkpoint.config, seed=0)
    model.load_state_dict(checkpoint.model)
    place = device or torch.device("cpu")
    return LiveSubject(model.to(place), device=place)
