"""Extraction: does a model, given k tokens of its text and nothing else, write the next ones exactly?

Shapes: S sequences of a set, W suffixes of a sequence, N windows asked about, L tokens of a sequence.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet, PassProbe, scored_batches
from repetita.measure.shown import START, suffix_rows
from repetita.subject import Subject

Ints = NDArray[np.int64]
NOT_ASKED = -1
"""The exact prefix of a suffix that is not asked for: it or its prompt is not all text of one document."""
MASKED = {"why": "not applicable: a masked model continues no prompt"}


class ExtractionProbe(PassProbe):
    """Which suffixes of each set of `on` are k-extractable (Carlini et al. 2022, definition 3.1).

    `head`: the prompt is the first k tokens of the sequence and the suffix the next `suffix` tokens, as in
    Biderman et al. 2023. Prompt and positions are those of training, so this is the whole context. `inside`:
    the suffix that begins at each of `starts` is asked for with the k tokens before it alone, behind the
    start token in a fresh context, at the positions 1 .. k, wherever in the sequence they stood in training;
    every k is asked for the same suffixes. A suffix is extractable if greedy decoding returns it to the
    token. Beside the latter stands the suffix in its whole context: that all of its tokens are memorized in
    the sense of M(f).
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
        """For each set: for each k `extractable` and `exact_prefix`, `head` and `inside`; `exact_in_context`.

        `extractable`: share of the suffixes asked for that are returned exactly. `exact_prefix`: mean
        number of tokens right before the first wrong one, at most `suffix`. `exact_in_context`: share of the
        suffixes inside all of whose tokens are memorized with all of the sequence before them. n counts
        suffixes; value None where none is asked for, and in every reading of a masked subject.
        Items by sequence: `sequence` (indices), `hits` and `n_scored` of M(f), and the exact prefixes
        `head_k`, shape (S,); by suffix the exact prefixes `inside_k` and `context`, shape (S, W). They are
        NOT_ASKED where the suffix, or the longest prompt before it, has a separator or padding inside.
        """
        for over in self.chosen(sets):
            if subject.mask_id is not None:
                yield from (Reading(name, over.name, None, 0, MASKED) for name in self._metrics())
                continue
            if isinstance(over.sequences, Windows):
                raise SpecError(
                    f"probe '{self.name}': the windows of '{over.name}' cut its texts; use "
                    f"ContinuationProbe, which asks for suffixes of whole texts"
                )
            if self.starts[-1] + self.suffix > over.sequences.length:
                raise SpecError(
                    f"probe '{self.name}': the suffix at {self.starts[-1]} of {self.suffix} tokens ends "
                    f"beyond a sequence of {over.sequences.length}; start it earlier"
                )
            yield from self._readings(over, self._items(subject, over))

    def _metrics(self) -> dict[str, str]:
        """The item that each metric is of."""
        found = {
            f"{place}_{kind}_{k}": f"{place}_{k}"
            for k in self.prompts
            for place in ("head", "inside")
            for kind in ("extractable", "exact_prefix")
        }
        return {**found, "exact_in_context": "context"}

    def _items(self, subject: Subject, over: EvalSet) -> dict[str, NDArray[np.generic]]:
        hits, n_scored = np.zeros(len(over.indices), np.int64), np.zeros(len(over.indices), np.int64)
        head = {f"head_{k}": np.full(len(hits), NOT_ASKED, np.int16) for k in self.prompts}
        names = [f"inside_{k}" for k in self.prompts] + ["context"]
        inside = {name: np.full((len(hits), len(self.starts)), NOT_ASKED, np.int16) for name in names}
        for batch in scored_batches(subject, over=over):
            hits[batch.part], n_scored[batch.part] = batch.hit.sum(1), batch.rows.scored.sum(1)
            for k in self.prompts:
                # The hits of the pass are those of a prompt that begins where the sequence does.
                asked = batch.rows.scored[:, : k + self.suffix].all(1)
                head[f"head_{k}"][batch.part][asked] = exact_prefix(batch.hit[asked, k : k + self.suffix])
            for w, start in enumerate(self.starts):
                stop = start + self.suffix
                asked = batch.rows.scored[:, start - self.prompts[-1] : stop].all(1)
                inside["context"][batch.part, w][asked] = exact_prefix(batch.hit[asked, start:stop])
                for k in self.prompts:
                    text = batch.rows.targets[asked, start - k : stop]
                    inside[f"inside_{k}"][batch.part, w][asked] = continued(subject, text, prompt=k)
        return {"sequence": over.indices, "hits": hits, "n_scored": n_scored, **head, **inside}

    def _readings(self, over: EvalSet, items: dict[str, NDArray[np.generic]]) -> Iterator[Reading]:
        detail = {"suffix": self.suffix, "starts": list(self.starts), "sequences": len(over.indices)}
        for metric, item in self._metrics().items():
            prefix = items[item].astype(np.int64)
            asked = prefix[prefix != NOT_ASKED]
            kept = items if metric == next(iter(self._metrics())) else None
            if not len(asked):
                yield Reading(metric, over.name, None, 0, NOTHING_SCORED, kept)
                continue
            value = asked.mean() if "exact_prefix" in metric else (asked == self.suffix).mean()
            yield Reading(metric, over.name, float(value), len(asked), dict(detail), kept)


def continued(subject: Subject, text_NL: Ints, /, *, prompt: int, start: int | None = START) -> Ints:
    """Tokens after the first `prompt` that greedy decoding gets right before its first wrong one, shape (N,).

    One teacher-forced pass answers it: up to the first wrong token decoding has written the text itself, so
    both read the same tokens before each of these places (to the rounding of one pass and of many). Both
    read `start` before the text, None for nothing.
    """
    if not len(text_NL):
        return np.zeros(0, np.int64)
    hit = subject.score(suffix_rows(text_NL, prompt=prompt, start=start)).hit
    return exact_prefix(hit[:, prompt - text_NL.shape[1] :])


def exact_prefix(hit_NL: NDArray[np.bool_], /) -> Ints:
    """Number of True before the first False of each row, shape (N,)."""
    return np.asarray(np.logical_and.accumulate(hit_NL, axis=1).sum(axis=1), dtype=np.int64)
