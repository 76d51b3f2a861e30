"""Texts that need not be here to be planned with: sets of a stated size, without content."""

import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.built_in import BUILT_IN
from repetita.corpus.document_ids import split_form
from repetita.corpus.pretrained_tokenizer import published_tokenizer
from repetita.corpus.schedule import Schedule
from repetita.corpus.sequences import Corpus, CorpusSpec
from repetita.corpus.shards import open_shards
from repetita.corpus.splits import Splits
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.training_text import TrainingText
from repetita.corpus.treatment import Passes, SpecialBatch, Stream
from repetita.errors import CorpusError
from repetita.measure.probe import EvalSet
from repetita.spec import fingerprint
from repetita.study.corpora import Corpora, Hear, Say, quiet
from repetita.study.expand import batch_step, of_parent
from repetita.study.plan import Expected
from repetita.study.prepare import Portion
from repetita.study.sets import RunSets
from repetita.train.recipe import RunSpec, open_schedule

Ints = NDArray[np.int64]


class ExpectedSet:
    """A set of which only the number of its sequences is known, all of them full."""

    def __init__(self, n: int, *, length: int) -> None:
        self._n, self.length = n, length

    def __len__(self) -> int:
        return self._n

    def lengths(self) -> Ints:
        """Tokens of each sequence, shape (n,)."""
        return np.broadcast_to(np.int64(self.length), (self._n,))

    def document(self) -> Ints:
        """Each sequence counts as a document of its own, shape (n,)."""
        return np.arange(self._n)


class ExpectedCorpus:
    """What a schedule asks of a corpus, answered from what was stated of it."""

    def __init__(self, spec: CorpusSpec, *, told: Expected) -> None:
        self.spec = spec
        self.sets: Mapping[str, ExpectedSet] = {
            name: ExpectedSet(n, length=spec.length) for name, n in _pools(spec, told=told).items() if n
        }
        self.fingerprint = fingerprint(["expected", spec])

    def pools(self) -> dict[str, int]:
        """Number of sequences of each set, as a schedule wants it."""
        return {name: len(of) for name, of in self.sets.items()}


class ExpectedSets(RunSets):
    """The sets of a run by their sizes alone: no order of a large pool is worked out."""

    def __getitem__(self, name: str) -> EvalSet:
        if name not in self:
            raise KeyError(name)
        if (theirs := of_parent(name)) is not None:
            return self._parent()[theirs]._replace(name=name)
        ids = self._spec.document_ids
        longest = ids.longest() if ids is not None and split_form(name)[1] != "plain" else 0
        of = ExpectedSet(self._size(name), length=self._spec.corpus.length + longest)
        return EvalSet(name, cast(Any, of), _zeros(len(of)))

    def _size(self, name: str) -> int:
        treatment = self._spec.treatment
        name, _ = split_form(name)
        if batch_step(name) is not None:
            return self._spec.batch_size
        if "/" in name:
            assert isinstance(treatment, SpecialBatch)
            return treatment.size
        base = treatment.base if isinstance(treatment, SpecialBatch) else treatment
        if name == "train" and isinstance(base, Passes):
            return base.n_sequences
        if name == "common" and isinstance(base, Passes):
            return base.out_of or 0
        if name == "train" and isinstance(base, Stream):
            return self._schedule.ledger(self._spec.steps)["train"]
        return len(super().__getitem__(name).indices)


