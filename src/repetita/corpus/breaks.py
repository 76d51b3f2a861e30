"""Where the rows of a set begin and end: packed, at documents, at sentences, or one short unit a row."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.shards import Shards

Ints = NDArray[np.int64]

IN_MEMORY_TOKENS = 1 << 26
"""Sets up to this size are laid out in memory (2 or 4 bytes a token); larger ones are read from the map."""
SHORTEST = 2
"""Pieces of fewer tokens are dropped: one token has nothing to be predicted from but the start token."""


class RowTable(NamedTuple):
    """Rows as stretches of a set's text: where each starts and how many tokens it has, shape (n,)."""

    starts: Ints
    lengths: Ints


class Text:
    """The tokens of some documents one after the other, each followed by a separator (id 0)."""

    def __init__(self, shards: Shards, *, documents: Ints) -> None:
        self.shards, self.documents = shards, documents
        self.starts: Ints = np.concatenate([[0], np.cumsum(shards.n_tokens[documents] + 1)]).astype(np.int64)
        """Where each document starts, and the end of the last."""
        self._shift = shards.offsets[documents] - self.starts[:-1]
        self._laid_out = self._read() if self.starts[-1] <= IN_MEMORY_TOKENS else None

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, positions: Ints) -> NDArray[np.unsignedinteger]:
        """The ids at these positions, of the same shape."""
        if self._laid_out is not None:
            return self._laid_out.take(positions)
        return self.shards.tokens[positions + self._shift[self.document_at(positions)]]

    def document_at(self, positions: Ints) -> Ints:
        """Which of `documents` (its place there) each position lies in, its separator included."""
        return np.asarray(np.searchsorted(self.starts, positions, side="right") - 1)

    def ends_of(self, ends: Ints) -> Ints:
        """Ends of sentences or paragraphs, given as positions in the shards, as positions here."""
        first = self.shards.offsets[self.documents]
        low = np.searchsorted(ends, first, side="right")
        high = np.searchsorted(ends, first + self.shards.n_tokens[self.documents], side="right")
        return ends[_stretches(low, high - low)] - np.repeat(self._shift, high - low)

    def _read(self) -> NDArray[np.unsignedinteger]:
        laid_out = np.empty(len(self), dtype=self.shards.tokens.dtype)
        # Documents that follow each other in the shards are read together.
        breaks = np.flatnonzero(np.diff(self._shift, prepend=-1))
        bounds = np.append(self.starts[breaks], len(self)).tolist()
        for start, stop, shift in zip(bounds, bounds[1:], self._shift[breaks].tolist(), strict=False):
            laid_out[start:stop] = self.shards.tokens[start + shift : stop + shift]
        return laid_out


def holding(text: Text, table: RowTable, *, document: int, start: int, stop: int) -> tuple[Ints, bool]:
    """Rows with any of these tokens of a document (its place in the corpus), and whether one row has all."""
    place = np.flatnonzero(text.documents == document)
    if not len(place):
        return np.empty(0, np.int64), False
    first, last = text.starts[place[0]] + start, text.starts[place[0]] + stop
    ends = table.starts + table.lengths
    rows = np.flatnonzero((table.starts < last) & (ends > first))
    return rows, bool(((table.starts[rows] <= first) & (ends[rows] >= last)).any())


def packed(text: Text, *, length: int) -> RowTable:
    """The whole text cut every `length` tokens; what is left over at the end is dropped."""
    n = len(text) // length
    return RowTable(np.arange(n, dtype=np.int64) * length, np.full(n, length, dtype=np.int64))


def at_documents(text: Text, *, length: int) -> RowTable:
    """Each document cut every `length` tokens on its own, its last row shorter; no separators inside."""
    return _cut(text.starts[:-1], text.starts[1:] - 1, length)


def at_units(text: Text, *, ends: Ints, length: int) -> RowTable:
    """One paragraph or sentence a row; those longer than `length` are cut every `length` tokens."""
    starts = np.append(np.int64(0), ends[:-1])
    # Behind the last unit of a document stands its separator.
    starts += np.isin(starts, text.starts[1:] - 1)
    return _cut(starts, ends, length)


def at_sentences(text: Text, *, ends: Ints, length: int) -> RowTable:
    """Whole sentences packed up to `length` tokens, rows broken only at ends of sentences.

    Documents follow each other in a row with a separator between, as in the mode `complete` of fairseq
    that the memorization paper most likely used (section 3). A sentence longer than `length` is cut.
    """
    starts = np.append(np.int64(0), ends[:-1])[: len(ends)]
    # Behind the last sentence of a document stands its separator.
    starts = starts + np.isin(starts, text.starts[1:] - 1)
    # From each sentence on: so many whole rows where it is too long, then one that ends with a sentence.
    whole = (ends - starts - 1) // length
    last = starts + whole * length
    following = np.searchsorted(ends, last + length, side="right")
    visited, at, jumps = [], 0, following.data
    while at < len(ends):
        visited.append(at)
        at = jumps[at]
    rows = np.array(visited, dtype=np.int64)
    which, number = np.repeat(rows, whole[rows] + 1), _stretches(np.zeros_like(rows), whole[rows] + 1)
    lengths = np.where(number < whole[which], length, ends[following[which] - 1] - last[which])
    kept = lengths >= SHORTEST
    return RowTable((starts[which] + number * length)[kept], lengths[kept])


def _cut(starts: Ints, stops: Ints, length: int) -> RowTable:
    """Stretches cut every `length` tokens, pieces shorter than SHORTEST dropped."""
    pieces = -(-(stops - starts) // length)
    which = np.repeat(np.arange(len(starts)), pieces)
    number = _stretches(np.zeros_like(pieces), pieces)
    first = starts[which] + number * length
    lengths = np.minimum(length, stops[which] - first)
    kept = lengths >= SHORTEST
    return RowTable(first[kept], lengths[kept])


def _stretches(first: Ints, counts: Ints) -> Ints:
    """`counts` consecutive numbers from each of `first` on."""
    return np.arange(int(counts.sum())) + np.repeat(first - np.cumsum(counts) + counts, counts)
