"""Small schedules of every kind, and how to read them slot by slot."""

from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from repetita.corpus.schedule import LANES, SETS, Batch, Schedule
from repetita.corpus.treatment import (
    Insertion,
    Insertions,
    Passes,
    RepeatedSubset,
    SpecialBatch,
    Stream,
)

POOLS = {"train": 700, "special": 40, "twin": 40, "placebo": 40, "novel": 600, "units": 90, "test": 20}
DOCUMENTS = np.repeat(np.arange(23), [7, 1, 3, 5, 2, 9, 4, 1, 1, 6, 3, 2, 5, 8, 1, 4, 3, 2, 6, 5, 7, 2, 3])
LENGTHS = {
    "units": np.array([3 + 7 * i % 11 for i in range(90)]),
    "special": np.array([16 if i % 3 == 0 else 5 for i in range(40)]),
}
TRAIN, REPEATED = LANES.index("train"), LANES.index("repeated")


def schedule(treatment: Any, *, steps: int = 40, batch_size: int = 8, seed: int = 0, **more: Any) -> Schedule:
    values: dict[str, Any] = {"pools": POOLS, "length": 16, "lengths": LENGTHS, "documents": DOCUMENTS} | more
    return Schedule(treatment=treatment, steps=steps, batch_size=batch_size, seed=seed, **values)


def slots(batch: Batch) -> list[tuple[int, ...]]:
    columns = (batch.set, batch.index, batch.pass_, batch.host, batch.lane)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def run(plan: Schedule, *, start: int = 0, stop: int | None = None) -> list[list[tuple[int, ...]]]:
    return [slots(batch) for batch in plan.batches(start=start, stop=stop)]


def visits(plan: Schedule, name: str, *, step: int) -> list[tuple[int, int]]:
    """(step, index) of every visit to a set before a step, by reading the batches."""
    code, found = SETS.index(name), []
    for batch in plan.batches(stop=step):
        for set_, index, _, host, _ in slots(batch):
            if set_ == code:
                found.append((batch.step, index))
            if name == "train" and host >= 0:
                found.append((batch.step, host))
    return found


FRACTIONS = st.sampled_from([Fraction(1, 10), Fraction(3, 10), Fraction(1, 2), Fraction(5, 7), Fraction(1)])
SUBSETS = st.one_of(
    st.builds(
        RepeatedSubset,
        fraction=FRACTIONS,
        n_sequences=st.integers(1, 12),
        unit=st.sampled_from(["sequence", "document"]),
        slots=st.sampled_from(["repeated", "empty"]),
    ),
    st.builds(
        RepeatedSubset,
        fraction=st.sampled_from([Fraction(1, 10), Fraction(1, 4)]),
        n_sequences=st.integers(1, 12),
        unit=st.sampled_from(["paragraph", "sentence"]),
        slots=st.sampled_from(["repeated", "empty"]),
    ),
)
_WINDOW = {
    "n_sequences": st.integers(1, 8),
    "slots": st.sampled_from(["repeated", "empty"]),
    "start": st.none() | st.integers(0, 8),
    "stop": st.none() | st.integers(12, 15),  # special batches may leave the base no more steps
}
WINDOWS = st.one_of(
    st.builds(
        RepeatedSubset,
        fraction=st.sampled_from([Fraction(3, 10), Fraction(1, 2), Fraction(5, 7), Fraction(1)]),
        unit=st.sampled_from(["sequence", "document"]),
        **_WINDOW,
    ),
    st.builds(
        RepeatedSubset,
        fraction=st.just(Fraction(1, 4)),
        unit=st.sampled_from(["paragraph", "sentence"]),
        **_WINDOW,
    ),
)
"""Subsets that are re-read in some of the steps alone."""
DRAWN = st.builds(
    Passes, n_sequences=st.integers(1, 40), out_of=st.integers(40, 90), common_seed=st.integers(0, 3)
)
PASSES = st.builds(Passes, n_sequences=st.integers(1, 400), reordered=st.integers(0, 2))
BASES = st.one_of(st.just(Stream()), PASSES, DRAWN, SUBSETS, WINDOWS)
_SPECIAL = {
    "base": BASES,
    "size": st.integers(1, 12),
    "at": st.integers(15, 17),
    "n_batches": st.integers(1, 3),
    "times": st.integers(1, 3),
    "arm": st.sampled_from(["special", "twin", "placebo"]),
    "after": st.sampled_from(["same", "novel"]),
}
SPECIALS = st.one_of(
    st.builds(SpecialBatch, every=st.integers(1, 3), gap=st.integers(1, 2), **_SPECIAL),
    st.builds(SpecialBatch, every=st.integers(3, 7), batches=st.just("interleaved"), **_SPECIAL),
)
ITEMS = st.builds(
    Insertion,
    index=st.integers(0, 9),
    count=st.sampled_from([0, 1, 4, 16]),
    start=st.integers(0, 20),
    stop=st.none() | st.integers(30, 40),  # ten steps of 8 slots hold four items of 16 visits
)
INSERTIONS = st.builds(Insertions, base=BASES, items=st.lists(ITEMS, max_size=4).map(tuple))
TREATMENTS = st.one_of(BASES, SPECIALS, INSERTIONS)
