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
from repetita.measure.canaries import MASKED, CanaryProbe, exposure, text_losses
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


@pytest.mark.parametrize(("own", "others"), [([math.nan], [1.0]), ([1.0], [2.0, math.nan])])
def test_what_is_no_number_has_no_rank(own: list[float], others: list[float]) -> None:
    """It would be the last of all, an exposure of 0."""
    with pytest.raises(SpecError, match="not a number"):
        exposure(own, candidates=others)


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
    assert never.value == pytest.approx(1, abs=0.02)
    assert never.detail["at_bound"] == 0
    assert never.detail == {
        "at_bound": 0, "candidates": 255, "exhaustive": False, "space_bits": math.log2(10_000),
    }  # fmt: skip
    assert never.items["rank"].tolist() == [128.5] * 6 + [1] * 6


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
