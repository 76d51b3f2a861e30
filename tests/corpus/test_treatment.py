"""Treatments settle to one value, refuse contradictions, and have prefixes that know nothing of later."""

import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from repetita.corpus.treatment import (
    Insertion,
    Insertions,
    Passes,
    RepeatedSubset,
    SpecialBatch,
    Stream,
    Treatment,
    solve_repetition,
    steps_per_pass,
)
from repetita.errors import SpecError
from repetita.spec import canonical_json


def settle(treatment: Any, *, steps: int = 100, batch_size: int = 16) -> Any:
    return treatment.settled(total=steps * batch_size, batch_size=batch_size)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 2000))
@settings(max_examples=200)
def test_any_two_of_fraction_passes_and_size_give_the_third(passes: int, size: int, rest: int) -> None:
    total = passes * size + rest
    fraction, E = Fraction(passes * size, total), Fraction(passes)
    for given_values in (
        {"fraction": fraction, "passes": E, "n_sequences": None},
        {"fraction": fraction, "passes": None, "n_sequences": size},
        {"fraction": None, "passes": E, "n_sequences": size},
        {"fraction": fraction, "passes": E, "n_sequences": size},
    ):
        assert solve_repetition(**given_values, total=total) == (fraction, size)


@given(st.fractions(0, 1, max_denominator=50), st.integers(1, 200), st.integers(1, 5000))
@settings(max_examples=200)
def test_a_solved_size_keeps_its_passes(fraction: Fraction, passes: int, total: int) -> None:
    assume(fraction > 0)
    lane = (fraction * total).__floor__()
    try:
        _, size = solve_repetition(fraction=fraction, passes=Fraction(passes), n_sequences=None, total=total)
    except SpecError:
        assert lane < 1 or passes > lane or (passes < 20 and lane % passes)
    else:
        assert lane == passes * size if passes < 20 else abs(Fraction(lane, passes) - size) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fraction": 0, "passes": 2}, "outside"),
        ({"fraction": 1.5, "passes": 2}, "outside"),
        ({"fraction": -0.1, "passes": 2}, "outside"),
        ({"fraction": 0.1}, "give passes or n_sequences"),
        ({"passes": 4}, "give two of"),
        ({"fraction": 0.1, "passes": 0.5}, "below 1"),
        ({"fraction": 0.1, "passes": 2.5}, "whole number below 20"),
        ({"fraction": 0.1, "passes": 7}, "are not 7 whole passes"),
        ({"fraction": 0.1, "passes": 500}, "at most 160 passes fit"),
        ({"fraction": 0.1, "n_sequences": 161}, "would not be read once"),
        ({"fraction": 0.1, "passes": 10, "n_sequences": 17}, "E * S = f * T does not hold"),
        ({"passes": 101, "n_sequences": 16}, "more than the 1600 of the run"),
        ({"fraction": 0.1, "passes": 10, "total": 3200}, "contradicts the run"),
        ({"fraction": "1/10000", "passes": 2}, "less than one slot"),
        ({"fraction": 0.1, "passes": 10, "size": 3}, "unknown key 'size'"),
        ({"fraction": 0.1, "passes": 2, "start": 9, "stop": 9}, "stop must be after start"),
        (
            {"fraction": 0.1, "passes": 2, "start": 90, "stop": 101},
            "steps 90 to 101 is outside the run of 100",
        ),
        ({"fraction": 0.1, "passes": 2, "start": 100}, "steps 100 to its end is outside"),
        ({"fraction": 0.1, "n_sequences": 17, "stop": 10}, "the 16 repeated slots"),
        ({"passes": 11, "n_sequences": 16, "stop": 10}, "more than the 160 of the window"),
    ],
)
def test_contradictions_of_a_repeated_subset_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        settle(RepeatedSubset(**values))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SpecialBatch(base=Stream(), size=4), "either at (a step) or at_pass"),
        (lambda: SpecialBatch(base=Stream(), size=4, at=1, at_pass=1), "not both"),
        (lambda: SpecialBatch(base=Stream(), size=4, at_pass=1), "at_pass needs base passes"),
        (lambda: SpecialBatch(base=Passes(n_sequences=4), size=4, at_pass=-1), "below 0"),
        (lambda: settle(SpecialBatch(base=Stream(), size=4, at=100)), "outside the run of 100 steps"),
        (lambda: settle(SpecialBatch(base=Stream(), size=4, at=90, times=3, every=5)), "at least 101"),
        (lambda: Insertion(index=0, count=1, start=5, stop=5), "is empty"),
        (lambda: Passes(n_sequences=4, out_of=3), "raise out_of to at least 4"),
        (lambda: Passes(n_sequences=4, common_seed=1), "no effect without out_of"),
        (
            lambda: settle(Insertions(base=Stream(), items=(Insertion(index=0, count=1, stop=101),))),
            "ends after",
        ),
    ],
)
def test_what_lies_outside_the_run_or_contradicts_itself_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert sentence in str(caught.value)


