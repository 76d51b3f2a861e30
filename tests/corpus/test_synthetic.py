"""Synthetic text has the entropy that is claimed and copies where it says."""

import hashlib
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus import synthetic
from repetita.corpus.synthetic import (
    SyntheticSpec,
    bayes_loss,
    canaries,
    facts,
    lexicon,
    source_entropy,
    synthetic_documents,
    unseen_text,
    word_probabilities,
)
from repetita.errors import SpecError


def test_text_is_the_same_every_time_and_another_with_another_seed() -> None:
    spec = SyntheticSpec(n_documents=3, n_words=50)
    assert list(synthetic_documents(spec)) == list(synthetic_documents(spec))
    assert list(synthetic_documents(spec)) != list(synthetic_documents(spec.edit(seed=1)))
    # A longer corpus begins with the shorter one.
    assert list(synthetic_documents(spec.edit(n_documents=5)))[:3] == list(synthetic_documents(spec))


def test_golden_text() -> None:
    text = next(synthetic_documents(SyntheticSpec(n_words=6, sentence_words=3)))[1]
    assert text == "Tina fuva puze. Giga losi gira."


GOLDEN: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "1fe49e1d2bb4f22c"),
    "other law and seed": ({"exponent": 0.0, "vocabulary": 20, "seed": 3}, "011ce8df82c06e7f"),
    "no sentences": ({"sentence_words": 0}, "c30f26356a47b56b"),
    "one lag": ({"burst_rate": 0.2, "burst_length": 4, "lag": 5}, "bc8cfdb414df3fec"),
    "shortest lag": (
        {"n_words": 30, "vocabulary": 9, "burst_rate": 0.3, "burst_length": 1, "lag": 1},
        "93b85a489b2e3e0c",
    ),
    "drawn lags": (
        {"burst_rate": 0.2, "burst_length": 4, "lag": 5, "lag_max": 17, "sentence_words": 0},
        "90f2431759f250e8",
    ),
    "lags from one": (
        {"n_words": 30, "vocabulary": 9, "burst_rate": 0.3, "burst_length": 1, "lag": 1, "lag_max": 3},
        "99285484738e0733",
    ),
    "echo": ({"vocabulary": 30, "echo": 0.4}, "b1062f520d926b4d"),
    "one word": ({"n_words": 1, "echo": 0.4}, "580d293d7f53fcb9"),
    "all": (
        {
            "vocabulary": 30, "exponent": 0.0, "burst_rate": 0.3, "burst_length": 4, "lag": 4, "lag_max": 16,
            "echo": 0.3, "sentence_words": 0, "seed": 1,
        },
        "161ac86ff2eefb16",
    ),
    "facts": ({"kind": "facts"}, "de212c6b02f95a8f"),
    "canaries": ({"kind": "canaries"}, "f087ed0618267177"),
}  # fmt: skip
"""Seven documents of 60 words each with these options: trained runs hang on every one of their words."""


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("at_once", [1, 130, 1 << 18])
def test_the_words_stay_what_they_were_however_many_are_drawn_together(
    name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "WORDS_AT_ONCE", at_once)
    given, digest = GOLDEN[name]
    spec = SyntheticSpec.model_validate({"n_documents": 7, "n_words": 60, **given})
    text = "\n".join(f"{document}\t{words}" for document, words in synthetic_documents(spec))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_words_are_distinct_and_drawn_as_their_probabilities_say() -> None:
    spec = SyntheticSpec(n_documents=40, vocabulary=20, sentence_words=0)
    words = lexicon(20)
    assert len(set(words)) == 20
    text = " ".join(text for _, text in synthetic_documents(spec)).split(" ")
    counts = np.array([text.count(word) for word in words])
    p = word_probabilities(spec)
    assert counts.sum() == 40_000
    np.testing.assert_array_less(np.abs(counts - 40_000 * p), 5 * np.sqrt(40_000 * p))


def test_entropy_and_bytes_match_the_text() -> None:
    spec = SyntheticSpec(n_documents=50, vocabulary=100)
    entropy, loss = source_entropy(spec), bayes_loss(spec)
    assert loss.with_copying == pytest.approx(loss.without_copying, abs=1e-12)
    assert loss.without_copying == pytest.approx(entropy.nats_per_word, abs=0.05)
    n_bytes = sum(len(text) for _, text in synthetic_documents(spec))
    assert n_bytes / loss.n_words == pytest.approx(entropy.bytes_per_word, abs=0.01)
    uniform = source_entropy(spec.edit(exponent=0.0))
    assert uniform.nats_per_word == pytest.approx(math.log(100))


