"""Memory unit length: how long the runs of memorized tokens are, beside hits shuffled within sequences.

Shapes: B sequences of a batch, L tokens of a sequence, S sequences of a set, R runs.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet, PassProbe, scored_batches
from repetita.subject import Subject

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class UnitLengthProbe(PassProbe):
    """Lengths of runs of consecutive memorized tokens in each set of `on` (Tirumala et al. 2022, Fig. 16).

    A run is as long as it goes on: it ends at a token that is not memorized, at a position that is not scored
    and at the end of its sequence. Each token is judged teacher-forced, as in M(f): a run is no text that the
    model would write. In a masked subject neighbours are asked under different masks.
    """

    name: str = "unit_length"

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """See `unit_length_readings`; one pass over each set of `on`."""
        for over in self.chosen(sets):
            parts = [(batch.hit, batch.rows.scored) for batch in scored_batches(subject, over=over)]
            hit_SL, scored_SL = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            yield from unit_length_readings(hit_SL, scored=scored_SL, over=over)


def unit_length_readings(hit_SL: Bools, *, scored: Bools, over: EvalSet) -> Iterator[Reading]:
    """Mean lengths over all runs of a set and what they would be if its hits fell anywhere; in tokens.

    `unit_length`: mean over runs (the paper's). Its detail holds `memorized` (M), `runs`, `longest`,
    `independent` (1 / (1 - M): no sequence ever ends; None at M = 1), `ceiling` (mean length of an unbroken
    stretch of scored tokens: what M = 1 gives), and how many runs there are of `edges[i]` <= length <
    `edges[i+1]` tokens, in bins that double. `unit_length_token_weighted`: mean over memorized tokens of the
    length of the run that a token is in. `unit_length_shuffled` and `unit_length_token_weighted_shuffled`:
    the same with each sequence's hits moved to any of its scored positions, as an expectation (see
    `Shuffled`). n counts scored tokens. Items by sequence: `sequence`, `hits`, `runs`, `longest`.
    """
    hit_SL = hit_SL & scored
    lengths_R, sequence_R = run_lengths(hit_SL)
    n, hits = int(scored.sum()), int(hit_SL.sum())
    names = ("unit_length", "unit_length_token_weighted")
    if not hits:
        why = NOTHING_SCORED if n == 0 else {"why": "no token of this set is memorized"}
        for name in (*names, *(f"{name}_shuffled" for name in names)):
            yield Reading(name, over.name, None, n, dict(why))
        return
    stretches_R, _ = run_lengths(scored)
    shuffled = Shuffled.of(scored, hits=hit_SL.sum(1))
    runs = np.bincount(sequence_R, minlength=len(hit_SL))
    longest = np.zeros(len(hit_SL), np.int64)
    np.maximum.at(longest, sequence_R, lengths_R)
    edges = doubling_edges(int(lengths_R.max()))
    detail = {
        "memorized": hits / n,
        "runs": len(lengths_R),
        "longest": int(lengths_R.max()),
        "independent": n / (n - hits) if hits < n else None,
        "ceiling": float(stretches_R.mean()),
        "edges": edges,
        "histogram": np.histogram(lengths_R, bins=edges)[0].tolist(),
    }
    items: dict[str, NDArray[np.generic]] = {
        "sequence": over.indices,
        "hits": hit_SL.sum(1),
        "runs": runs,
        "longest": longest,
    }
    weighted = float((lengths_R**2).sum()) / hits
    expected = {"runs": shuffled.runs, "sd_runs": shuffled.sd_runs}
    yield Reading(names[0], over.name, hits / len(lengths_R), n, detail, items)
    yield Reading(names[1], over.name, weighted, n)
    yield Reading(f"{names[0]}_shuffled", over.name, hits / shuffled.runs, n, expected)
    yield Reading(f"{names[1]}_shuffled", over.name, shuffled.squares / hits, n)


class Shuffled(NamedTuple):
    """Expectations over all ways to place each sequence's hits on its scored positions, summed over a set."""

    runs: float
    """Expected number of runs, exact. Hits divided by it is the mean length of a run up to terms of the
    order of `sd_runs` / `runs` squared."""
    squares: float
    """Expected sum of the squared lengths of runs, exact."""
    sd_runs: float
    """Standard deviation of the number of runs; exact where each sequence is one stretch of scored tokens,
    else as if it were."""

    @classmethod
    def of(cls, scored_SL: ArrayLike, *, hits: ArrayLike) -> "Shuffled":
        """`scored` (S, L) says where hits can fall, `hits` (S,) how many each sequence has."""
        scored, h_S = np.asarray(scored_SL, dtype=bool), np.asarray(hits, dtype=np.float64)
        n_S = scored.sum(1).astype(np.float64)
        if np.any(h_S > n_S) or np.any(h_S < 0):
            raise SpecError(
                "Shuffled: a sequence has more hits than scored positions; count hits where scored"
            )
        runs, squares = 0.0, -float(h_S.sum())
        lengths_R, sequence_R = run_lengths(scored)
        # Windows of k scored neighbours in each sequence: sum over stretches of max(0, length - k + 1).
        p_S = np.ones(len(h_S))
        for k in range(1, scored.shape[1] + 1):
            left = n_S - k + 1
            p_S = p_S * np.divide(np.maximum(h_S - k + 1, 0), left, out=np.zeros_like(p_S), where=left > 0)
            fitting = np.maximum(lengths_R - k + 1, 0)
            windows_S = np.bincount(sequence_R, weights=fitting, minlength=len(h_S))
            full = p_S * windows_S
            # A run of r tokens holds r - k + 1 windows of k hits: one window of one more than of two, and
            # r (r + 1) / 2 windows in all.
            runs += float(full.sum()) * (1 if k == 1 else -1 if k == 2 else 0)
            squares += 2 * float(full.sum())
            if not p_S.any():
                break
        some = n_S > 1
        h, n = h_S[some], n_S[some]
        variance = float((h * (h - 1) * (n - h) * (n - h + 1) / (n**2 * (n - 1))).sum())
        return cls(runs, squares, variance**0.5)


def run_lengths(hit_SL: ArrayLike, /) -> tuple[Ints, Ints]:
    """Lengths of the runs of True along each row, shape (R,), and the row that each run is in."""
    hit = np.atleast_2d(np.asarray(hit_SL, dtype=np.int8))
    edge = np.zeros((len(hit), 1), np.int8)
    change = np.diff(np.concatenate([edge, hit, edge], axis=1), axis=1)
    sequence, start = np.nonzero(change == 1)
    _, stop = np.nonzero(change == -1)
    return (stop - start).astype(np.int64), sequence.astype(np.int64)


def doubling_edges(longest: int, /) -> list[int]:
    """1, 2, 4 ... up to the first power of two above `longest`."""
    return [2**i for i in range(longest.bit_length() + 1)]
