"""The corpora of a root folder: each opened once, and built when it is missing."""

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

from repetita.corpus.by_file import Makers, Share
from repetita.corpus.documents import public_source
from repetita.corpus.schedule import Schedule
from repetita.corpus.sequences import Corpus, CorpusSpec, corpus_fingerprint, open_corpus
from repetita.corpus.shards import open_shards
from repetita.errors import SpecError, UserError
from repetita.measure.probe import EvalSet
from repetita.spec import canonical_json
from repetita.study.sets import RunSets
from repetita.train.recipe import RunSpec, ancestry, open_ids, open_schedule

Say = Callable[[str], None]
Hear = Callable[[str, float], None]


SAY_SECONDS = 30.0
"""How often it is said, where nothing is drawn, how far a build is."""


def quiet(_: str) -> None:
    """Says nothing."""


def _hearing(spec: CorpusSpec, say: Say, progress: Hear | None) -> Hear:
    """Says each stage of a build once, now and then how far it is, and passes shares on."""
    said = dict[str, float]()

    def hear(stage: str, share: float) -> None:
        text, now = f"corpus {public_source(spec.source)}: {stage}", time.monotonic()
        if stage not in said:
            said[stage] = now
            say(text)
        elif isinstance(share, Share) and now - said[stage] >= SAY_SECONDS:
            said[stage] = now
            say(f"{text}, {share.words}")
        if progress is not None:
            progress(text, share)

    return hear


class Corpora:
    """Opens the corpora of `<root>/corpora`; where one has to be built, `say` hears of each stage of it.

    `progress` hears of the share of it that is done as well. `workers` and `makers` say who builds: see
    `repetita.corpus.building.build_shards`.
    """

    def __init__(
        self,
        root: Path,
        *,
        say: Say = quiet,
        progress: Hear | None = None,
        workers: int | None = None,
        makers: Makers | None = None,
    ) -> None:
        self._cache = root / "corpora"
        self._workers, self._makers = workers, makers
        self._say = say
        self._progress = progress
        self._open: dict[CorpusSpec, Corpus] = {}
        self._sets: dict[str, RunSets] = {}
        self._whole: dict[CorpusSpec, Mapping[str, EvalSet]] = {}
        self._tagged: set[CorpusSpec] = set()

    def open(self, spec: CorpusSpec) -> Corpus:
        """The corpus of a spec; raises CorpusError, DamagedError, StorageError."""
        if spec not in self._open:
            hear = _hearing(spec, self._say, self._progress)
            self._open[spec] = open_corpus(
                spec, cache=self._cache, progress=hear, workers=self._workers, makers=self._makers
            )
        return self._open[spec]

    def tag(self, spec: CorpusSpec) -> None:
        """Has the parts of speech of a corpus made where they are missing; CorpusError without a tagger."""
        if spec not in self._tagged:
            self.open(spec).tag(progress=_hearing(spec, self._say, self._progress))
            self._tagged.add(spec)

    def find(self, spec: CorpusSpec, *, fingerprint: str) -> Corpus | None:
        """The corpus with this fingerprint, wherever its text lies now; None where none was built here."""
        for manifest in sorted(self._cache.glob("*/manifest.json")):
            try:
                shards = open_shards(manifest.parent)
            except UserError:  # Whoever asks for this one by its source is told.
                continue
            if corpus_fingerprint(spec, shards=shards) == fingerprint:
                return self._open.setdefault(spec, Corpus(spec, shards=shards))
        return None

    def verify(self) -> None:
        """Compares opened corpora with their hashes; DamagedError names the first file that differs."""
        for corpus in self._open.values():
            corpus.verify()

    def fingerprint(self, spec: CorpusSpec) -> str:
        """The fingerprint of the content of a corpus."""
        return self.open(spec).fingerprint

    def schedule(self, spec: RunSpec) -> Schedule:
        """What each step of a run reads; raises CorpusError where a set is too small for it."""
        return open_schedule(spec, corpus=self.open(spec.corpus))

    def sets(self, spec: RunSpec) -> RunSets:
        """The sets that probes can read in a run; runs that differ in the model alone share them."""
        parts: list[object] = [spec.corpus, spec.treatment, spec.steps, spec.batch_size, spec.seed]
        if spec.document_ids is not None:
            parts += [spec.document_ids, spec.model]
        if spec.start is not None:
            parts.append(spec.start)
        read = canonical_json(parts)
        if read not in self._sets:
            corpus, schedule = self.open(spec.corpus), self.schedule(spec)
            ids = open_ids(spec, corpus=corpus, schedule=schedule)
            self._sets[read] = RunSets(spec, corpus=corpus, schedule=schedule, ids=ids, sets_of=self.sets)
        return self._sets[read]

    def check_start(self, spec: RunSpec) -> None:
        """Raises SpecError where the ids of a run are not those of the runs that it starts from."""
        for run, parent in pairwise(ancestry(spec)):
            if not self._same_ids(run.corpus, parent.corpus):
                name, theirs = public_source(run.corpus.source), public_source(parent.corpus.source)
                raise SpecError(
                    f"RunSpec: corpus {name} has another tokenizer than {theirs}, on which the run that it "
                    f"starts from was trained, so that its ids mean other text; give it corpus = "
                    f"CorpusSpec(...).with_ids_of(CORPUS_OF_THAT_RUN)"
                )

    def _same_ids(self, one: CorpusSpec, other: CorpusSpec) -> bool:
        """Whether two corpora have one tokenizer, which is opened only where their specs do not say it."""
        if one.with_ids_of(other).tokenizer == one.tokenizer:
            return True
        return self.open(one).tokenizer.to_json() == self.open(other).tokenizer.to_json()

    def other_sets(self, spec: CorpusSpec, *, read_by: RunSpec) -> Mapping[str, EvalSet]:
        """The whole sets of a corpus that a run does not train on, for its probes.

        Raises SpecError where its ids are not the run's, or its sequences are too long for the model.
        """
        name = public_source(spec.source)
        if not self._same_ids(spec, read_by.corpus):
            raise SpecError(
                f"a probe reads {name} by another tokenizer than the run's, so that its ids mean other text; "
                f"give it corpus = CorpusSpec(...).with_ids_of(CORPUS_OF_THE_RUN)"
            )
        if spec.length > read_by.model.context:
            raise SpecError(
                f"a probe reads {name} in sequences of {spec.length} tokens, and the model's context is "
                f"{read_by.model.context}; shorten the length of the probe's corpus"
            )
        if spec not in self._whole:
            self._whole[spec] = self._all_of(spec)
        return self._whole[spec]

    def _all_of(self, spec: CorpusSpec) -> Mapping[str, EvalSet]:
        """The whole sets of a corpus; a plan overrides it for texts that are not here."""
        sets = self.open(spec).sets
        return {name: EvalSet.whole(name, sequences=of) for name, of in sets.items()}
