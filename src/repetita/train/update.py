"""One update of a model from the rows of one step, and what the step's record says about it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repetita import seeds
from repetita.corpus.masking import KINDS, training_masks
from repetita.corpus.schedule import LANES, Batch
from repetita.errors import SpecError, TrainingDiverged
from repetita.journal.records import StepRecord
from repetita.model.acceleration import Dtype, accelerate, dtype_of, precision
from repetita.model.adopted import Adopted, adopt
from repetita.model.device import Device
from repetita.model.live import RunSubject, subject_of
from repetita.model.loss import Objective
from repetita.model.pretrained_spec import PretrainedModel
from repetita.model.transformer import Transformer
from repetita.subject import Rows
from repetita.train.optimizer import Optimizer
from repetita.train.options import Options
from repetita.train.recipe import RunSpec
from repetita.train.sharded import ShardedOptimizer
from repetita.train.stopping import STOPS

Floats = NDArray[np.float64]


class Shares(Protocol):
    """How an update is shared among processes; `ranks.Team` is one."""

    stop: str | None

    @property
    def world(self) -> int:
        """How many processes there are."""
        ...

    def share(self, n: int, /) -> slice:
        """This process's part of n things."""
        ...

    def total(self, values: Floats, /) -> Floats:
        """The sum over all processes, in each of them."""
        ...


