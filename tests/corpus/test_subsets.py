"""Documents are read whole, short units inside unique text, each pass in an order of its own."""

from fractions import Fraction

import numpy as np
import pytest

from repetita.corpus.schedule import SETS
from repetita.corpus.treatment import (
    RepeatedSubset,
    Stream,
)
from tests.corpus.plans import DOCUMENTS, LENGTHS, REPEATED, run, schedule


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
