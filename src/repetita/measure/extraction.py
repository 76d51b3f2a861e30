"""Extraction: does a model, given k tokens of its text and nothing else, write the next ones exactly?

Shapes: S sequences of a set, W suffixes of a sequence, N windows asked about, L tokens of a sequence.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita.corpus.sequences import as_rows
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet, PassProbe, scored_batches
from repetita.subject import Rows, Subject

Ints = NDArray[np.int64]
NOT_ASKED = -1
"""The exact prefix of a suffix that is not asked for: it or its prompt is not all text of one document."""
MASKED = {"why": "not applicable: a masked model continues no prompt"}


class ExtractionProbe(PassProbe):
    """Which suffixes of each set of `on` are k-extractable (Carlini et al. 2022, definition 3.1).

    The suffix of `suffix` tokens that begins at each of `starts` is asked for with each of `prompts`: the k
    tokens before it behind the start token, in a fresh context, at the positions 1 .. k, wherever in
    the sequence they stood in training. It is extractable if greedy decoding returns it to the token. Every k
    is asked for the same suffixes. Beside it stands the suffix in its whole context, teacher-forced:
    that all its tokens are memorized in the sense of M(f).
    """

    name: str = "extraction"
    prompts: tuple[PositiveInt, ...] = Field(default=(8, 16, 32), min_length=1)
    suffix: PositiveInt = 16
    starts: tuple[PositiveInt, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_windows(self) -> "ExtractionProbe":
        for name in ("prompts", "starts"):
            values = getattr(self, name)
            if any(one >= other for one, other in pairwise(values)):
                raise SpecError(
                    f"ExtractionProbe: {name} = {values} do not rise; name each once, smallest first"
                )
        if self.starts[0] < self.prompts[-1]:
            raise SpecError(
                f"ExtractionProbe: the suffix at {self.starts[0]} has no prompt of {self.prompts[-1]} tokens "
                f"before it; start at {self.prompts[-1]} or later"
            )
        return self

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`: a whole pass, and every prompt with its suffix."""
        windows = len(self.starts) * sum(k + self.suffix for k in self.prompts)
        rows = sum(len(over.indices) for over in self.chosen(sets))
        return super().cost_tokens(sets) + rows * windows

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each set `extractable_k` and `exact_prefix_k` of each k, then `exact_in_context`.

        `extractable_k`: share of the suffixes asked for that are returned exactly. `exact_prefix_k`: mean
        number of tokens right before the first wrong one, at most `suffix`. `exact_in_context`: share of the
        same suffixes all of whose tokens are memorized with all of the sequence before them. n counts
        suffixes; value None where none is asked for, and in every reading of a masked subject.
        Items by sequence: `sequence` (indices), `hits` and `n_scored` of M(f), shape (S,); by suffix the
        exact prefixes `prefix_k` and `prefix_context`, shape (S, W), NOT_ASKED where the suffix, or the
        longest prompt before it, has a separator or padding inside.
        """
        for over in self.chosen(sets):
            if subject.mask_id is not None:
                yield from (Reading(name, over.name, None, 0, MASKED) for name in self._metrics())
                continue
            if self.starts[-1] + self.suffix > over.sequences.length:
                raise SpecError(
                    f"probe '{self.name}': the suffix at {self.starts[-1]} of {self.suffix} tokens ends "
                    f"beyond a sequence of {over.sequences.length}; start it earlier"
                )
            yield from self._readings(over, self._items(subject, over))

    def _metrics(self) -> list[str]:
        by_prompt = [f"{kind}_{k}" for k in self.prompts for kind in ("extractable", "exact_prefix")]
        return [*by_prompt, "exact_in_context"]

    def _items(self, subject: Subject, over: EvalSet) -> dict[str, NDArray[np.generic]]:
        hits, n_scored = np.zeros(len(over.indices), np.int64), np.zeros(len(over.indices), np.int64)
        names = [f"prefix_{k}" for k in self.prompts] + ["prefix_context"]
        found = {name: np.full((len(hits), len(self.starts)), NOT_ASKED, np.int16) for name in names}
        for batch in scored_batches(subject, over=over):
            hits[batch.part], n_scored[batch.part] = batch.hit.sum(1), batch.rows.scored.sum(1)
            for w, start in enumerate(self.starts):
                stop = start + self.suffix
                asked = batch.rows.scored[:, start - self.prompts[-1] : stop].all(1)
                found["prefix_context"][batch.part, w][asked] = exact_prefix(batch.hit[asked, start:stop])
                for k in self.prompts:
                    text = batch.rows.targets[asked, start - k : stop]
                    found[f"prefix_{k}"][batch.part, w][asked] = continued(subject, text, prompt=k)
        return {"sequence": over.indices, "hits": hits, "n_scored": n_scored, **found}

    def _readings(self, over: EvalSet, items: dict[str, NDArray[np.generic]]) -> Iterator[Reading]:
        n = int((items["prefix_context"] != NOT_ASKED).sum())
        if n == 0:
            yield from (Reading(name, over.name, None, 0, NOTHING_SCORED) for name in self._metrics())
            return
        detail = {"suffix": self.suffix, "starts": list(self.starts), "sequences": len(over.indices)}
        for name in self._metrics():
            kind, _, last = name.rpartition("_")
            prefix = items[f"prefix_{last}"].astype(np.int64)
            asked = prefix[prefix != NOT_ASKED]
            value = asked.mean() if kind == "exact_prefix" else (asked == self.suffix).mean()
            first = name == f"extractable_{self.prompts[0]}"
            yield Reading(name, over.name, float(value), n, dict(detail), items if first else None)


def continued(subject: Subject, text_NL: Ints, /, *, prompt: int) -> Ints:
    """Tokens after the first `prompt` that greedy decoding gets right before its first wrong one, shape (N,).

    One teacher-forced pass answers it: up to the first wrong token decoding has written the text itself, so
    both read the same tokens before each of these places (to the rounding of one pass and of many).
    """
    if not len(text_NL):
        return np.zeros(0, np.int64)
    rows = as_rows(text_NL)
    asked = np.zeros_like(rows.scored)
    asked[:, prompt:] = True
    return exact_prefix(subject.score(Rows(rows.tokens, rows.targets, asked)).hit[:, prompt:])


def exact_prefix(hit_NL: NDArray[np.bool_], /) -> Ints:
    """Number of True before the first False of each row, shape (N,)."""
    return np.asarray(np.logical_and.accumulate(hit_NL, axis=1).sum(axis=1), dtype=np.int64)
