"""Exposure by its definition, on subjects that know a canary by heart, know none, or rank all the same."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.corpus.canaries import CanarySpec
from repetita.corpus.source import Document
from repetita.corpus.tokenizer import ByteTokenizer
from repetita.corpus.windows import OfCorpus, ReadingRule, Windows
from repetita.errors import SpecError
from repetita.fit.tail import SkewNormal
from repetita.measure.canaries import (
    MASKED,
    NO_TAIL,
    CanaryProbe,
    exposure,
    fitted_exposure,
    text_losses,
)
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.planted_writers import ChainSubject
from repetita.measure.probe import EvalSet
from repetita.subject import Rows

SPEC = CanarySpec(counts=(0, 5), each=6, n_digits=4)
ENCODE = ByteTokenizer().encode


def chain(seed: int = 0) -> ChainSubject:
    """Some texts are likelier than others, none because it was seen."""
    return ChainSubject(np.random.default_rng(seed).dirichlet(np.full(257, 2.0), 257))


class Keeping:
    """Gives some texts half the loss that another subject gives them."""

    mask_id = None

    def __init__(self, known: list[str], *, otherwise: Any) -> None:
        self.known, self.otherwise = [ENCODE(text).tolist() for text in known], otherwise

    def score(self, rows: Rows, /) -> Any:
        scores = self.otherwise.score(rows)
        kept = np.array([row in self.known for row in rows.targets.tolist()])
        return scores._replace(loss=np.where(kept[:, None], scores.loss / 2, scores.loss))


def measured(subject: Any, spec: CanarySpec = SPEC, **fields: Any) -> dict[str, Any]:
    sets = {"test": EvalSet.whole("test", sequences=PlantedSet(np.ones((1, 64))))}
    return {one.metric: one for one in CanaryProbe(canaries=spec, **fields).measure(subject, sets)}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(-1, 10))
def test_exposure_is_log_of_the_mean_rank_among_equals(others: list[int], own: int) -> None:
    """The rank is the mean of the places that the canary can have when all are sorted by loss."""
    ordered = np.sort(np.array([*others, own]))
    places = np.flatnonzero(ordered == own) + 1
    found = exposure([own], candidates=others)
    assert found.rank[0] == places.mean()
    assert found.bits[0] == pytest.approx(math.log2(len(others) + 1) - math.log2(places.mean()))
    assert found.at_bound[0] == (own < min(others))
    assert not exposure([own], candidates=others, exhaustive=True).at_bound[0]


def test_exposure_of_what_is_like_all_others() -> None:
    """1 / ln 2 in expectation over distinct losses, and about 1 where all are the same."""
    drawn = np.random.default_rng(0).normal(size=(4000, 200))
    bits = [exposure(row[:1], candidates=row[1:]).bits[0] for row in drawn]
    assert np.mean(bits) == pytest.approx(np.mean(math.log2(200) - np.log2(np.arange(1, 201))), abs=0.07)
    assert exposure([1.0], candidates=np.ones(1023)).bits[0] == pytest.approx(1, abs=0.002)


def test_a_canary_known_by_heart_has_the_bound_of_its_sample() -> None:
    """log2(n + 1) for those that the subject keeps, about 1 for those that it does not know: all tie."""
    known = [one.text for one in SPEC.canaries()[6:]]
    found = measured(Keeping(known, otherwise=UniformSubject(vocab_size=257)), n_candidates=255)
    seen, never = found["exposure_5"], found["exposure_0"]
    assert (seen.value, seen.n, seen.detail["at_bound"]) == (8, 6, 6)
    assert (seen.detail["low"], seen.detail["high"]) == (8, None)
    assert never.value == pytest.approx(1, abs=0.02)
    assert never.detail["at_bound"] == 0
    assert never.detail | {"low": 0, "high": 0} == {
        "low": 0, "high": 0, "at_bound": 0, "candidates": 255, "exhaustive": False,
        "space_bits": math.log2(10_000),
    }  # fmt: skip
    assert never.items["rank"].tolist() == [128.5] * 6 + [1] * 6
    # All candidates are equally likely: no tail describes them.
    assert found["exposure_fitted_5"].detail == NO_TAIL


def test_all_secrets_give_the_exact_rank() -> None:
    """With every other secret compared the first has exactly log2 of how many there are."""
    spec = CanarySpec(counts=(0, 5), each=2, n_digits=2)
    found = measured(Keeping([one.text for one in spec.canaries()[2:]], otherwise=chain()), spec)
    assert found["exposure_5"].detail["candidates"] == 96
    assert found["exposure_5"].detail["exhaustive"]
    assert found["exposure_5"].detail["at_bound"] == 0
    assert found["exposure_5"].value == math.log2(97)


def test_losses_are_those_of_a_literal_sum() -> None:
    """Summed over the tokens of each text, however many it has; its first one only behind a start token."""
    subject, texts = chain(), ["ab", "abc d", "x"]
    logs = -np.log(subject.transitions)
    ids = [ENCODE(text).tolist() for text in texts]
    behind = [sum(logs[a, b] for a, b in zip([0, *one], one, strict=False)) for one in ids]
    bare = [sum(logs[a, b] for a, b in itertools.pairwise(one)) for one in ids]
    sets = PlantedSet(np.ones((1, 64)))
    assert text_losses(subject, texts, sequences=sets) == pytest.approx(behind, rel=1e-6)
    read = Windows(
        [Document("text", "", "", None)],
        tokenizing=OfCorpus(ByteTokenizer()),
        rule=ReadingRule(bos="never", window=8),
    )
    assert text_losses(subject, texts, sequences=read) == pytest.approx(bare, rel=1e-6)
    with pytest.raises(SpecError, match="10 tokens and 9 are read at once"):
        text_losses(subject, ["0123456789"], sequences=read)


def test_canaries_that_were_not_seen_are_like_the_rest() -> None:
    """Under a model that has seen none, by rank and by the fitted tail; the two agree where both hold."""
    spec = CanarySpec(counts=(0,), each=200, n_digits=6)
    found = measured(chain(), spec, n_candidates=1500)
    sampled, fitted = found["exposure_0"], found["exposure_fitted_0"]
    assert sampled.detail["low"] < 1 / math.log(2) < sampled.detail["high"]
    assert fitted.detail["low"] < 1 / math.log(2) < fitted.detail["high"]
    assert fitted.detail["extrapolated"] == sampled.detail["at_bound"] <= 2
    items = sampled.items
    within = items["exposure"] < 6
    assert items["fitted"][within] == pytest.approx(items["exposure"][within], abs=0.7)


def test_a_tail_goes_on_beyond_the_sample() -> None:
    """-log2 of the true share of secrets as likely, no more than there are secrets, and marked."""
    tail = SkewNormal(0, 30, 4, 1)
    losses = 30 - 4 * np.array([0, 1, 3, 6, 40])
    shares = np.array([0.5, 0.15865525, 1.3498980e-3, 9.8658765e-10])
    assert fitted_exposure(losses, tail=tail, space=10**12)[:4] == pytest.approx(-np.log2(shares), rel=1e-6)
    assert fitted_exposure(losses, tail=tail, space=10**4)[3:] == pytest.approx(math.log2(10**4))

    spec = CanarySpec(counts=(0, 3), each=1, n_digits=9)
    found = measured(Keeping([spec.canaries()[1].text], otherwise=chain()), spec, n_candidates=255)
    assert (found["exposure_3"].value, found["exposure_3"].detail["at_bound"]) == (8, 1)
    beyond = found["exposure_fitted_3"]
    assert beyond.detail["extrapolated"] == 1
    assert 0 < beyond.detail["p_value"] <= 1
    assert 8 < beyond.value <= beyond.detail["space_bits"]
    assert (beyond.detail["low"], beyond.detail["high"]) == (None, None)
    assert found["exposure_fitted_0"].detail["extrapolated"] == 0


def test_what_has_no_answer_says_why() -> None:
    class Masked:
        mask_id = 6

        def score(self, rows: Rows) -> Any:
            raise AssertionError

    assert {str(one.detail) for one in measured(Masked()).values()} == {str(MASKED)}
    same = measured(UniformSubject(vocab_size=257), n_candidates=127)
    assert same["exposure_0"].value == pytest.approx(7 - math.log2(64.5))
    with pytest.raises(SpecError, match="shorten its prefix"):
        measured(chain(), SPEC.edit(prefix="words " * 20 + "."))
    probe = CanaryProbe(canaries=SPEC, n_candidates=100)
    sets = {"test": EvalSet.whole("test", sequences=PlantedSet(np.ones((1, 64))))}
    assert probe.cost_tokens(sets) == 112 * 28
