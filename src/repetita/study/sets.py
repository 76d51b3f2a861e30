"""The sets that probes read, as one run sees them: what it trains on, what it repeats, what it never sees.

Shapes: B slots of a batch, L tokens of a sequence.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.document_ids import UNKNOWN, RunIds, WithIds, split_form
from repetita.corpus.schedule import EMPTY, SETS, Batch, Schedule
from repetita.corpus.sequences import Corpus, SequenceSet, compose
from repetita.corpus.tokenized import token_counts
from repetita.corpus.treatment import Insertions, Passes, SpecialBatch
from repetita.errors import CorpusError
from repetita.measure.probe import EvalSet
from repetita.seeds import Permutation, key
from repetita.study.expand import BY_BATCH, batch_step, of_parent
from repetita.subject import Rows
from repetita.train.recipe import RunSpec

LANES_OF_A_RUN = ("train", "repeated", "inserted", "novel", "common")


class RunSets(Mapping[str, EvalSet]):
    """Named sets of one run, worked out when asked for.

    `train` is what the base of the run reads (without the repeated subset), `repeated` the subset, `inserted`
    the inserted items, `novel` what is read after an injection, or the whole set where nothing of it is. With
    special batches `special/0` is the first batch and `twin/0`, `placebo/0` are never-seen ones of the same
    size (in the placebo arm `placebo/0` is what is trained on instead). `batch/1200` is what update 1200
    reads, from `batch/0` to the last update's: the state before it is step 1200, that after it 1201. These
    are in the mapping, but are not listed, being so many. All other names are whole sets of the corpus. Names
    that this run does not have are not in the mapping.

    In a run with document IDs a set that it reads whole is read as it was trained on, behind its IDs, and any
    other as it is; `train/plain` is without IDs, and `train/drawn` or `test/drawn` has an ID that
    was trained on with other text. These are not listed either.

    Where a run starts from another one, `parent/repeated` is the set `repeated` of that one, and so for any
    of its sets; these are not listed.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        corpus: Corpus,
        schedule: Schedule,
        ids: RunIds | None = None,
        sets_of: Callable[[RunSpec], Mapping[str, EvalSet]] | None = None,
    ) -> None:
        self._spec = spec
        self._corpus = corpus
        self._schedule = schedule
        self._ids = ids
        self._sets_of = sets_of
        self._names = tuple(self._valid())
        self._batches: dict[str, list[NDArray[np.int64]]] = {}

    def __getitem__(self, name: str) -> EvalSet:
        if name not in self:
            raise KeyError(name)
        if (theirs := of_parent(name)) is not None:
            return self._parent()[theirs]._replace(name=name)
        if self._ids is None:
            return self._text(name)
        text, form = split_form(name)
        return self._behind_ids(self._text(text), form=form, ids=self._ids)._replace(name=name)

    def _text(self, name: str) -> EvalSet:
        """A set without document IDs."""
        step = batch_step(name)
        if step is not None:
            return self._of_update(name, self._schedule.batch(step))
        name_of_set, _, batch = name.partition("/")
        if batch:
            return EvalSet(name, self._corpus.sets[name_of_set], self._batch(name_of_set, int(batch)))
        if name in LANES_OF_A_RUN:
            members = self._schedule.members(name)
            if len(members):
                return EvalSet(name, self._corpus.sets[self._schedule.set_of(name)], members)
        return EvalSet.whole(name, sequences=self._corpus.sets[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _parent(self) -> Mapping[str, EvalSet]:
        """The sets of the run that this one starts from; none where it starts from none."""
        start = self._spec.start
        return {} if start is None or self._sets_of is None else self._sets_of(start.run)

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str) and (theirs := of_parent(name)) is not None:
            return theirs in self._parent()
        if self._spec.document_ids is not None and isinstance(name, str):
            name, _ = split_form(name)
        step = batch_step(name) if isinstance(name, str) else None
        return name in self._names if step is None else step < self._spec.steps

    def _valid(self) -> Iterator[str]:
        """Names of the sets of this run."""
        treatment = self._spec.treatment
        yield from (name for name in SETS if name in self._corpus.sets and len(self._corpus.sets[name]))
        yield from (lane for lane in ("repeated", "inserted") if len(self._schedule.members(lane, n=1)))
        base = treatment.base if isinstance(treatment, SpecialBatch | Insertions) else treatment
        if isinstance(base, Passes) and base.out_of:
            yield "common"
        if isinstance(treatment, SpecialBatch):
            for name in BY_BATCH:
                if name in self._corpus.sets and len(self._corpus.sets[name]):
                    yield from (f"{name}/{batch}" for batch in range(treatment.n_batches))

    def _of_update(self, name: str, batch: Batch) -> EvalSet:
        """The rows of one update: sequences of their set, or slots where only the update has such rows."""
        code = int(batch.set[0])
        if self._ids is None and code != EMPTY and (batch.set == code).all() and (batch.host < 0).all():
            return EvalSet(name, self._corpus.sets[SETS[code]], batch.index)
        return EvalSet.whole(name, sequences=_Slots(batch, self._corpus))

    def _behind_ids(self, text: EvalSet, *, form: str, ids: RunIds) -> EvalSet:
        """The same sequences behind the IDs that they were trained with, or (`drawn`) others have."""
        if form == "plain":
            return text
        if isinstance(text.sequences, _Slots):
            numbers = text.sequences.numbers(ids, form=form)
            return text._replace(sequences=WithIds(text.sequences, ids=ids, number=lambda at: numbers[at]))
        body = text.sequences
        assert isinstance(body, SequenceSet)
        number = partial(ids.drawn if form == "drawn" else ids.trained, body.name)
        if form == "" and (number(text.indices) == UNKNOWN).any():
            return text
        return text._replace(sequences=WithIds(body, ids=ids, number=number))

    def _batch(self, name: str, batch: int) -> NDArray[np.int64]:
        """Sequences of one special batch, or of the never-seen batch that stands beside it."""
        treatment = self._spec.treatment
        assert isinstance(treatment, SpecialBatch)
        if name in ("special", treatment.arm):
            if name not in self._batches:
                self._batches[name] = self._schedule.special_batches(name)
            return self._batches[name][batch]
        pool, stop = len(self._corpus.sets[name]), (batch + 1) * treatment.size
        if stop > pool:
            raise CorpusError(
                f"{name}/{batch}: {stop} sequences are needed and the set {name} has {pool}; give the split "
                f"{name} a larger share, or make the special batches smaller or fewer"
            )
        # The key of the schedule's own special batches: placebo/0 is one batch, whichever arm looks at it.
        order = Permutation(pool, key(self._spec.seed, "special"))
        return order(np.arange(batch * treatment.size, stop, dtype=np.int64))


class _Slots:
    """The rows of one update as it reads them, items written into their hosts; an index is a slot."""

    def __init__(self, batch: Batch, corpus: Corpus) -> None:
        self._batch, self._corpus = batch, corpus
        self.length = corpus.spec.length

    def __len__(self) -> int:
        return len(self._batch.set)

    def rows(self, indices: NDArray[np.int64], /) -> Rows:
        """Arrays of shape (B, L); an empty slot scores nothing."""
        return compose(self._chosen(indices), self._corpus.sets)

    def tags(self, indices: NDArray[np.int64], /) -> NDArray[np.int8]:
        """The part of speech of each target, shape (B, L); CorpusError where items are written into hosts."""
        batch = self._chosen(indices)
        if (batch.host >= 0).any():
            raise CorpusError(
                f"batch/{batch.step} has items written into other text, which has no parts of speech; "
                f"ask for those of the sets inserted and train"
            )
        tags = np.zeros((len(indices), self.length), dtype=np.int8)
        for code in np.unique(batch.set[batch.set != EMPTY]):
            slots = batch.set == code
            tags[slots] = self._corpus.sets[SETS[code]].tags(batch.index[slots])
        return tags

    def numbers(self, ids: RunIds, *, form: str) -> NDArray[np.int64]:
        """The number of the ID before each slot, as the update has it or drawn."""
        return ids.of_batch(self._batch, drawn=form == "drawn")

    def scored_bytes(self, rows: Rows, /) -> NDArray[np.int64]:
        """Bytes of text behind the scored targets of each row, shape (B,)."""
        return self._corpus.sets["train"].scored_bytes(rows)

    def encode(self, text: str, /) -> NDArray[np.int64]:
        """The ids of a text by the corpus' tokenizer, shape (n,)."""
        return self._corpus.sets["train"].encode(text)

    def token_counts(self) -> NDArray[np.int64]:
        """How often each id is scored in this update, shape (V,)."""
        return token_counts(self, vocab_size=self._corpus.tokenizer.vocab_size)

    def _chosen(self, slots: NDArray[np.int64]) -> Batch:
        of = self._batch
        return Batch(
            set=of.set[slots],
            index=of.index[slots],
            pass_=of.pass_[slots],
            host=of.host[slots],
            lane=of.lane[slots],
            step=of.step,
        )
