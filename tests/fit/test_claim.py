from typing import Any

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.claim import (
    MAX_PRIMARY,
    Claim,
    detectable_effect,
    detectable_margin,
    directional,
    equivalent,
    from_estimate,
    holm,
    jointly,
    seeds_needed,
    settle,
    undecided,
)
from repetita.fit.estimate import Estimate

WORDS: dict[str, Any] = {"statement": "s", "source": "p"}


def effect(values: list[float], name: str = "c", *, primary: bool = True) -> Claim:
    return directional(values, name=name, primary=primary, **WORDS)


def test_verdicts_of_a_directional_claim() -> None:
    assert effect([1.0, 1.1, 0.9]).verdict == "supported"
    assert effect([-1.0, -1.1, -0.9]).verdict == "contradicted"
    assert effect([1.0, -1.1, 0.9]).verdict == "inconclusive"
    below = directional([0.5, 0.55, 0.52], name="c", threshold=1, direction="below", scale="log", **WORDS)
    assert below.verdict == "supported"


def test_one_seed_illustrates_never_supports() -> None:
    assert effect([100.0]).verdict == "illustrated"
    assert equivalent([0.0], name="c", margin=1, **WORDS).verdict == "illustrated"
    assert from_estimate(Estimate(5, 4, 6, 1, "fit"), name="c", **WORDS).verdict == "illustrated"
    assert settle([effect([100.0])])[0].verdict == "illustrated"


def test_without_an_effect_a_directional_claim_errs_at_its_level() -> None:
    rng = np.random.default_rng(0)
    verdicts = [effect(list(rng.normal(0, 1, 4))).verdict for _ in range(2000)]
    assert verdicts.count("inconclusive") / 2000 == pytest.approx(0.95, abs=0.015)


def test_zero_effects_to_the_bit_are_inconclusive() -> None:
    assert effect([0.0, 0.0, 0.0]).verdict == "inconclusive"


def test_equivalence_needs_five_seeds_and_a_narrow_interval() -> None:
    near = [0.001, -0.001, 0.0005, -0.0005, 0.0]
    assert equivalent(near, name="c", margin=0.02, **WORDS).verdict == "supported"
    assert equivalent(near[:4], name="c", margin=0.02, **WORDS).verdict == "inconclusive"
    assert equivalent([0.05, 0.051, 0.049], name="c", margin=0.02, **WORDS).verdict == "contradicted"
    wide = equivalent([0.05, -0.05, 0.04, -0.04, 0.0], name="c", margin=0.02, **WORDS)
    assert wide.verdict == "inconclusive"
    assert "smallest margin" in wide.note


def test_at_the_margin_equivalence_errs_at_its_level() -> None:
    rng = np.random.default_rng(1)
    verdicts = [
        equivalent(rng.normal(0.02, 0.004, 5), name="c", margin=0.02, **WORDS).verdict for _ in range(1500)
    ]
    assert verdicts.count("supported") / 1500 == pytest.approx(0.05, abs=0.02)


def test_holm_has_its_closed_form() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_settling_adjusts_primary_claims_only() -> None:
    weak = [0.1, 0.2, 0.15]  # p = 0.035 alone
    assert settle([effect(weak)])[0].verdict == "supported"
    first, second, third = settle([effect(weak), effect([1, -1, 0.2], "d"), effect(weak, "e", primary=False)])
    assert first.verdict == "inconclusive"
    assert "Holm" in first.note
    assert second.verdict == "inconclusive"
    assert third.verdict == "supported"


def test_a_page_has_a_limit_of_primary_claims_and_unique_names() -> None:
    many = [effect([1.0, 1.1], str(i)) for i in range(MAX_PRIMARY + 1)]
    with pytest.raises(SpecError, match="primary"):
        settle(many)
    with pytest.raises(SpecError, match="named 'c'"):
        settle([effect([1.0]), effect([1.0])])