@dataclass(frozen=True)
class Updater:
    """What an update needs beside the rows: the spec, the model, its optimizer, and how to compute."""

    spec: RunSpec
    model: Transformer | Adopted
    optimizer: Optimizer | ShardedOptimizer
    device: torch.device
    micro_batch: int | None
    dtype: Dtype = "float32"
    compute: Callable[..., Objective] | None = None
    """`objective_of` the model as torch distributes it; None for one process."""
    team: Shares | None = None
    """The processes that share each update; None for this one alone."""

    def update(self, rows: Rows, *, batch: Batch, tokens: int) -> StepRecord:
        """One optimizer step on the mean loss over the scored tokens of `rows`; its record.

        Loss and hits by lane are those of the same forward pass, before the update. A masked model scores
        what is masked at this step, and the record also has the sums by kind of corruption. Rows are taken
        `micro_batch` at a time, gradients added up, so that the objective is that of the whole batch.
        A batch without scored tokens makes no update. Raises TrainingDiverged, the weights untouched,
        where loss or gradient is not finite. Of several processes each takes its share of the rows and all
        return the same record.
        """
        began = time.perf_counter()
        learning_rate = self.spec.recipe.lr(batch.step)
        kind = None
        if self.model.mask_id is not None:
            vocab_size, seed = self.spec.model.vocab_size, self.spec.seed
            rows, kind = training_masks(rows, vocab_size=vocab_size, seed=seed, step=batch.step)
        n, lane, kept = int(rows.scored.sum()), batch.lane, rows.scored.any(axis=1)
        gradient_norm, sets, corruption = 0.0, dict[str, list[float]](), dict[str, list[float]]()
        if n:
            self.optimizer.clear()
            if not kept.all():
                rows, lane = Rows(rows.tokens[kept], rows.targets[kept], rows.scored[kept]), lane[kept]
                kind = None if kind is None else kind[kept]
            share = self.team.share(len(lane)) if self.team else slice(None)
            own = Rows(rows.tokens[share], rows.targets[share], rows.scored[share])
            loss, hits = self._accumulate(own, of=rows, scale=self._world / n, step=batch.step)
            of_lane = np.repeat(lane[share], own.scored.sum(axis=1))
            shown = np.empty(0, np.int8) if kind is None else kind[share][own.scored]
            by_lane, by_kind = self._total(
                _counts(of_lane, len(LANES), loss, hits),
                _counts(shown, len(KINDS), loss[: len(shown)], hits[: len(shown)]),
            )
            gradient_norm = self.optimizer.clip()
            _must_be_finite(float(by_lane[:, 0].sum()), gradient_norm, batch.step, learning_rate)
            self.optimizer.update(learning_rate=learning_rate)
            sets, corruption = _named(LANES, by_lane), _named(KINDS, by_kind)
        seconds = round(time.perf_counter() - began, 6)
        return StepRecord(batch.step, tokens, learning_rate, gradient_norm, sets, seconds, corruption)

    def weights(self) -> Mapping[str, Tensor]:
        """The model's parameters by name: whole, and those that the next update changes."""
        return self.model.state_dict()

    def optimizer_state(self) -> Mapping[str, Tensor]:
        """The optimizer's state by name of parameter, likewise; see `Optimizer.parts`."""
        return self.optimizer.parts()

    def load(self, weights: Mapping[str, Tensor], *, optimizer: Mapping[str, Tensor] | None = None) -> None:
        """Takes back what `weights` gave and, with it, what `optimizer_state` gave."""
        if optimizer is not None:
            assert isinstance(self.optimizer, Optimizer)
            self.optimizer.load(optimizer)
        self.model.load_state_dict(weights)

    def subject(self) -> RunSubject:
        """The model as a Subject, for the moment."""
        return subject_of(self.model, device=self.device)

    @property
    def _world(self) -> float:
        """Processes over whose gradients torch takes the mean."""
        return float(self.team.world) if self.team else 1.0

    def _total(self, *counts: Floats) -> list[Floats]:
        """Counts over all processes, which also hear in this way that one of them was asked to stop."""
        if self.team is None:
            return list(counts)
        asked = [float(self.team.stop == name) for name in STOPS]
        total = self.team.total(np.concatenate([asked, *(part.ravel() for part in counts)]))
        for name, said in zip(STOPS, total, strict=False):
            self.team.stop = self.team.stop or (name if said else None)
        ends = np.cumsum([len(STOPS), *(part.size for part in counts)])
        parts = zip(counts, ends[:-1], ends[1:], strict=True)
        return [total[start:stop].reshape(part.shape) for part, start, stop in parts]

    def _accumulate(
        self, rows: Rows, *, of: Rows, scale: float, step: int
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Adds the gradients of all rows; loss and hit of each scored token, row by row.

        All processes make as many passes as the one with most rows `of` the batch: some way to distribute a
        model has them wait for each other in each. Without rows of its own a process reads one and scores
        nothing.
        """
        most = -(-len(of.tokens) // int(self._world))
        size = min(self.micro_batch or most, most)
        dropout, generator = self.spec.recipe.dropout, None
        if dropout:
            # Keyed by the step, so that a resumed run draws the same masks.
            generator = torch.Generator(self.device)
            generator.manual_seed(seeds.key(self.spec.seed, f"dropout/{step}"))
        compute = self.compute or partial(objective_of, self.model)
        parts: list[Objective] = []
        for start in range(0, most, size):
            tokens, targets, scored = (values[start : start + size] for values in rows)
            if not len(tokens):
                tokens, targets, scored = of.tokens[:1], of.targets[:1], np.zeros_like(of.scored[:1])
            with _reduced(compute, at_once=start + size >= most):
                with precision(self.dtype, device=self.device):
                    part = compute(
                        torch.from_numpy(tokens).to(self.device),
                        at_N=torch.from_numpy(np.flatnonzero(scored)).to(self.device),
                        targets_N=torch.from_numpy(targets[scored]).to(self.device),
                        scale=scale,
                        dropout=dropout,
                        generator=generator,
                    )
                part.value.backward()  # type: ignore[no-untyped-call]
            parts.append(part)
        loss, hits = (torch.cat([part[place] for part in parts]).cpu().numpy() for place in (1, 2))
        return loss.astype(np.float64), hits


def objective_of(
    model: Transformer | Adopted, tokens_BL: Tensor, /, *, targets_N: Tensor, scale: float, **read: Any
) -> Objective:
    """`scale` times the sum of a model's loss over some positions of rows; `read` as `states` takes it."""
    return model.objective(model.states(tokens_BL, **read), targets_N=targets_N, scale=scale)


def first_model(
    spec: RunSpec, *, place: Device, options: Options, whole: bool = True
) -> Transformer | Adopted:
    """The model of a run at its step 0, but for what a parent has taught it.

    One that is not to be `whole` on its device has no weights yet: they come when it is sharded. Raises
    SpecError for options that such a model cannot be trained with.
    """
    dtype_of(options.dtype)
    model: Transformer | Adopted
    if isinstance(spec.model, PretrainedModel):
        model = adopt(spec.model, device=str(place.torch_device), dropout=spec.recipe.dropout)
    else:
        model = Transformer(spec.model, seed=spec.seed if whole else None)
        model = model.to(place.torch_device) if whole else model
    _accelerate(model, spec=spec, options=options)
    return model


def _accelerate(model: Transformer | Adopted, *, spec: RunSpec, options: Options) -> None:
    """Compiles layers or computes activations again, as asked; SpecError where that cannot be."""
    if not (options.compiled or options.recompute):
        return
    if isinstance(model, Adopted):
        raise SpecError(
            "--compile and --checkpoint-activations are for this package's own transformer; leave them out "
            "for a model that somebody else trained"
        )
    if spec.recipe.dropout and options.recompute:
        raise SpecError(
            f"activations that are computed again would be dropped anew by dropout {spec.recipe.dropout}; "
            f"leave --checkpoint-activations out"
        )
    accelerate(model, compiled=options.compiled, recompute=options.recompute)


def _reduced(compute: Callable[..., Objective], *, at_once: bool) -> AbstractContextManager[None]:
    """Where gradients are averaged over processes, after the last pass of an update if that can be."""
    no_sync = None if at_once else getattr(compute, "no_sync", None)
    return nullcontext() if no_sync is None else no_sync()


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


def _counts(code: NDArray[np.int8], n_codes: int, loss: Floats, hits: NDArray[np.bool_]) -> Floats:
    """Loss, hits and number of the tokens of each code, shape (codes, 3)."""
    n_hits, n = np.bincount(code[hits], minlength=n_codes), np.bincount(code, minlength=n_codes)
    return np.stack([np.bincount(code, weights=loss, minlength=n_codes), n_hits, n], axis=1)


def _named(names: Sequence[str], counts: Floats) -> dict[str, list[float]]:
    """The counts of each code that there is."""
    return {
        name: [float(loss), int(n_hits), int(n)]
        for name, (loss, n_hits, n) in zip(names, counts, strict=True)
        if n
    }


def _must_be_finite(loss: float, gradient_norm: float, step: int, learning_rate: float) -> None:
    for name, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the {name} of step {step} is {value} at learning rate {learning_rate:.3g}; lower "
                f"learning_rate, lengthen warmup_steps or set clip"
            )
