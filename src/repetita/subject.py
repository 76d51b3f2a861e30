"""The Subject protocol: whatever is measured answers in numpy, whoever trained it."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Scores(NamedTuple):
    """Answer of `score`: one value a position; positions that are not scored hold 0 and False."""

    loss: NDArray[np.float32]
    """Cross-entropy in nats, shape (B, L)."""
    hit: Mask
    """Whether the most likely token is the target, ties to the lowest id, shape (B, L)."""
    predicted: Tokens | None = None
    """The most likely token, ties to the lowest id, 0 where not scored, shape (B, L); None from `score`."""


class Rows(NamedTuple):
    """Fixed-length sequences as a model reads them, each array of shape (B, L).

    For a causal model `tokens[:, 0]` is the start token and `targets[:, i]` is what follows
    `tokens[:, i]`, so all L tokens of a sequence are targets. For a masked model `tokens[:, i]` is
    `targets[:, i]` or what hides it, and only what was hidden is scored. `scored` is False on padding
    and on separators.
    """

    tokens: Tokens
    targets: Tokens
    scored: Mask


@runtime_checkable
class Subject(Protocol):
    """A language model that can be asked; B sequences of L tokens."""

    @property
    def mask_id(self) -> int | None:
        """The id that a masked model is shown where it is to predict; None for a causal model."""
        ...

    def score(self, rows: Rows) -> Scores:
        """Teacher-forced loss and top-1 hit at every scored position."""
        ...


@runtime_checkable
class Predicting(Subject, Protocol):
    """A subject that also says which token it finds most likely."""

    def predict(self, rows: Rows) -> Scores:
        """As `score`, with `predicted`: the same loss and hits, for some more work."""
        ...
