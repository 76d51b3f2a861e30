"""The Probe protocol, the sets that a probe reads, and one full pass of a subject over a set.

Shapes: B sequences of a batch, L tokens of a sequence, S sequences of a set.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita import seeds
from repetita.cadence import Cadence, LogSpaced
from repetita.corpus.document_ids import split_form
from repetita.corpus.masking import measuring_masks
from repetita.corpus.places import placeless
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.windows import Windows
from repetita.errors import SpecError, nearest
from repetita.journal.records import Reading
from repetita.spec import Spec, fingerprint, introduced, plain
from repetita.subject import Predicting, Rows, Subject

ROWS_PER_BATCH = 64
"""Sequences that a subject is asked about at once; results do not depend on it beyond rounding."""

SAMPLE_SEED = 0
"""Root seed of the rows that a probe reads: the same in every run, so that runs pair by sequence."""


PARENT = "parent/"
"""Sets of the run that a run starts from are named so: `parent/repeated` is its repeated subset."""


class Sequences(Protocol):
    """What a probe needs of a `corpus.sequences.SequenceSet`."""

    def __len__(self) -> int: ...

    @property
    def length(self) -> int:
        """Tokens L of a sequence."""
        ...

    def rows(self, indices: NDArray[np.int64], /) -> Rows:
        """The sequences of these indices, arrays of shape (B, L)."""
        ...

    def scored_bytes(self, rows: Rows, /) -> NDArray[np.int64]:
        """Bytes of text behind the scored targets of each row, shape (B,)."""
        ...

    def encode(self, text: str, /) -> NDArray[np.int64]:
        """The ids of a text by the set's tokenizer, shape (n,); never id 0."""
        ...

    def token_counts(self) -> NDArray[np.int64]:
        """How often each id of the tokenizer is scored in the whole set, shape (V,)."""
        ...

    def tags(self, indices: NDArray[np.int64], /) -> NDArray[np.int8]:
        """The part of speech of each target, index into `corpus.taggers.CLASSES`, shape (B, L).

        Raises CorpusError where the text has not been tagged; a probe with `needs_tags` sees to it.
        """
        ...


class EvalSet(NamedTuple):
    """A named set as one run sees it: `indices` into `sequences` (the repeated subset, the test set ...)."""

    name: str
    sequences: Sequences
    indices: NDArray[np.int64]

    @classmethod
    def whole(cls, name: str, *, sequences: Sequences) -> "EvalSet":
        """All sequences of a set."""
        return cls(name, sequences, np.arange(len(sequences), dtype=np.int64))

    def sample(self, max_sequences: int | None) -> "EvalSet":
        """The same `max_sequences` rows at every evaluation and in every run, sorted by index.

        A prefix of a keyed permutation of the set: a larger sample holds every smaller one. With another
        document ID, or without, a set's rows are the same, and so in a run that starts from this one.
        """
        n = len(self.indices)
        if max_sequences is None or n <= max_sequences:
            return self
        own, _ = split_form(own_name(self.name))
        order = seeds.Permutation(n, key=seeds.key(SAMPLE_SEED, f"sample/{own}"))
        chosen = np.sort(order(np.arange(max_sequences, dtype=np.int64)))
        return self._replace(indices=self.indices[chosen])


def own_name(name: str, /) -> str:
    """`repeated` for `parent/repeated`: rows and masks of a set are drawn by the name that it has at home."""
    while name.startswith(PARENT):
        name = name.removeprefix(PARENT)
    return name


class Probe(Protocol):
    """An instrument: asks a subject about sets and yields readings; usually a `Spec`.

    A measurement is keyed by (run, fingerprint, step). `cadence` says when and is not part of the
    fingerprint.
    """

    @property
    def name(self) -> str:
        """What its readings are filed under."""
        ...

    @property
    def cadence(self) -> Cadence:
        """The steps at which it measures."""
        ...

    @property
    def on(self) -> tuple[str, ...]:
        """The sets that it reads."""
        ...

    @property
    def fingerprint(self) -> str:
        """12 hex digits of what changes the readings."""
        ...

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """Tokens of the rows that one measurement reads, before the draws of a masked model."""
        ...

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """One measurement. Raises SpecError when a set of `on` is not in `sets`."""
        ...


