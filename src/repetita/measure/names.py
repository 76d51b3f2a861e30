"""Names in a text, read once: how likely each token is, and what goes on with a name that stood there before.

Repeated-data paper, Figs. 8 and 9. Shapes: T tokens of a passage.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from repetita.cadence import At, Cadence
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.copying import NO_NAME, NOT_LOSSLESS
from repetita.measure.passages import KINDS, LONG, SHORT, Passage, continuations
from repetita.measure.probe import EvalSet, PassProbe, Sequences
from repetita.measure.shown import alone, room
from repetita.subject import Rows, Subject

Ints = NDArray[np.int64]

MASKED = {"why": "not applicable: a masked model reads both sides, so that no occurrence comes first"}
DIGITS = 5
OTHER = -1
"""Code of a token that does not go on with a name; the others are places in `passages.KINDS`."""


class NamesProbe(PassProbe):
    """Shows a model each of `passages` once, behind the start token, and keeps the loss of every token.

    `on` is one set, whose tokenizer and length of a sequence are taken; nothing of its text is read. Of a
    passage that is longer than a sequence the beginning is shown.
    """

    name: str = "names"
    on: tuple[str, ...] = Field(default=("test",), min_length=1, max_length=1)
    passages: tuple[Passage, ...] = Field(default=(LONG, SHORT), min_length=1)
    cadence: Cadence = At(at=())

    @model_validator(mode="after")
    def _check_passages(self) -> "NamesProbe":
        names = [passage.name for passage in self.passages]
        if len(set(names)) != len(names):
            raise SpecError(f"NamesProbe: two passages have the same name ({', '.join(names)}); rename one")
        if self.max_sequences is not None:
            raise SpecError("NamesProbe: max_sequences has no effect, since no set is read; leave it out")
        return self

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`: at most, for a passage fills a sequence of the set or less of it."""
        return len(self.passages) * room(self._named(sets)[0].sequences)

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each passage, on its name: `passage_loss`, and `name_probability_<kind>` of KINDS.

        `passage_loss`: nats a token; its detail holds how many of all tokens are `shown` and, for each of
        them, its text (`tokens`), its loss (`losses`) and what it goes on with (`kinds`: OTHER, or a place in
        KINDS); None for texts of a tokenizer that is not lossless.
        `name_probability_first`, `_exact`, `_inflected` and `_embedded`: mean probability of the tokens that
        go on with a name where it stands for the first time, and later as the kind says; n counts tokens.
        """
        sequences = self._named(sets)[0].sequences
        for passage in self.passages:
            if subject.mask_id is not None:
                metrics = ("passage_loss", *(f"name_probability_{kind}" for kind in KINDS))
                yield from (Reading(metric, passage.name, None, 0, dict(MASKED)) for metric in metrics)
            else:
                yield from _readings(subject, passage, sequences)


def _readings(subject: Subject, passage: Passage, sequences: Sequences) -> Iterator[Reading]:
    whole = sequences.encode(passage.text)
    ids = whole[: room(sequences)]
    loss = subject.score(alone(sequences, ids[None])).loss[0].astype(np.float64)
    token_bytes = bytes_of(whole, sequences=sequences)
    places = continuations(passage, token_bytes=token_bytes)
    kind = np.full(len(ids), OTHER, dtype=np.int8)
    for code, name in enumerate(KINDS):
        there = np.zeros(0, dtype=np.int64) if places is None else places[name]
        kind[there[there < len(ids)]] = code
    detail: dict[str, Any] = {
        "shown": len(ids),
        "of": len(whole),
        "tokens": None if places is None else texts(passage.text, token_bytes=token_bytes)[: len(ids)],
        "losses": [round(float(one), DIGITS) for one in loss],
        "kinds": kind.tolist(),
    }
    yield Reading("passage_loss", passage.name, float(loss.mean()), len(loss), detail)
    for code, name in enumerate(KINDS):
        chance = np.exp(-loss[kind == code])
        value, why = (float(chance.mean()), None) if len(chance) else (None, dict(NO_NAME))
        if places is None:
            why = dict(NOT_LOSSLESS)
        yield Reading(f"name_probability_{name}", passage.name, value, len(chance), why)


def bytes_of(ids: Ints, /, *, sequences: Sequences) -> Ints:
    """Bytes of text behind each id, shape (T,)."""
    each = ids[:, None]
    return sequences.scored_bytes(Rows(np.zeros_like(each), each, np.ones(each.shape, np.bool_)))


def texts(text: str, /, *, token_bytes: Ints) -> list[str]:
    """The text of each token; a character that two tokens share is U+FFFD in both."""
    ends = np.cumsum(token_bytes).tolist()
    content = text.encode()
    return [
        content[start:end].decode("utf-8", errors="replace")
        for start, end in zip([0, *ends], ends, strict=False)
    ]
