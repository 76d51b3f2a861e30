"""Greedy decoding of a batch, faster where a guess at what will be written turns out to be right.

What is written never depends on the guess: a token of it stands only where the model writes it itself, as in
the verification of Leviathan et al. 2023 ("Fast inference from transformers via speculative decoding",
section 2), here without chance. The text that a model is asked for is such a guess.

Shapes: B rows, L tokens of a prompt, K tokens read on, T tokens to be written, of which F are written first
and R are the rest; W rows of which a guess is wrong.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

FIRST = 4
"""Tokens that are written one by one before the rest of a guess is read: most wrong guesses are found out by
then, and cost nothing."""


class Reads(Protocol):
    """A causal model that is read on and on."""

    @property
    def spares(self) -> bool:
        """Whether reading on, by one token or several, spares reading again what was read before."""
        ...

    def read_on(self, tokens_BK: Tensor, /, *, kept: Any = None, last: int = 1) -> tuple[Tensor, Any]:
        """The likeliest token behind each of the `last` ones of these (B last), ties to the lowest id, read
        behind what is `kept`; and what is kept then. The former may be changed by it."""
        ...

    def of_rows(self, kept: Any, on_B: Tensor, /) -> Any:
        """What is kept of these rows alone; the whole stays as it was."""
        ...


def write(reads: Reads, prompts_BL: Tensor, /, *, n_tokens: int, guess_BT: Tensor | None = None) -> Tensor:
    """What greedy decoding writes behind each prompt (B T), whatever the guess at it is.

    A guess is read at once; rows of which more than the last token is wrong are written token by token, all
    together. Where reading on spares anything, its first FIRST tokens are written beforehand.
    """
    if guess_BT is None:
        return _write_on(reads, *reads.read_on(prompts_BL), n_tokens=n_tokens)[0]
    if not reads.spares:
        return _mended(reads, prompts_BL, guess_BT)
    written_BF, kept = _write_on(reads, *reads.read_on(prompts_BL), n_tokens=min(FIRST, n_tokens))
    n_first = written_BF.shape[1]
    if n_first == n_tokens:
        return written_BF
    rest_BR = guess_BT[:, n_first:].clone()
    right_B = (written_BF == guess_BT[:, :n_first]).all(dim=1)
    if right_B.any():
        given = torch.cat((written_BF, rest_BR), dim=1)[right_B, n_first - 1 : -1]
        likely, _ = reads.read_on(given, kept=reads.of_rows(kept, right_B), last=given.shape[1])
        as_guessed = (likely == rest_BR[right_B])[:, :-1].all(dim=1)
        rest_BR[right_B] = likely
        right_B[right_B.clone()] = as_guessed
    if not right_B.all():
        last = written_BF[~right_B, -1:]
        behind, _ = _write_on(reads, last, reads.of_rows(kept, ~right_B), n_tokens=rest_BR.shape[1] + 1)
        rest_BR[~right_B] = behind[:, 1:]
    return torch.cat((written_BF, rest_BR), dim=1)


def _write_on(reads: Reads, likely_B1: Tensor, kept: Any, /, *, n_tokens: int) -> tuple[Tensor, Any]:
    """This token and those that follow it (B T), and what is kept; the last of them is not read."""
    written = [likely_B1]
    for _ in range(n_tokens - 1):
        likely_B1, kept = reads.read_on(likely_B1, kept=kept)
        written.append(likely_B1)
    return torch.cat(written, dim=1), kept


def _mended(reads: Reads, prompts_BL: Tensor, guess_BT: Tensor, /) -> Tensor:
    """What is written (B T) where every token is paid for by reading all that is before it: the guess is read
    whole, and rows that it is wrong of are written from the earliest wrong token of them all on."""
    n_tokens = guess_BT.shape[1]
    likely_BT, _ = reads.read_on(torch.cat((prompts_BL, guess_BT[:, :-1]), dim=1), last=n_tokens)
    n_right_B = (likely_BT == guess_BT).long().cumprod(dim=1).sum(dim=1)
    wrong_B = n_right_B < n_tokens - 1
    if wrong_B.any():
        n_right = int(n_right_B[wrong_B].min())
        before = torch.cat((prompts_BL, guess_BT[:, :n_right]), dim=1)[wrong_B]
        likely_BT[wrong_B, n_right:] = write(reads, before, n_tokens=n_tokens - n_right)
    return likely_BT
