"""Words are Philox's, permutations are permutations that mix, and neither ever changes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from repetita.seeds import Permutation, generator, key, philox, words

GOLDEN = json.loads((Path(__file__).parent / "golden" / "seeds.json").read_text())

# Random123 1.14, tests/kat_vectors, philox4x32 10.
KNOWN = [
    ([0] * 4, [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "parts", "answer"), KNOWN)
def test_philox_gives_the_known_answers(counter: list[int], parts: list[int], answer: list[int]) -> None:
    drawn = philox(np.array(counter, np.uint32), key=parts[0] | parts[1] << 32)
    assert drawn.tolist() == answer


def test_words_are_the_first_half_of_the_block_of_counter_and_turn() -> None:
    counter, turn = 0x0123456789ABCDEF, 0x1122334455667788
    halves = [counter & 0xFFFFFFFF, counter >> 32, turn & 0xFFFFFFFF, turn >> 32]
    block = philox(np.array(halves, np.uint32), key=5).tolist()
    assert words(counter, key=5, turn=turn) == block[0] | block[1] << 32


@given(st.integers(0, 2**63 - 30_000), st.integers(0, 2**64 - 1))
@settings(max_examples=20)
def test_a_word_does_not_depend_on_its_neighbours(first: int, number: int) -> None:
    together = words(np.arange(first, first + 20_000), key=number)
    for place in (0, 8191, 8192, 19_999):
        assert together[place] == words(first + place, key=number)


def test_streams_are_named_and_independent() -> None:
    names = ["init", "order", "subset", "masks", "bootstrap"]
    assert len({key(seed, name) for seed in range(50) for name in names}) == 250
    assert generator(1, "bootstrap").integers(1 << 30) == generator(1, "bootstrap").integers(1 << 30)
    assert generator(1, "bootstrap").integers(1 << 30) != generator(2, "bootstrap").integers(1 << 30)


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
@example(1024, 0, 0)
@example(1025, 0, 0)
@settings(max_examples=60)
def test_a_permutation_reads_each_value_once_and_its_inverse_undoes_it(
    n: int, number: int, turn: int
) -> None:
    order, places = Permutation(n, number), np.arange(n)
    read = order(places, turn=turn)
    assert np.array_equal(np.sort(read), places)
    assert np.array_equal(order.inverse(read, turn=turn), places)


@given(st.integers(1025, 2**62), st.data())
@settings(max_examples=60)
def test_a_permutation_of_any_size_is_addressed_without_a_table(n: int, data: st.DataObject) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9)))
    order = Permutation(n, 3)
    read = order(places)
    assert read.min() >= 0
    assert read.max() < n
    assert np.array_equal(order.inverse(read), places)


def test_turns_may_differ_from_place_to_place() -> None:
    for n in (7, 3000):
        order, places, turns = Permutation(n, 1), np.arange(7), np.array([0, 5, 5, 1, 2, 0, 9])
        one_by_one = [int(order(place, turn=turn)) for place, turn in zip(places, turns, strict=True)]
        assert order(places, turn=turns).tolist() == one_by_one
        assert np.array_equal(order.inverse(order(places, turn=turns), turn=turns), places)


def test_an_address_outside_is_refused() -> None:
    for bad in (-1, 10):
        with pytest.raises(IndexError, match=r"outside 0 \.\. 9"):
            Permutation(10, 0)(bad)
    with pytest.raises(IndexError):
        Permutation(0, 0)(0)
    with pytest.raises(ValueError, match="between 0 and"):
        Permutation(2**62 + 1, 0)


def chi_squared(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def test_all_orders_of_few_values_are_equally_likely() -> None:
    turns = np.arange(6000)[:, None]
    assert Permutation(1, 0)(0) == 0
    for n, orders in ((2, 2), (3, 6), (4, 24)):
        read = Permutation(n, 17)(np.arange(n)[None, :], turn=turns)
        _, counts = np.unique(read @ 10 ** np.arange(n), return_counts=True)
        assert counts.size == orders
        assert chi_squared(counts) < orders + 5 * (2 * orders) ** 0.5


@pytest.mark.parametrize("n", [1025, 1030, 4096, 10_007])
def test_the_network_mixes_places_and_neighbours(n: int) -> None:
    """Where a place goes, how far its neighbour goes, and how turns relate: all as if drawn at random."""
    order, turns, boxes = Permutation(n, 23), np.arange(8000), 16
    for place in (0, 1, n // 2, n - 2):
        here, there = order(place, turn=turns), order(place + 1, turn=turns)
        for drawn in (here, (there - here) % n, (order(place, turn=turns + 1) - here) % n):
            counts = np.bincount(drawn * boxes // n, minlength=boxes)
            assert chi_squared(counts) < 15 + 5 * 30**0.5
    read = order(np.arange(n))
    assert abs(np.corrcoef(read, np.arange(n))[0, 1]) < 5 / n**0.5
    assert np.count_nonzero(read == np.arange(n)) < 8


def test_golden_vectors() -> None:
    assert [key(0, "order"), key(7, "subset")] == GOLDEN["keys"]
    assert words(np.arange(4), key=key(0, "order"), turn=[0, 0, 1, 1]).tolist() == GOLDEN["words"]
    for name, read in GOLDEN["permutations"].items():
        n = int(name)
        places = np.linspace(0, n - 1, min(n, 8)).astype(np.int64)
        assert Permutation(n, key(0, "order"))(places, turn=[[0], [1]]).tolist() == read
