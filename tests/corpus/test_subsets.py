"""Documents are read whole, short units inside unique text, halves drawn of a common set, pass after pass."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus.schedule import SETS
from repetita.corpus.treatment import (
    Passes,
    RepeatedSubset,
    Stream,
)
from tests.corpus.plans import DOCUMENTS, LENGTHS, POOLS, REPEATED, run, schedule


def test_documents_are_read_whole_and_in_a_new_order_each_pass() -> None:
    plan = schedule(
        RepeatedSubset(fraction=Fraction(1, 2), n_sequences=32, unit="document"), steps=80, batch_size=8
    )
    read = [row[1] for batch in run(plan) for row in batch if row[4] == REPEATED]
    passes = [read[i : i + 32] for i in range(0, len(read), 32)]
    assert len(passes) == 10
    orders = []
    for one in passes:
        assert sorted(one) == sorted(passes[0])
        starts = [i for i in range(32) if i == 0 or DOCUMENTS[one[i]] != DOCUMENTS[one[i - 1]]]
        orders.append(tuple(int(DOCUMENTS[one[i]]) for i in starts))
        assert len(set(orders[-1])) == len(starts), "a document is read in one stretch"
        for i in range(32):
            first = int(np.searchsorted(DOCUMENTS, DOCUMENTS[one[i]]))
            assert one[i] == (first if i in starts else one[i - 1] + 1)
    assert len(set(orders)) > 7
    last = orders[0][-1]
    for document in orders[0]:
        whole = np.count_nonzero(document == DOCUMENTS)
        assert np.count_nonzero(DOCUMENTS[np.array(passes[0])] == document) == whole or document == last


@pytest.mark.parametrize("fraction", [Fraction(1, 20), Fraction(1, 4)])
def test_short_units_fill_their_share_of_tokens_inside_the_unique_text(fraction: Fraction) -> None:
    treatment = RepeatedSubset(fraction=fraction, n_sequences=8, unit="sentence")
    plan, control = schedule(treatment, steps=80), schedule(Stream(), steps=80)
    tokens, carriers = 0, 0
    for treated, plain in zip(plan.batches(), control.batches(), strict=True):
        carrier = treated.lane == REPEATED
        assert (treated.set[carrier] == SETS.index("units")).all()
        assert np.array_equal(np.where(carrier, treated.host, treated.index), plain.index)
        tokens += int(LENGTHS["units"][treated.index[carrier]].sum())
        carriers += int(carrier.sum())
    realised = plan.realised()
    chosen = LENGTHS["units"][plan.members("repeated")]
    assert abs(int(chosen.sum()) - 8 * 16) <= chosen.max() / 2 + 1
    assert carriers == realised["lane_slots"]
    # Off by at most half a unit of the subset's tokens, and one partial pass.
    assert abs(tokens / (640 * 16) - fraction) <= fraction * (chosen.max() / 2 / 128) + 128 / (640 * 16)
    assert realised["token_fraction"] == pytest.approx(float(fraction), rel=0.06)


@given(st.integers(1, 40), st.integers(40, 90), st.integers(0, 3), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_each_seed_draws_from_one_common_set(n: int, out_of: int, common: int, seed: int) -> None:
    """Who was drawn is what was read, and the common set is that of a plain run of the common seed."""
    treatment = Passes(n_sequences=n, out_of=out_of, common_seed=common)
    plan = schedule(treatment, seed=seed)
    read = {row[1] for batch in run(plan) for row in batch}
    assert read == set(plan.members("train").tolist())
    assert len(read) == n
    shared = plan.members("common")
    assert plan.set_of("common") == "train"
    assert plan.members("common", n=3).tolist() == shared[:3].tolist()
    plain = schedule(Passes(n_sequences=out_of), seed=common)
    assert shared.tolist() == plain.members("train").tolist()
    assert read <= set(shared.tolist())
    assert plain.members("common").size == 0
    seen = plan.times_seen(set="train", index=np.arange(POOLS["train"]), step=40)
    assert set(np.flatnonzero(seen).tolist()) == read


def test_over_seeds_every_sequence_of_the_common_set_is_drawn_as_often_and_pairs_are_independent() -> None:
    seeds, out_of = 400, 64
    drawn = np.zeros((seeds, POOLS["train"]))
    for seed in range(seeds):
        drawn[seed, schedule(Passes(n_sequences=32, out_of=out_of), seed=seed).members("train")] = 1
    shared = schedule(Passes(n_sequences=32, out_of=out_of)).members("common")
    shares = drawn[:, shared].mean(0)
    assert drawn.sum() == seeds * 32
    # Binomial(400, 1/2) over 64 sequences: a standard deviation of 0.025.
    assert np.abs(shares - 0.5).max() < 4.5 * 0.025
    assert shares.std() == pytest.approx(0.025, rel=0.35)
    correlation = np.asarray(np.corrcoef(drawn[:, shared].T))[np.triu_indices(out_of, 1)]
    assert correlation.mean() == pytest.approx(-1 / 63, abs=0.01)
    assert correlation.std() == pytest.approx(400**-0.5, rel=0.1)
