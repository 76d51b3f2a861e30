"""Exposure of canaries: how far up a model ranks a secret that it saw among those that it could have seen.

Carlini et al. 2019, "The Secret Sharer", section 4. Shapes: C canaries, N candidates, L tokens of a text.
"""

import math
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Several
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from repetita.corpus.canaries import CanarySpec
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.probe import ROWS_PER_BATCH, EvalSet, PassProbe, Sequences
from repetita.measure.shown import room, start_of, suffix_rows
from repetita.subject import Mask, Subject

Floats = NDArray[np.float64]
MASKED = {"why": "not applicable: a masked model gives a text no probability"}


class Exposure(NamedTuple):
    """Of each canary, shape (C,)."""

    rank: Floats
    """Its rank by loss among the candidates and itself, from 1; among equals the middle one."""
    bits: Floats
    """log2(N + 1) - log2(rank): its exposure."""
    at_bound: Mask
    """Whether every candidate is less likely, so that the exposure is this or more. Not where the candidates
    are all that there are: it then is exactly this."""


def exposure(losses: ArrayLike, /, *, candidates: ArrayLike, exhaustive: bool = False) -> Exposure:
    """Exposure of canaries by their losses (C,) and those of N candidates, drawn from what they could be.

    The rank counts the canary itself, so that the first of N + 1 has exposure log2(N + 1) and one that is
    like all others about 1 (its expectation over secrets at random is 1 / ln 2 for large N). Raises SpecError
    where a loss is not a number, which has no rank.
    """
    own, others = np.asarray(losses, dtype=np.float64), np.sort(np.asarray(candidates, dtype=np.float64))
    if np.isnan(own).any() or np.isnan(others).any():
        raise SpecError("exposure: the loss of a canary is not a number; measure the model in float32")
    better, up_to = np.searchsorted(others, own), np.searchsorted(others, own, side="right")
    rank = 1 + better + (up_to - better) / 2
    bits = math.log2(len(others) + 1) - np.log2(rank)
    return Exposure(rank, bits, (up_to == 0) & (not exhaustive))


def text_losses(subject: Subject, texts: Several[str], /, *, sequences: Sequences) -> Floats:
    """-log p of each text behind the start token, nats, summed over its tokens; shape (texts,).

    Without a start token the first token of a text is read and not weighed. Raises SpecError for a text
    longer than what is read at once.
    """
    start, found = start_of(sequences), []
    encoded = [sequences.encode(text) for text in texts]
    longest = max(map(len, encoded))
    if longest > room(sequences):
        raise SpecError(
            f"a canary has {longest} tokens and {room(sequences)} are read at once; shorten its "
            f"prefix or its secret"
        )
    first = 0 if start is not None else 1
    for begin in range(0, len(encoded), ROWS_PER_BATCH):
        some = encoded[begin : begin + ROWS_PER_BATCH]
        inside = np.arange(max(map(len, some))) < np.array([len(ids) for ids in some])[:, None]
        ids = np.zeros(inside.shape, np.int64)
        ids[inside] = np.concatenate(some)
        rows = suffix_rows(ids, prompt=first, start=start)
        scored = inside[:, first:]
        found.append(subject.score(rows._replace(scored=scored)).loss.astype(np.float64).sum(axis=1))
    return np.concatenate(found)


class CanaryProbe(PassProbe):
    """Exposure of canaries that were written into a text by `repetita canaries make`, or treatments of ours.

    `on` is one set, whose tokenizer and start token are taken; nothing of its text is read. Each canary is
    compared with the same `n_candidates` of what it could have been, none of which is a canary.
    """

    name: str = "canaries"
    on: tuple[str, ...] = Field(default=("test",), min_length=1, max_length=1)
    canaries: CanarySpec
    n_candidates: int = Field(default=1023, ge=1)

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`: about, for secrets of one length need not have equally many tokens."""
        longest = len(self._named(sets)[0].sequences.encode(self.canaries.canaries()[0].text))
        n = min(self.n_candidates, self.canaries.space - self.canaries.n)
        return (self.canaries.n + n) * longest

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each count c `exposure_c`: the mean over its canaries in bits; n counts canaries.

        `detail`: `at_bound`, how many rank before all candidates, so that the mean is a lower bound;
        `candidates`, and whether they are `exhaustive`; `space_bits`, the most that there can be. Items by
        canary (C,): `count`, `loss` (nats), `rank`, `exposure`, `at_bound`; by candidate (N,):
        `candidate_loss`. `fit.exposure` makes of them intervals and a fitted tail. Value None for a masked
        subject.
        """
        over = self._named(sets)[0]
        if subject.mask_id is not None:
            for count in self.canaries.counts:
                yield Reading(f"exposure_{count}", over.name, None, 0, dict(MASKED))
            return
        own, others = (
            text_losses(subject, [one.text for one in texts], sequences=over.sequences)
            for texts in (self.canaries.canaries(), self.canaries.candidates(self.n_candidates))
        )
        exhaustive = len(others) == self.canaries.space - self.canaries.n
        found = exposure(own, candidates=others, exhaustive=exhaustive)
        items: dict[str, NDArray[Any]] = {
            "count": self.canaries.count_of,
            "loss": own,
            "rank": found.rank,
            "exposure": found.bits,
            "at_bound": found.at_bound,
            "candidate_loss": others,
        }
        for count in self.canaries.counts:
            of = self.canaries.count_of == count
            detail = {
                "at_bound": int(found.at_bound[of].sum()),
                "candidates": len(others),
                "exhaustive": exhaustive,
                "space_bits": math.log2(self.canaries.space),
            }
            kept = items if count == self.canaries.counts[0] else None
            mean = float(found.bits[of].mean())
            yield Reading(f"exposure_{count}", over.name, mean, int(of.sum()), detail, kept)
