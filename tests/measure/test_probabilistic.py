"""How likely a text is drawn, against every outcome counted and against transformers' own cuts."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.errors import SpecError
from repetita.measure.extraction import MASKED
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.planted_writers import ChainSubject, RecitingSubject, drawn_from
from repetita.measure.probabilistic import (
    WEIGHS_NOTHING,
    ProbabilisticProbe,
    chance_within,
    log_chances,
    queries_needed,
)
from repetita.measure.probe import EvalSet
from repetita.subject import FULL, Rows, Sampling

TEXTS = np.random.default_rng(0).permutation(np.arange(1, 121)).reshape(6, 20)
RECITING: dict[str, Any] = {"order": 3, "vocab_size": 130, "stray": 129, "confidence": 0.8}


def probabilities(seed: int, *, vocab: int = 7) -> Any:
    return np.random.default_rng(seed).dirichlet(np.full(vocab, 0.7), vocab)


def measured(subject: Any, targets: Any = TEXTS, **fields: Any) -> dict[str, Any]:
    over = EvalSet.whole("texts", sequences=PlantedSet(targets))
    probe = ProbabilisticProbe(on=("texts",), **{"prompts": (4,), "suffixes": (5,)} | fields)
    return {one.metric: one for one in probe.measure(subject, {"texts": over})}


@given(p=st.fractions(0, 1, max_denominator=40), n=st.integers(1, 30))
def test_chances_are_those_of_exact_fractions(p: Fraction, n: int) -> None:
    log_p = math.log(p) if p else -math.inf
    exact = 1 - (1 - p) ** n
    assert chance_within(log_p, queries=n) == pytest.approx(float(exact), rel=1e-12)


@given(p=st.floats(1e-6, 1), chance=st.floats(0.01, 0.99))
def test_as_many_queries_as_are_needed_and_no_fewer(p: float, chance: float) -> None:
    n = float(queries_needed(math.log(p), chance=chance))
    assert n == int(n) >= 1
    assert chance_within(math.log(p), queries=n) >= chance
    assert n == 1 or chance_within(math.log(p), queries=n - 1) < chance


def test_rare_and_impossible_texts_keep_their_queries() -> None:
    """A p_z that 1 - p_z cannot tell from 1 takes log(2) / p_z queries for an even chance."""
    log_p = np.array([-100.0, -700.0, -np.inf, 0.0])
    found = queries_needed(log_p, chance=0.5)
    assert found[:2] == pytest.approx(math.log(2) * np.exp([100.0, 700.0]), rel=1e-9)
    assert found[2:].tolist() == [math.inf, 1]
    assert chance_within(-100, queries=math.log(2) * math.exp(100)) == pytest.approx(0.5)
    assert queries_needed(math.log(0.5), chance=0.75) == 2
    with pytest.raises(SpecError, match="not within"):
        queries_needed(log_p, chance=1)


@pytest.mark.parametrize(
    "sampling", [FULL, Sampling(0.7), Sampling(1.5, 3), Sampling(1, 4, 0.8), Sampling(top_p=0.5)]
)
def test_every_outcome_counted(sampling: Sampling) -> None:
    """p_z of every possible suffix adds up to 1, and is the product of what each token is drawn with."""
    subject = ChainSubject(probabilities(1, vocab=4))
    every = np.array([[2, 1, *suffix] for suffix in itertools.product(range(4), repeat=3)])
    log_p = log_chances(subject, every, prompt=2, start=None, sampling=sampling)
    assert np.exp(log_p[:, -1]).sum() == pytest.approx(1, rel=1e-6)
    drawn = drawn_from(subject.transitions, sampling=sampling)
    for text, found in zip(every.tolist(), np.exp(log_p), strict=True):
        steps = [drawn[a, b] for a, b in itertools.pairwise(text[1:])]
        assert found == pytest.approx(np.cumprod(steps), rel=1e-5)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.5),
        Sampling(2.0, 5),
        Sampling(1.0, None, 0.6),
        Sampling(0.8, 6, 0.9),
        Sampling(1, 1),
        Sampling(1, 40, 1),
    ],
)
def test_cuts_are_those_of_generate(sampling: Sampling) -> None:
    """The planted subjects draw from what transformers' own processors leave, in its order."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    p = np.concatenate([probabilities(seed, vocab=9) for seed in range(20)])
    p[0, :4] = p[0, :4].mean()  # ties, at a border for some
    scores: Any = torch.tensor(np.log(p))
    ids: Any = torch.zeros(len(p), 1, dtype=torch.long)
    scores = TemperatureLogitsWarper(float(sampling.temperature))(ids, scores)
    if sampling.top_k is not None:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p is not None:
        scores = TopPLogitsWarper(float(sampling.top_p))(ids, scores)
    assert drawn_from(p, sampling=sampling) == pytest.approx(torch.softmax(scores, dim=-1).numpy(), abs=1e-12)


