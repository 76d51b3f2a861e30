"""A corpus without the places where its text and its tokenizer lie, and as others may read it."""

from typing import Any

from repetita.corpus.documents import public_source
from repetita.corpus.pretrained_tokenizer import published_tokenizer
from repetita.corpus.sequences import CorpusSpec
from repetita.spec import plain


def placeless(spec: CorpusSpec, /) -> dict[str, Any]:
    """Its fields as JSON types but for those that say where things lie.

    What lies there is in the fingerprint of the built corpus: one that was moved is the same.
    """
    values: dict[str, Any] = plain(spec)
    del values["source"]
    for name in ("source", "trained_on"):
        values["tokenizer"].pop(name, None)
    return values


def public_corpus(spec: CorpusSpec, /) -> dict[str, Any]:
    """Its fields as JSON types; of a text or a tokenizer that is a path the last part only."""
    values: dict[str, Any] = plain(spec)
    return values | {
        "source": public_source(spec.source),
        "tokenizer": published_tokenizer(spec.tokenizer),
    }
