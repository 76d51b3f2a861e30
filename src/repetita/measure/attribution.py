"""Logit attribution: what each head adds to the logit of the token that follows, on rows or on a text.

Shapes: B rows, L tokens of a row, Y layers, H heads.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from repetita.errors import NotApplicable, SpecError
from repetita.journal.records import Reading
from repetita.measure.induction import NO_LOGITS
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet, PassProbe
from repetita.measure.shown import alone, room
from repetita.subject import Attributing, Rows, Subject


class AttributionProbe(PassProbe):
    """Attribution of each scored token's logit to the heads, by the direct path (the paper's Fig. 17).

    Read are the first rows of each set of `on`, or, where `texts` are given, these instead: each is written
    `n_copies` times in one row behind the start token, in the ids of the set's tokenizer. Raises SpecError
    for a text whose copies are longer than a sequence.
    """

    name: str = "attribution"
    max_sequences: PositiveInt | None = 4
    texts: tuple[str, ...] = ()
    n_copies: PositiveInt = 2

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`; a text counts as a whole sequence."""
        if not self.texts:
            return super().cost_tokens(sets)
        return sum(len(self.texts) * room(of.sequences) for of in self.chosen(sets))

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each set `attribution_max`: the highest mean over scored tokens of a head, in logits.

        n counts scored tokens; `detail` says which head, and `by_head` is the mean of each (Y, H). Items:
        `attribution` (Y, H, B, L), 0 where not scored, `targets` and `scored` (B, L).
        """
        for over in self.chosen(sets):
            rows = self._written(over) if self.texts else over.sequences.rows(over.indices)
            try:
                added_YHBL = attributed(subject, rows)
            except NotApplicable as error:
                yield Reading("attribution_max", over.name, None, 0, {"why": str(error)})
                continue
            items: dict[str, NDArray[Any]] = {
                "attribution": added_YHBL, "targets": rows.targets, "scored": rows.scored
            }  # fmt: skip
            n = int(rows.scored.sum())
            if not n:
                yield Reading("attribution_max", over.name, None, 0, NOTHING_SCORED, items)
                continue
            mean_YH = added_YHBL.sum((2, 3), dtype=np.float64) / n
            layer, head = np.unravel_index(int(mean_YH.argmax()), mean_YH.shape)
            detail = {"layer": int(layer), "head": int(head), "by_head": mean_YH.tolist()}
            yield Reading("attribution_max", over.name, float(mean_YH.max()), n, detail, items)

    def _written(self, over: EvalSet) -> Rows:
        """The texts as rows, shorter ones padded at their end."""
        found = [np.tile(over.sequences.encode(text), self.n_copies) for text in self.texts]
        length = max(map(len, found))
        if length > room(over.sequences):
            raise SpecError(
                f"probe '{self.name}': {self.n_copies} copies of a text are {length} tokens and a sequence "
                f"has {room(over.sequences)}; give a shorter text or fewer copies"
            )
        rows = alone(over.sequences, np.stack([np.pad(ids, (0, length - len(ids))) for ids in found]))
        inside = np.arange(length) < np.array([len(ids) for ids in found])[:, None]
        return rows._replace(scored=rows.scored & inside)


def attributed(subject: Subject, rows: Rows, /) -> NDArray[np.float32]:
    """What each head adds to the logit of each scored target, less the mean over logits (Y, H, B, L).

    Raises NotApplicable where the subject cannot say.
    """
    if not isinstance(subject, Attributing):
        raise NotApplicable(NO_LOGITS)
    return np.where(rows.scored, subject.attribute(rows.tokens, rows.targets), 0).astype(np.float32)
