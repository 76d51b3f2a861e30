"""What a model has seen is arithmetic, and the arithmetic is what the batches say."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus.schedule import EMPTY, LANES, SETS, Schedule
from repetita.corpus.treatment import (
    Insertion,
    Insertions,
    Passes,
    RepeatedSubset,
    SpecialBatch,
    Stream,
)
from repetita.errors import CorpusError, SpecError, UserError
from tests.corpus.plans import (
    DOCUMENTS,
    FRACTIONS,
    POOLS,
    REPEATED,
    TRAIN,
    TREATMENTS,
    run,
    schedule,
    slots,
    visits,
)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "schedule.json").read_text())
# What is arithmetic equals what the batches say


@given(TREATMENTS, st.integers(0, 5), st.integers(0, 40))
@settings(max_examples=120, deadline=None)
def test_times_seen_and_histogram_are_counts_of_the_batches(treatment: Any, seed: int, step: int) -> None:
    plan = schedule(treatment, seed=seed)
    for name, pool in POOLS.items():
        counts = Counter(index for _, index in visits(plan, name, step=step))
        expected = np.array([counts[index] for index in range(pool)])
        assert np.array_equal(plan.times_seen(set=name, index=np.arange(pool), step=step), expected), name
        assert plan.histogram(step, set=name) == dict(sorted(Counter(expected.tolist()).items())), name


@given(TREATMENTS, st.integers(0, 5), st.data())
@settings(max_examples=80, deadline=None)
def test_steps_of_are_the_steps_of_the_batches(treatment: Any, seed: int, data: st.DataObject) -> None:
    plan = schedule(treatment, seed=seed)
    for name in POOLS:
        made = visits(plan, name, step=40)
        known = sorted({index for _, index in made}) or [0]
        for index in (data.draw(st.sampled_from(known)), data.draw(st.integers(0, POOLS[name] - 1))):
            steps = [step for step, which in made if which == index]
            assert plan.steps_of(set=name, index=index).tolist() == steps


@given(TREATMENTS, st.integers(0, 40))
@settings(max_examples=80, deadline=None)
def test_the_ledger_counts_the_slots(treatment: Any, step: int) -> None:
    plan = schedule(treatment)
    rows = [row for batch in run(plan, stop=step) for row in batch]
    assert plan.slots_before(step) == len(rows)
    counts = Counter("empty" if row[0] == EMPTY else LANES[row[4]] for row in rows)
    assert {name: n for name, n in plan.ledger(step).items() if n} == counts


@given(TREATMENTS, st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_members_are_what_their_lane_reads(treatment: Any, seed: int) -> None:
    plan = schedule(treatment, seed=seed)
    rows = [row for batch in run(plan) for row in batch if row[0] != EMPTY]
    base = getattr(treatment, "base", treatment)
    for code, lane in enumerate(LANES):
        read = {(SETS[row[0]], row[1]) for row in rows if row[4] == code}
        members = plan.members(lane)
        assert len(set(members.tolist())) == members.size
        named = {(plan.set_of(lane), index) for index in members.tolist()}
        assert read <= named
        # Only items can take a member's slot, and only a starved or unfinished subset stays unread.
        complete = not isinstance(treatment, Insertions) and getattr(base, "slots", "repeated") == "repeated"
        if complete and not (lane == "train" and isinstance(base, Passes)) and lane != "repeated":
            assert read == named
        assert plan.members(lane, n=3).tolist() == members[:3].tolist()


# The order of the base


@given(st.integers(0, 9), st.integers(1, 80), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_a_stream_reads_each_sequence_at_most_once(seed: int, steps: int, batch_size: int) -> None:
    plan = schedule(Stream(), steps=steps, batch_size=batch_size, seed=seed)
    read = [row[1] for batch in run(plan) for row in batch]
    assert len(set(read)) == len(read) == steps * batch_size
    assert len({tuple(slots(schedule(Stream(), seed=s).batch(0))) for s in range(5)}) == 5


@given(st.integers(1, 200), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_each_pass_reads_the_fixed_set_once_in_an_order_of_its_own(n: int, seed: int) -> None:
    plan = schedule(Passes(n_sequences=n), seed=seed)
    read = [row[1] for batch in run(plan) for row in batch]
    passes = [read[i : i + n] for i in range(0, len(read) - n + 1, n)]
    assert all(sorted(one) == sorted(passes[0]) for one in passes)
    assert sorted(passes[0]) == sorted(plan.members("train").tolist())
    if n > 20:
        assert len({tuple(one) for one in passes}) == len(passes)
    assert set(plan.members("train")) < set(schedule(Passes(n_sequences=n + 1), seed=seed).members("train"))


@given(
    st.integers(1, 25), st.integers(1, 30), st.integers(0, 60), st.integers(0, 9), st.sampled_from([1, 8, 13])
)
@settings(max_examples=100, deadline=None)
def test_a_subset_is_read_e_times_and_all_else_once(
    passes: int, size: int, others: int, seed: int, batch_size: int
) -> None:
    """E * S = f * T to the sequence, for any E, S and T that the batch divides."""
    total = -(-(passes * size + others) // batch_size) * batch_size
    treatment = RepeatedSubset(passes=Fraction(passes), n_sequences=size)
    pools = {"train": total + 3}
    plan = schedule(
        treatment,
        steps=total // batch_size,
        batch_size=batch_size,
        seed=seed,
        pools=pools,
        lengths=None,
        documents=None,
    )
    rows = [row for batch in run(plan) for row in batch]
    repeated = Counter(row[1] for row in rows if row[4] == REPEATED)
    unique = Counter(row[1] for row in rows if row[4] == TRAIN)
    assert len(repeated) == size
    assert set(repeated.values()) == {passes}
    assert sum(unique.values()) == len(unique) == total - passes * size
    assert not repeated.keys() & unique.keys()
    assert set(repeated) == set(plan.members("repeated").tolist())
    realised = plan.realised()
    assert realised["passes"] == passes
    assert realised["fraction"] == passes * size / total


@given(FRACTIONS, st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_one_pass_is_the_stream_bit_for_bit(fraction: Fraction, seed: int) -> None:
    steps = 70
    once = schedule(RepeatedSubset(fraction=fraction, passes=Fraction(1)), steps=steps, seed=seed)
    for treated, control in zip(
        once.batches(), schedule(Stream(), steps=steps, seed=seed).batches(), strict=True
    ):
        # All but the label of the lane.
        assert [row[:4] for row in slots(treated)] == [row[:4] for row in slots(control)]


@given(FRACTIONS, st.integers(0, 30), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_one_pass_in_a_window_is_the_stream_bit_for_bit(
    fraction: Fraction, start: int, length: int, seed: int
) -> None:
    treatment = RepeatedSubset(
        fraction=fraction, passes=Fraction(1), start=start, stop=start + max(2, length)
    )
    once, control = (schedule(one, steps=70, seed=seed) for one in (treatment, Stream()))
    for treated, plain in zip(once.batches(), control.batches(), strict=True):
        assert [row[:4] for row in slots(treated)] == [row[:4] for row in slots(plain)]


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 25), st.integers(8, 30), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_window_reads_its_subset_e_times_and_all_else_is_the_control(
    passes: int, size: int, start: int, length: int, seed: int
) -> None:
    """E * S = f * (slots of the window), and no sequence is read both in the subset and beside it."""
    treatment = RepeatedSubset(passes=Fraction(passes), n_sequences=size, start=start, stop=start + length)
    plan, control = schedule(treatment, steps=60, seed=seed), schedule(Stream(), steps=60, seed=seed)
    rows, plain = (np.array([row for batch in run(one) for row in batch]) for one in (plan, control))
    inside = rows[:, 4] == REPEATED
    assert Counter(rows[inside, 1].tolist()) == dict.fromkeys(plan.members("repeated").tolist(), passes)
    assert np.array_equal(rows[~inside, :4], plain[~inside, :4])
    assert len(set(rows[:, 1].tolist())) == (~inside).sum() + size
    where = np.flatnonzero(inside)
    assert start * 8 <= where.min()
    assert where.max() < (start + length) * 8
    realised = plan.realised()
    assert realised["window_slots"] == length * 8
    assert realised["lane_slots"] == passes * size
    assert realised["passes"] == passes
    assert realised["fraction"] == passes * size / (length * 8)


@given(st.sampled_from(["repeated", "empty"]), st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_windows_share_their_starts(kind: Any, seed: int) -> None:
    """An early window begins like the whole run, a late one like the control, starved or not."""
    values: dict[str, Any] = {"fraction": Fraction(3, 10), "n_sequences": 5, "slots": kind}
    whole, early, late, control = (
        run(schedule(treatment, seed=seed))
        for treatment in (
            RepeatedSubset(**values),
            RepeatedSubset(stop=20, **values),
            RepeatedSubset(start=20, **values),
            Stream(),
        )
    )
    assert early[:20] == whole[:20] != control[:20]
    assert early[20:] == control[20:]
    assert late[:20] == control[:20]
    assert late[20:] != control[20:]


# Any step from anywhere


@given(TREATMENTS, st.integers(0, 5), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_a_prefix_knows_nothing_of_what_comes_later(treatment: Any, seed: int, step: int) -> None:
    plan = schedule(treatment, seed=seed)
    trunk = schedule(plan.treatment.until(step), seed=seed, steps=step)
    assert run(trunk) == run(plan, stop=step)
    for name, pool in POOLS.items():
        index = np.arange(pool)
        seen = trunk.times_seen(set=name, index=index, step=step)
        assert np.array_equal(seen, plan.times_seen(set=name, index=index, step=step))


@given(TREATMENTS, st.integers(0, 39), st.integers(1, 600))
@settings(max_examples=60, deadline=None)
def test_a_resumed_run_is_the_straight_one(treatment: Any, step: int, jump: int) -> None:
    straight = run(schedule(treatment))
    resumed = schedule(treatment)
    assert run(resumed, start=step) == straight[step:]
    anywhere = [jump * i % 40 for i in range(40)]
    assert [slots(resumed.batch(i)) for i in anywhere] == [straight[i] for i in anywhere]


@pytest.mark.parametrize(
    "treatment",
    [
        Stream(),
        Passes(n_sequences=10**9 + 7),
        RepeatedSubset(fraction=Fraction(1, 10), passes=Fraction(100)),
        RepeatedSubset(passes=Fraction(7), n_sequences=123_456_789),
        SpecialBatch(base=Stream(), size=16, at=5 * 10**8, after="novel"),
    ],
)
def test_ten_billion_sequences_are_addressed_like_ten(treatment: Any) -> None:
    steps, pool = 10**9, 2 * 10**10
    pools = {"train": pool, "novel": pool, "special": 64}
    plan = Schedule(treatment=treatment, pools=pools, batch_size=16, steps=steps, seed=1)
    for step in (0, 123_456_789, steps - 1):
        batch = plan.batch(step)
        name = "novel" if batch.lane[0] == LANES.index("novel") else "train"
        for slot, index in enumerate(batch.index.tolist()):
            visited = plan.times_seen(set=name, index=[index], step=step)[0]
            assert visited == batch.pass_[slot]
        assert plan.times_seen(set=name, index=[index], step=step + 1)[0] == batch.pass_[slot] + 1
    assert sum(plan.histogram(steps).values()) == pool
    seen = sum(times * n for times, n in plan.histogram(steps).items())
    assert seen == plan.ledger(steps)["train"] + plan.ledger(steps)["repeated"]


def test_batches_are_read_only_and_bounded() -> None:
    plan = schedule(Stream())
    with pytest.raises(ValueError, match="read-only"):
        plan.batch(0).index[0] = 3
    for step in (-1, 40):
        with pytest.raises(IndexError, match="outside the run of 40 steps"):
            plan.batch(step)
    with pytest.raises(IndexError, match="700 sequences of the set train"):
        plan.times_seen(set="train", index=[700], step=1)


# What is refused before the run starts

LONG = {"steps": 100}


@pytest.mark.parametrize(
    ("treatment", "more", "error", "sentence"),
    [
        (Stream(), LONG, CorpusError, "800 sequences (12,800 tokens)"),
        (Stream(), LONG, CorpusError, "100 sequences (1,600 tokens) are missing"),
        (RepeatedSubset(fraction=Fraction(1, 2), n_sequences=4), LONG, CorpusError, "100 sequences"),
        (Passes(n_sequences=701), {}, CorpusError, "n_sequences = 701 exceeds the 700"),
        (Passes(n_sequences=7, out_of=701), {}, CorpusError, "out_of = 701 exceeds the 700"),
        (
            SpecialBatch(base=Stream(), size=21, n_batches=2, at=1),
            {},
            CorpusError,
            "exceed the 40 of the set",
        ),
        (
            SpecialBatch(base=Stream(), size=8, at=1, arm="placebo"),
            {"pools": POOLS | {"placebo": 7}},
            CorpusError,
            "the 7 of the set placebo",
        ),
        (
            SpecialBatch(base=Stream(), size=8, at=1, after="novel"),
            {"pools": POOLS | {"novel": 9}},
            CorpusError,
            "of the set novel",
        ),
        (SpecialBatch(base=Stream(), size=8, at=40), {}, SpecError, "outside the run of 40 steps"),
        (
            Insertions(base=Stream(), items=(Insertion(index=40, count=1),)),
            {},
            CorpusError,
            "item 40 is outside",
        ),
        (
            Insertions(base=Stream(), items=(Insertion(index=0, count=9, stop=1),)),
            {},
            SpecError,
            "finds 8 free slots for its count 9",
        ),
        (
            RepeatedSubset(fraction=Fraction(9, 10), n_sequences=8, unit="sentence"),
            {},
            SpecError,
            "out of reach for unit sentence",
        ),
        (
            RepeatedSubset(fraction=Fraction(1, 4), n_sequences=60, unit="sentence"),
            {},
            CorpusError,
            "lower n_sequences",
        ),
        (
            RepeatedSubset(fraction=Fraction(1, 2), n_sequences=91, unit="document"),
            {},
            CorpusError,
            "the set units has 90",
        ),
        (
            RepeatedSubset(fraction=Fraction(1, 2), n_sequences=9, unit="document"),
            {"documents": None},
            SpecError,
            "needs the documents",
        ),
        (
            RepeatedSubset(fraction=Fraction(1, 4), n_sequences=9, unit="sentence"),
            {"lengths": None},
            SpecError,
            "needs the length",
        ),
        (Stream(), {"documents": DOCUMENTS[:-1]}, CorpusError, "give one for each"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_sentence(
    treatment: Any, more: dict[str, Any], error: type[UserError], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        schedule(treatment, **more)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


# Values that never change

KNOWN: dict[str, Any] = {
    "stream": Stream(),
    "passes": Passes(n_sequences=5),
    "repeated": RepeatedSubset(fraction=Fraction(3, 10), n_sequences=4),
    "documents": RepeatedSubset(fraction=Fraction(1, 2), n_sequences=9, unit="document"),
    "sentences": RepeatedSubset(fraction=Fraction(1, 4), n_sequences=4, unit="sentence"),
    "window": RepeatedSubset(fraction=Fraction(3, 10), n_sequences=4, start=1, stop=5),
    "special": SpecialBatch(base=Stream(), size=3, at=2, times=2, every=2, after="novel"),
    "insertions": Insertions(base=Stream(), items=(Insertion(index=1, count=4), Insertion(index=3, count=4))),
}


def test_another_order_of_the_passes_is_of_the_same_set() -> None:
    plans = [schedule(Passes(n_sequences=32, reordered=number)) for number in range(3)]
    read = [np.array([[row[1] for row in batch] for batch in run(plan)]).reshape(-1, 32) for plan in plans]
    for passes in read:
        assert len({tuple(order) for order in passes.tolist()}) == len(passes)
        for order in passes:
            assert sorted(order) == sorted(read[0][0])
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert all((a != b).any() for a, b in zip(read[one], read[other], strict=True))


@pytest.mark.parametrize("name", KNOWN)
def test_golden_batches(name: str) -> None:
    plan = schedule(KNOWN[name], steps=6, batch_size=8, seed=7)
    assert [[list(row) for row in batch] for batch in run(plan)] == GOLDEN[name]
