"""The Subject protocol: whatever is measured answers in numpy, whoever trained it."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

Pattern = Floats
"""Attention of one layer, shape (B, H, L, L): [b, h, i, j] is how much token i reads from token j."""
Patterns = Literal["frozen", "recomputed"]


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


class Sampling(NamedTuple):
    """What a token is drawn from: the model's distribution at a temperature, then cut by rank, then by mass.

    The order is that of transformers' `generate`. None leaves a cut out.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


FULL = Sampling()
"""The model's own distribution."""


class Moments(NamedTuple):
    """How likely each scored target is beside what the model itself would write there; each (B, L), 0 where
    not scored."""

    log_prob: Floats
    """Log probability of the target, nats."""
    mean: Floats
    """Mean of the log probability of a token drawn from the model's distribution at that position."""
    sd: Floats
    """Its standard deviation."""


@runtime_checkable
class Continuing(Subject, Protocol):
    """A subject that writes on."""

    def continue_(self, prompts: Tokens, /, *, n_tokens: int, guess: Tokens | None = None) -> Tokens:
        """What greedy decoding writes behind each prompt (B, k): (B, n_tokens), ties to the lowest id.

        Prompts are all that the model reads, start token included where one is wanted; no token ends it. A
        `guess` at what is written (B, n_tokens) changes nothing but the time: less where it is right.
        """
        ...


@runtime_checkable
class Weighing(Subject, Protocol):
    """A subject that says how likely it is to write a text when its tokens are drawn."""

    def log_probs(self, rows: Rows, /, *, sampling: Sampling = FULL) -> Floats:
        """Log probability of each scored target under `sampling`, nats, shape (B, L).

        -inf where a cut leaves the target out, 0 where not scored.
        """
        ...


@runtime_checkable
class Describing(Subject, Protocol):
    """A subject that says what it expects of its own tokens."""

    def moments(self, rows: Rows, /) -> Moments:
        """See `Moments` (Zhang et al. 2024, Min-K%++, section 3)."""
        ...


@runtime_checkable
class Deciding(Predicting, Protocol):
    """A subject that says how far its most likely token is before the next one."""

    def margins(self, rows: Rows, /) -> Floats:
        """Logit of the most likely token less that of the second, nats, 0 where not scored, shape (B, L)."""
        ...


class Head(NamedTuple):
    """One attention head; layers and heads count from 0."""

    layer: int
    head: int


@runtime_checkable
class Attending(Subject, Protocol):
    """A subject that shows what its tokens read."""

    def attend(self, tokens: Tokens, /) -> Iterator[Pattern]:
        """The patterns of one layer after the other, first layer first, for tokens (B, L).

        Each is to be reduced before the next is asked for: only one layer is held at a time.
        """
        ...


@runtime_checkable
class Attributing(Subject, Protocol):
    """A subject that says what each head adds to logits by the direct path.

    That is the head's output, put through the final norm and the output matrix, with the norm's scale held
    at the value that it has with all heads at work. A logit is meant as its distance from the mean over the
    vocabulary: what is added to all of them alike changes no probability. All raise NotApplicable where the
    model has no such path.
    """

    def attribute(self, tokens: Tokens, targets: Tokens) -> Floats:
        """What each head adds to the logit of the target; both (B, L), answer (n_layer, H, B, L)."""
        ...

    def raises(self, tokens: Tokens, /) -> Iterator[Floats]:
        """By layer what each head at token i adds to the logit of token j of its row, shape (B, H, L, L)."""
        ...


@runtime_checkable
class Circuits(Subject, Protocol):
    """A subject whose heads' circuits can be read off its weights, no text needed.

    Norms count with their gains and their centring; their scale, which differs by token, is taken as 1 (as in
    TransformerLens' folded weights). Both raise NotApplicable where the model has no such weights.
    """

    def ov_copying(self) -> Floats:
        """By head sum(lambda) / sum |lambda|, shape (n_layer, H), within [-1, 1].

        lambda are the eigenvalues of its full OV circuit (V, V), from the embedding of the token attended to
        through the head to the logits; 1 where all that it reads it copies (Elhage et al. 2021; Olsson et
        al. 2022). NaN for a head whose eigenvalues are all 0.
        """
        ...

    def k_composition(self) -> Floats:
        """[l, h, m, g]: trace of head (l, h)'s QK circuit (V, V) with keys written by head (m, g) of an
        earlier layer and queries read from the embedding; 0 unless m < l. Shape (n_layer, H, n_layer, H).

        Positive where a query looks for a key that the other head has marked with the query's own token.
        """
        ...


@runtime_checkable
class Ablating(Subject, Protocol):
    """A subject that can do without some of its heads."""

    def without(self, heads: Iterable[tuple[int, int]], /, *, patterns: Patterns = "frozen") -> Subject:
        """The same model with the output of these heads, (layer, head) each, set to 0.

        `frozen`: every attention pattern stays as it is without ablation, so that only what the heads write
        is missed and not what others then look at (Olsson et al. 2022). `recomputed`: later heads attend as
        they do on what is left. Raises SpecError for a head that the model lacks.
        """
        ...
