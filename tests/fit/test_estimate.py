import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.errors import SpecError
from repetita.fit.estimate import Crossing, Estimate, cluster_ratio, paired_t, proportion, t_interval


def test_the_t_interval_has_its_closed_form() -> None:
    found = t_interval([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.n == 3


def test_the_t_interval_of_three_runs_covers_as_stated() -> None:
    rng = np.random.default_rng(0)
    covered = [t_interval(rng.normal(5, 2, 3)).holds(5) for _ in range(2000)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_on_the_log_scale_the_geometric_mean_is_estimated() -> None:
    found = t_interval([1.0, 4.0], scale="log")
    assert found.value == pytest.approx(2)
    assert found.low is not None
    assert found.high is not None
    assert found.low * found.high == pytest.approx(4)
    assert found.low > 0


def test_one_run_has_open_bounds() -> None:
    found = t_interval([3.0])
    assert found[:4] == (3.0, None, None, 1)
    assert found.text() == "3"


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_not_finite_is_refused(values: list[float]) -> None:
    with pytest.raises(SpecError):
        t_interval(values)


def test_pairs_are_joined_by_seed_and_noise_in_common_cancels() -> None:
    rng = np.random.default_rng(1)
    level = {seed: float(x) for seed, x in enumerate(rng.normal(0, 10, 6))}
    treated = {seed: x + 1 for seed, x in level.items()} | {99: 5.0}
    found = paired_t(treated, control=dict(reversed(level.items())))
    assert found.value == pytest.approx(1)
    assert found.half_width == pytest.approx(0, abs=1e-12)
    assert found.n == 6
    with pytest.raises(SpecError, match="same seeds"):
        paired_t({0: 1.0}, control={1: 1.0})


def test_a_paired_ratio() -> None:
    assert paired_t([2.0, 4.0], control=[1.0, 2.0], scale="log").value == pytest.approx(2)


@given(n=st.integers(1, 200), share=st.floats(0, 1))
def test_exact_proportions_hold_their_value_and_mirror(n: int, share: float) -> None:
    hits = round(n * share)
    found, mirror = proportion(hits, n=n), proportion(n - hits, n=n)
    assert found.holds(hits / n)
    assert found.low == pytest.approx(1 - (mirror.high or 0), abs=1e-9)


def test_proportions_at_the_ends_have_the_closed_form() -> None:
    assert proportion(0, n=10).high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert proportion(0, n=10).low == 0
    assert proportion(10, n=10).high == 1


def test_exact_proportions_cover_at_least_as_stated() -> None:
    hits = np.random.default_rng(2).binomial(20, 0.1, 1000)
    assert np.mean([proportion(int(h), n=20).holds(0.1) for h in hits]) >= 0.94


@pytest.mark.parametrize("n_documents", [5, 12, 40])
def test_the_interval_over_documents_covers_what_sequences_would_miss(n_documents: int) -> None:
    """Sequences of one document share its difficulty: taken as independent they would cover about half."""
    rng = np.random.default_rng(3)
    covered = []
    for trial in range(200):
        sizes = rng.integers(4, 12, n_documents)
        documents = np.repeat(np.arange(n_documents), sizes)
        loss = 3 + np.repeat(rng.normal(0, 0.3, n_documents), sizes) + rng.normal(0, 0.1, len(documents))
        found = cluster_ratio(
            loss * 100, counts=np.full(len(loss), 100), clusters=documents, seed=trial, n_resamples=400
        )
        covered.append(found.holds(3))
    assert 0.89 <= np.mean(covered) <= 0.99


def test_one_document_has_no_interval() -> None:
    assert cluster_ratio([1, 2], counts=[1, 1], clusters=[7, 7]).half_width is None


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.0312, 0.012, 0.05, 3, "t"), "0.0312 [0.012, 0.05]"),
        (Estimate(None, None, 3000, 3, "x"), "below 3000"),
        (Estimate(None, 5, None, 3, "x"), "above 5"),
        (Estimate(None, 1, 2, 3, "x"), "between 1 and 2"),
        (Estimate(None, None, None, 0, "x"), "undetermined"),
        (Estimate(12345.6, None, 2e7, 3, "x"), "12300 [open, 2.00e+07]"),
    ],
)
def test_text(estimate: Estimate, text: str) -> None:
    assert estimate.text() == text


def test_a_crossing_that_was_not_seen_says_so() -> None:
    assert Crossing(None, 300, None, 300).text() == "not reached by step 300"
    assert Crossing(12.34, 10, 15, 300, "pass").text() == "pass 12.3"
