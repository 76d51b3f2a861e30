"""A budget is a number of sequences that costs no more than its share of the run's compute."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.corpus.masking import DRAWS
from repetita.errors import SpecError
from repetita.measure.budget import FORWARD, times_scored
from repetita.measure.memorization import ScoreProbe


@given(
    budget=st.fractions(Fraction(1, 100), 1),
    training_tokens=st.integers(1, 10**7),
    measurements=st.integers(1, 50),
    length=st.integers(1, 512),
    n_sets=st.integers(1, 3),
    objective=st.sampled_from(["causal", "masked"]),
)
def test_all_measurements_together_stay_within_the_share(
    budget: Fraction, training_tokens: int, measurements: int, length: int, n_sets: int, objective: str
) -> None:
    probe = ScoreProbe(on=tuple("abc"[:n_sets]), budget=budget)
    one_more = measurements * n_sets * length * times_scored(objective) * FORWARD
    try:
        taken = probe.within(
            training_tokens=training_tokens, measurements=measurements, length=length, objective=objective
        )
    except SpecError:
        assert one_more > budget * training_tokens
        return
    assert taken.max_sequences is not None
    assert taken.max_sequences * one_more <= budget * training_tokens
    assert (taken.max_sequences + 1) * one_more > budget * training_tokens


def test_what_is_read_names_a_measurement_and_not_what_paid_for_it() -> None:
    def taken(**given: object) -> ScoreProbe:
        probe = ScoreProbe(on=("test",), **given)
        return probe.within(training_tokens=6000, measurements=5, length=10, objective="causal")

    assert taken(budget="0.1").fingerprint == ScoreProbe(on=("test",), max_sequences=36).fingerprint
    assert taken(budget="0.1", max_sequences=7).max_sequences == 7
    assert taken(max_sequences=7).max_sequences == 7
    assert taken().max_sequences is None


def test_a_masked_model_is_asked_more_often() -> None:
    probe = ScoreProbe(on=("test",), budget="0.1")
    rows = {
        objective: probe.within(training_tokens=21_000, measurements=5, length=10, objective=objective)
        for objective in ("causal", "masked")
    }
    assert rows["causal"].max_sequences == DRAWS * (rows["masked"].max_sequences or 0)


def test_a_budget_that_pays_for_nothing() -> None:
    with pytest.raises(SpecError, match="pays for no sequence at 5 states"):
        ScoreProbe(on=("test",), budget="0.001").within(
            training_tokens=100, measurements=5, length=10, objective="causal"
        )
    with pytest.raises(SpecError, match="above 0"):
        ScoreProbe(on=("test",), budget=0)
