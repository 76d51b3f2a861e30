"""What the repeated lane re-reads, pass after pass: sequences, sequences of a common set, or other units."""

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.lanes import TRAIN, UNITS, Lane, each_turn
from repetita.errors import CorpusError
from repetita.seeds import Ints, Permutation, key


class Sequences:
    """What the control reads at the lane's first `size` positions, in a new order each later pass.

    `reordered` numbers further orders of all passes, the first one too; 0 is the control's own.
    """

    set = TRAIN
    embedded = False

    def __init__(self, *, size: int, lane: Lane, order: Permutation, seed: int, reordered: int = 0) -> None:
        self.size = size
        self._lane, self._order = lane, order
        self._shuffle = Permutation(size, key(seed, f"subset/{reordered}" if reordered else "subset"))
        # A pass is its own turn, and the control's first pass is no turn at all.
        self._first_turn = 1 if reordered else 0

    def read(self, place: Ints, pass_: Ints) -> Ints:
        """See `Subset.read`."""
        return self._order(self._lane.slot(_shuffled(self._shuffle, place, pass_ + self._first_turn)))

    def find(self, index: Ints) -> Ints:
        """See `Subset.find`."""
        slot = self._order.inverse(index)
        member = self._lane.before(slot)
        return np.where(self._lane.holds(slot) & (member < self.size), member, -1)

    def place(self, member: Ints, pass_: Ints) -> Ints:
        """See `Subset.place`."""
        return _shuffled(self._shuffle, member, pass_ + self._first_turn, back=True)


class Drawn:
    """`size` sequences drawn by `seed` out of a common set, in a new order each later pass.

    The common set is the first `out_of` of `order`, which is an order of the training pool without `seed`.
    """

    set = TRAIN
    embedded = False

    def __init__(self, *, size: int, out_of: int, order: Permutation, seed: int) -> None:
        self.size, self.out_of = size, out_of
        self._order = order
        self._draw = Permutation(out_of, key(seed, "drawn"))
        self._shuffle = Permutation(size, key(seed, "subset"))

    def common(self) -> Ints:
        """The common set in its own order, shape (out_of,)."""
        return self._order(np.arange(self.out_of, dtype=np.int64))

    def read(self, place: Ints, pass_: Ints) -> Ints:
        """See `Subset.read`."""
        return self._order(self._draw(_shuffled(self._shuffle, place, pass_)))

    def find(self, index: Ints) -> Ints:
        """See `Subset.find`."""
        place = self._order.inverse(index)
        member = np.full(place.shape, -1, np.int64)
        shared = place < self.out_of
        member[shared] = self._draw.inverse(place[shared])
        return np.where(member < self.size, member, -1)

    def place(self, member: Ints, pass_: Ints) -> Ints:
        """See `Subset.place`."""
        return _shuffled(self._shuffle, member, pass_, back=True)


