"""A model made to answer as a Subject, in the middle of its training or from a checkpoint of a run."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from repetita.errors import NotApplicable, RunFolderError
from repetita.model import circuits
from repetita.model.adopted import Adopted, AdoptedSubject, adopted_again
from repetita.model.answering import Answering, Readout
from repetita.model.checkpoint import checkpoint_path, load, steps_on_disk
from repetita.model.memory import Batches
from repetita.model.pretrained_spec import PretrainedModel
from repetita.model.products import product
from repetita.model.transformer import Transformer
from repetita.subject import Floats, Pattern, Patterns, Tokens


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


class Own(Readout):
    """Any `Model` as its states and logits."""

    def __init__(self, model: Model, /) -> None:
        self.model = model

    @property
    def mask_id(self) -> int | None:
        """See `Subject.mask_id`."""
        return self.model.mask_id

    @property
    def context(self) -> int | None:
        """That of our own transformer, with all its heads or not; another model knows by itself."""
        return self.model.config.context if isinstance(self.model, Transformer | circuits.Ablated) else None

    @property
    def n_ids(self) -> int:
        """The ids of the output matrix."""
        return len(self.model.output_weight)

    @property
    def n_readable(self) -> int | None:
        """The ids of our own transformer: its embedding and its output matrix have the same."""
        return None if self.context is None else self.n_ids

    def states(self, tokens_BL: Tensor, /, *, at_N: Tensor) -> Tensor:
        """The model's own (N D)."""
        return self.model.states(tokens_BL, at_N=at_N)

    def logits(self, states_CD: Tensor, /) -> Tensor:
        """The output matrix times each state (C V)."""
        return product(states_CD, self.model.output_weight)


@runtime_checkable
class Shown(Protocol):
    """A model that shows its attention."""

    def patterns(self, tokens_BL: Tensor, /) -> Iterator[Tensor]:
        """Attention patterns (B H L L) of one layer after the other."""
        ...


class LiveSubject(Answering):
    """A model in memory as a Subject; asking it leaves weights, gradients and generators as they are.

    Rows are scored `batch_rows` at a time (default: as many as make 2,048 tokens), always in the
    same way for the same rows, so that equal weights give equal bits.
    """

    def __init__(
        self, model: Model, *, device: torch.device | None = None, batch_rows: int | None = None
    ) -> None:
        super().__init__(Own(model), batches=Batches(device or torch.device("cpu"), rows=batch_rows))
        self.model = model

    @property
    def architecture(self) -> str:
        """The class of its model."""
        return type(self.model).__name__

    @torch.no_grad()
    def attend(self, tokens: Tokens, /) -> Iterator[Pattern]:
        """One layer's patterns after the other, for all rows at once; see `Attending.attend`."""
        if not isinstance(self.model, Shown):
            raise NotApplicable("not applicable: this model does not show its attention")
        for pattern_BHLL in self.model.patterns(self._there(tokens)):
            yield pattern_BHLL.cpu().numpy()

    @torch.no_grad()
    def attribute(self, tokens: Tokens, targets: Tokens) -> Floats:
        """What each head adds to the target's logit; see `Attributing.attribute`."""
        model = self._transformer()
        found = np.zeros((model.config.n_layer, model.config.n_head, *tokens.shape), dtype=np.float32)

        def add(part: slice) -> None:
            direct = circuits.direct(model, self._there(tokens[part]))
            for layer, added_BLH in enumerate(direct.to_targets(self._there(targets[part]))):
                found[layer, :, part] = added_BLH.permute(2, 0, 1).cpu().numpy()

        self.batches.each(len(tokens), length=tokens.shape[1], work=add)
        return found

    @torch.no_grad()
    def raises(self, tokens: Tokens, /) -> Iterator[Floats]:
        """What each head adds to the logits of a row's own tokens; see `Attributing.raises`."""
        tokens_BL = self._there(tokens)
        for added_BHLL in circuits.direct(self._transformer(), tokens_BL).to_tokens(tokens_BL):
            yield added_BHLL.cpu().numpy()

    @torch.no_grad()
    def ov_copying(self) -> Floats:
        """See `Circuits.ov_copying`."""
        return circuits.ov_copying(self._transformer()).numpy().astype(np.float32)

    @torch.no_grad()
    def k_composition(self) -> Floats:
        """See `Circuits.k_composition`."""
        return circuits.k_composition(self._transformer()).numpy().astype(np.float32)

    def without(self, heads: Iterable[tuple[int, int]], /, *, patterns: Patterns = "frozen") -> "LiveSubject":
        """See `Ablating.without`; takes up to four times as long to score."""
        model = circuits.Ablated(self._transformer(), heads=heads, patterns=patterns)
        ablated = LiveSubject(model, device=self.device)
        ablated.batches = Batches(self.device, rows=self.batches.rows, tokens=self.batches.tokens)
        return ablated

    def _transformer(self) -> Transformer:
        if not isinstance(self.model, Transformer):
            raise NotApplicable("not applicable: single heads are looked into in our own transformer only")
        return self.model


RunSubject = LiveSubject | AdoptedSubject
"""What a run can be asked by: a model of ours, or one of somebody else's that it began with."""


def subject_of(
    model: Model | Adopted, /, *, device: torch.device, batch_rows: int | None = None
) -> RunSubject:
    """A model that a run trains as a Subject, in the ids of the run's corpus."""
    if isinstance(model, Adopted):
        return AdoptedSubject(model, device=device, batch_rows=batch_rows)
    return LiveSubject(model, device=device, batch_rows=batch_rows)


def checkpoint_subject(run: Path, *, step: int, device: torch.device | None = None) -> RunSubject:
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
    place = device or torch.device("cpu")
    if isinstance(checkpoint.config, PretrainedModel):
        again = adopted_again(checkpoint.config, run=run, weights=checkpoint.model, device=str(place))
        return AdoptedSubject(again, device=place)
    model = Transformer.holding(checkpoint.config, weights=checkpoint.model)
    return LiveSubject(model.to(place), device=place)
