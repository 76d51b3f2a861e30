"""Matched, disjoint sets: train, test, special, twin, placebo, novel, units."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from repetita import seeds
from repetita.corpus.catalogue import ranks
from repetita.corpus.lanes import SETS
from repetita.errors import CorpusError, SpecError
from repetita.spec import ExactFraction, Spec

Ints = NDArray[np.int64]

LONGEST_PHASE = 1000
"""Places of the sequence of sets that are skipped at most."""


class Splits(Spec):
    """Share of the documents that each set gets; what is left is `train`.

    `special` is text for special batches and insertions, `twin` is matched to it and never seen,
    `placebo` and `novel` are fresh text for those arms, `units` holds the documents, paragraphs or
    sentences of a repeated subset whose unit is not the sequence. `seed` redraws which documents go
    where.
    """

    test: ExactFraction = Fraction(1, 10)
    special: ExactFraction = Fraction(0)
    twin: ExactFraction = Fraction(0)
    placebo: ExactFraction = Fraction(0)
    novel: ExactFraction = Fraction(0)
    units: ExactFraction = Fraction(0)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, share in self.shares().items():
            if not 0 <= share < 1:
                raise SpecError(f"Splits: {name} = {share} is outside [0, 1); give a share such as 0.1")
        total = sum(self.shares().values())
        if total >= 1:
            raise SpecError(f"Splits: the shares add up to {total} and leave nothing for train; lower one")
        return self

    def shares(self) -> dict[str, Fraction]:
        """Share of each set but train, by name."""
        return {name: getattr(self, name) for name in SETS[1:]}


def deal(
    splits: Splits,
    *,
    sources: Sequence[str] | Ints,
    dates: Sequence[str | None] | Ints,
    lengths: Sequence[int] | Ints,
    copies: Sequence[str] | Ints | None = None,
) -> NDArray[np.int8]:
    """Deal n documents to the sets; the set of each as its place in SETS, shape (n,).

    Documents are sorted by source, date and length, blocks of neighbours are shuffled by the seed, and the
    row is dealt out by error diffusion of the shares (experiment design, rule 1): every stretch of it goes
    to each set in proportion, to within a block or two. `copies` may name each document's text: equal texts
    all go where the first of them goes, so that no set holds a copy of another's text. Instead of strings
    there may be numbers that sort as they do.

    Raises CorpusError when a set with a share would be empty.
    """
    first = _first_copies(copies, len(lengths))
    originals = np.flatnonzero(first == np.arange(len(first)))
    keys = [np.asarray(lengths), _ranks(dates), _ranks(sources)]
    order = originals[np.lexsort([key[originals] for key in keys])]
    order = _shuffled_in_blocks(order, splits)
    dealt = np.zeros(len(lengths), dtype=np.int8)
    dealt[order] = _sequence_of_sets(splits, len(order))
    given = dealt[first]
    for code, name in enumerate(SETS):
        share = 1 - sum(splits.shares().values()) if name == "train" else splits.shares()[name]
        if share and not (given == code).any():
            raise CorpusError(
                f"the set '{name}' would be empty: its share {share} of {len(originals)} distinct "
                f"documents is less than one; raise it, set it to 0, or give the text as more documents "
                f"(a folder, or JSONL)"
            )
    return given


def _ranks(values: Sequence[str | None] | Ints) -> Ints:
    return values if isinstance(values, np.ndarray) else ranks([value or "" for value in values])


def _first_copies(copies: Sequence[str] | Ints | None, n: int) -> Ints:
    """The first document with the same text as each, shape (n,)."""
    if copies is None:
        return np.arange(n)
    number = copies if isinstance(copies, np.ndarray) else ranks(copies)
    _, first, which = np.unique(number, return_index=True, return_inverse=True)
    return np.asarray(first[which])


def _shuffled_in_blocks(row: NDArray[np.int64], splits: Splits) -> NDArray[np.int64]:
    """The row with each block of neighbours in an order drawn by the seed.

    A block is as long as it takes to give the largest of the sets but train one document: larger blocks
    would match the sets less, smaller ones would draw nothing.
    """
    largest = max(splits.shares().values())
    block = max(2, round(1 / largest)) if largest else 2
    words = seeds.words(np.arange(len(row), dtype=np.uint64), key=seeds.key(splits.seed, "splits"))
    return np.asarray(row[np.lexsort((words, np.arange(len(row)) // block))])


def _sequence_of_sets(splits: Splits, n: int) -> NDArray[np.int8]:
    """Which set each of n places goes to: at every place, to the set that is furthest behind its share."""
    shares = [1 - sum(splits.shares().values()), *splits.shares().values()]
    unit = math.lcm(*(share.denominator for share in shares))
    weights = [int(share * unit) for share in shares]
    # The sequence repeats after `unit` places; where to begin is drawn too, so that a small set is not always
    # taken from the same stretch of the row.
    skipped = seeds.key(splits.seed, "splits-phase") % min(unit, LONGEST_PHASE)
    places = skipped + n
    dealt: list[int] = []
    credit = [0] * len(weights)
    while len(dealt) < places:
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        taken = max(range(len(credit)), key=credit.__getitem__)
        dealt.append(taken)
        credit[taken] -= unit
        if not any(credit):
            break
    # Where all credit is spent, it begins anew.
    return np.resize(np.array(dealt, dtype=np.int8), places)[skipped:]