class Pass(NamedTuple):
    """One teacher-forced pass over a set of S sequences of L tokens, summed over scored tokens only."""

    on: str
    indices: NDArray[np.int64]
    """Which sequences, shape (S,)."""
    loss_sums: NDArray[np.float64]
    """Nats, shape (S,)."""
    hits: NDArray[np.int64]
    """Scored tokens whose most likely token is the target, shape (S,)."""
    n_scored: NDArray[np.int64]
    """Scored tokens, shape (S,)."""
    n_bytes: int
    """Bytes of text behind all scored targets."""
    index_loss: NDArray[np.float64]
    """Nats summed over sequences at each token index, shape (L,)."""
    index_n: NDArray[np.int64]
    """Scored tokens at each token index, shape (L,)."""

    @property
    def tokens(self) -> int:
        """Scored tokens in all."""
        return int(self.n_scored.sum())

    @property
    def loss(self) -> float | None:
        """Nats a scored token; None where nothing is scored."""
        return float(self.loss_sums.sum()) / self.tokens if self.tokens else None


class ScoredBatch(NamedTuple):
    """Some rows of a set and what a subject made of each scored position of theirs."""

    part: slice
    """Which of the set's `indices` these are."""
    rows: Rows
    """The text itself, as a causal model reads it; `rows.scored` says which positions count."""
    loss: NDArray[np.float64]
    """Nats, 0 where not scored, shape (B, L)."""
    hit: NDArray[np.bool_]
    """Whether the most likely token is the target, False where not scored, shape (B, L)."""
    predicted: NDArray[np.int64] | None = None
    """The most likely token, 0 where not scored, shape (B, L); None unless asked for."""


def questions(subject: Subject, *, over: EvalSet) -> Iterator[tuple[slice, Rows, list[Rows]]]:
    """Every row of `over` once, `ROWS_PER_BATCH` at a time: which, the text, and what a subject is asked.

    A masked subject is asked DRAWS times, with disjoint masks that cover each scored position once.
    """
    for start in range(0, len(over.indices), ROWS_PER_BATCH):
        part = slice(start, min(start + ROWS_PER_BATCH, len(over.indices)))
        indices = over.indices[part]
        rows = over.sequences.rows(indices)
        asked = [rows]
        if subject.mask_id is not None:
            asked = measuring_masks(rows, mask_id=subject.mask_id, name=own_name(over.name), indices=indices)
        yield part, rows, asked


def scored_batches(subject: Subject, *, over: EvalSet, predict: bool = False) -> Iterator[ScoredBatch]:
    """The rows of `questions` with the loss and hit of each scored position.

    With `predict` the most likely tokens as well; SpecError where the subject cannot say.
    """
    ask = subject.score
    if predict:
        if not isinstance(subject, Predicting):
            raise SpecError("this subject does not say which token it finds most likely; give it `predict`")
        ask = subject.predict
    for part, rows, asked in questions(subject, over=over):
        loss_BL, hit_BL = np.zeros(rows.scored.shape), np.zeros_like(rows.scored)
        predicted_BL = np.zeros(rows.scored.shape, np.int64) if predict else None
        for question in asked:
            scores = ask(question)
            loss_BL[question.scored] = scores.loss[question.scored]
            hit_BL |= scores.hit & question.scored
            if predicted_BL is not None and scores.predicted is not None:
                predicted_BL[question.scored] = scores.predicted[question.scored]
        yield ScoredBatch(part, rows, loss_BL, hit_BL, predicted_BL)


