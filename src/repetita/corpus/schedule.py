"""What every slot of every step reads, as a pure function of treatment, seed and step.

`batch(step)` and all that is asked about visits is arithmetic: no state, no table that grows with the corpus,
so any step of a run over 10**10 sequences is as near as the first, and a run resumes anywhere.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.corpus.injections import Inserted, Pauses
from repetita.corpus.lanes import EMPTY, LANES, NOVEL, SETS, TRAIN, UNITS, Base, Columns, Lane, Subset
from repetita.corpus.subsets import Documents, Drawn, Sequences, ShortUnits
from repetita.corpus.treatment import (
    Insertions,
    Passes,
    RepeatedSubset,
    SpecialBatch,
    Stream,
    Treatment,
    steps_per_pass,
)
from repetita.errors import CorpusError, SpecError
from repetita.seeds import Ints, Permutation, key

__all__ = ["EMPTY", "LANES", "SETS", "Batch", "Schedule"]

_BLOCK = 1024
"""Slots worked out at a time: 64 steps of 16, so that a step costs a slice."""


class Batch(NamedTuple):
    """What the B slots of one step read; the arrays are read-only and of shape (B,)."""

    set: NDArray[np.int8]
    """Place in SETS, or EMPTY where the slot trains on nothing of its own."""
    index: Ints  # type: ignore[assignment]
    """Which sequence of the set, EMPTY where there is none."""
    pass_: Ints
    """How often the lane has read the whole subset before (or this item was injected before)."""
    host: Ints
    """Training sequence that the item is written into, -1 where the item stands alone."""
    lane: NDArray[np.int8]
    """Place in LANES."""
    step: int


class Schedule:
    """The batches of a run and the arithmetic of what it has seen by any step.

    `pools` gives the number of sequences of each set and `length` the tokens of a sequence. `lengths` gives
    the tokens of each sequence of a set: needed for `units` when the unit is a paragraph or a sentence, and
    for `special` when inserted items may fill a whole sequence (they then have no host). `documents` gives
    the document of each sequence of the set units, needed when the unit is a document.

    Raises SpecError where the treatment contradicts the run, and CorpusError where a set is too small for it.
    """

    def __init__(
        self,
        *,
        treatment: Treatment,
        pools: Mapping[str, int],
        batch_size: int,
        steps: int,
        seed: int,
        length: int | None = None,
        lengths: Mapping[str, Ints] | None = None,
        documents: Ints | None = None,
    ) -> None:
        self.treatment = over = treatment.settled(total=steps * batch_size, batch_size=batch_size)
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.steps_per_pass = steps_per_pass(over, batch_size=batch_size)
        """Steps in one pass over the repeated set, pauses left out; None for a stream."""
        self._pools = {name: pools.get(name, 0) for name in SETS}
        special = over if isinstance(over, SpecialBatch) else None
        self._pauses = Pauses(special, pools=self._pools, batch_size=batch_size, steps=steps, seed=seed)
        self._slots = read = self._pauses.base_slots(steps)
        self._novel = None
        if special is not None and special.after == "novel":
            assert special.at is not None
            read = min(read, special.at * batch_size)
            _check_pool("novel", self._slots - read, self._pools["novel"], length)
            self._novel = Permutation(self._pools["novel"], key(seed, "novel"))
        tokens = {name: np.asarray(values, np.int64) for name, values in (lengths or {}).items()}
        for name, values in (tokens | ({"units": documents} if documents is not None else {})).items():
            if len(values) != self._pools[name]:
                raise CorpusError(
                    f"the set {name} has {self._pools[name]} sequences but {len(values)} lengths or "
                    f"documents were given; give one for each"
                )
        text = _Text(self._pools, length, tokens, documents)
        base = over.base if isinstance(over, SpecialBatch | Insertions) else over
        self._base = _base(base, slots=read, batch_size=batch_size, seed=seed, text=text)
        self._length = length
        self._inserted = None
        if isinstance(over, Insertions):
            whole = np.flatnonzero(tokens.get("special", np.empty(0)) >= (length or np.inf))
            self._inserted = Inserted(
                over,
                base=self._base,
                pool=self._pools["special"],
                batch_size=batch_size,
                seed=seed,
                whole=whole,
            )
        self._block: tuple[int, Columns] | None = None

    def batch(self, step: int) -> Batch:
        """What step `step` reads (0 is the first update); raises IndexError outside the run."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside the run of {self.steps} steps")
        injected = self._pauses.at(step)
        if injected is not None:
            return Batch(*injected, step)
        many = max(1, _BLOCK // self.batch_size)
        number, start = divmod(self._pauses.base_slots(step), many * self.batch_size)
        block = self._block
        if block is None or block[0] != number:
            first = number * many * self.batch_size
            slots = np.arange(first, min(first + many * self.batch_size, self._slots), dtype=np.int64)
            block = self._block = (number, _read(slots, self._base, self._novel, self._inserted))
        return Batch(*block[1].part(start, start + self.batch_size), step)

    def batches(self, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The batches of steps [start, stop), by default of the whole run."""
        return map(self.batch, range(start, self.steps if stop is None else stop))

    def slots_before(self, step: int) -> int:
        """Slots of all steps before `step`, empty ones and those of injections included."""
        return self._pauses.base_slots(step) + self._pauses.slots_before(step)

    def ledger(self, step: int) -> dict[str, int]:
        """Slots before `step` by lane, and those that are empty (which count in no lane)."""
        slots = self._pauses.base_slots(step)
        read = min(slots, self._base.slots)
        inside = self._base.lane.count(read)
        counts = dict.fromkeys((*LANES, "empty"), 0)
        counts["train"] += read - inside
        counts["empty" if self._base.filled == "empty" else LANES[self._base.label]] += inside
        counts["novel"] += slots - read
        counts[self._pauses.lane_name] += self._pauses.slots_before(step)
        if self._inserted is not None:
            for lane, n in self._inserted.taken(slots).items():
                counts[lane] -= n
                counts["inserted"] += n
        return counts

    def times_seen(self, *, set: str, index: ArrayLike, step: int) -> Ints:  # noqa: A002
        """Visits to each sequence of a set in the steps before `step`, of the shape of `index`.

        A visit is a slot that reads the sequence, whole or as the host of an item.
        """
        code, given = SETS.index(set), np.asarray(index, dtype=np.int64)
        flat, slots = given.reshape(-1), self._pauses.base_slots(step)
        if flat.size and (flat.min() < 0 or flat.max() >= self._pools[set]):
            raise IndexError(f"an index outside the {self._pools[set]} sequences of the set {set}")
        seen = self._pauses.times_seen(flat, set=code, step=step)
        if code in (TRAIN, UNITS):
            seen += self._base.times_seen(flat, set=code, slots=min(slots, self._base.slots))
        if code == NOVEL and self._novel is not None:
            seen += self._novel.inverse(flat) < slots - self._base.slots
        if self._inserted is not None:
            seen += self._inserted.change(flat, set=code, slots=slots)
        return seen.reshape(given.shape)

    def steps_of(self, *, set: str, index: int) -> Ints:  # noqa: A002
        """The steps of the run that visit one sequence, in order, a step once for each visit."""
        code = SETS.index(set)
        if not 0 <= index < self._pools[set]:
            raise IndexError(f"index {index} is outside the {self._pools[set]} sequences of the set {set}")
        slots = np.empty(0, np.int64)
        if code in (TRAIN, UNITS):
            slots = self._base.slots_of(index, set=code)
        elif code == NOVEL and self._novel is not None:
            slot = self._base.slots + self._novel.inverse([index])
            slots = slot[slot < self._slots]
        if self._inserted is not None:
            slots = self._inserted.amend(slots, index=index, set=code)
        steps = self._pauses.step_of(slots // self.batch_size)
        return np.sort(np.concatenate([steps, self._pauses.steps_of(index, set=code)]))

    def members(self, lane: str, *, n: int | None = None) -> Ints:
        """The first n sequences (default: all) that the run has for a lane, as indices of `set_of(lane)`.

        `repeated` is the subset in the order of its first pass (that of the treated run when the slots are
        empty); `train` is what the other slots read, or the fixed set of `Passes`; `special`, `placebo` and
        `inserted` are what is injected. `common` is no lane, but the set that `train` was drawn of.
        """
        if lane == "common":
            subset = self._base.subset
            return subset.common()[:n] if isinstance(subset, Drawn) else np.empty(0, np.int64)
        if lane not in LANES:
            raise SpecError(f"'{lane}' is no lane; valid: {', '.join(LANES)}")
        base = self._base
        repeated = base.subset is not None and LANES[base.label] == lane
        if repeated or lane == "train":
            return base.members(repeated=repeated, n=n)
        if lane == "novel" and self._novel is not None:
            many = self._slots - base.slots
            return self._novel(np.arange(many if n is None else min(n, many)))
        if lane == "inserted" and self._inserted is not None:
            return self._inserted.members()[:n]
        parts = self.special_batches(self.set_of(lane)) if lane == self._pauses.lane_name else []
        return np.concatenate([np.empty(0, np.int64), *parts])[:n]

    def set_of(self, lane: str) -> str:
        """The set whose indices `members(lane)` gives."""
        if lane == "repeated" and self._base.subset is not None:
            return SETS[self._base.subset.set]
        if lane == self._pauses.lane_name:
            return self._pauses.set_name
        return {"repeated": "train", "inserted": "special", "common": "train"}.get(lane, lane)

    def special_batches(self, set: str = "special") -> list[Ints]:  # noqa: A002
        """The special batches as indices of the set special, in every arm (the set of the arm has its own).

        Empty for a treatment without special batches.
        """
        return self._pauses.batches(set)

    def histogram(self, step: int, *, set: str = "train") -> dict[int, int]:  # noqa: A002
        """Sequences of a set by `times_seen` before `step`, those never seen included."""
        code, pool, slots = SETS.index(set), self._pools[set], self._pauses.base_slots(step)
        counts = Counter({0: pool})
        touched = np.empty(0, np.int64)
        if code in (TRAIN, UNITS):
            read = min(slots, self._base.slots)
            counts = Counter(self._base.histogram(set=code, slots=read, pool=pool))
        elif code == NOVEL and self._novel is not None:
            read = max(0, slots - self._base.slots)
            counts = Counter({0: pool - read, 1: read})
        if set == self._pauses.set_name:
            touched = np.concatenate([touched, *self._pauses.batches(set)])
        if self._inserted is not None:
            touched = np.concatenate([touched, self._inserted.touched(set=code)])
        touched = np.unique(touched)
        after = self.times_seen(set=set, index=touched, step=step)
        before = np.zeros_like(after)
        if code in (TRAIN, UNITS):
            before = self._base.times_seen(touched, set=code, slots=min(slots, self._base.slots))
        counts.subtract(before.tolist())
        counts.update(after.tolist())
        return {times: n for times, n in sorted(counts.items()) if n}

    def realised(self) -> dict[str, float | int | None]:
        """What the run comes to: exact counts, and the f and E that they make (None without a subset).

        `fraction` is the share of repeated slots among those of the base, or of its window where it has one
        (`window_slots`), `passes` the readings of the subset. Short units fill only a part of their slot;
        `token_fraction` is their share of these slots' tokens.
        """
        base, slots = self._base, self._base.lane.window(self._slots)
        inside = base.lane.count(base.slots)
        size = base.subset.size if base.subset is not None else None
        values: dict[str, float | int | None] = {
            "slots": self.slots_before(self.steps),
            "window_slots": slots,
            "lane_slots": inside,
            "subset_size": size,
            "fraction": inside / slots if slots else None,
            "passes": inside / size if size else None,
        }
        if isinstance(base.subset, ShortUnits):
            tokens = base.subset.tokens * inside / base.subset.size
            values["token_fraction"] = tokens / (slots * self._length) if slots and self._length else None
        return values | {f"{lane}_slots": n for lane, n in self.ledger(self.steps).items()}


class _Text(NamedTuple):
    """What a base needs to know of the corpus."""

    pools: Mapping[str, int]
    length: int | None
    lengths: Mapping[str, Ints]
    documents: Ints | None


def _read(slots: Ints, base: Base, novel: Permutation | None, inserted: Inserted | None) -> Columns:
    """What a stretch of slots reads, novel text and items included."""
    columns = base.read(slots[slots < base.slots])
    later = slots[slots >= base.slots] - base.slots
    if later.size:
        assert novel is not None
        zero = np.zeros_like(later)
        fresh = Columns(
            set=(zero + NOVEL).astype(np.int8),
            index=novel(later),
            pass_=zero,
            host=zero - 1,
            lane=(zero + LANES.index("novel")).astype(np.int8),
        )
        columns = Columns(
            np.concatenate([columns.set, fresh.set]),
            np.concatenate([columns.index, fresh.index]),
            np.concatenate([columns.pass_, fresh.pass_]),
            np.concatenate([columns.host, fresh.host]),
            np.concatenate([columns.lane, fresh.lane]),
        )
    if inserted is not None and slots.size:
        inserted.write(columns, first=int(slots[0]))
    return columns.frozen()


def _base(
    treatment: Stream | Passes | RepeatedSubset, *, slots: int, batch_size: int, seed: int, text: _Text
) -> Base:
    """The base of a settled treatment; raises CorpusError where the corpus is too small for it."""
    order = Permutation(text.pools["train"], key(seed, "order"))
    pool = text.pools["train"]
    if isinstance(treatment, Passes):
        n, out_of = treatment.n_sequences, treatment.out_of
        named, most = ("n_sequences", n) if out_of is None else ("out_of", out_of)
        if most > pool:
            raise CorpusError(
                f"Passes: {named} = {most} exceeds the {pool} sequences of the training set by "
                f"{_amount(most - pool, text.length)}; lower it or take a larger corpus"
            )
        fixed: Subset = Sequences(
            size=n, lane=Lane(Fraction(1)), order=order, seed=seed, reordered=treatment.reordered
        )
        if out_of is not None:
            shared = Permutation(pool, key(treatment.common_seed, "order"))
            fixed = Drawn(size=n, out_of=out_of, order=shared, seed=seed)
        everything = Lane(Fraction(1))
        return Base(order=order, lane=everything, subset=fixed, slots=slots, label=LANES.index("train"))
    _check_pool("train", slots, pool, text.length)
    if isinstance(treatment, Stream):
        return Base(order=order, lane=Lane(Fraction(0)), subset=None, slots=slots)
    fraction, size = treatment.fraction, treatment.n_sequences
    assert fraction is not None
    assert size is not None
    first, last = treatment.begins * batch_size, treatment.stop and treatment.stop * batch_size
    lane = Lane(fraction, start=first, stop=last)
    subset: Subset
    if treatment.unit == "sequence":
        subset = Sequences(size=size, lane=lane, order=order, seed=seed)
    elif treatment.unit == "document":
        if text.documents is None:
            raise SpecError("RepeatedSubset: unit document needs the documents of the set units")
        subset = Documents(size=size, documents=text.documents, seed=seed)
    else:
        subset = _short_units(treatment.unit, size=size, seed=seed, text=text)
        # Token share f needs f * S * L tokens' worth of carriers: as many units as S sequences hold.
        rate = fraction * subset.size / size
        if rate > 1:
            reachable = float(Fraction(size, subset.size))
            raise SpecError(
                f"RepeatedSubset: fraction {fraction} is out of reach for unit {treatment.unit}, one a "
                f"sequence, which is at most {reachable:.3f} of the tokens; lower fraction or lengthen units"
            )
        lane = Lane(rate, start=first, stop=last)
    return Base(order=order, lane=lane, subset=subset, slots=slots, filled=treatment.slots)


def _short_units(unit: str, *, size: int, seed: int, text: _Text) -> ShortUnits:
    if text.length is None or "units" not in text.lengths:
        raise SpecError(
            f"RepeatedSubset: unit {unit} needs the length of a sequence and the lengths of the set units"
        )
    # A unit longer than a sequence is cut where it is written.
    return ShortUnits(
        tokens=size * text.length, lengths=np.minimum(text.lengths["units"], text.length), seed=seed
    )


def _check_pool(name: str, needed: int, pool: int, length: int | None) -> None:
    """Raise CorpusError, with what is missing, when a set is shorter than what is read of it once."""
    if needed <= pool:
        return

    more = "take a larger corpus" if name == "train" else f"give the split {name} a larger share"
    raise CorpusError(
        f"the run reads {_amount(needed, length)} of the set {name} once each and the set has "
        f"{_amount(pool, length)}: {_amount(needed - pool, length)} are missing; lower steps or batch_size, "
        f"or {more}"
    )


def _amount(n: int, length: int | None) -> str:
    return f"{n:,} sequences" + (f" ({n * length:,} tokens)" if length else "")
