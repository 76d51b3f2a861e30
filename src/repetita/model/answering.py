"""What any model answers that makes states and logits: scores, likelihoods and continuations, batch by batch.

Shapes: B rows of a batch, L tokens of a row, N scored tokens of a batch, C tokens of one chunk, D width of
the model, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repetita.errors import NotApplicable, SpecError
from repetita.model import writing
from repetita.model.distribution import check_sampling, described, sampled_log_probs
from repetita.model.loss import chunk_tokens, scored_in_chunks
from repetita.model.memory import Batches
from repetita.subject import FULL, Floats, Moments, Rows, Sampling, Scores, Tokens

Question = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""From the states of scored tokens (N D) and their targets (N) to one value a token (N), or several."""


class Readout(ABC):
    """A model as its states, and the logits of as many of them as are asked for."""

    @property
    @abstractmethod
    def mask_id(self) -> int | None:
        """See `Subject.mask_id`."""

    @property
    @abstractmethod
    def context(self) -> int | None:
        """The most tokens that the model reads at once; None where it sets no limit."""

    @property
    @abstractmethod
    def n_ids(self) -> int:
        """The width V of the logits."""

    @property
    def n_readable(self) -> int | None:
        """Ids that the model reads are below it; None where that is not known apart."""
        return None

    @abstractmethod
    def states(self, tokens_BL: Tensor, /, *, at_N: Tensor) -> Tensor:
        """What logits are made from, at some of the flattened positions (N D)."""

    @abstractmethod
    def logits(self, states_CD: Tensor, /) -> Tensor:
        """Logits in float32 (C V), in memory that may be written over."""

    def chunks(self, states_ND: Tensor, /) -> Iterator[slice]:
        """States in chunks whose logits are held at once."""
        size = chunk_tokens(self.n_ids, device=states_ND.device.type)
        return (slice(start, start + size) for start in range(0, len(states_ND), size))

    def likeliest(self, states_ND: Tensor, /) -> Tensor:
        """The most likely id of each state, ties to the lowest (N)."""
        return torch.cat([self.logits(states_ND[part]).argmax(dim=1) for part in self.chunks(states_ND)])

    @property
    def spares(self) -> bool:
        """See `writing.Reads`; here everything is read again for each token."""
        return False

    def read_on(self, tokens_BK: Tensor, /, *, kept: Any = None, last: int = 1) -> tuple[Tensor, Any]:
        """See `writing.Reads`; what is kept are the tokens themselves."""
        tokens_BL = tokens_BK if kept is None else torch.cat((kept, tokens_BK), dim=1)
        B, L = tokens_BL.shape
        at_BK = torch.arange(B * L, device=tokens_BL.device).view(B, L)[:, -last:]
        likely_N = self.likeliest(self.states(tokens_BL, at_N=at_BK.flatten()))
        return likely_N.view(B, last).to(tokens_BL.device), tokens_BL

    def of_rows(self, kept: Any, on_B: Tensor, /) -> Any:
        """See `writing.Reads`."""
        return kept[on_B]


