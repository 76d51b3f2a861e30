"""In how many documents is a string? Exact counts in the text itself, the k of k-eidetic memorization.

A string is k-eidetic if at most k training documents contain it (Carlini et al. 2021, definition 2). It is
looked for as characters, so that it does not matter which tokenizer cut the corpus or the string; counts of
token ids in the sequences that a run reads are `measure.occurrences`.

All strings are looked for at once by polars' automaton (Aho and Corasick 1975), in one pass whose memory does
not grow with the corpus. A suffix array, the other exact index, answers faster once it is there, but takes
longer to make than this pass takes for a thousand strings, and five bytes of memory for each byte of text.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.shards import Shards
from repetita.corpus.source import Document
from repetita.errors import CorpusError

Ints = NDArray[np.int64]

AT_ONCE = 1 << 25
"""Characters of documents that are searched together; a longer document is searched alone."""


class Eidetic(NamedTuple):
    """How often each of N strings is in a corpus."""

    documents: Ints
    """Documents that contain it, shape (N,): each counts once."""
    occurrences: Ints
    """Places where it begins, overlapping ones too, shape (N,)."""
    searched: int
    """Documents of the corpus."""


def count_strings(strings: Sequence[str], /, *, within: Iterable[Document]) -> Eidetic:
    """Counts of each string, shape (N,), in documents that are read once; equal to the character.

    Nothing is folded or normalised: a string that breaks its lines elsewhere, or that is composed of other
    code points, is another. Raises CorpusError for an empty string and for no strings.
    """
    if not strings or not all(strings):
        what = "an empty string is" if strings else "no string to count is given, and none is"
        raise CorpusError(f"{what} in every document; give strings of at least one character")
    distinct = sorted(set(strings))
    documents, occurrences = np.zeros(len(distinct), np.int64), np.zeros(len(distinct), np.int64)
    searched = 0
    for texts in in_batches(within):
        in_documents, found = _found(distinct, texts)
        documents, occurrences = documents + in_documents, occurrences + found
        searched += len(texts)
    place = {string: i for i, string in enumerate(distinct)}
    order = np.array([place[string] for string in strings], dtype=np.int64)
    return Eidetic(documents[order], occurrences[order], searched)


def shard_documents(shards: Shards, /) -> Iterator[Document]:
    """The documents of a built corpus, decoded: their text to the character.

    Raises CorpusError where the tokenizer lost some of it.
    """
    if not shards.manifest.get("lossless", True):
        raise CorpusError(
            f"the tokens of {shards.path} do not give back its text; count in the text that it was built from"
        )
    columns = (shards.documents.names, shards.documents.sources, shards.documents.dates)
    for start, n, name, source, date in zip(shards.offsets, shards.n_tokens, *columns, strict=True):
        text = shards.tokenizer.decode(shards.tokens[start : start + n].tolist())
        yield Document(text, name or "", source or "", date)


def in_batches(documents: Iterable[Document], /) -> Iterator[list[str]]:
    """Texts of documents in their order, as many at a time as are searched together."""
    texts: list[str] = []
    size = 0
    for document in documents:
        if texts and size + len(document.text) > AT_ONCE:
            yield texts
            texts, size = [], 0
        texts.append(document.text)
        size += len(document.text)
    if texts:
        yield texts


def _found(distinct: list[str], texts: list[str]) -> tuple[Ints, Ints]:
    """Documents and places of each string, in its order."""
    import polars as pl

    # What is found is one of the strings themselves: no two of them are equal.
    matches = pl.Series(texts).str.extract_many(distinct, overlapping=True)
    counts = (
        pl.DataFrame({"document": np.arange(len(texts)), "string": matches})
        .explode("string")
        .drop_nulls()
        .group_by("string")
        .agg(pl.len().alias("places"), pl.col("document").n_unique().alias("documents"))
    )
    table = pl.DataFrame({"string": distinct}).join(counts, on="string", how="left", maintain_order="left")
    return tuple(  # type: ignore[return-value]
        table[name].fill_null(0).cast(pl.Int64).to_numpy() for name in ("documents", "places")
    )
