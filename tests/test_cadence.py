"""A cadence is a sorted set of steps of the run that always has its first and its last."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from repetita.cadence import At, AtPasses, Cadence, Every, LogSpaced, Several
from repetita.errors import SpecError
from repetita.spec import canonical_json

ONE = st.one_of(
    st.builds(Every, n=st.integers(1, 500)),
    st.builds(At, at=st.lists(st.integers(0, 2000)).map(tuple)),
    st.builds(AtPasses, passes=st.lists(st.fractions(0, 50, max_denominator=8)).map(tuple)),
    st.builds(LogSpaced, per_decade=st.integers(1, 9), origin=st.integers(0, 900)),
    st.builds(LogSpaced, k=st.integers(1, 40), unit=st.sampled_from(["steps", "passes"])),
)
CADENCES = st.one_of(ONE, st.builds(Several, of=st.lists(ONE, max_size=3).map(tuple)))


@given(CADENCES, st.integers(0, 1500), st.fractions(Fraction(1, 4), 90, max_denominator=16))
@settings(max_examples=200)
def test_steps_are_sorted_inside_the_run_and_hold_both_ends(
    cadence: Any, n_steps: int, length: Fraction
) -> None:
    steps = cadence.steps(n_steps, steps_per_pass=length)
    assert steps == tuple(sorted(set(steps)))
    assert steps[0] == 0
    assert steps[-1] == n_steps


@given(CADENCES)
def test_a_cadence_survives_being_written_down(cadence: Any) -> None:
    read: Any = TypeAdapter(Cadence).validate_json(canonical_json(cadence))
    assert read == cadence


def test_each_cadence_by_example() -> None:
    assert Every(n=300).steps(1000) == (0, 300, 600, 900, 1000)
    assert At(at=(7, 2000)).steps(1000) == (0, 7, 1000)
    assert AtPasses(passes=(1, "2.5")).steps(99, steps_per_pass=Fraction(10)) == (0, 10, 25, 99)
    assert LogSpaced(per_decade=3).steps(1000) == (0, 1, 2, 5, 10, 22, 46, 100, 215, 464, 1000)
    assert LogSpaced(k=4).steps(1000) == (0, 1, 10, 100, 1000)
    assert LogSpaced(per_decade=1, origin=50).steps(200) == (0, 50, 51, 60, 150, 200)
    passes = LogSpaced(per_decade=1, unit="passes").steps(500, steps_per_pass=Fraction(9, 2))
    assert passes == (0, 4, 45, 450, 500)
    assert Several(of=(Every(n=600), At(at=(7,)))).steps(1000) == (0, 7, 600, 1000)


def test_contradictions_are_one_sentence() -> None:
    with pytest.raises(SpecError, match="not both"):
        LogSpaced(per_decade=3, k=4)
    with pytest.raises(SpecError, match="above 0"):
        LogSpaced(k=4, first=Fraction(0))
    for cadence in (AtPasses(passes=(Fraction(1),)), LogSpaced(k=3, unit="passes")):
        with pytest.raises(SpecError, match="needs a treatment that has passes"):
            cadence.steps(100)
