"""Planted subjects and sets, whose every measure is known beforehand: they calibrate the instruments.

Shapes: B sequences of a batch, L tokens of a sequence, V tokens of the vocabulary.
"""

import math
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita import seeds
from repetita.corpus.tokenizer import ByteTokenizer, Tokenizer
from repetita.errors import SpecError
from repetita.spec import exact_fraction
from repetita.subject import Rows, Scores

START = 0
"""The special token: start, separator and padding; a target of this id is not scored."""


class PlantedSet:
    """Sequences held in memory, shape (n, L); target 0 is padding and is not scored.

    `token_bytes` (V,) gives the bytes of each id, one each by default, `classes` (n, L) the part of speech
    of each target (index into `corpus.taggers.CLASSES`), none by default. `tokenizer` is that of texts; by
    default every byte is one id.
    """

    def __init__(
        self,
        targets: ArrayLike,
        *,
        token_bytes: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self._tokenizer: Tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        self.targets = np.atleast_2d(np.asarray(targets, dtype=np.int64))
        self._classes = None if classes is None else np.atleast_2d(np.asarray(classes, dtype=np.int8))
        self._bytes = None if token_bytes is None else np.asarray(token_bytes, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def length(self) -> int:
        """Tokens L of a sequence."""
        return int(self.targets.shape[1])

    def rows(self, indices: NDArray[np.int64], /) -> Rows:
        """The sequences of these indices, each shifted right behind a start token."""
        targets_BL = self.targets[indices]
        tokens_BL = np.concatenate([np.full((len(indices), 1), START), targets_BL[:, :-1]], axis=1)
        return Rows(tokens_BL, targets_BL, targets_BL != START)

    def scored_bytes(self, rows: Rows, /) -> NDArray[np.int64]:
        """Bytes behind the scored targets of each row, shape (B,)."""
        bytes_BL = np.ones_like(rows.targets) if self._bytes is None else self._bytes[rows.targets]
        return np.asarray(np.where(rows.scored, bytes_BL, 0).sum(axis=1))

    def encode(self, text: str, /) -> NDArray[np.int64]:
        """The ids of a text by the tokenizer, shape (n,)."""
        return self._tokenizer.encode(text).astype(np.int64)

    def token_counts(self) -> NDArray[np.int64]:
        """How often each id is scored, shape (V,): V of the tokenizer, or more where a target is larger."""
        scored = self.targets[self.targets != START]
        return np.bincount(scored, minlength=self._tokenizer.vocab_size)

    def tags(self, indices: NDArray[np.int64], /) -> NDArray[np.int8]:
        """The classes that were given, else 0 throughout."""
        if self._classes is None:
            return np.zeros((len(indices), self.length), dtype=np.int8)
        return self._classes[indices]


class UniformSubject:
    """Gives every token of the vocabulary the same probability: loss ln V, top-1 the lowest id."""

    mask_id: ClassVar[int | None] = None

    def __init__(self, *, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def score(self, rows: Rows, /) -> Scores:
        """ln V at every scored position."""
        loss_BL = np.where(rows.scored, math.log(self.vocab_size), 0).astype(np.float32)
        return Scores(loss_BL, (rows.targets == 0) & rows.scored)

    def predict(self, rows: Rows, /) -> Scores:
        """The lowest id everywhere."""
        return self.score(rows)._replace(predicted=np.zeros_like(rows.targets))


class LookupSubject:
    """Knows an exact share of the (sequence, position) pairs and is sure of something else elsewhere.

    Among the scored positions of a row the known ones are spread evenly by exact arithmetic, from an offset
    keyed by the row's content: M(f) = `share` wherever share times the row's scored tokens is whole. A known
    target has probability `confidence`; elsewhere one wrong token has it and the others share the rest.
    """

    mask_id: ClassVar[int | None] = None

    def __init__(
        self, *, share: Fraction | float | str, vocab_size: int, confidence: float = 0.9, seed: int = 0
    ) -> None:
        self.share = Fraction(exact_fraction(share))
        if not 0 <= self.share <= 1 or not 1 / vocab_size < confidence < 1 or vocab_size < 3:
            raise SpecError("LookupSubject: share is within [0, 1], confidence within (1/V, 1), V at least 3")
        self.vocab_size = vocab_size
        self.known_loss = -math.log(confidence)
        self.unknown_loss = -math.log((1 - confidence) / (vocab_size - 1))
        self._key = seeds.key(seed, "lookup")

    @property
    def loss(self) -> float:
        """Expected loss in nats a token."""
        return float(self.share) * self.known_loss + float(1 - self.share) * self.unknown_loss

    def score(self, rows: Rows, /) -> Scores:
        """Hit where known; the loss has two values."""
        p, q = self.share.numerator, self.share.denominator
        words_BL = seeds.words(np.where(rows.scored, rows.targets, 0), key=self._key)
        place_BL = np.cumsum(rows.scored, axis=1) - 1
        # Odd weights by place: two rows of equal tokens in another order are two sequences.
        row_key_B = (words_BL * (2 * np.arange(words_BL.shape[1], dtype=np.uint64) + 1)).sum(
            1, dtype=np.uint64
        )
        k_BL = (place_BL + (row_key_B % np.uint64(q)).astype(np.int64)[:, None]) % q
        known_BL = ((k_BL + 1) * p // q > k_BL * p // q) & rows.scored
        loss_BL = np.where(known_BL, self.known_loss, self.unknown_loss)
        return Scores(np.where(rows.scored, loss_BL, 0).astype(np.float32), known_BL)

    def predict(self, rows: Rows, /) -> Scores:
        """The target where known; elsewhere the id after it, the highest being followed by 1."""
        scores = self.score(rows)
        predicted_BL = np.where(scores.hit, rows.targets, rows.targets % (self.vocab_size - 1) + 1)
        return scores._replace(predicted=np.where(rows.scored, predicted_BL, 0))


class BigramSubject:
    """Knows the transition probabilities P (V, V) of a Markov chain, `P[a, b]` of b after a.

    On text of its own its loss is the chain's entropy rate. Row 0 is what follows the start token.
    """

    mask_id: ClassVar[int | None] = None

    def __init__(self, transitions: ArrayLike) -> None:
        self.transitions = np.asarray(transitions, dtype=np.float64)
        v = self.transitions.shape
        if len(v) != 2 or v[0] != v[1] or not np.allclose(self.transitions.sum(1), 1):
            raise SpecError("BigramSubject: transitions must be square with rows that sum to 1")

    @property
    def stationary(self) -> NDArray[np.float64]:
        """Long-run share of each token, shape (V,); for a chain with one recurrent class."""
        v = len(self.transitions)
        system = np.vstack([self.transitions.T - np.eye(v), np.ones(v)])
        return np.asarray(
            np.linalg.lstsq(system, np.append(np.zeros(v), 1.0), rcond=None)[0], dtype=np.float64
        )

    @property
    def entropy_rate(self) -> float:
        """Nats a token of the stationary chain: the expected loss."""
        p = self.transitions
        logs = np.log(p, out=np.zeros_like(p), where=p > 0)
        return float(-(self.stationary @ (p * logs).sum(1)))

    @property
    def accuracy(self) -> float:
        """Expected share of top-1 hits on the stationary chain."""
        return float(self.stationary @ self.transitions.max(1))

    def sample(self, n: int, *, length: int, seed: int) -> NDArray[np.int64]:
        """`n` sequences of `length` tokens of the chain, each started by row 0."""
        draws = seeds.generator(seed, "bigram").random((n, length))
        cumulative, out = self.transitions.cumsum(1), np.zeros((n, length), np.int64)
        state = np.full(n, START)
        for i in range(length):
            state = (draws[:, i, None] >= cumulative[state, :-1]).sum(1)
            out[:, i] = state
        return out

    def score(self, rows: Rows, /) -> Scores:
        """-ln P[token, target]; infinite for a transition that the chain never makes."""
        with np.errstate(divide="ignore"):
            loss_BL = -np.log(self.transitions[rows.tokens, rows.targets])
        hit_BL = self.transitions.argmax(1)[rows.tokens] == rows.targets
        return Scores(np.where(rows.scored, loss_BL, 0).astype(np.float32), hit_BL & rows.scored)

    def predict(self, rows: Rows, /) -> Scores:
        """The likeliest transition."""
        likeliest_BL = self.transitions.argmax(1)[rows.tokens]
        return self.score(rows)._replace(predicted=np.where(rows.scored, likeliest_BL, 0))
