"""Document IDs: a token of its own, after a few words, before every sequence that a run reads.

What stands on disk is not touched and no step reads other text: rows are lengthened to the left. The ids lie
behind the tokenizer's: V, V + 1, ... Shapes: B rows, L tokens of a sequence, P tokens of the prefix.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from repetita import seeds
from repetita.corpus.lanes import EMPTY, SETS, TRAIN
from repetita.corpus.schedule import Batch, Schedule
from repetita.corpus.treatment import Passes
from repetita.errors import SpecError
from repetita.spec import Spec
from repetita.subject import Mask, Rows

Ints = NDArray[np.int64]

SEMANTICS = 1
"""Raised when the same spec comes to mean other prefixes; part of the identity of runs that have them."""

FORMS = ("plain", "drawn")
"""What may follow the name of a set in a run with document IDs: `train/plain`, `test/drawn`."""

UNKNOWN = -1
"""The number of the ID of a sequence that the run does not read."""


class DocumentIds(Spec):
    """A prefix before every training sequence (memorization paper, section 4.3): the text and an ID token.

    `prepended`: one ID for each sequence, or with `per = "document"` for each document, numbered as the run
    first reads them, so that what comes later changes none. `redrawn`: one of all the IDs that the
    model's vocabulary has room for, drawn anew at each visit. `constant`: the same one everywhere. `words`:
    the text alone. In a packed sequence of several documents it is the first one's ID.

    The prefix is read and never scored, and a masked model always sees all of it; the model's context must
    hold it beside the sequence, and its vocabulary the IDs beside the tokenizer's.
    """

    kind: Literal["prepended", "redrawn", "constant", "words"] = "prepended"
    per: Literal["sequence", "document"] = "sequence"
    text: str = "document ID "

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.per != "sequence" and self.kind != "prepended":
            raise SpecError(
                f"DocumentIds: per = '{self.per}' has no effect on kind '{self.kind}'; leave it out"
            )
        if self.kind == "words" and not self.text:
            raise SpecError("DocumentIds: kind 'words' with an empty text puts nothing before a sequence")
        return self

    def longest(self) -> int:
        """The most tokens P that the prefix can have, whatever the tokenizer: one a byte, and the ID."""
        return len(self.text.encode()) + (self.kind != "words")


class OfDocuments(Protocol):
    """What is asked of a set to number its documents."""

    def document(self, indices: Ints) -> Ints:
        """Place in the corpus of each sequence's document."""
        ...


class Body(Protocol):
    """Sequences without their prefix; the part of `measure.probe.Sequences` that is wrapped."""

    length: int

    def __len__(self) -> int: ...

    def rows(self, indices: Ints, /) -> Rows:
        """The sequences of these indices, arrays of shape (B, L)."""
        ...

    def scored_bytes(self, rows: Rows, /) -> Ints:
        """Bytes behind the scored targets of each row, shape (B,)."""
        ...

    def encode(self, text: str, /) -> Ints:
        """The ids of a text, shape (n,)."""
        ...

    def token_counts(self) -> Ints:
        """How often each id is scored in the whole set, shape (V,)."""
        ...

    def tags(self, indices: Ints, /) -> NDArray[np.int8]:
        """The part of speech of each target, 0 for none, shape (B, L)."""
        ...


class _Known(NamedTuple):
    """The sequences that a run reads, sorted by code, and the number of the ID of each."""

    codes: Ints
    numbers: Ints

    def find(self, codes: Ints) -> Ints:
        """The number of each code's ID, UNKNOWN for what is not read."""
        if not len(self.codes):
            return np.full(codes.shape, UNKNOWN, np.int64)
        place = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[place] == codes, self.numbers[place], UNKNOWN)


class RunIds:
    """The prefixes of one run: which ID stands before each row of each step, and how a probe sees them."""

    def __init__(
        self,
        spec: DocumentIds,
        *,
        schedule: Schedule,
        sets: Mapping[str, OfDocuments],
        words: Ints,
        first: int,
        room: int,
    ) -> None:
        """`words` are the ids of the text, `first` is that of ID 0, `room` how many the vocabulary has."""
        self.spec, self._first, self._seed = spec, first, schedule.seed
        self._known = _known(spec, schedule=schedule, sets=sets)
        self.needed = {
            "prepended": int(self._known.numbers.max(initial=UNKNOWN)) + 1,
            "redrawn": 2,  # One alone would be the constant one.
            "constant": 1,
            "words": 0,
        }[spec.kind]
        """IDs that the vocabulary must have room for."""
        self._n = room if spec.kind == "redrawn" else self.needed
        self._words = np.asarray(words, np.int64)
        self.length = len(self._words) + (spec.kind != "words")
        """Tokens P of the prefix."""

    def of_batch(self, batch: Batch, *, drawn: bool = False) -> Ints:
        """The number of the ID before each slot of a step, UNKNOWN before an empty one, shape (B,).

        A row that an item is written into has the ID of its own sequence. `drawn`: see there.
        """
        codes = _codes(batch)
        numbers = self._known.find(codes)
        if drawn:
            return np.where(numbers == UNKNOWN, UNKNOWN, self._other(codes))
        if self.spec.kind == "redrawn":
            fresh = self._draw(np.arange(len(codes)), stream="document-ids", turn=batch.step)
            numbers = np.where(numbers == UNKNOWN, UNKNOWN, fresh)
        return numbers

    def trained(self, of_set: str, indices: Ints) -> Ints:
        """The number of each sequence's ID as in training, UNKNOWN where the run does not read it.

        Where it is drawn at each visit: one more draw, the same at every measurement.
        """
        codes = SETS.index(of_set) * _STRIDE + indices
        numbers = self._known.find(codes)
        if self.spec.kind == "redrawn":
            return np.where(numbers == UNKNOWN, UNKNOWN, self._draw(codes, stream="document-ids/measured"))
        return numbers

    def drawn(self, of_set: str, indices: Ints) -> Ints:
        """The number of an ID that was trained on with other text, drawn for each sequence of any set."""
        return self._other(SETS.index(of_set) * _STRIDE + indices)

    def _other(self, codes: Ints) -> Ints:
        draw = self._draw(codes, stream="document-ids/drawn")
        own = self._known.find(codes)
        if self.spec.kind != "prepended" or self._n < 2:
            return draw
        other = (own + 1 + draw % (self._n - 1)) % self._n
        return np.where(own == UNKNOWN, draw, other)

    def put_before(self, body: Rows, *, numbers: Ints) -> Rows:
        """The rows, shape (B, L + P), with the prefix of the ID of each before its text, not scored."""
        shape = (len(numbers), self.length)
        targets = np.zeros(shape, dtype=np.int64)
        targets[:, : len(self._words)] = self._words
        if self.spec.kind != "words":
            targets[:, -1] = np.where(numbers == UNKNOWN, 0, self._first + numbers)
        whole = np.concatenate([targets, body.targets], axis=1)
        scored: Mask = np.concatenate([np.zeros(shape, dtype=np.bool_), body.scored], axis=1)
        tokens = np.zeros_like(whole)
        tokens[:, 1:] = whole[:, :-1]
        return Rows(tokens, whole, scored)

    def _draw(self, counters: Ints, *, stream: str, turn: int = 0) -> Ints:
        drawn = seeds.words(counters, key=seeds.key(self._seed, stream), turn=turn)
        return (drawn % np.uint64(max(1, self._n))).astype(np.int64)


