"""Loss over a set: nats a scored token, bits a byte, and the curve over the token index."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from repetita.journal.records import Reading
from repetita.measure.budget import BudgetedProbe
from repetita.measure.probe import Pass

NOTHING_SCORED = {"why": "no scored token in this set"}
NO_BYTES = {"why": "the scored tokens stand for no fixed number of bytes: the tokenizer is not lossless here"}


class LossProbe(BudgetedProbe):
    """Loss of each set of `on`, teacher-forced, over scored tokens."""

    name: str = "loss"
    by_index: Literal["none", "binned"] = "none"
    """`binned` adds the curve over the token index, with the full curve as an item."""

    def readings(self, taken: Pass, /) -> Iterator[Reading]:
        """See `loss_readings` and `index_reading`."""
        yield from loss_readings(taken)
        if self.by_index == "binned":
            yield index_reading(taken)


def loss_readings(taken: Pass, /) -> Iterator[Reading]:
    """`loss` (nats a scored token) and `bits_per_byte`; n counts scored tokens.

    `loss` carries items by sequence: `sequence` (indices), `loss_sum` (nats), `n_scored`. Bits a byte divide
    by the bytes of the scored targets, so that tokenizers can be compared.
    """
    items: dict[str, NDArray[np.generic]] = {
        "sequence": taken.indices,
        "loss_sum": taken.loss_sums,
        "n_scored": taken.n_scored,
    }
    loss, n = taken.loss, taken.tokens
    if loss is None:
        yield Reading("loss", taken.on, None, 0, NOTHING_SCORED)
        yield Reading("bits_per_byte", taken.on, None, 0, NOTHING_SCORED)
        return
    yield Reading("loss", taken.on, loss, n, {"sequences": len(taken.indices)}, items)
    if taken.n_bytes == 0:
        yield Reading("bits_per_byte", taken.on, None, n, NO_BYTES)
    else:
        bits = float(taken.loss_sums.sum()) / math.log(2) / taken.n_bytes
        yield Reading("bits_per_byte", taken.on, bits, n, {"bytes": taken.n_bytes})


def index_reading(taken: Pass, /) -> Reading:
    """`loss_by_index`: the loss at each token index, in bins that double, and the in-context score as value.

    The value is the loss around the last token minus the loss around a tenth of the length, in nats, negative
    where context helps: Olsson et al. 2022 take tokens 500 and 50 of 512, here each is a window a tenth of
    the length wide. None under 20 tokens. `detail` holds `edges` (bin i covers
    edges[i] <= index < edges[i+1]), `loss` and `n`; the item `loss` is the curve itself (L,), NaN where
    nothing is scored.
    """
    length = len(taken.index_n)
    edges = index_edges(length)
    sums, counts = (np.add.reduceat(x, edges[:-1]) for x in (taken.index_loss, taken.index_n))
    binned = [float(s) / int(n) if n else None for s, n in zip(sums, counts, strict=True)]
    detail: dict[str, object] = {"edges": edges, "loss": binned, "n": [int(n) for n in counts]}
    late, early = (
        _window(taken, start=length - length // 10, stop=length),
        _window(taken, start=length // 20, stop=length // 20 + length // 10),
    )
    value = late - early if late is not None and early is not None and length >= 20 else None
    if value is None:
        detail["why"] = "the sequences are too short or unscored for an in-context score"
    full = np.full(length, np.nan)
    np.divide(taken.index_loss, taken.index_n, out=full, where=taken.index_n > 0)
    return Reading("loss_by_index", taken.on, value, taken.tokens, detail, {"loss": full})


def index_edges(length: int, /) -> list[int]:
    """Edges 0, 1, 2, 4, 8 ... `length` of the bins over the token index."""
    edges = [0, *(2**i for i in range((length - 1).bit_length()))]
    return [edge for edge in edges if edge < length] + [length]


def _window(taken: Pass, *, start: int, stop: int) -> float | None:
    n = int(taken.index_n[start:stop].sum())
    return float(taken.index_loss[start:stop].sum()) / n if n else None