@settings(max_examples=8)
@given(k=st.integers(1, 5), s=st.integers(1, 4), temperature=st.sampled_from([0.5, 1.0, 2.0]))
def test_a_recited_text_is_drawn_with_its_confidence(k: int, s: int, temperature: float) -> None:
    """p_z is confidence ** T from as many tokens as the subject needs, and less for what it does not know."""
    subject = RecitingSubject(TEXTS[:4], **RECITING)
    found = measured(subject, prompts=(k,), suffixes=(s,), starts=(6, 12), temperature=temperature)
    sure, other = 0.8 ** (1 / temperature), (0.2 / 129) ** (1 / temperature)
    known = np.log(sure / (sure + 129 * other))
    log_p = found[f"p_z_{k}_{s}"].items[f"log_p_{k}_{s}"].reshape(6, 2)
    if k >= 3:
        assert log_p[:4] == pytest.approx(s * known, rel=1e-5)
    else:
        assert (log_p[:4] < s * known - 1).all()
    assert (log_p[4:] < s * known - 1).all()
    assert found[f"p_z_{k}_{s}"].value == pytest.approx(np.exp(log_p).mean())


def test_rates_are_shares_of_what_is_discoverable() -> None:
    """Four texts of six are drawn with 0.8 ** 5 = 0.33 a query, the others next to never."""
    found = measured(RecitingSubject(TEXTS[:4], **RECITING), queries=(1, 2, 6), chances=(0.3, 0.5, 0.9))
    p = 0.8**5
    for n in (1, 2, 6):
        for chance in (0.3, 0.5, 0.9):
            expected = 4 / 6 if 1 - (1 - p) ** n >= chance else 0
            reading = found[f"discoverable_4_5_{n}_{chance}"]
            assert (reading.value, reading.n) == (expected, 18)
    assert len({reading.value for reading in found.values()}) > 2
    assert found["p_z_4_5"].value == pytest.approx(4 / 6 * p, rel=1e-5)
    assert found["p_z_4_5"].detail == {
        "start_id": 0, "temperature": 1.0, "top_k": None, "top_p": None,
        "largest": pytest.approx(p), "left_out": 0,
    }  # fmt: skip


def test_a_cut_makes_greedy_of_drawing() -> None:
    """With top_k = 1 the suffix is drawn for certain or never, as greedy decoding returns it or does not."""
    found = measured(RecitingSubject(TEXTS[:4], **RECITING), top_k=1, queries=(1,), chances=(0.999,))
    assert set(found["p_z_4_5"].items["log_p_4_5"].tolist()) == {0, -math.inf}
    assert found["discoverable_4_5_1_0.999"].value == pytest.approx(4 / 6)
    assert found["p_z_4_5"].detail["left_out"] == 6


def test_what_has_no_answer_says_why() -> None:
    class Masked:
        mask_id = 6

        def score(self, rows: Rows) -> Any:
            raise AssertionError

    assert {(one.value, str(one.detail)) for one in measured(Masked()).values()} == {(None, str(MASKED))}
    blind = measured(UniformSubject(vocab_size=130))
    assert {str(one.detail) for one in blind.values()} == {str(WEIGHS_NOTHING)}
    empty = measured(RecitingSubject(TEXTS, **RECITING), np.zeros((2, 12)))
    assert {str(one.detail) for one in empty.values()} == {str(NOTHING_SCORED)}


@pytest.mark.parametrize(
    "values", [{"temperature": 0}, {"top_p": 1.2}, {"top_k": 0}, {"chances": (0.5, 1)}, {"queries": (2, 2)}]
)
def test_what_cannot_be_drawn_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="ProbabilisticProbe"):
        ProbabilisticProbe(on=("texts",), **values)
