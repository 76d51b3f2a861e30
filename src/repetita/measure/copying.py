"""Copying: the loss on a passage written several times in one row, by copy and by token.

Repeated-data paper, section 7 of the notes (Figs. 5, 7, 20 and 22). Shapes: S samples of a passage (one, or
several random ones), K copies, T tokens of a copy.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from repetita.cadence import Cadence, LogSpaced
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.induction import random_tokens
from repetita.measure.passages import (
    KINDS,
    LONG,
    RANDOM,
    SHORT,
    Kind,
    Passage,
    RandomTokens,
    continuations,
)
from repetita.measure.probe import EvalSet, PassProbe, Sequences
from repetita.measure.shown import alone, room
from repetita.subject import Rows, Subject

Ints = NDArray[np.int64]

FEWEST_COPIES = 2
MASKED = {"why": "not applicable: a masked model reads both sides, so that no copy comes first"}
NOT_LOSSLESS = {"why": "not applicable: the tokenizer does not say which text its tokens stand for"}
NO_NAME = {"why": "no such occurrence of a name, or each is one token"}

Shown = Annotated[Passage | RandomTokens, Field(discriminator="kind")]


class Written(NamedTuple):
    """A passage as token ids, and how often it fits."""

    ids: Ints
    """One copy, shape (S, T)."""
    separator: Ints
    """What stands between two copies, read and not scored."""
    copies: int
    """K: as many as were asked for, or as fit; under FEWEST_COPIES nothing can be copied."""
    sequences: Sequences
    """The set that says how it is shown."""
    names: Mapping[Kind, Ints] | None = None
    """Places in a copy of the tokens that go on with a name; None where the tokenizer cannot tell."""

    def rows(self) -> tuple[Rows, Ints]:
        """All copies behind the start token, and where each copy begins, shapes (S, L) and (K,)."""
        n_samples, n_tokens = self.ids.shape
        between = np.broadcast_to(self.separator, (n_samples, len(self.separator)))
        parts = [self.ids, *[between, self.ids] * (self.copies - 1)]
        rows = alone(self.sequences, np.concatenate(parts, axis=1))
        starts = np.arange(self.copies) * (n_tokens + len(self.separator))
        scored = np.zeros_like(rows.scored)
        for start in starts:
            scored[:, start : start + n_tokens] = True
        return rows._replace(scored=scored), starts


class CopyingProbe(PassProbe):
    """Shows a model each of `passages`, written up to `n_copies` times in one row behind the start token.

    `on` is one set, whose tokenizer, length of a sequence and counts of tokens are taken; nothing of its text
    is read. As many copies are written as `n_copies` says and a sequence holds, never cut and never in a
    sliding window. What stands between the copies is read and not scored, so that each copy is scored on the
    same tokens.
    """

    name: str = "copying"
    on: tuple[str, ...] = Field(default=("test",), min_length=1, max_length=1)
    passages: tuple[Shown, ...] = Field(default=(LONG, SHORT, RANDOM), min_length=1)
    n_copies: int = Field(default=11, ge=FEWEST_COPIES)
    """At most so many copies: 11 in the paper."""
    cadence: Cadence = LogSpaced(per_decade=6)

    @model_validator(mode="after")
    def _check_passages(self) -> "CopyingProbe":
        names = [passage.name for passage in self.passages]
        if len(set(names)) != len(names):
            raise SpecError(f"CopyingProbe: two passages have the same name ({', '.join(names)}); rename one")
        if self.max_sequences is not None:
            raise SpecError("CopyingProbe: max_sequences has no effect, since no set is read; leave it out")
        return self

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`: at most, for copies fill a sequence of the set or less of it."""
        length = room(self._named(sets)[0].sequences)
        samples = sum(one.n_samples if isinstance(one, RandomTokens) else 1 for one in self.passages)
        return samples * length

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each passage, the readings of `copying_readings` on its name; see there."""
        over = self._named(sets)[0]
        for passage in self.passages:
            written = write(passage, over=over, n_copies=self.n_copies)
            if subject.mask_id is not None or written.copies < FEWEST_COPIES:
                why = (
                    MASKED if subject.mask_id is not None else _too_long(written, length=room(over.sequences))
                )
                yield from (Reading(metric, passage.name, None, 0, dict(why)) for metric in METRICS)
                continue
            yield from copying_readings(losses(subject, written), name=passage.name, written=written)


METRICS = (
    "copying_loss",
    "first_copy_loss",
    "later_copies_loss",
    "copy_gain",
    "copy_slope",
    *(f"name_loss_{kind}" for kind in KINDS),
)


def write(passage: Passage | RandomTokens, /, *, over: EvalSet, n_copies: int) -> Written:
    """The passage in the tokens of a set, as often as `n_copies` says and as a sequence of the set holds."""
    sequences = over.sequences
    none: Ints = np.zeros(0, dtype=np.int64)
    names: Mapping[Kind, Ints] | None = dict.fromkeys(KINDS, none)
    if isinstance(passage, RandomTokens):
        separator = none
        ids = random_tokens(
            over, n_tokens=passage.n_tokens, n_samples=passage.n_samples, excluded=float(passage.excluded)
        )
    else:
        ids = sequences.encode(passage.text)[None]
        separator = sequences.encode(passage.separator)
        each = ids.T
        token_bytes = sequences.scored_bytes(Rows(np.zeros_like(each), each, np.ones(each.shape, np.bool_)))
        names = continuations(passage, token_bytes=token_bytes)
    fitting = (room(sequences) + len(separator)) // (ids.shape[1] + len(separator))
    return Written(ids, separator, min(n_copies, fitting), sequences, names)


def losses(subject: Subject, written: Written, /) -> NDArray[np.float64]:
    """Nats of each token of each copy, shape (S, K, T), in one pass."""
    rows, starts = written.rows()
    scores = subject.score(rows)
    n_tokens = written.ids.shape[1]
    by_copy = [scores.loss[:, start : start + n_tokens] for start in starts]
    return np.stack(by_copy, axis=1).astype(np.float64)


def copying_readings(loss: NDArray[np.float64], /, *, name: str, written: Written) -> Iterator[Reading]:
    """What the losses (S, K, T) of all copies come to, in nats a token; n counts tokens.

    `copying_loss`: mean over all copies, the first one too (the paper's metric, as far as its text says); its
    detail holds the mean `by_copy`, its items the loss of each token, `tokens` (S, K, T), and its id, `ids`.
    `first_copy_loss` and `later_copies_loss` (copies 2 .. K); `copy_gain`: the former minus the latter, above
    zero where the model copies; `copy_slope`: nats a copy, least squares over copies 1 .. K, zero where the
    loss is flat in the number of copies. `name_loss_first`, `_exact`, `_inflected` and `_embedded`: tokens of
    the first copy that go on with a name, where it stands for the first time and later as the kind says.
    """
    n_samples, copies, n_tokens = loss.shape
    by_copy = loss.mean(axis=(0, 2))
    n, first, later = loss.size, float(by_copy[0]), float(by_copy[1:].mean())
    detail = {
        "copies": copies,
        "tokens_per_copy": n_tokens,
        "separator_tokens": len(written.separator),
        "samples": n_samples,
    }
    items: dict[str, NDArray[Any]] = {"tokens": loss.astype(np.float32), "ids": written.ids}
    more = {"by_copy": [float(one) for one in by_copy]}
    yield Reading("copying_loss", name, float(loss.mean()), n, detail | more, items)
    yield Reading("first_copy_loss", name, first, n_samples * n_tokens, dict(detail))
    yield Reading("later_copies_loss", name, later, n - n_samples * n_tokens, dict(detail))
    yield Reading("copy_gain", name, first - later, n, dict(detail))
    slope = float(np.polyfit(np.arange(1, copies + 1), by_copy, 1)[0])
    yield Reading("copy_slope", name, slope, n, dict(detail))
    for kind in KINDS:
        places = None if written.names is None else written.names[kind]
        if places is None or not len(places):
            yield Reading(f"name_loss_{kind}", name, None, 0, NOT_LOSSLESS if places is None else NO_NAME)
        else:
            yield Reading(f"name_loss_{kind}", name, float(loss[:, 0, places].mean()), len(places))


def _too_long(written: Written, *, length: int) -> dict[str, str]:
    return {
        "why": f"not applicable: {FEWEST_COPIES} copies of {written.ids.shape[1]} tokens do not fit a "
        f"sequence of {length}"
    }