BASES = st.one_of(
    st.just(Stream()),
    st.builds(Passes, n_sequences=st.integers(1, 300)),
    st.builds(
        Passes, n_sequences=st.integers(1, 8), out_of=st.integers(8, 20), common_seed=st.integers(0, 2)
    ),
    st.builds(
        RepeatedSubset, fraction=st.sampled_from([Fraction(1, 4), Fraction(1)]), n_sequences=st.integers(1, 8)
    ),
    st.builds(
        RepeatedSubset,
        fraction=st.just(Fraction(1, 4)),
        n_sequences=st.integers(1, 8),
        start=st.none() | st.integers(0, 4),
        stop=st.none() | st.integers(6, 8),
    ),
)
_SPECIAL = {
    "base": BASES,
    "size": st.integers(1, 9),
    "at": st.integers(8, 30),
    "n_batches": st.integers(1, 3),
    "times": st.integers(1, 4),
    "arm": st.sampled_from(["special", "twin", "placebo"]),
    "after": st.sampled_from(["same", "novel"]),
}
SPECIALS = st.one_of(
    st.builds(SpecialBatch, every=st.integers(1, 4), gap=st.integers(1, 6), **_SPECIAL),
    st.builds(SpecialBatch, every=st.integers(3, 7), batches=st.just("interleaved"), **_SPECIAL),
)
ITEMS = st.builds(
    Insertion,
    index=st.integers(0, 5),
    count=st.integers(0, 6),
    start=st.integers(0, 50),
    stop=st.none() | st.integers(51, 100),
)
INSERTIONS = st.builds(Insertions, base=BASES, items=st.lists(ITEMS, max_size=4).map(tuple))
TREATMENTS = st.one_of(BASES, SPECIALS, INSERTIONS)


@given(TREATMENTS)
@settings(max_examples=150)
def test_settling_twice_is_settling_once_and_the_value_survives_being_written_down(treatment: Any) -> None:
    settled = settle(treatment)
    assert settle(settled) == settled
    read: Any = TypeAdapter(Treatment).validate_json(canonical_json(settled))
    assert read == settled


@given(TREATMENTS, st.integers(1, 100), st.integers(1, 100))
@settings(max_examples=200)
def test_a_prefix_of_a_prefix_is_a_prefix(treatment: Any, one: int, other: int) -> None:
    long, short = max(one, other), min(one, other)
    settled = settle(treatment)
    in_two = settle(settle(settled.until(long), steps=long).until(short), steps=short)
    at_once = settle(settled.until(short), steps=short)
    assert in_two == at_once


@given(SPECIALS)
def test_injections_come_in_order_at_the_stated_distances(treatment: SpecialBatch) -> None:
    injections = treatment.injections()
    assert injections == sorted(injections)
    assert len({step for step, _ in injections}) == treatment.n_batches * treatment.times
    for batch in range(treatment.n_batches):
        steps = [step for step, which in injections if which == batch]
        assert {b - a for a, b in itertools.pairwise(steps)} <= {treatment.every}
    assert injections[0] == (treatment.at, 0)


