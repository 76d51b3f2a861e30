"""What comes into a run from outside its base: special batches that pause it, items that take a slot."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from repetita.corpus.lanes import EMPTY, INSERTED, LANES, SETS, SPECIAL, TRAIN, Base, Columns
from repetita.corpus.treatment import Insertion, Insertions, SpecialBatch
from repetita.errors import CorpusError, SpecError
from repetita.seeds import Ints, Permutation, key


class Pauses:
    """The steps at which the base pauses for a special batch, and what is read; none without `special`."""

    def __init__(
        self, special: SpecialBatch | None, *, pools: dict[str, int], batch_size: int, steps: int, seed: int
    ) -> None:
        self.set_name: str = special.arm if special is not None else "special"
        # Twins that are trained on have the special batch's role, so they have its label.
        self.lane_name = "placebo" if self.set_name == "placebo" else "special"
        self._batch_size = batch_size
        self._size, self._n_batches = 1, 0
        made: list[tuple[int, int]] = []
        if special is not None:
            self._size, self._n_batches = special.size, special.n_batches
            made = [(step, batch) for step, batch in special.injections() if step < steps]
            for name in sorted({"special", special.arm}):
                if special.size * special.n_batches > pools[name]:
                    raise CorpusError(
                        f"SpecialBatch: {special.n_batches} x {special.size} sequences exceed the "
                        f"{pools[name]} of the set {name}; lower size or n_batches, or give the split "
                        f"{name} a larger share"
                    )
        self._steps = np.array([step for step, _ in made], np.int64)
        self._batch_of = np.array([batch for _, batch in made], np.int64)
        self._pass_of = list(_counted(batch for _, batch in made))
        self._base_steps = self._steps - np.arange(self._steps.size)
        # One key for both sets: arms whose sets are of one size differ in nothing but the set.
        names: set[str] = {"special", self.set_name}
        self._orders = {name: Permutation(pools[name], key(seed, "special")) for name in names}

    def at(self, step: int) -> Columns | None:
        """The injection at a step, if there is one."""
        number = int(np.searchsorted(self._steps, step))
        if number == self._steps.size or self._steps[number] != step:
            return None
        full = self._size
        columns = Columns(
            set=np.full(full, SETS.index(self.set_name), np.int8),
            index=self._batch(self.set_name, int(self._batch_of[number])),
            pass_=np.full(full, self._pass_of[number], np.int64),
            host=np.full(full, -1, np.int64),
            lane=np.full(full, LANES.index(self.lane_name), np.int8),
        )
        return columns.frozen()

    def base_slots(self, step: int) -> int:
        """Slots of the base before a step of the run."""
        return (step - int(np.searchsorted(self._steps, step))) * self._batch_size

    def slots_before(self, step: int) -> int:
        """Slots of injections before a step."""
        return int(np.searchsorted(self._steps, step)) * self._size

    def step_of(self, base_steps: Ints) -> Ints:
        """The run's step of each step of the base."""
        return base_steps + np.searchsorted(self._base_steps, base_steps, side="right")

    def times_seen(self, index: Ints, *, set: int, step: int) -> Ints:  # noqa: A002
        """Injections of each index of a set before a step."""
        if SETS[set] != self.set_name or not self._n_batches:
            return np.zeros(index.shape, np.int64)
        made = np.bincount(self._batch_of[self._steps < step], minlength=self._n_batches).astype(np.int64)
        batch = self._orders[self.set_name].inverse(index) // self._size
        seen: Ints = np.where(batch < self._n_batches, made[np.minimum(batch, self._n_batches - 1)], 0)
        return seen

    def steps_of(self, index: int, *, set: int) -> Ints:  # noqa: A002
        """The steps that inject one index of a set."""
        if SETS[set] != self.set_name or not self._n_batches:
            return np.empty(0, np.int64)
        batch = self._orders[self.set_name].inverse([index]) // self._size
        steps: Ints = self._steps[self._batch_of == batch]
        return steps

    def batches(self, set: str) -> list[Ints]:  # noqa: A002
        """The special batches (or, of the set of another arm, those that stand in for them) as indices."""
        if set not in self._orders:
            raise SpecError(f"special batches are of the sets {', '.join(sorted(self._orders))}, not '{set}'")
        return [self._batch(set, batch) for batch in range(self._n_batches)]

    def _batch(self, name: str, batch: int) -> Ints:
        return self._orders[name](np.arange(batch * self._size, (batch + 1) * self._size))


def _counted(batches: Iterable[int]) -> Iterator[int]:
    """How often the batch of each injection was injected before it."""
    made: Counter[int] = Counter()
    for batch in batches:
        yield made[batch]
        made[batch] += 1


