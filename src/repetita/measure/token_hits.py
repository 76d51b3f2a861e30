"""Which tokens are memorized: the hit of every scored token of a set, kept bit by bit.

Shapes: S sequences of a set, L tokens of a sequence, P = L / 8 rounded up, the bytes of a packed row.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.journal.records import Reading
from repetita.measure.budget import BudgetedProbe
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet, scored_batches
from repetita.subject import Subject

Bools = NDArray[np.bool_]
Items = Mapping[str, NDArray[np.generic]]


class TokenHits(NamedTuple):
    """What a subject made of every token of a set."""

    sequence: NDArray[np.int64]
    """Which sequences, shape (S,)."""
    hit: Bools
    """Whether the most likely token is the target, False where not scored, shape (S, L)."""
    scored: Bools
    """Which positions count, shape (S, L)."""

    def items(self) -> dict[str, NDArray[np.generic]]:
        """Arrays of a reading: `sequence` (S,), packed `hit` and `scored` (S, P), `length` = L (1,)."""
        return {
            "sequence": self.sequence,
            "hit": np.packbits(self.hit, axis=1),
            "scored": np.packbits(self.scored, axis=1),
            "length": np.array([self.hit.shape[1]], dtype=np.int64),
        }


class TokenHitsProbe(BudgetedProbe):
    """M(f) of each set of `on` with the hit of every scored token: states can be compared token by token."""

    name: str = "token_hits"

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """See `token_hits_reading`; one pass over each set of `on`."""
        for over in self.chosen(sets):
            yield token_hits_reading(token_hits(subject, over=over), on=over.name)


def token_hits(subject: Subject, *, over: EvalSet) -> TokenHits:
    """One pass over a set; a masked subject is asked seven times (see `scored_batches`)."""
    shape = (len(over.indices), over.sequences.length)
    hit_SL, scored_SL = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for part, rows, _, hit_BL, _ in scored_batches(subject, over=over):
        hit_SL[part], scored_SL[part] = hit_BL & rows.scored, rows.scored
    return TokenHits(over.indices, hit_SL, scored_SL)


def token_hits_reading(found: TokenHits, *, on: str) -> Reading:
    """`memorized_by_token`: hits / scored tokens, which is M(f); n counts scored tokens.

    Its items are those of `TokenHits.items`; `unpacked` reads them.
    """
    n = int(found.scored.sum())
    value = int(found.hit.sum()) / n if n else None
    detail = {"sequences": len(found.sequence)} if n else dict(NOTHING_SCORED)
    return Reading("memorized_by_token", on, value, n, detail, found.items())


def unpacked(items: Items, *, on: str) -> TokenHits | None:
    """The hits of the set `on` among the items of a measurement; None where it was not read."""
    kept = {name: items.get(f"{on}/{name}") for name in ("sequence", "hit", "scored", "length")}
    if any(array is None for array in kept.values()):
        return None
    sequence, hit, scored, length = (np.asarray(array) for array in kept.values())
    bits = [
        np.unpackbits(rows.astype(np.uint8), axis=1, count=int(length[0])).astype(bool)
        for rows in (hit, scored)
    ]
    return TokenHits(sequence.astype(np.int64), *bits)
