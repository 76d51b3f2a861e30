"""The order below a schedule: which slots are the repeated lane and what every slot of the base reads.

Slots are numbered through the whole run, g = 0, 1, 2, ...; everything here is a function of g alone.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from repetita.seeds import Ints, Permutation

SETS = ("train", "test", "special", "twin", "placebo", "novel", "units")
"""The sets of a corpus; a batch names them by their place here."""
LANES = ("train", "repeated", "special", "placebo", "novel", "inserted")
"""What a slot is there for; a batch names them by their place here."""
EMPTY = -1
"""The set of a slot that trains on nothing, and the index of what is not there."""

TRAIN, SPECIAL, NOVEL, UNITS = (SETS.index(name) for name in ("train", "special", "novel", "units"))
REPEATED, INSERTED = LANES.index("repeated"), LANES.index("inserted")


class Columns(NamedTuple):
    """What each of n slots reads; see `Batch`, of which these are the fields."""

    set: NDArray[np.int8]
    index: Ints  # type: ignore[assignment]
    pass_: Ints
    host: Ints
    lane: NDArray[np.int8]

    def part(self, start: int, stop: int) -> "Columns":
        """Slots [start, stop) of these."""
        return Columns(
            self.set[start:stop],
            self.index[start:stop],
            self.pass_[start:stop],
            self.host[start:stop],
            self.lane[start:stop],
        )

    def frozen(self) -> Self:
        """These columns, no longer writable."""
        for column in self:
            column.flags.writeable = False
        return self


class Lane:
    """Which slots belong to a share f of all: slot g does iff floor((g+1)f) > floor(g f).

    Error diffusion: the lane's share of the first g slots is f g to within one slot, at every g. With `start`
    and `stop` all of this is inside the slots [start, stop), counted from `start`, and the lane has none
    outside.
    """

    def __init__(self, fraction: Fraction, *, start: int = 0, stop: int | None = None) -> None:
        self._p, self._q = fraction.numerator, fraction.denominator
        self.start, self.stop = start, stop

    def before(self, slots: Ints) -> Ints:
        """Lane slots among the first `slots` slots."""
        return _floor(self._inside(slots), self._p, 0, self._q)

    def count(self, slots: int) -> int:
        """`before` of one number."""
        return self.window(slots) * self._p // self._q

    def window(self, slots: int) -> int:
        """Slots that may be in the lane among the first `slots` slots."""
        return max(0, (slots if self.stop is None else min(slots, self.stop)) - self.start)

    def holds(self, slots: Ints) -> NDArray[np.bool_]:
        """Whether each slot is in the lane."""
        return self.before(slots + 1) > self.before(slots)

    def slot(self, positions: Ints) -> Ints:
        """The slot of each position of the lane: the inverse of `before` on the lane."""
        return _floor(positions, self._q, self._q - 1, self._p) + self.start

    def other_slot(self, positions: Ints) -> Ints:
        """The slot of each position of the complement, which has the share 1 - f of the window."""
        slots = np.array(positions)
        later = slots >= self.start
        if self.stop is not None:
            taken = self.count(self.stop)
            after = slots >= self.stop - taken
            slots[after] += taken
            later &= ~after
        slots[later] = _floor(slots[later] - self.start, self._q, 0, self._q - self._p) + self.start
        return slots

    def _inside(self, slots: Ints) -> Ints:
        """Slots of the window before each slot."""
        if self.start == 0 and self.stop is None:
            return slots
        return np.asarray(np.clip(slots, self.start, self.stop) - self.start)


class Subset(Protocol):
    """What the repeated lane reads: `size` members, one a lane position, in passes 0, 1, 2, ..."""

    set: int
    size: int
    embedded: bool
    """Whether a member is written into the sequence that its slot would have read."""

    def read(self, place: Ints, pass_: Ints) -> Ints:
        """The index (of the set) at a place of a pass."""
        ...

    def find(self, index: Ints) -> Ints:
        """The member number of each index, -1 for what is not in the subset."""
        ...

    def place(self, member: Ints, pass_: Ints) -> Ints:
        """Where a member stands in a pass: the inverse of `read`."""
        ...


class Base:
    """The base of a schedule: the control's order with a repeated lane laid over it.

    Slot g reads sequence `order(g)` of the training set unless it is in the lane; a stream has no lane,
    `Passes` has a lane of all slots. `slots` is the number of base slots that the run reads.
    """

    def __init__(
        self,
        *,
        order: Permutation,
        lane: Lane,
        subset: Subset | None,
        slots: int,
        label: int = REPEATED,
        filled: Literal["repeated", "empty"] = "repeated",
    ) -> None:
        self.order, self.subset, self.slots = order, subset, slots
        self.lane = lane if subset else Lane(Fraction(0))
        self.label, self.filled = label, filled

    def read(self, slots: Ints) -> Columns:
        """What the given slots read."""
        inside = self.lane.holds(slots)
        columns = Columns(
            set=np.full(slots.shape, TRAIN, np.int8),
            index=np.full(slots.shape, EMPTY, np.int64),
            pass_=np.zeros(slots.shape, np.int64),
            host=np.full(slots.shape, -1, np.int64),
            lane=np.where(inside, self.label, 0).astype(np.int8),
        )
        columns.index[~inside] = self.order(slots[~inside])
        if self.subset is None or not inside.any():
            return columns
        pass_, place = np.divmod(self.lane.before(slots[inside]), self.subset.size)
        columns.pass_[inside] = pass_
        if self.filled == "repeated" or self.subset.embedded:
            columns.index[inside] = self.subset.read(place, pass_)
        if self.subset.embedded:
            columns.host[inside] = self.order(slots[inside])
        columns.set[inside] = self.subset.set if self.filled == "repeated" else EMPTY
        return columns

    def times_seen(self, index: Ints, *, set: int, slots: int) -> Ints:  # noqa: A002
        """Visits to each index of the set train or units in the first `slots` slots, hosts included."""
        seen = np.zeros(index.shape, np.int64)
        if set == TRAIN and index.size:
            slot = self.order.inverse(index)
            inside = self.lane.holds(slot)
            hosted = inside & (self.subset is not None and self.subset.embedded)
            seen += (slot < slots) & (~inside | hosted)
        if self._repeats(set):
            assert self.subset is not None
            member = self.subset.find(index)
            known = np.flatnonzero(member >= 0)
            passes, rest = divmod(self.lane.count(slots), self.subset.size)
            pass_ = np.full(known.shape, passes, np.int64)
            seen[known] += passes + (self.subset.place(member[known], pass_) < rest)
        return seen

    def slots_of(self, index: int, *, set: int) -> Ints:  # noqa: A002
        """The slots that visit one index of the set train or units, in order."""
        one = np.array([index], np.int64)
        if set == TRAIN:
            slot = self.order.inverse(one)
            hosts = self.subset is not None and self.subset.embedded
            if not self.lane.holds(slot)[0] or hosts:
                return slot[slot < self.slots]
        if not self._repeats(set):
            return one[:0]
        assert self.subset is not None
        member, positions = self.subset.find(one), self.lane.count(self.slots)
        if member[0] < 0:
            return one[:0]
        pass_ = np.arange(-(-positions // self.subset.size), dtype=np.int64)
        places = pass_ * self.subset.size + self.subset.place(np.broadcast_to(member, pass_.shape), pass_)
        return self.lane.slot(places[places < positions])

    def histogram(self, *, set: int, slots: int, pool: int) -> dict[int, int]:  # noqa: A002
        """Sequences of a pool by visits in the first `slots` slots; a closed form, no enumeration."""
        counts = {0: pool}
        inside = self.lane.count(slots)
        if set == TRAIN:
            hosts = self.subset is not None and self.subset.embedded
            _move(counts, slots if hosts else slots - inside, to=1)
        if self._repeats(set):
            assert self.subset is not None
            passes, rest = divmod(inside, self.subset.size)
            _move(counts, rest, to=passes + 1)
            _move(counts, self.subset.size - rest, to=passes)
        return dict(sorted(counts.items()))

    def members(self, *, repeated: bool, n: int | None) -> Ints:
        """The first n members of the subset, or the first n sequences of the other slots of the run."""
        inside = self.lane.count(self.slots)
        if repeated:
            assert self.subset is not None
            places = np.arange(_at_most(n, self.subset.size), dtype=np.int64)
            return self.subset.read(places, np.zeros_like(places))
        places = np.arange(_at_most(n, self.slots - inside), dtype=np.int64)
        return self.order(self.lane.other_slot(places)) if places.size else places

    def _repeats(self, set: int) -> bool:  # noqa: A002
        return self.subset is not None and self.subset.set == set and self.filled == "repeated"


def each_turn(turns: Ints, work: Callable[[int, NDArray[np.bool_]], Ints]) -> Ints:
    """`work(turn, mask)` for each distinct turn, its answers put where the mask says."""
    result = np.empty(turns.shape, np.int64)
    for turn in np.unique(turns).tolist():
        mask = turns == turn
        result[mask] = work(turn, mask)
    return result


def _at_most(n: int | None, limit: int) -> int:
    return limit if n is None else min(n, limit)


def _move(counts: dict[int, int], n: int, *, to: int) -> None:
    """Move n sequences from those never seen to those seen `to` times."""
    if n and to:
        counts[0] -= n
        counts[to] = counts.get(to, 0) + n


def _floor(x: Ints, times: int, plus: int, over: int) -> Ints:
    """floor((x * times + plus) / over), exact: in Python integers where 64 bits would not do."""
    if x.size == 0:
        return x
    if int(x.max()) * times + plus < 1 << 63:
        return (x * times + plus) // over
    exact = (x.astype(object) * times + plus) // over
    return exact.astype(np.int64)