class Answering:
    """A model in memory as a Subject; logits are made a chunk of tokens at a time and are never all there.

    Asking it leaves weights, gradients and generators as they are.
    """

    def __init__(self, readout: Readout, /, *, batches: Batches) -> None:
        self.readout, self.batches = readout, batches

    @property
    def device(self) -> torch.device:
        """Where tokens are put."""
        return self.batches.device

    @property
    def mask_id(self) -> int | None:
        """See `Subject.mask_id`."""
        return self.readout.mask_id

    @torch.no_grad()
    def score(self, rows: Rows) -> Scores:
        """Teacher-forced loss and top-1 hit at every scored position; see `Subject.score`."""
        return Scores(*self._ask(rows, partial(self._score, predict=False), (np.float32, np.bool_)))

    @torch.no_grad()
    def predict(self, rows: Rows) -> Scores:
        """As `score`, with the most likely token; see `Predicting.predict`."""
        kinds = (np.float32, np.bool_, np.int64)
        return Scores(*self._ask(rows, partial(self._score, predict=True), kinds))

    @torch.no_grad()
    def log_probs(self, rows: Rows, /, *, sampling: Sampling = FULL) -> Floats:
        """Log probability of each scored target under `sampling`; see `Weighing.log_probs`.

        Raises SpecError for a sampling that draws nothing.
        """
        check_sampling(sampling)

        def question(states_ND: Tensor, targets_N: Tensor) -> tuple[Tensor]:
            own = [
                sampled_log_probs(
                    self.readout.logits(states_ND[part]), target_C=targets_N[part], sampling=sampling
                )
                for part in self.readout.chunks(states_ND)
            ]
            return (torch.cat(own),)

        return self._ask(rows, question, (np.float32,))[0]

    @torch.no_grad()
    def moments(self, rows: Rows, /) -> Moments:
        """How likely each scored target is beside the model's own tokens; see `Describing.moments`."""

        def question(states_ND: Tensor, targets_N: Tensor) -> tuple[Tensor, ...]:
            each = [
                described(self.readout.logits(states_ND[part]), target_C=targets_N[part])
                for part in self.readout.chunks(states_ND)
            ]
            return tuple(map(torch.cat, zip(*each, strict=True)))

        return Moments(*self._ask(rows, question, (np.float32, np.float32, np.float32)))

    @torch.no_grad()
    def margins(self, rows: Rows, /) -> Floats:
        """How far the most likely token is before the next one; see `Deciding.margins`."""

        def question(states_ND: Tensor, targets_N: Tensor) -> tuple[Tensor]:
            del targets_N
            best = [
                self.readout.logits(states_ND[part]).topk(2, dim=1).values
                for part in self.readout.chunks(states_ND)
            ]
            two_N2 = torch.cat(best)
            return (two_N2[:, 0] - two_N2[:, 1],)

        return self._ask(rows, question, (np.float32,))[0]

    @torch.no_grad()
    def continue_(self, prompts: Tokens, /, *, n_tokens: int, guess: Tokens | None = None) -> Tokens:
        """What greedy decoding writes behind each prompt; see `Continuing.continue_`.

        Raises NotApplicable for a masked model, SpecError for empty prompts and for more tokens than the
        model's context holds.
        """
        if self.mask_id is not None:
            raise NotApplicable("not applicable: a masked model does not write on")
        n, length = prompts.shape
        if not length:
            raise SpecError("the prompts are empty; give each one token or more, such as the start token")
        if n_tokens < 1:
            raise SpecError(f"n_tokens = {n_tokens} asks for nothing; give 1 or more")
        n_read = length + n_tokens - 1  # The last token is written and never read.
        context = self.readout.context
        if context is not None and n_read > context:
            raise SpecError(
                f"{n_tokens} tokens behind a prompt of {length} are more than the model's context of "
                f"{context}; give shorter prompts or ask for fewer tokens"
            )
        check_ids(self.readout, tokens=prompts)
        written = np.zeros((n, n_tokens), dtype=np.int64)

        def write(part: slice) -> None:
            there_BT = None if guess is None else self._there(guess[part])
            found_BT = writing.write(
                self.readout, self._there(prompts[part]), n_tokens=n_tokens, guess_BT=there_BT
            )
            written[part] = found_BT.cpu().numpy()

        # At once are read a prompt, or what is guessed behind it; all of it where nothing is kept.
        at_once = max(length, n_tokens) if self.readout.spares else n_read
        self.batches.each(n, length=at_once, work=write)
        return written

    def _score(self, states_ND: Tensor, targets_N: Tensor, *, predict: bool) -> tuple[Tensor, ...]:
        size = chunk_tokens(self.readout.n_ids, device=states_ND.device.type)
        logits = self.readout.logits
        scores = scored_in_chunks(states_ND, logits=logits, targets_N=targets_N, size=size, predict=predict)
        return tuple(values_N for values_N in scores if values_N is not None)

    def _ask(self, rows: Rows, question: Question, kinds: Sequence[type]) -> tuple[NDArray[Any], ...]:
        """The answers at scored positions, one array (B, L) of each of the kinds, 0 elsewhere."""
        n, length = rows.tokens.shape
        context = self.readout.context
        if context is not None and length > context:
            raise SpecError(
                f"rows of {length} tokens are longer than the model's context of {context}; cut the text "
                f"into windows of {context} or fewer"
            )
        check_ids(self.readout, tokens=rows.tokens, targets=rows.targets[rows.scored])
        found: tuple[NDArray[Any], ...] = tuple(np.zeros((n, length), dtype=kind) for kind in kinds)

        def answer(part: slice) -> None:
            scored_BL = torch.tensor(rows.scored[part])
            at_N = scored_BL.flatten().nonzero()[:, 0].to(self.device)
            if not len(at_N):
                return
            states_ND = self.readout.states(self._there(rows.tokens[part]), at_N=at_N)
            targets_N = self._there(rows.targets[part]).flatten()[at_N]
            for values, answer_N in zip(found, question(states_ND, targets_N), strict=True):
                values[part][rows.scored[part]] = answer_N.cpu().numpy()

        self.batches.each(n, length=length, work=answer)
        return found

    def _there(self, values: NDArray[np.int64]) -> Tensor:
        return torch.tensor(values, device=self.device)


def check_ids(readout: Readout, /, *, tokens: Tokens, targets: Tokens | None = None) -> None:
    """Raises SpecError for an id that the model cannot read, or that it has no logit of."""
    asked = (
        (tokens, readout.n_readable, "embedding has"),
        (targets, readout.n_ids, "logits have"),
    )
    for ids, most, what in asked:
        found = -1 if ids is None else int(ids.max(initial=-1))
        if most is not None and found >= most:
            raise SpecError(
                f"token id {found} is outside the {most} that the model's {what}; its tokenizer has more "
                f"ids, so give the one that it was trained with"
            )
