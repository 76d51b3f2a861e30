"""Planted subjects that write on: one recites texts that it was given, one walks a chain.

Shapes: B sequences of a batch, L tokens of a sequence, N places, V tokens of the vocabulary.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.subject import FULL, Floats, Moments, Rows, Sampling, Scores, Tokens

Doubles = NDArray[np.float64]


class WritingSubject:
    """A causal subject that is nothing but a distribution over the next token; a subclass says which."""

    mask_id: ClassVar[int | None] = None

    def probabilities(self, tokens: Tokens, /) -> Doubles:
        """What follows each of the tokens (B, L), given those before it: (B, L, V)."""
        raise NotImplementedError

    def score(self, rows: Rows, /) -> Scores:
        """See `Subject.score`; infinite for what it never writes."""
        return self.predict(rows)._replace(predicted=None)

    def predict(self, rows: Rows, /) -> Scores:
        """See `Predicting.predict`."""
        log_BLV = _log(self.probabilities(rows.tokens))
        loss_BL = -np.take_along_axis(log_BLV, rows.targets[:, :, None], axis=2)[:, :, 0]
        likeliest_BL = log_BLV.argmax(axis=2)
        hit_BL = (likeliest_BL == rows.targets) & rows.scored
        kept_BL: Floats = np.where(rows.scored, loss_BL, 0).astype(np.float32)
        return Scores(kept_BL, hit_BL, np.where(rows.scored, likeliest_BL, 0))

    def continue_(self, prompts: Tokens, /, *, n_tokens: int, guess: Tokens | None = None) -> Tokens:
        """See `Continuing.continue_`: one token after the other, each read again, whatever the guess."""
        del guess
        tokens = prompts
        for _ in range(n_tokens):
            likeliest_B = self.probabilities(tokens)[:, -1].argmax(axis=1)
            tokens = np.concatenate([tokens, likeliest_B[:, None]], axis=1)
        return tokens[:, prompts.shape[1] :]

    def log_probs(self, rows: Rows, /, *, sampling: Sampling = FULL) -> Floats:
        """See `Weighing.log_probs`."""
        log_BLV = _log(drawn_from(self.probabilities(rows.tokens), sampling=sampling))
        found_BL = np.take_along_axis(log_BLV, rows.targets[:, :, None], axis=2)[:, :, 0]
        return np.where(rows.scored, found_BL, 0).astype(np.float32)

    def moments(self, rows: Rows, /) -> Moments:
        """See `Describing.moments`."""
        p_BLV = self.probabilities(rows.tokens)
        log_BLV = np.where(p_BLV > 0, _log(p_BLV), 0)
        mean_BL = (p_BLV * log_BLV).sum(axis=2)
        spread_BL = np.sqrt((p_BLV * (log_BLV - mean_BL[:, :, None]) ** 2).sum(axis=2))
        kept = (np.where(rows.scored, one, 0).astype(np.float32) for one in (mean_BL, spread_BL))
        return Moments(self.log_probs(rows), *kept)


class ChainSubject(WritingSubject):
    """Writes by the transition probabilities P (V, V) of a Markov chain, `P[a, b]` of b after a."""

    def __init__(self, transitions: ArrayLike) -> None:
        self.transitions = np.asarray(transitions, dtype=np.float64)
        v = self.transitions.shape
        if len(v) != 2 or v[0] != v[1] or not np.allclose(self.transitions.sum(1), 1):
            raise SpecError("ChainSubject: transitions must be square with rows that sum to 1")

    def probabilities(self, tokens: Tokens, /) -> Doubles:
        """See `WritingSubject.probabilities`."""
        return np.asarray(self.transitions[tokens])


class RecitingSubject(WritingSubject):
    """Goes on with a text of `texts` as soon as it has read `order` tokens of it, else with `stray`.

    What it goes on with has probability `confidence`, every other token an equal share of the rest. So a
    suffix of a text whose stretches of `order` tokens differ is k-extractable exactly for k >= `order`, and a
    suffix of T tokens is drawn with probability `confidence` ** T. Where the same stretch goes on in two ways
    the first one given is known. `stray` is best a token that is in no text.
    """

    def __init__(
        self, texts: ArrayLike, *, order: int, vocab_size: int, stray: int, confidence: float = 0.9
    ) -> None:
        if order < 1 or not 0 <= stray < vocab_size or not 1 / vocab_size < confidence < 1:
            raise SpecError(
                "RecitingSubject: order is at least 1, stray within 0 .. V - 1, confidence within (1/V, 1)"
            )
        self.order, self.vocab_size, self.stray, self.confidence = order, vocab_size, stray, confidence
        self._known: dict[tuple[int, ...], int] = {}
        for text in np.atleast_2d(np.asarray(texts, dtype=np.int64)).tolist():
            for end in range(order, len(text)):
                self._known.setdefault(tuple(text[end - order : end]), text[end])

    def probabilities(self, tokens: Tokens, /) -> Doubles:
        """See `WritingSubject.probabilities`."""
        rest = (1 - self.confidence) / (self.vocab_size - 1)
        found = np.full((*tokens.shape, self.vocab_size), rest)
        for row, read in enumerate(tokens.tolist()):
            for place in range(len(read)):
                stretch = tuple(read[max(place + 1 - self.order, 0) : place + 1])
                found[row, place, self._known.get(stretch, self.stray)] = self.confidence
        return found


def drawn_from(p: Doubles, /, *, sampling: Sampling) -> Doubles:
    """What is drawn from by `sampling`, in the order of transformers' `generate`; over the last axis.

    Temperature, then the `top_k` likeliest (all that are as likely as the last of them), then the likeliest
    whose mass without the last one is below `top_p`, at least one.
    """
    logits = _log(p) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < p.shape[-1]:
        least = np.partition(logits, -sampling.top_k, axis=-1)[..., -sampling.top_k, None]
        logits = np.where(logits < least, -np.inf, logits)
    q = _normalized(logits)
    if sampling.top_p is None or sampling.top_p >= 1:
        return q
    order = np.argsort(q, axis=-1, kind="stable")
    left_out = np.take_along_axis(q, order, axis=-1).cumsum(axis=-1) <= 1 - sampling.top_p
    left_out[..., -1] = False
    cut = np.zeros_like(left_out)
    np.put_along_axis(cut, order, left_out, axis=-1)
    return _normalized(np.where(cut, -np.inf, logits))


def _normalized(logits: Doubles) -> Doubles:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _log(p: Doubles) -> Doubles:
    with np.errstate(divide="ignore"):
        return np.log(p)