def test_an_interval_decides_at_its_own_edge() -> None:
    inside = from_estimate(Estimate(1.0, -0.01, 2.0, 5, "fit"), name="c", **WORDS)
    outside = from_estimate(Estimate(1.0, 0.01, 2.0, 5, "fit"), name="c", **WORDS)
    assert (inside.verdict, outside.verdict) == ("inconclusive", "supported")
    against = from_estimate(Estimate(-1.0, -2.0, -0.01, 5, "fit"), name="c", **WORDS)
    assert against.verdict == "contradicted"


def test_open_bounds_decide_only_on_their_closed_side() -> None:
    below = Estimate(None, None, 0.5, 3, "censored")
    assert from_estimate(below, name="c", threshold=1, direction="below", **WORDS).verdict == "supported"
    assert from_estimate(below, name="c", threshold=0.2, direction="below", **WORDS).verdict == "inconclusive"
    half = Estimate(2.0, None, 3.0, 3, "censored")
    assert from_estimate(half, name="c", threshold=1, **WORDS).verdict == "inconclusive"


def test_undecided_says_why() -> None:
    claim = undecided(name="c", rule="r", note="edge of the grid", **WORDS)
    assert (claim.verdict, claim.note) == ("inconclusive", "edge of the grid")


def test_the_detectable_effect_is_found_with_its_power() -> None:
    rng = np.random.default_rng(2)
    size = detectable_effect(sd=1, n=4)
    found = [effect(list(rng.normal(size, 1, 4))).verdict == "supported" for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)
    assert seeds_needed(effect=size, sd=1) == 4
    assert seeds_needed(effect=1e-6, sd=1, at_most=50) is None


def test_the_detectable_margin_shrinks_with_seeds() -> None:
    margins = [detectable_margin(sd=1, n=n) for n in (2, 3, 5, 10)]
    assert margins == sorted(margins, reverse=True)
    assert detectable_margin(sd=1, n=1) == float("inf")


def test_another_family_undoes_what_the_first_one_decided() -> None:
    weak = effect([1.0, 1.2, 0.6], name="weak")
    assert weak.p is not None
    assert 0.05 / 8 < weak.p < 0.05
    crowd = [effect([1.0, -1.0, 0.1 * i], name=f"c{i}") for i in range(7)]
    lost = settle([weak, *crowd])[0]
    assert lost.verdict == "inconclusive"
    assert "among 8 primary claims" in lost.note
    (alone,) = jointly([lost], n_tests=1)
    assert alone == weak


def test_the_family_counts_what_has_no_result_yet() -> None:
    weak = effect([1.0, 1.2, 0.6], name="weak")
    assert jointly([weak], n_tests=1)[0].verdict == "supported"
    (among,) = jointly([weak], n_tests=8)
    assert among.verdict == "inconclusive"
    assert f"{8 * (weak.p or 0):.2g} among 8 primary claims (Holm)" in among.note
    assert jointly([among], n_tests=8) == (among,), "twice is once"


def test_jointly_is_holm_within_all_of_them() -> None:
    """By hand: two of three survive at 0.05 where the smallest is tested at 0.05 / 3."""
    strong, weak = effect([1.0, 1.1, 0.9], name="a"), effect([1.0, 1.2, 0.6], name="a")
    none = undecided(name="a", rule="r", note="n", **WORDS)
    found = jointly([strong, weak, none], n_tests=3)
    p_values = [strong.p or 0, weak.p or 0, 1.0]
    expected = ["supported" if p <= 0.05 else "inconclusive" for p in holm(p_values)]
    assert [claim.verdict for claim in found] == expected
    assert all(claim.primary for claim in found)
    one_seed = effect([5.0])
    assert jointly([one_seed], n_tests=8)[0].verdict == "illustrated"


def test_at_most_eight_on_a_page() -> None:
    with pytest.raises(SpecError, match="9 primary claims on one page, 8 are allowed"):
        jointly([], n_tests=9)


def test_seeds_that_agree_to_the_bit_decide_nothing() -> None:
    for claim in (
        directional([0.5] * 5, name="same", statement="It is there", source="nobody"),
        equivalent([0.001] * 5, name="same", statement="Both are equal", source="nobody", margin=0.1),
    ):
        assert claim.verdict == "inconclusive"
        assert "no variance to judge by" in claim.note
