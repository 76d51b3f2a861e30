"""Splits are disjoint, matched, and a function of the seed."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from repetita.corpus.schedule import SETS
from repetita.corpus.splits import LONGEST_PHASE, Splits, _sequence_of_sets, deal
from repetita.errors import CorpusError, SpecError

FOUR = Splits(test="0.1", special="0.05", twin="0.05", novel="0.2")


def dealt(splits: Splits, n: int) -> np.ndarray:
    return deal(splits, sources=["a"] * n, dates=[f"{i:06d}" for i in range(n)], lengths=[1] * n)


@settings(deadline=None, max_examples=50)
@given(
    shares=st.lists(st.integers(0, 15), min_size=6, max_size=6),
    n=st.integers(50, 400),
    seed=st.integers(0, 9),
)
def test_every_stretch_goes_to_each_set_in_proportion(shares: list[int], n: int, seed: int) -> None:
    splits = Splits(**{name: f"{k}/100" for name, k in zip(SETS[1:], shares, strict=True)}, seed=seed)
    try:
        codes = dealt(splits, n)
    except CorpusError:
        assume(False)
    block = round(100 / max(shares)) if any(shares) else 2
    for name, k in zip(SETS[1:], shares, strict=True):
        behind = np.cumsum(codes == SETS.index(name)) - np.arange(1, n + 1) * k / 100
        # A block may hold at most its share and what error diffusion has saved up.
        assert np.abs(behind).max() <= 2 + block * k / 100


def test_sets_are_matched_by_source_and_date() -> None:
    """A trend over time, two sources: the sets' means agree far better than random splits would."""
    n = 2000
    sources = ["early" if i % 3 else "late" for i in range(n)]
    dates = [f"{i:06d}" for i in range(n)]
    codes = deal(FOUR, sources=sources, dates=dates, lengths=[1] * n)
    for name in ("test", "special", "twin", "novel"):
        mine = np.flatnonzero(codes == SETS.index(name))
        assert len(mine) == n * FOUR.shares()[name]
        assert np.mean(mine) == pytest.approx(np.mean(np.arange(n)), abs=15)
        assert np.mean([sources[i] == "late" for i in mine]) == pytest.approx(1 / 3, abs=0.01)


def test_the_seed_draws_and_zero_share_means_none() -> None:
    assert (dealt(FOUR, 300) == dealt(FOUR, 300)).all()
    assert (dealt(FOUR, 300) != dealt(FOUR.edit(seed=1), 300)).any()
    assert SETS.index("placebo") not in dealt(FOUR, 300)
    assert (dealt(Splits(test=0), 1) == 0).all()


def test_the_order_of_the_documents_does_not_matter() -> None:
    n = 200
    order = np.random.default_rng(0).permutation(n)
    codes = deal(FOUR, sources=["a"] * n, dates=[str(1000 + i) for i in order], lengths=[1] * n)
    assert (codes == dealt(FOUR, n)[order]).all()


def test_copies_of_a_text_stay_together() -> None:
    n = 300
    copies = [str(i % 150) for i in range(n)]
    codes = deal(FOUR, sources=["a"] * n, dates=[None] * n, lengths=[1] * n, copies=copies)
    assert (codes[:150] == codes[150:]).all()
    assert len(set(codes[:150].tolist())) == 5


def test_an_empty_set_is_an_error() -> None:
    with pytest.raises(CorpusError, match=r"'test' would be empty.* 1 distinct"):
        dealt(Splits(), 1)


def test_shares_are_checked() -> None:
    with pytest.raises(SpecError, match=r"outside \[0, 1\)"):
        Splits(test=-0.1)
    with pytest.raises(SpecError, match="nothing for train"):
        Splits(test=0.5, novel=0.5)
    with pytest.raises(SpecError, match="did you mean 'twin'"):
        Splits(**{"twins": 0.1})


def test_which_documents_go_where_does_not_change() -> None:
    """A golden value: every corpus that was built rests on it."""
    n = 3000
    codes = deal(
        Splits(test="0.1", special="1/30", twin="1/30", novel="0.123", seed=4),
        sources=["abc"[i % 3] for i in range(n)],
        dates=[None if i % 7 == 0 else str(1800 + i * 37 % 200) for i in range(n)],
        lengths=[i * 31 % 97 for i in range(n)],
        copies=[str(i % 2500) for i in range(n)],
    )
    golden = "5d34d44f2c7e56b49f5b0cac32b9abac733a0a0f10749fbb486b4966f02ae81f"
    assert hashlib.sha256(codes.tobytes()).hexdigest() == golden


@given(st.lists(st.tuples(st.sampled_from(["", "a", "é"]), st.integers(0, 3)), min_size=40, max_size=60))
def test_numbers_do_for_strings(documents: list[tuple[str, int]]) -> None:
    sources, lengths = zip(*documents, strict=True)
    number = {"": 2, "a": 5, "é": 9}
    by_string = deal(Splits(), sources=sources, dates=[None] * len(sources), lengths=lengths)
    ranks, zeros = np.array([number[source] for source in sources]), np.zeros(len(sources), dtype=np.int64)
    by_number = deal(Splits(), sources=ranks, dates=zeros, lengths=np.array(lengths))
    np.testing.assert_array_equal(by_string, by_number)


@settings(max_examples=20)
@given(shares=st.lists(st.integers(0, 160), min_size=6, max_size=6), seed=st.integers(0, 9))
def test_the_sequence_of_sets_repeats_as_if_it_were_dealt_on(shares: list[int], seed: int) -> None:
    """A few hundred places are enough for any denominator here to come round."""
    splits = Splits(
        **{name: f"{k}/{1009 if seed % 2 else 960}" for name, k in zip(SETS[1:], shares, strict=True)},
        seed=seed,
    )
    weights = [1 - sum(splits.shares().values()), *splits.shares().values()]
    codes = _sequence_of_sets(splits, 4000)
    credit = [Fraction(0)] * len(weights)
    reference = []
    for _ in range(LONGEST_PHASE + 4000):
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        reference.append(credit.index(max(credit)))
        credit[reference[-1]] -= 1
    assert "".join(map(str, codes)) in "".join(map(str, reference))