def full_pass(subject: Subject, *, over: EvalSet) -> Pass:
    """Score every row of `over` once, `ROWS_PER_BATCH` at a time; sums are kept in double precision."""
    n, length = len(over.indices), over.sequences.length
    loss_sums, hits, n_scored = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    index_loss, index_n, n_bytes = np.zeros(length), np.zeros(length, np.int64), 0
    for part, rows, loss_BL, hit_BL, _ in scored_batches(subject, over=over):
        loss_sums[part], hits[part] = loss_BL.sum(1), hit_BL.sum(1)
        n_scored[part] = rows.scored.sum(1)
        index_loss += loss_BL.sum(0)
        index_n += rows.scored.sum(0)
        n_bytes += int(np.sum(_bytes(over, part, rows)))
    return Pass(over.name, over.indices, loss_sums, hits, n_scored, n_bytes, index_loss, index_n)


def _bytes(over: EvalSet, part: slice, rows: Rows) -> NDArray[np.int64]:
    """Bytes behind each row; of texts that were only read, where their tokens stand.

    None of any of these where one is not given back: its nats would be divided by the bytes of the others.
    """
    if isinstance(over.sequences, Windows):
        return over.sequences.n_bytes(over.indices[part]) * over.sequences.lossless
    return over.sequences.scored_bytes(rows)


class PassProbe(Spec):
    """Base of the probes that read each of their sets once; a subclass says what a pass yields."""

    semantics: ClassVar[int] = 1
    """Raised when the readings of an unchanged subject move."""
    needs_tags: ClassVar[bool] = False
    """Whether it reads parts of speech: a study then has the corpus tagged before its runs."""

    name: str = "pass"
    on: tuple[str, ...] = Field(min_length=1)
    max_sequences: PositiveInt | None = None
    """Largest number of sequences read of each set: always the same ones. None reads all."""
    cadence: Cadence = LogSpaced(per_decade=6)
    corpus: CorpusSpec | None = introduced(None)
    """The corpus whose sets `on` names, where that is not the run's own: encoded by the run's tokenizer (see
    `CorpusSpec.with_ids_of`), in sequences that the model's context holds."""

    @model_validator(mode="after")
    def _check(self) -> "PassProbe":
        if len(set(self.on)) != len(self.on):
            raise SpecError(
                f"{type(self).__name__}: 'on' names a set twice ({', '.join(self.on)}); name it once"
            )
        return self

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the probe's kind, its fields but for the cadence, and its semantics.

        Of a corpus it holds how it is cut and dealt out, not where it lies: what lies there is beside the
        fingerprint in the key of a measurement (`study.expand.measurement_key`).
        """
        values: dict[str, Any] = dict(plain(self))
        values.pop("cadence", None)
        if self.corpus is not None:
            values["corpus"] = placeless(self.corpus)
        return fingerprint({"probe": type(self).__name__, "semantics": self.semantics, **values})[:12]

    @property
    def besides(self) -> tuple[str, ...]:
        """Sets that it reads without a model, beside those that it measures."""
        return ()

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """Tokens, padding too, of the rows that one measurement reads, before the draws of a masked model."""
        most = self.max_sequences
        whole = self._named(sets)
        rows = [len(of.indices) if most is None else min(most, len(of.indices)) for of in whole]
        return sum(n * of.sequences.length for n, of in zip(rows, whole, strict=True))

    def chosen(self, sets: Mapping[str, EvalSet], /) -> list[EvalSet]:
        """The rows that are read of each set of `on`; raises SpecError when a set is missing."""
        return [over.sample(self.max_sequences) for over in self._named(sets)]

    def _named(self, sets: Mapping[str, EvalSet], /) -> list[EvalSet]:
        for name in self.on:
            if name not in sets:
                raise SpecError(
                    f"probe '{self.name}' reads the set '{name}', which this run lacks; {nearest(name, sets)}"
                )
        return [sets[name] for name in self.on]

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """One pass over each set of `on`, in that order."""
        for over in self.chosen(sets):
            yield from self.readings(full_pass(subject, over=over))

    def readings(self, taken: Pass, /) -> Iterable[Reading]:
        """What one pass yields."""
        raise NotImplementedError
