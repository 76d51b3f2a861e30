"""What a set of sequences knows by its tokenizer: texts of ids, ids of texts, bytes and counts of ids."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.tokenizer import Tokenizer
from repetita.subject import Rows

Ints = NDArray[np.int64]

COUNTED_ROWS = 1 << 12
"""Sequences that are read at once where the tokens of a whole set are counted."""


class Counted(Protocol):
    """Sequences whose tokens can be counted."""

    def __len__(self) -> int: ...

    def rows(self, indices: Ints, /) -> Rows:
        """The sequences of these indices, arrays of shape (B, L)."""
        ...


class Tokenized:
    """Base of the sets of a corpus: what their tokens stand for."""

    def __init__(self, tokenizer: Tokenizer, *, token_bytes: Ints) -> None:
        self._tokenizer, self._token_bytes = tokenizer, token_bytes

    def text_of(self, token: int) -> str:
        """The text of one token id; "" for id 0, U+FFFD for bytes that are no whole character."""
        return self._tokenizer.decode([token])

    def encode(self, text: str, /) -> Ints:
        """The ids of a text, shape (n,); never id 0."""
        return self._tokenizer.encode(text).astype(np.int64)

    def scored_bytes(self, rows: Rows) -> Ints:
        """Bytes of UTF-8 behind the scored targets of each row, shape (B,)."""
        return np.asarray(np.where(rows.scored, self._token_bytes[rows.targets], 0).sum(axis=1))


def token_counts(of: Counted, /, *, vocab_size: int) -> Ints:
    """How often each id is scored in all sequences, shape (V,); reads every one of them."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(of), COUNTED_ROWS):
        rows = of.rows(np.arange(start, min(start + COUNTED_ROWS, len(of)), dtype=np.int64))
        counts += np.bincount(rows.targets[rows.scored], minlength=vocab_size)
    return counts
