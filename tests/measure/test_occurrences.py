"""Counts of strings are exact: those of a search through every window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.errors import SpecError
from repetita.measure import occurrences as module
from repetita.measure.occurrences import OccurrencesProbe, occurrences
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet
from repetita.seeds import Ints


class WithDocuments(PlantedSet):
    """Three sequences a document."""

    def document(self, indices: Ints, /) -> Ints:
        return indices // 3


@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 6), st.sampled_from([1, 5, 4096]))
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_a_search(seed: int, vocab: int, n: int, at_once: int) -> None:
    drawn = np.random.default_rng(seed)
    text, strings = drawn.integers(0, vocab, (14, 9)), drawn.integers(0, vocab, (20, n))
    within = EvalSet("train", WithDocuments(text), drawn.permutation(14)[:11])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_AT_ONCE", at_once)
        found = occurrences(strings, within=within)
    for string, sequences, documents in zip(strings, found.sequences, found.documents, strict=True):
        there = [
            index
            for index in within.indices.tolist()
            if any(np.array_equal(text[index, i : i + n], string) for i in range(9 - n + 1))
        ]
        assert sequences == len(there)
        assert documents == len({index // 3 for index in there})


def test_strings_whose_sums_agree_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all weights equal every reordering of a string has its sum; the counts stay exact."""
    monkeypatch.setattr("repetita.seeds.words", lambda counters, **_: np.zeros(len(counters), np.uint64))
    strings = np.array([[1, 2, 3], [3, 2, 1], [2, 1, 3], [6, 0, 0]])
    within = EvalSet.whole("train", sequences=PlantedSet([[1, 2, 3, 2, 1], [4, 1, 2, 3, 4], [2, 2, 2, 2, 2]]))
    found = occurrences(strings, within=within)
    assert found.sequences.tolist() == found.documents.tolist() == [2, 1, 0, 0]


def test_a_string_longer_than_the_rows_is_in_none() -> None:
    within = EvalSet.whole("train", sequences=PlantedSet([[1, 2]]))
    assert occurrences(np.array([[1, 2, 3]]), within=within).sequences.tolist() == [0]


def test_the_probe_counts_the_suffixes_of_one_set_in_the_other() -> None:
    train = [[1, 2, 3, 4, 5, 6], [9, 1, 2, 3, 4, 9], [7, 7, 7, 7, 7, 7]]
    common = [*train, [1, 2, 3, 4, 5, 0]]
    sets = {
        "common": EvalSet.whole("common", sequences=PlantedSet(common)),
        "train": EvalSet.whole("train", sequences=PlantedSet(train)),
    }
    probe = OccurrencesProbe(on=("common", "train"), suffix=3, starts=(1, 3))
    (reading,) = probe.measure(UniformSubject(vocab_size=9), sets)
    assert reading.items is not None
    # The row that ends in padding has no second string.
    assert reading.items["in_sequences"].tolist() == [[2, 1], [2, 1], [1, 1], [2, -1]]
    assert reading.on == "common"
    assert reading.n == 7
    assert reading.value == pytest.approx(10 / 7)
    assert reading.detail == {
        "within": "train",
        "suffix": 3,
        "starts": [1, 3],
        "none": 0,
        "one": 4,
        "several": 3,
        "most": 2,
    }
    assert probe.cost_tokens(sets) == 0
    with pytest.raises(SpecError, match="beyond a sequence of 6"):
        list(probe.edit(starts=(4,)).measure(UniformSubject(vocab_size=9), sets))