@given(SPECIALS)
def test_arms_share_their_trunk(treatment: SpecialBatch) -> None:
    """Up to the injection nothing of it is known: placebo, other counts and no injection at all are equal."""
    assert treatment.at is not None
    trunk = settle(settle(treatment).until(treatment.at), steps=treatment.at)
    for change in ({"arm": "placebo"}, {"after": "novel"}, {"size": 3, "n_batches": 1}):
        other = settle(treatment.edit(**change))
        assert settle(other.until(treatment.at), steps=treatment.at) == trunk


def test_unused_spacings_do_not_make_another_run() -> None:
    one = settle(SpecialBatch(base=Stream(), size=4, at=9, every=7, gap=5))
    assert one == settle(SpecialBatch(base=Stream(), size=4, at=9))
    passes = settle(SpecialBatch(base=Passes(n_sequences=64), size=4, at_pass=Fraction(5, 2)))
    assert passes == settle(SpecialBatch(base=Passes(n_sequences=64), size=4, at=10))


def test_one_interleaved_batch_is_one_batch() -> None:
    one = settle(SpecialBatch(base=Stream(), size=4, at=9, times=3, every=4, batches="interleaved"))
    assert one == settle(SpecialBatch(base=Stream(), size=4, at=9, times=3, every=4))


def test_steps_per_pass() -> None:
    assert steps_per_pass(Stream(), batch_size=16) is None
    assert steps_per_pass(Passes(n_sequences=40), batch_size=16) == Fraction(5, 2)
    repeated = settle(RepeatedSubset(fraction=Fraction(1, 10), passes=Fraction(10)))
    assert steps_per_pass(repeated, batch_size=16) == 10
    assert steps_per_pass(Insertions(base=repeated, items=()), batch_size=16) == 10


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 6), st.integers(1, 6))
def test_passes_of_a_window_fill_its_share_of_slots(one: int, other: int, passes: int, size: int) -> None:
    start, stop = min(one, other), max(one, other) + 1
    slots = (stop - start) * 16
    assume(passes * size <= slots)
    window = {"start": start, "stop": stop}
    by_size: RepeatedSubset = settle(RepeatedSubset(passes=Fraction(passes), n_sequences=size, **window))
    assert by_size.fraction is not None
    assert by_size.fraction * slots == passes * size
    assert settle(RepeatedSubset(fraction=by_size.fraction, passes=Fraction(passes), **window)) == by_size
    steps = steps_per_pass(by_size, batch_size=16)
    assert steps is not None
    assert steps * passes == stop - start


def test_a_window_is_forgotten_where_it_has_no_end_in_sight_and_is_the_control_before_it() -> None:
    half = {"fraction": Fraction(1, 2), "n_sequences": 8}
    whole = settle(RepeatedSubset(**half))
    assert settle(RepeatedSubset(start=0, stop=100, **half)) == whole
    assert '"start"' not in canonical_json(whole)
    assert '"stop"' not in canonical_json(whole)
    early, late = settle(RepeatedSubset(stop=40, **half)), settle(RepeatedSubset(start=40, **half))
    assert early.until(40) == whole.until(40)
    assert early.until(41) != whole.until(41)
    assert late.until(40) == Stream()
    assert settle(late.until(60), steps=60) == settle(RepeatedSubset(start=40, stop=60, **half), steps=60)
    starved = settle(RepeatedSubset(start=40, slots="empty", **half))
    assert starved.until(40) == Stream()


def test_without_a_common_set_passes_are_written_as_before() -> None:
    assert canonical_json(Passes(n_sequences=8)) == '{"kind":"passes","n_sequences":8}'
    half = Passes(n_sequences=8, out_of=16)
    assert canonical_json(half) == '{"kind":"passes","n_sequences":8,"out_of":16}'
    assert canonical_json(half.edit(common_seed=1)) != canonical_json(half)
