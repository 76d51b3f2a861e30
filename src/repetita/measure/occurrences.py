"""In how many training sequences and documents is a string? Exact counts, the k of k-eidetic memorization.

Shapes: N strings of n tokens, S sequences of a set, W strings of a sequence, L tokens of a sequence.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from repetita import seeds
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet, PassProbe
from repetita.subject import Subject

Ints = NDArray[np.int64]
ROWS_AT_ONCE = 4096


@runtime_checkable
class _KnowsDocuments(Protocol):
    def document(self, indices: Ints, /) -> Ints: ...


class Occurrences(NamedTuple):
    """How often each of N strings is in a set; a sequence or document that has it twice counts once."""

    sequences: Ints
    documents: Ints
    """Documents that the sequences with the string begin in; where the set does not know its documents,
    each sequence counts as one."""


def occurrences(strings: Ints, /, *, within: EvalSet) -> Occurrences:
    """Counts of each string, shape (N, n), in the rows of `within`; a string does not run on over their ends.

    Every window of n tokens is compared with the strings by a 64-bit sum and, where that agrees, token by
    token. Memory does not grow with the set but for the strings found.
    """
    distinct, which = np.unique(strings, axis=0, return_inverse=True)
    n = strings.shape[1]
    odd = seeds.words(np.arange(n), key=seeds.key(0, "occurrences")) | np.uint64(1)
    sums = (distinct.astype(np.uint64) * odd).sum(1, dtype=np.uint64)
    order = np.argsort(sums, kind="stable")
    ranked, pairs = sums[order], [np.empty((0, 2), np.int64)]
    for first in range(0, len(within.indices), ROWS_AT_ONCE):
        targets = within.sequences.rows(within.indices[first : first + ROWS_AT_ONCE]).targets
        if targets.shape[1] < n:
            break
        windows = np.lib.stride_tricks.sliding_window_view(targets, n, axis=1)
        of_window = np.zeros(windows.shape[:2], np.uint64)
        for place, word in enumerate(odd):
            of_window += windows[:, :, place].astype(np.uint64) * word
        row, at = np.nonzero(np.isin(of_window, ranked))
        low = np.searchsorted(ranked, of_window[row, at])
        high = np.searchsorted(ranked, of_window[row, at], side="right")
        # Two strings can have one sum: each of them is compared.
        while (still := np.flatnonzero(low < high)).size:
            one = order[low[still]]
            equal = (windows[row[still], at[still]] == distinct[one]).all(1)
            pairs.append(np.stack([one[equal], first + row[still][equal]], axis=1))
            low[still] += 1
    found = np.unique(np.concatenate(pairs), axis=0)
    inside = found[:, 1]
    if isinstance(within.sequences, _KnowsDocuments) and inside.size:
        inside = within.sequences.document(within.indices[inside])
    by_document = np.unique(np.stack([found[:, 0], inside], axis=1), axis=0)
    counts = [np.bincount(one[:, 0], minlength=len(distinct))[which.ravel()] for one in (found, by_document)]
    return Occurrences(*counts)


class OccurrencesProbe(PassProbe):
    """In how many sequences of the second set of `on` each suffix of the first is; no model is asked.

    With the `starts` and `suffix` of an `ExtractionProbe` this is the k of k-eidetic memorization (Carlini et
    al. 2021, definition 2): the string is extractable and in at most k training examples.
    """

    name: str = "occurrences"
    on: tuple[str, ...] = Field(min_length=2, max_length=2)
    """The set whose strings are counted, then the set that they are counted in."""
    suffix: PositiveInt = 16
    starts: tuple[PositiveInt, ...] = Field(min_length=1)

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:  # noqa: ARG002
        """Nothing that a model reads."""
        return 0

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:  # noqa: ARG002
        """`occurrences`: mean number of sequences that a string of the first set is in; n counts strings.

        Detail: how many strings are in `none`, `one` and `several` sequences, and the `most`. Items:
        `sequence` (S,); `in_sequences` and `in_documents` (S, W), -1 where the string has a separator or
        padding inside.
        """
        whole = self._named(sets)
        over, within = whole[0].sample(self.max_sequences), whole[1]
        if self.starts[-1] + self.suffix > over.sequences.length:
            raise SpecError(
                f"probe '{self.name}': the string at {self.starts[-1]} of {self.suffix} tokens ends beyond a "
                f"sequence of {over.sequences.length}; start it earlier"
            )
        rows = over.sequences.rows(over.indices)
        parts = [slice(start, start + self.suffix) for start in self.starts]
        asked = np.stack([rows.scored[:, part].all(1) for part in parts], axis=1)
        strings = np.stack([rows.targets[:, part] for part in parts], axis=1)[asked]
        if not len(strings):
            yield Reading("occurrences", over.name, None, 0, NOTHING_SCORED)
            return
        found = occurrences(strings, within=within)
        items: dict[str, NDArray[np.generic]] = {"sequence": over.indices}
        for name, counts in (("in_sequences", found.sequences), ("in_documents", found.documents)):
            items[name] = np.full(asked.shape, -1, np.int64)
            items[name][asked] = counts
        several = found.sequences > 1
        detail = {
            "within": within.name,
            "suffix": self.suffix,
            "starts": list(self.starts),
            "none": int((found.sequences == 0).sum()),
            "one": int((found.sequences == 1).sum()),
            "several": int(several.sum()),
            "most": int(found.sequences.max()),
        }
        yield Reading("occurrences", over.name, float(found.sequences.mean()), len(strings), detail, items)