@settings(max_examples=15, deadline=None)
@given(rate=st.sampled_from([0.05, 0.3]), length=st.integers(1, 3), data=st.data())
def test_bayes_loss_is_the_sum_over_every_way_of_bursting(
    rate: float, length: int, data: st.DataObject
) -> None:
    """Against brute force: P(text) summed over all choices of where bursts begin."""
    lag = data.draw(st.integers(length, 3))
    lag_max = data.draw(st.none() | st.integers(lag, 4))
    echo = data.draw(st.sampled_from([0.0, 0.4]))
    spec = SyntheticSpec(
        n_documents=1,
        n_words=9,
        vocabulary=3,
        burst_rate=rate,
        burst_length=length,
        lag=lag,
        lag_max=lag_max,
        echo=echo,
        sentence_words=0,
    )
    words, last = lexicon(3), spec.lags[-1]
    ranks = [words.index(word) for word in next(synthetic_documents(spec))[1].split()]
    after = synthetic._echoes(spec)
    plain = word_probabilities(spec)[ranks]
    for t in range(2, 9):
        plain[t] = (1 - echo) * plain[t] + echo * (ranks[t] == after[ranks[t - 2]])
    # None: no burst begins at this word; else the lag of the one that does.
    total = 0.0
    for begins in itertools.product([None, *spec.lags], repeat=9 - last):
        probability, left, of = float(np.prod(plain[:last])), 0, lag
        for t, begin in enumerate(begins, start=last):
            if left:
                probability *= (begin is None) * (ranks[t] == ranks[t - of])
                left -= 1
            elif begin is not None:
                probability *= rate / len(spec.lags) * (ranks[t] == ranks[t - begin])
                left, of = length - 1, begin
            else:
                probability *= (1 - rate) * plain[t]
        total += probability
    assert bayes_loss(spec).with_copying * 9 == pytest.approx(-math.log(total))


def test_bursts_copy_and_make_the_text_easier() -> None:
    spec = SyntheticSpec(n_documents=10, n_words=400, burst_rate=0.02, sentence_words=0)
    loss = bayes_loss(spec)
    assert loss.with_copying < loss.without_copying - 0.3
    text = next(synthetic_documents(spec))[1].split()
    same = [a == b for a, b in zip(text[32:], text, strict=False)]
    assert max(len(list(run)) for value, run in itertools.groupby(same) if value) >= 16


def test_words_echo_those_two_before() -> None:
    spec = SyntheticSpec(n_documents=20, n_words=500, vocabulary=50, exponent=0.0, echo=0.3, sentence_words=0)
    words, after = lexicon(50), synthetic._echoes(spec)
    same = total = 0
    for _, text in synthetic_documents(spec):
        ranks = np.array([words.index(word) for word in text.split()])
        same, total = same + int((after[ranks[:-2]] == ranks[2:]).sum()), total + len(ranks) - 2
    assert same / total == pytest.approx(0.3 + 0.7 / 50, abs=0.02)
    loss = bayes_loss(spec)
    assert loss.with_copying == pytest.approx(loss.without_copying)
    assert loss.without_copying < source_entropy(spec).nats_per_word - 0.5


def test_contradictory_bursts_are_refused() -> None:
    with pytest.raises(SpecError, match="raise the lag"):
        SyntheticSpec(burst_rate=0.1, burst_length=10, lag=5)
    with pytest.raises(SpecError, match="lower it"):
        SyntheticSpec(burst_rate=0.1, n_words=20)
    with pytest.raises(SpecError, match="lag_max = 20 is below lag = 32"):
        SyntheticSpec(burst_rate=0.1, lag_max=20)
    with pytest.raises(SpecError, match="a lag of 60 is not inside"):
        SyntheticSpec(burst_rate=0.1, lag_max=60, n_words=50)


def test_bursts_of_drawn_lags_copy_at_each_of_them() -> None:
    spec = SyntheticSpec(
        n_documents=40, n_words=600, burst_rate=0.04, burst_length=12, lag=12, lag_max=31, sentence_words=0
    )
    loss = bayes_loss(spec, n_documents=10)
    assert loss.with_copying < loss.without_copying - 0.5
    found = dict.fromkeys(spec.lags, 0)
    for _, text in synthetic_documents(spec):
        words = text.split()
        for lag in spec.lags:
            same = [a == b for a, b in zip(words[lag:], words, strict=False)]
            found[lag] += sum(len(list(run)) // 12 for value, run in itertools.groupby(same) if value)
    # About 40 x 600 / (25 + 12) bursts over 20 lags.
    assert min(found.values()) > 15
    assert max(found.values()) < 60


def test_facts_and_canaries_are_distinct_and_whole() -> None:
    many = facts(500)
    assert len({fact.prompt for fact in many}) == 500
    assert all(fact.text == fact.prompt + fact.answer for fact in many)
    secrets = canaries(200, n_digits=4)
    assert len({canary.secret for canary in secrets}) == 200
    assert all(len(canary.secret) == 8 and canary.text == canary.prefix + canary.secret for canary in secrets)
    for kind in ("facts", "canaries"):
        assert len(list(synthetic_documents(SyntheticSpec(kind=kind, n_documents=4)))) == 4


def test_every_word_has_four_letters() -> None:
    assert {len(word) for word in lexicon(len(synthetic.SYLLABLES) ** 2)} == {4}


def test_unseen_text_is_of_the_source_and_in_no_document() -> None:
    spec = SyntheticSpec(n_documents=6, n_words=80, vocabulary=40, burst_rate=0.05, sentence_words=0)
    text = unseen_text(spec, n_words=30)
    words = text.split()
    assert len(words) == 30
    assert set(words) <= set(lexicon(40))
    assert all(" ".join(words[:12]) not in document for _, document in synthetic_documents(spec))
    longer = list(synthetic_documents(spec.edit(n_documents=8, burst_rate=0.0)))
    assert longer[6][1].startswith(text)
    assert longer[7][1].startswith(unseen_text(spec, n_words=30, document=1))
    with pytest.raises(SpecError, match="81 words"):
        unseen_text(spec, n_words=81)