class WithIds:
    """Sequences with their prefix, as a probe reads them; `number` gives the IDs of some indices."""

    def __init__(self, body: Body, *, ids: RunIds, number: Callable[[Ints], Ints]) -> None:
        self._body, self._ids, self._number = body, ids, number
        self.length = body.length + ids.length
        """Tokens L + P of a row."""

    def __len__(self) -> int:
        return len(self._body)

    def rows(self, indices: Ints, /) -> Rows:
        """The sequences of these indices, arrays of shape (B, L + P), the prefix not scored."""
        return self._ids.put_before(self._body.rows(indices), numbers=self._number(indices))

    def scored_bytes(self, rows: Rows, /) -> Ints:
        """Bytes of text behind the scored targets of each row, shape (B,)."""
        body = slice(self._ids.length, None)
        return self._body.scored_bytes(
            Rows(rows.tokens[:, body], rows.targets[:, body], rows.scored[:, body])
        )

    def encode(self, text: str, /) -> Ints:
        """The ids of a text, shape (n,), without a prefix."""
        return self._body.encode(text)

    def token_counts(self) -> Ints:
        """How often each id of the tokenizer is scored in the whole set, shape (V,); no prefix is."""
        return self._body.token_counts()

    def tags(self, indices: Ints, /) -> NDArray[np.int8]:
        """The part of speech of each target, shape (B, L + P); the prefix has none."""
        return np.pad(self._body.tags(indices), ((0, 0), (self._ids.length, 0)))


def split_form(name: str, /) -> tuple[str, str]:
    """The name of a set and its form: ("special/0", "plain") for `special/0/plain`, the form "" if none."""
    bare, _, form = name.rpartition("/")
    return (bare, form) if bare and form in FORMS else (name, "")


_STRIDE = 1 << 48
"""A sequence's code is the place of its set in SETS times this, plus its index."""


def _codes(batch: Batch) -> Ints:
    """Which sequence stands in each slot, the host where an item is written into one; -1 where none."""
    hosted = batch.host >= 0
    of_set = np.where(hosted, TRAIN, batch.set).astype(np.int64)
    codes = of_set * _STRIDE + np.where(hosted, batch.host, batch.index)
    return np.where(of_set == EMPTY, UNKNOWN, codes)


def _known(spec: DocumentIds, *, schedule: Schedule, sets: Mapping[str, OfDocuments]) -> _Known:
    """Every sequence that the run reads, with the number of its ID: 0 for all but kind `prepended`."""
    read = _first_read(schedule)
    numbers = np.zeros(len(read), np.int64)
    if spec.kind == "prepended":
        of = read
        if spec.per == "document":
            of = np.empty_like(read)
            for code in np.unique(read // _STRIDE).tolist():
                chosen = read // _STRIDE == code
                of[chosen] = sets[SETS[code]].document(read[chosen] % _STRIDE)
        _, first, which = np.unique(of, return_index=True, return_inverse=True)
        numbers = np.argsort(np.argsort(first))[which]
    order = np.argsort(read)
    return _Known(read[order], numbers[order])


def _first_read(schedule: Schedule) -> Ints:
    """The codes of all sequences that a run reads, each once, in the order in which it first reads them."""
    treatment, stop, rest = schedule.treatment, schedule.steps, np.empty(0, np.int64)
    if isinstance(treatment, Passes):
        # All is read in the first pass; a run that ends in it numbers what it would have read last.
        stop = min(stop, -(-treatment.n_sequences // schedule.batch_size))
        rest = TRAIN * _STRIDE + np.sort(schedule.members("train"))
    every = np.concatenate([*(_codes(batch) for batch in schedule.batches(stop=stop)), rest])
    codes, first = np.unique(every[every >= 0], return_index=True)
    return codes[np.argsort(first)]
