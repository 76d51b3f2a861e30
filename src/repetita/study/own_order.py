"""What a run of ours read, and when, as a known order of any texts; and its sequences as texts."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repetita.corpus.schedule import SETS
from repetita.corpus.sequences import Corpus
from repetita.corpus.shards import open_shards
from repetita.errors import CorpusError
from repetita.journal.disk import write_atomic
from repetita.study.audit_texts import Text
from repetita.study.corpora import Corpora
from repetita.study.eidetic import in_batches, shard_documents
from repetita.study.known_order import Ints, KnownOrder
from repetita.study.single import open_run
from repetita.train.recipe import RunSpec, ancestry

SHOWN = ("repeated", "inserted", "special", "twin", "placebo", "train", "test")
"""Sets whose sequences are texts of a run, in this order, where it has them."""

PARENTS = -1
"""The step at which a run has read what the runs that it starts from have read: before its first."""


class RunTexts(NamedTuple):
    """Sequences of a run as texts."""

    files: tuple[Path, ...]
    """One a set, named like it."""
    length: int
    """Tokens of a sequence."""


class Place(NamedTuple):
    """One occurrence of a text in a corpus."""

    sha256: str
    document: int
    start: int
    """Of its first token in the document."""
    stop: int


def order_of_run(run: Path, /, *, texts: Sequence[Text], root: Path) -> KnownOrder:
    """When the run in a folder read each text, by the text's hash: `step` is that of its own checkpoints.

    A text is looked for, to the character but for white space around it, in the documents of the run's
    corpus. A sequence that holds it whole has read it at each visit, as a host of an inserted item too. One
    that lies across several sequences, any of which was read, is unclear: its parts were read at different
    times. Any other was not read. What the runs read that this one starts from stands before its step 0.
    Raises what `study.single.open_run` raises, and CorpusError where the tokenizer does not give back text.
    """
    corpora = Corpora(root)
    found: dict[str, list[Ints]] = {one.sha256: [] for one in texts}
    unclear = set[str]()
    own = open_run(run, corpora=corpora, source=None)
    for spec in ancestry(own):
        for sha256, steps, whole in _visits(spec, texts, corpora=corpora):
            if whole:
                found[sha256].append(steps if spec is own else np.full_like(steps, PARENTS))
            elif len(steps):
                unclear.add(sha256)
    none = np.empty(0, np.int64)
    return KnownOrder(
        {name: np.sort(np.concatenate([none, *of])) for name, of in found.items()}, frozenset(unclear)
    )


def write_run_texts(run: Path, /, *, limit: int, root: Path) -> RunTexts:
    """Some sequences of each set of a run as texts, a file a set, below `root`/series/texts.

    They are the rows that a probe with `max_sequences = limit` reads, but for those that are no text: with a
    separator inside, or whose text has other ids. Raises CorpusError where none is left.
    """
    corpora = Corpora(root)
    spec = open_run(run, corpora=corpora, source=None)
    paths = []
    for name in SHOWN:
        rows = [json.dumps(one) for one in _sequences(spec, name, limit=limit, corpora=corpora)]
        if rows:
            paths.append(root / "series" / "texts" / run.name / f"{name}.jsonl")
            write_atomic(paths[-1], ("\n".join(rows) + "\n").encode())
    if not paths:
        raise CorpusError(
            f"no sequence of {run.name} is a text of its own: each holds parts of several documents; give "
            f"texts with --text"
        )
    return RunTexts(tuple(paths), spec.corpus.length)


def _sequences(spec: RunSpec, name: str, *, limit: int, corpora: Corpora) -> Iterator[dict[str, str]]:
    sets, tokenizer = corpora.sets(spec), corpora.open(spec.corpus).tokenizer
    shown = name if spec.document_ids is None else f"{name}/plain"
    if shown not in sets:
        return
    over = sets[shown].sample(limit)
    targets = over.sequences.rows(over.indices).targets
    for index, row in zip(over.indices.tolist(), targets, strict=True):
        ids = np.trim_zeros(row, "b")
        text = tokenizer.decode(ids.tolist())
        if len(ids) and np.array_equal(tokenizer.encode(text), ids):
            yield {"id": f"{name} {index}", "text": text}


def _visits(spec: RunSpec, texts: Sequence[Text], *, corpora: Corpora) -> Iterator[tuple[str, Ints, bool]]:
    """Of each occurrence of each text the visits of sequences with some of it, and whether one has all."""
    corpus, schedule = corpora.open(spec.corpus), corpora.schedule(spec)
    known: dict[tuple[str, int], Ints] = {}
    for place in places(texts, corpus=corpus):
        for name in SETS:
            if name not in corpus.sets:
                continue
            rows, whole = corpus.sets[name].holding(place.document, start=place.start, stop=place.stop)
            for row in rows.tolist():
                if (name, row) not in known:
                    known[name, row] = schedule.steps_of(set=name, index=row)
                yield place.sha256, known[name, row], whole


def places(texts: Sequence[Text], /, *, corpus: Corpus) -> Iterator[Place]:
    """Where each text stands in the documents of a corpus, overlapping ones too, document by document."""
    import polars as pl

    shards = open_shards(corpus.path)
    strings: dict[str, list[str]] = {}
    for one in texts:
        strings.setdefault(one.text.strip(), []).append(one.sha256)
    strings.pop("", None)
    document = -1
    for batch in in_batches(shard_documents(shards)):
        column, looked_for = pl.col("text").str, list(strings)
        found = pl.DataFrame({"text": batch}).select(
            at=column.find_many(looked_for, overlapping=True),
            string=column.extract_many(looked_for, overlapping=True),
        )
        for positions, which in found.iter_rows():
            document += 1
            if not positions:
                continue
            start = shards.offsets[document]
            ids = shards.tokens[start : start + shards.n_tokens[document]]
            edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(corpus.token_bytes[ids])])
            for at, string in zip(positions, which, strict=True):
                first = int(np.searchsorted(edges, at, side="right")) - 1
                last = int(np.searchsorted(edges, at + len(string.encode())))
                for sha256 in strings[string]:
                    yield Place(sha256, document, first, last)
