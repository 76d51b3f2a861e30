"""Truncated distributions against a plain sort, and moments against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repetita.errors import SpecError
from repetita.model.distribution import check_sampling, described, sampled_log_probs
from repetita.subject import FULL, Sampling


def literal(logits: list[float], sampling: Sampling) -> list[float]:
    """Log probability of every id, by one token at a time."""
    scores = [value / sampling.temperature for value in logits]
    kept = set(range(len(scores)))
    if sampling.top_k is not None and sampling.top_k < len(scores):
        least = sorted(scores, reverse=True)[sampling.top_k - 1]
        kept = {i for i in kept if scores[i] >= least}
    if sampling.top_p is not None and sampling.top_p < 1:
        mass = sum(np.exp(scores[i]) for i in kept)
        chosen, reached = set(), 0.0
        for i in sorted(kept, key=lambda i: (scores[i], i), reverse=True):
            if reached / mass >= sampling.top_p:
                break
            chosen.add(i)
            reached += np.exp(scores[i])
        kept = chosen
    total = np.log(sum(np.exp(scores[i]) for i in kept))
    return [scores[i] - total if i in kept else -np.inf for i in range(len(scores))]


@given(
    logits=st.lists(st.integers(-12, 12), min_size=2, max_size=12),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.none() | st.integers(1, 14),
    top_p=st.none() | st.sampled_from([0.013, 0.237, 0.511, 0.787, 0.991, 1.0]),
)
def test_is_what_a_plain_loop_keeps(
    logits: list[int], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    sampling, V = Sampling(temperature, top_k, top_p), len(logits)
    values = [value / 4 for value in logits]
    expected = literal(values, sampling)
    found = sampled_log_probs(
        torch.tensor([values] * V, dtype=torch.float64), target_C=torch.arange(V), sampling=sampling
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-9)
    assert np.exp(found.numpy()).sum() == pytest.approx(1)


def test_rows_with_different_numbers_of_ties_are_cut_each_by_itself() -> None:
    logits = torch.tensor([[3.0, 3.0, 3.0, 0.0], [5.0, 4.0, 1.0, 0.0]])
    sampling = Sampling(top_k=2, top_p=0.9)
    for row in range(2):
        expected = literal(logits[row].tolist(), sampling)
        for target in range(4):
            found = sampled_log_probs(logits.clone(), target_C=torch.full((2,), target), sampling=sampling)
            assert float(found[row]) == pytest.approx(expected[target])


def test_the_full_distribution_is_the_softmax() -> None:
    logits = torch.linspace(-40, 40, 50).repeat(3, 1)
    target = torch.tensor([0, 25, 49])
    expected = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(
        sampled_log_probs(logits.clone(), target_C=target, sampling=FULL), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        (Sampling(temperature=0), "temperature = 0"),
        (Sampling(temperature=float("nan")), "temperature = nan"),
        (Sampling(top_k=0), "top_k = 0"),
        (Sampling(top_p=0), "top_p = 0"),
        (Sampling(top_p=1.5), "top_p = 1.5"),
    ],
)
def test_what_draws_nothing_is_refused(sampling: Sampling, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        check_sampling(sampling)


def test_moments_of_a_uniform_and_of_a_sure_distribution() -> None:
    own, mean, sd = described(torch.zeros(1, 8), target_C=torch.tensor([3]))
    assert float(own) == pytest.approx(-np.log(8)) == float(mean)
    assert float(sd) == pytest.approx(0, abs=1e-6)
    own, mean, sd = described(torch.tensor([[200.0, 0.0, -torch.inf]]), target_C=torch.tensor([2]))
    assert float(own) == -np.inf
    assert float(mean) == float(sd) == 0
