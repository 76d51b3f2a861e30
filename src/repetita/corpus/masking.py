"""Masks of a masked language model: drawn anew at each step for training, disjoint draws for measuring.

Shapes: B rows, L tokens of a row.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita import seeds
from repetita.subject import Rows

MASK_SHARE = 0.15
"""Share of a row's tokens that training scores (Tirumala et al. 2022, section 3; Devlin et al. 2019)."""

DRAWS = 7
"""Disjoint measuring masks that together score each position once: 1/7 of a row each, next to 0.15."""

KINDS = ("mask", "random", "kept")
"""What the model is shown at a scored position, by code; measuring shows the mask alone."""

_SHOWN_AS_MASK, _SHOWN_AS_MASK_OR_RANDOM = 0.8, 0.9
_QUOTA, _KIND, _RANDOM = 1 << 32, 2 << 32, 3 << 32
"""Where the words of a row begin that say how many, how, and as which token; below are those of the order."""


class Masked(NamedTuple):
    """Rows as a masked model is trained on them."""

    rows: Rows
    """`tokens[:, i]` stands at the place of `targets[:, i]` itself; `scored` are the chosen positions."""
    kind: NDArray[np.int8]
    """Place in KINDS at scored positions, -1 elsewhere, shape (B, L)."""


def training_masks(rows: Rows, *, vocab_size: int, seed: int, step: int) -> Masked:
    """The rows of a batch, one a slot, with 15% of the text chosen, keyed by (seed, step, slot).

    Exactly 0.15 of a row's scored tokens are chosen, rounded up or down at random so that the mean is exact.
    Of the chosen, 80% show the mask (id `vocab_size`), 10% a random token and 10% the token itself.
    """
    n_rows, length = rows.targets.shape
    key, slots = seeds.key(seed, "masks"), np.arange(n_rows, dtype=np.int64)[:, None]
    # The step turns the counter's upper half, the slot and the purpose are in its lower half.
    first = slots << 34
    rank = _rank(rows.scored, seeds.words(first + np.arange(length), key=key, turn=step))
    quota = np.floor(MASK_SHARE * rows.scored.sum(axis=1) + _unit(first[:, 0] + _QUOTA, key, step))
    chosen = rank < quota[:, None]
    where = (first + np.arange(length))[chosen]
    draw, token = _unit(where + _KIND, key, step), seeds.words(where + _RANDOM, key=key, turn=step)
    kind = np.full(chosen.shape, -1, dtype=np.int8)
    kind[chosen] = (draw >= _SHOWN_AS_MASK).astype(np.int8) + (draw >= _SHOWN_AS_MASK_OR_RANDOM)
    tokens = np.where(kind == KINDS.index("mask"), vocab_size, rows.targets)
    as_random = kind[chosen] == KINDS.index("random")
    tokens[kind == KINDS.index("random")] = 1 + (token[as_random] % np.uint64(vocab_size - 1)).astype(
        np.int64
    )
    return Masked(Rows(tokens, rows.targets, chosen), kind)


def measuring_masks(rows: Rows, *, mask_id: int, name: str, indices: NDArray[np.int64]) -> list[Rows]:
    """The DRAWS versions of some rows of the set `name` that together score each of their tokens once.

    A pure function of the set's name, the sequence's index and the draw. Every chosen position shows the
    mask: one that shows the answer, as in training, would count as memory (experiment design, rule 15).
    """
    places = np.arange(rows.targets.shape[1], dtype=np.int64)
    words = seeds.words(places, key=seeds.key(0, f"measuring-masks/{name}"), turn=indices[:, None])
    draw = np.where(rows.scored, _rank(rows.scored, words) % DRAWS, -1)
    return [
        Rows(np.where(draw == k, mask_id, rows.targets), rows.targets, np.equal(draw, k))
        for k in range(DRAWS)
    ]


def _rank(scored: NDArray[np.bool_], words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Place of each scored position in its row's order of words; the others come after all of them."""
    order = np.lexsort((words, ~scored), axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    return np.where(scored, rank, order.shape[1])


def _unit(counters: ArrayLike, key: int, turn: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) of 53 bits."""
    return (seeds.words(counters, key=key, turn=turn) >> np.uint64(11)).astype(np.float64) * 2.0**-53