class Inserted:
    """The slots of the base that items of the set special take, and what changes by that.

    `whole` holds the items that fill a whole sequence; the others are written into a host.
    """

    def __init__(
        self, over: Insertions, *, base: Base, pool: int, batch_size: int, seed: int, whole: Ints
    ) -> None:
        placed = np.array(list(_placed(over.items, pool=pool, batch_size=batch_size, seed=seed)), np.int64)
        placed = placed.reshape(-1, 2)
        placed = placed[placed[:, 0] < base.slots]
        self._slots, self._items = placed[np.argsort(placed[:, 0])].T
        self._was = base.read(self._slots)
        self._pass = np.empty_like(self._items)
        for item in np.unique(self._items):
            self._pass[self._items == item] = np.arange(np.count_nonzero(self._items == item))
        host = np.where(self._was.set == TRAIN, self._was.index, self._was.host)
        self._host = np.where(np.isin(self._items, whole), -1, host)
        self._members = np.unique([item.index for item in over.items if item.count]).astype(np.int64)

    def write(self, columns: Columns, *, first: int) -> None:
        """Put the items into the columns of the slots from `first` on."""
        start, stop = np.searchsorted(self._slots, [first, first + columns.set.size])
        at = self._slots[start:stop] - first
        columns.set[at], columns.lane[at] = SPECIAL, INSERTED
        columns.index[at], columns.pass_[at] = self._items[start:stop], self._pass[start:stop]
        columns.host[at] = self._host[start:stop]

    def change(self, index: Ints, *, set: int, slots: int) -> Ints:  # noqa: A002
        """Visits gained less visits lost by each index of a set in the first `slots` slots."""
        total = np.zeros(index.shape, np.int64)
        for sign, where, who in self._moves(set):
            known = np.sort(who[where < slots])
            total += sign * (np.searchsorted(known, index, "right") - np.searchsorted(known, index, "left"))
        return total

    def amend(self, slots: Ints, *, index: int, set: int) -> Ints:  # noqa: A002
        """The slots that visit an index, after the items have taken and given theirs."""
        gained, lost = np.empty(0, np.int64), np.empty(0, np.int64)
        for sign, where, who in self._moves(set):
            if sign > 0:
                gained = np.concatenate([gained, where[who == index]])
            else:
                lost = np.concatenate([lost, where[who == index]])
        return np.sort(np.concatenate([slots[~np.isin(slots, lost)], gained]))

    def touched(self, *, set: int) -> Ints:  # noqa: A002
        """The indices of a set whose visits the items may change."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *(who for _, _, who in self._moves(set))]))

    def taken(self, slots: int) -> dict[str, int]:
        """How many of the first `slots` slots the items took, by the lane that lost them."""
        before = self._slots < slots
        empty = self._was.set[before] == EMPTY
        lanes = np.bincount(self._was.lane[before][~empty], minlength=len(LANES))
        return dict(zip(LANES, lanes.tolist(), strict=True)) | {"empty": int(empty.sum())}

    def members(self) -> Ints:
        """The items that are inserted at all, as indices of the set special."""
        return self._members

    def _moves(self, set: int) -> Iterator[tuple[int, Ints, Ints]]:  # noqa: A002
        """(+1 or -1, slots, indices): visits of a set that come and go with the items."""
        same = self._was.set == set
        yield -1, self._slots[same], self._was.index[same]
        if set == TRAIN:
            for sign, host in ((-1, self._was.host), (1, self._host)):
                yield sign, self._slots[host >= 0], host[host >= 0]
        if set == SPECIAL:
            yield 1, self._slots, self._items


def _placed(
    items: tuple[Insertion, ...], *, pool: int, batch_size: int, seed: int
) -> Iterator[tuple[int, int]]:
    """(slot, item) of every insertion: an item's slots are the first free ones in an order of its own."""
    taken: set[int] = set()
    for item in items:
        if item.index >= pool:
            raise CorpusError(
                f"Insertions: item {item.index} is outside the {pool} sequences of the set special; lower "
                f"the index or give the split special a larger share"
            )
        assert item.stop is not None
        window = (item.stop - item.start) * batch_size
        order, tried, left = Permutation(window, key(seed, "insertions")), 0, item.count
        while left:
            if tried == window:
                raise SpecError(
                    f"Insertions: item {item.index} finds {item.count - left} free slots for its count "
                    f"{item.count} in steps [{item.start}, {item.stop}); lower the counts or widen the window"
                )
            some = order(np.arange(tried, min(window, tried + left)), turn=item.index)
            tried += some.size
            for slot in (some + item.start * batch_size).tolist():
                if slot not in taken:
                    taken.add(slot)
                    left -= 1
                    yield slot, item.index
