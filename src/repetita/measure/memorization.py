"""M(f): the share of scored tokens of a set whose most likely token is the target."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from repetita.journal.records import Reading
from repetita.measure.budget import BudgetedProbe
from repetita.measure.loss import NOTHING_SCORED, index_reading, loss_readings
from repetita.measure.probe import Pass


class MemorizationProbe(BudgetedProbe):
    """M(f) of each set of `on`, on full passes (Tirumala et al. 2022, definition 1).

    A full pass, not the hits of training batches: those are M_update and another quantity (experiment design,
    rule 13). On text never trained on, M is the accuracy that generalisation alone gives.
    """

    name: str = "memorization"

    def readings(self, taken: Pass, /) -> Iterator[Reading]:
        """See `memorization_reading`."""
        yield memorization_reading(taken)


class ScoreProbe(BudgetedProbe):
    """Loss, bits a byte, the curve over the token index and M(f), all from one pass over each set of `on`."""

    name: str = "score"

    def readings(self, taken: Pass, /) -> Iterator[Reading]:
        """`loss`, `bits_per_byte`, `memorized`, `loss_by_index`, in this order."""
        yield from loss_readings(taken)
        # One probe keeps each array once: the loss has written the sequences and their scored tokens.
        yield memorization_reading(taken)._replace(items={"hits": taken.hits})
        yield index_reading(taken)


def memorization_reading(taken: Pass, /) -> Reading:
    """`memorized`: hits / scored tokens, ties to the lowest id; n counts scored tokens.

    Items by sequence: `sequence` (indices), `hits`, `n_scored`.
    """
    n = taken.tokens
    if n == 0:
        return Reading("memorized", taken.on, None, 0, NOTHING_SCORED)
    items: dict[str, NDArray[np.generic]] = {
        "sequence": taken.indices,
        "hits": taken.hits,
        "n_scored": taken.n_scored,
    }
    return Reading(
        "memorized", taken.on, int(taken.hits.sum()) / n, n, {"sequences": len(taken.indices)}, items
    )
