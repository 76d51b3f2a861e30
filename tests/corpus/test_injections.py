"""Special batches and items come at exactly their steps and change nothing else."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus.schedule import EMPTY, LANES, SETS
from repetita.corpus.treatment import Insertion, Insertions, SpecialBatch, Stream
from repetita.errors import SpecError
from tests.corpus.plans import (
    INSERTIONS,
    LENGTHS,
    SPECIALS,
    run,
    schedule,
    slots,
)


@given(SPECIALS, st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_a_special_batch_is_at_exactly_its_steps_and_the_base_pauses(treatment: Any, seed: int) -> None:
    plan = schedule(treatment, seed=seed)
    injections = dict(treatment.injections())
    bare = iter(run(schedule(treatment.base, seed=seed, steps=40 - len(injections))))
    batches = plan.special_batches()
    assert len(batches) == treatment.n_batches
    assert len(set(np.concatenate(batches).tolist())) == treatment.n_batches * treatment.size
    done: Counter[int] = Counter()
    for batch in plan.batches():
        if batch.step in injections:
            which = injections[batch.step]
            label = "placebo" if treatment.arm == "placebo" else "special"
            assert {SETS[code] for code in batch.set} == {treatment.arm} == {plan.set_of(label)}
            assert {LANES[code] for code in batch.lane} == {label}
            assert np.array_equal(batch.index, plan.special_batches(treatment.arm)[which])
            assert (batch.pass_ == done[which]).all()
            done[which] += 1
        else:
            expected = next(bare)
            if treatment.after == "same" or batch.step < treatment.at:
                assert slots(batch) == expected
            else:
                assert {SETS[code] for code in batch.set} == {LANES[code] for code in batch.lane} == {"novel"}
    assert set(done.values()) == {treatment.times}


@given(treatment=SPECIALS, seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize(("arm", "label"), [("placebo", "placebo"), ("twin", "special")])
def test_arms_are_equal_but_for_the_set(treatment: Any, arm: str, label: str, seed: int) -> None:
    special = schedule(treatment.edit(arm="special"), seed=seed)
    stand_in = schedule(treatment.edit(arm=arm), seed=seed)
    for one, other in zip(special.batches(), stand_in.batches(), strict=True):
        assert np.array_equal(one.index, other.index)
        assert np.array_equal(one.pass_, other.pass_)
        injected = one.lane == LANES.index("special")
        assert np.array_equal(one.set[~injected], other.set[~injected])
        assert np.array_equal(injected, other.lane == LANES.index(label))
    same = zip(special.special_batches(), stand_in.special_batches(), strict=True)
    assert all(np.array_equal(one, other) for one, other in same)


@given(INSERTIONS, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_items_take_their_counts_in_their_windows_and_nothing_else(treatment: Any, seed: int) -> None:
    plan, bare = schedule(treatment, seed=seed), schedule(treatment.base, seed=seed)
    read: list[tuple[int, int]] = []
    for ours, theirs in zip(plan.batches(), bare.batches(), strict=True):
        for got, was in zip(slots(ours), slots(theirs), strict=True):
            if got[4] != LANES.index("inserted"):
                assert got == was
                continue
            read.append((ours.step, got[1]))
            host = was[1] if SETS[was[0]] == "train" and was[0] != EMPTY else was[3]
            assert got[3] == (-1 if LENGTHS["special"][got[1]] == 16 else host)
    wanted: Counter[int] = Counter()
    for item in treatment.items:
        wanted[item.index] += item.count
    assert Counter(index for _, index in read) == +wanted
    for index in wanted:
        windows = [(i.start, i.stop or 40) for i in treatment.items if i.index == index and i.count]
        assert all(any(a <= step < b for a, b in windows) for step, which in read if which == index)


def test_the_slots_of_a_small_count_are_among_those_of_a_large_one() -> None:
    def steps(count: int) -> list[int]:
        items = (Insertion(index=3, count=count),)
        found = schedule(Insertions(base=Stream(), items=items)).steps_of(set="special", index=3)
        return [int(step) for step in found]

    assert not Counter(steps(4)) - Counter(steps(16))
    assert len(steps(320)) == 320


def test_interleaved_batches_are_each_spaced_like_one_alone() -> None:
    nested = SpecialBatch(base=Stream(), size=4, at=3, n_batches=3, times=3, every=8, batches="interleaved")
    assert [batch for _, batch in nested.injections()] == [0, 1, 2] * 3
    alone = SpecialBatch(base=Stream(), size=4, at=3, times=3, every=8)
    for batch in range(3):
        steps = [step - batch * 8 // 3 for step, which in nested.injections() if which == batch]
        assert steps == [step for step, _ in alone.injections()]
    with pytest.raises(SpecError, match="do not fit into every = 2 steps"):
        nested.edit(every=2)


def test_a_set_without_special_batches_is_refused() -> None:
    plan = schedule(SpecialBatch(base=Stream(), size=4, at=3))
    with pytest.raises(SpecError, match="are of the sets special, not 'twin'"):
        plan.special_batches("twin")
    assert schedule(Stream()).special_batches() == []
