"""The repeated lane has exactly its share, and what is laid over the control leaves the rest alone."""

from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus.lanes import Lane
from repetita.corpus.schedule import EMPTY
from repetita.corpus.treatment import (
    RepeatedSubset,
    Stream,
)
from tests.corpus.plans import FRACTIONS, REPEATED, SUBSETS, TRAIN, WINDOWS, run, schedule


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.integers(0, 10**12))
@settings(max_examples=200)
def test_a_lane_is_exact_for_any_fraction_and_any_slot(one: int, other: int, first: int) -> None:
    fraction = Fraction(min(one, other), max(one, other))
    lane, slots_ = Lane(fraction), np.arange(first, first + 5)
    exact = [int(slot * fraction) for slot in slots_.tolist()]
    assert lane.before(slots_).tolist() == exact == [lane.count(slot) for slot in slots_.tolist()]
    positions = np.arange(first, first + 5) // 10**6
    taken = lane.slot(positions)
    assert lane.before(taken).tolist() == positions.tolist()
    assert lane.holds(taken).all()
    if fraction < 1:
        free = lane.other_slot(positions)
        assert (free - lane.before(free)).tolist() == positions.tolist()
        assert not lane.holds(free).any()


@given(FRACTIONS, st.integers(0, 30), st.integers(0, 40))
def test_a_lane_in_a_window_is_the_lane_from_its_start_on(
    fraction: Fraction, start: int, length: int
) -> None:
    lane, whole = Lane(fraction, start=start, stop=start + length), Lane(fraction)
    slots_ = np.arange(90)
    expected = np.zeros(90, bool)
    expected[start : start + length] = whole.holds(np.arange(length))
    assert np.array_equal(lane.holds(slots_), expected)
    assert lane.before(slots_).tolist() == [lane.count(slot) for slot in range(90)]
    assert [lane.count(slot) for slot in range(90)] == np.cumsum([0, *expected])[:90].tolist()
    assert lane.slot(np.arange(expected.sum())).tolist() == np.flatnonzero(expected).tolist()
    assert lane.other_slot(np.arange((~expected).sum())).tolist() == np.flatnonzero(~expected).tolist()
    assert lane.window(90) == length


@given(SUBSETS, st.integers(1, 90))
@settings(max_examples=60, deadline=None)
def test_the_share_of_the_lane_is_exact_to_within_a_slot_at_every_slot(treatment: Any, steps: int) -> None:
    plan = schedule(treatment, steps=40)
    lane = [row[4] == REPEATED for batch in run(plan) for row in batch]
    fraction = treatment.fraction
    if treatment.unit in ("paragraph", "sentence"):
        fraction *= Fraction(plan.members("repeated").size, treatment.n_sequences)
    for seen in range(1, len(lane) + 1):
        assert 0 <= fraction * seen - sum(lane[:seen]) < 1


@given(FRACTIONS, st.integers(1, 30), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_a_subset_leaves_the_other_slots_to_the_control_and_nests(
    fraction: Fraction, size: int, seed: int
) -> None:
    small, large = (
        schedule(RepeatedSubset(fraction=fraction, n_sequences=n), seed=seed) for n in (size, size + 2)
    )
    control = schedule(Stream(), seed=seed)
    for treated, other, plain in zip(small.batches(), large.batches(), control.batches(), strict=True):
        assert np.array_equal(treated.lane, other.lane)
        unique = treated.lane == TRAIN
        assert np.array_equal(treated.index[unique], plain.index[unique])
    assert large.members("repeated")[:size].tolist() == small.members("repeated").tolist()


@given(SUBSETS | WINDOWS, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_starvation_leaves_the_other_slots_as_in_the_treated_run(treatment: Any, seed: int) -> None:
    treated = schedule(treatment.edit(slots="repeated"), seed=seed)
    starved = schedule(treatment.edit(slots="empty"), seed=seed)
    for full, empty in zip(treated.batches(), starved.batches(), strict=True):
        lane = full.lane == REPEATED
        assert np.array_equal(empty.set, np.where(lane, EMPTY, full.set))
        assert np.array_equal(empty.index[~lane], full.index[~lane])
        assert np.array_equal(empty.host, full.host)
        assert np.array_equal(empty.lane, full.lane)
    assert np.array_equal(treated.members("repeated"), starved.members("repeated"))