class PlanCorpora(Corpora):
    """The corpora of a root folder; some may be missing, and are then as a study expects them.

    Such a text is never fetched: it is opened where it was built, and `open` says how to build it elsewhere.
    """

    def __init__(
        self,
        root: Path,
        *,
        expected: Iterable[Expected] = (),
        say: Say = quiet,
        progress: Hear | None = None,
    ) -> None:
        super().__init__(root, say=say, progress=progress)
        self._told = {_kind(one.corpus): one for one in expected}
        self._stands_for: dict[CorpusSpec, ExpectedCorpus | None] = {}

    def open(self, spec: CorpusSpec) -> Corpus:
        """See `Corpora.open`; CorpusError that says what to do where the text is only expected."""
        if self.is_here(spec):
            return super().open(spec)
        # A text with another one's ids is built as soon as that one is here.
        text = spec.tokenizer.trained_on or spec.text
        subset = f" --subset {text.subset}" if text.subset else ""
        raise CorpusError(
            f"the text {text.source} is not in this root folder, so it can only be planned with; fetch it by "
            f"repetita corpus build {text.source}{subset} --vocab-size {spec.tokenizer.vocab_size}, or name "
            f"a text that is here with --corpus"
        )

    def is_here(self, spec: CorpusSpec) -> bool:
        """Whether the text can be opened, rather than being only expected."""
        return self._expected(spec) is None

    def fingerprint(self, spec: CorpusSpec) -> str:
        """See `Corpora.fingerprint`; of an expected text that of the expectation."""
        expected = self._expected(spec)
        return super().fingerprint(spec) if expected is None else expected.fingerprint

    def schedule(self, spec: RunSpec) -> Schedule:
        """See `Corpora.schedule`."""
        expected = self._expected(spec.corpus)
        if expected is None:
            return super().schedule(spec)
        return open_schedule(spec, corpus=cast(Corpus, expected))

    def sets(self, spec: RunSpec) -> RunSets:
        """See `Corpora.sets`; those of an expected text have sizes only."""
        expected = self._expected(spec.corpus)
        if expected is None:
            return super().sets(spec)
        parts = [spec.corpus, spec.treatment, spec.steps, spec.batch_size, spec.seed]
        read = fingerprint([*parts, spec.document_ids, spec.start])
        if read not in self._sets:
            schedule = self.schedule(spec)
            self._sets[read] = ExpectedSets(
                spec, corpus=cast(Corpus, expected), schedule=schedule, sets_of=self.sets
            )
        return self._sets[read]

    def _all_of(self, spec: CorpusSpec) -> Mapping[str, EvalSet]:
        """See `Corpora._all_of`; of an expected text the sizes only."""
        expected = self._expected(spec)
        if expected is None:
            return super()._all_of(spec)
        sets = expected.sets
        return {name: EvalSet(name, cast(Any, of), _zeros(len(of))) for name, of in sets.items()}

    def _expected(self, spec: CorpusSpec) -> ExpectedCorpus | None:
        if spec not in self._stands_for:
            told = self._told.get(_kind(spec))
            here = told is None or self._built(spec) or self._can_be_built(spec)
            self._stands_for[spec] = None if here or told is None else ExpectedCorpus(spec, told=told)
        return self._stands_for[spec]

    def _built(self, spec: CorpusSpec) -> bool:
        """Opens the corpus where it was built of this very source, without asking where its text lies."""
        folder = self._folder(spec.text, spec.tokenizer)
        if folder is not None:
            self._open[spec] = Corpus(spec, shards=open_shards(folder))
        return folder is not None

    def _can_be_built(self, spec: CorpusSpec) -> bool:
        """Whether it lacks only to be encoded: a built-in text, by ids that are here."""
        tokenizer = spec.tokenizer
        if tokenizer.trained_on is None or spec.source not in BUILT_IN:
            return False
        return self._folder(tokenizer.trained_on, tokenizer.edit(trained_on=None)) is not None

    def _folder(self, text: TrainingText, tokenizer: TokenizerSpec) -> Path | None:
        """Where a text was built with a tokenizer."""
        name = text.source.partition("@")[0]
        for file in sorted(self._cache.glob("*/manifest.json")):
            manifest = json.loads(file.read_bytes())
            card = manifest["card"]
            same = card.get("source") == name and card.get("subset") == text.subset
            if same and manifest["tokenizer"] == published_tokenizer(tokenizer):
                return file.parent
        return None


def plan_corpora(
    portions: Sequence[Portion], *, root: Path, say: Say = quiet, progress: Hear | None = None
) -> PlanCorpora:
    """The corpora of a root folder as these portions expect them."""
    expected = [one for part in portions for one in part.found.study.expected]
    return PlanCorpora(root, expected=expected, say=say, progress=progress)


def _zeros(n: int) -> Ints:
    """One number that is read n times: it takes no memory."""
    return np.broadcast_to(np.int64(0), (n,))


def _kind(spec: CorpusSpec) -> str:
    """Texts that are the same but for their splits."""
    return fingerprint(spec.edit(splits=Splits(), units="sequence"))


def _pools(spec: CorpusSpec, *, told: Expected) -> dict[str, int]:
    """Sequences of each set: as stated, or of other splits the same share of all of them."""
    if spec.splits == told.corpus.splits:
        return dict(told.pools)
    total = sum(told.pools.values())
    shares = spec.splits.shares()
    return {
        name: int(share * total)
        for name, share in (shares | {"train": 1 - sum(shares.values(), Fraction(0))}).items()
    }