class Documents:
    """Whole documents of the set units in a keyed order, the last one cut so that they are `size` sequences.

    `documents` holds the document of each sequence of the set; a document's sequences are neighbours. The
    documents are read in a new order in each pass after the first, each from its start.
    """

    set = UNITS
    embedded = False

    def __init__(self, *, size: int, documents: Ints, seed: int) -> None:
        if documents.size < size:
            raise CorpusError(
                f"RepeatedSubset: {size} sequences of whole documents were asked for and the set units has "
                f"{documents.size}; lower n_sequences or give the split units a larger share"
            )
        first = np.flatnonzero(np.diff(documents, prepend=documents[0] - 1))
        length = np.diff(first, append=documents.size)
        order = Permutation(first.size, key(seed, "units"))
        ends = _ends(length, order=order, until=size)
        taken = int(np.searchsorted(ends, size)) + 1
        drawn = order(np.arange(taken))
        self.size = size
        self._first = first[drawn].astype(np.int64)
        self._length = length[drawn].astype(np.int64)
        self._length[-1] -= ends[taken - 1] - size
        self._sorted = np.argsort(self._first)
        self._shuffle = Permutation(taken, key(seed, "subset"))

    def read(self, place: Ints, pass_: Ints) -> Ints:
        """See `Subset.read`."""

        def one(turn: int, mask: NDArray[np.bool_]) -> Ints:
            order, ends = self._pass(turn)
            at = np.searchsorted(ends, place[mask], side="right")
            document = order[at]
            return self._first[document] + place[mask] - (ends[at] - self._length[document])

        return each_turn(pass_, one)

    def find(self, index: Ints) -> Ints:
        """See `Subset.find`."""
        document, offset = self._locate(index)
        starts = np.cumsum(self._length) - self._length
        inside = (offset >= 0) & (offset < self._length[document])
        return np.where(inside, starts[document] + offset, -1)

    def place(self, member: Ints, pass_: Ints) -> Ints:
        """See `Subset.place`."""
        ends = np.cumsum(self._length)
        document = np.searchsorted(ends, member, side="right")
        offset = member - (ends - self._length)[document]

        def one(turn: int, mask: NDArray[np.bool_]) -> Ints:
            order, ends = self._pass(turn)
            starts = np.empty_like(ends)
            starts[order] = ends - self._length[order]
            return starts[document[mask]] + offset[mask]

        return each_turn(pass_, one)

    def _pass(self, turn: int) -> tuple[Ints, Ints]:
        """The order of the documents in a pass and where each ends."""
        order = np.arange(self._length.size, dtype=np.int64)
        order = order if turn == 0 else self._shuffle(order, turn=turn)
        return order, np.cumsum(self._length[order])

    def _locate(self, index: Ints) -> tuple[Ints, Ints]:
        """The chosen document at or before each sequence, and the sequence's offset from its start."""
        at = np.searchsorted(self._first, index, side="right", sorter=self._sorted) - 1
        document = self._sorted[np.maximum(at, 0)]
        return document, index - self._first[document]


def _ends(lengths: Ints, *, order: Permutation, until: int) -> Ints:
    """Ends of the first units of an order, until they hold so much or there are no more.

    A set may have millions, and few of them be taken.
    """
    n = 1024 if not lengths.size else 1024 + int(1.1 * until / max(1.0, lengths.mean()))
    while True:
        n = min(n, lengths.size)
        ends = np.cumsum(lengths[order(np.arange(n))])
        if n == lengths.size or ends[-1] >= until:
            return ends
        n *= 2


class ShortUnits:
    """Paragraphs or sentences of the set units in a keyed order, as many as come nearest to `tokens` tokens.

    `lengths` holds the tokens of each unit. Every unit is written into the unique sequence of its slot.
    """

    set = UNITS
    embedded = True

    def __init__(self, *, tokens: int, lengths: Ints, seed: int) -> None:
        self._chosen = Permutation(lengths.size, key(seed, "units"))
        ends = _ends(lengths, order=self._chosen, until=tokens)
        if not ends.size or ends[-1] < tokens:
            have = int(ends[-1]) if ends.size else 0
            raise CorpusError(
                f"RepeatedSubset: units of {tokens} tokens in all were asked for and the set units has "
                f"{have}; lower n_sequences or give the split units a larger share"
            )
        above = int(np.searchsorted(ends, tokens))
        nearer_below = above > 0 and tokens - ends[above - 1] < ends[above] - tokens
        self.size = above if nearer_below else above + 1
        self.tokens = int(ends[self.size - 1])
        self._shuffle = Permutation(self.size, key(seed, "subset"))

    def read(self, place: Ints, pass_: Ints) -> Ints:
        """See `Subset.read`."""
        return self._chosen(_shuffled(self._shuffle, place, pass_))

    def find(self, index: Ints) -> Ints:
        """See `Subset.find`."""
        member = self._chosen.inverse(index)
        return np.where(member < self.size, member, -1)

    def place(self, member: Ints, pass_: Ints) -> Ints:
        """See `Subset.place`."""
        return _shuffled(self._shuffle, member, pass_, back=True)


def _shuffled(shuffle: Permutation, place: Ints, pass_: Ints, *, back: bool = False) -> Ints:
    """Places in a pass, the first pass as it is and every later one in an order of its own."""
    result = np.array(place)
    later = pass_ > 0
    if later.any():
        move = shuffle.inverse if back else shuffle
        result[later] = move(result[later], turn=pass_[later])
    return result
