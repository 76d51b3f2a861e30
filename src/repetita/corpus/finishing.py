"""The last file of a corpus, its manifest: what was built, from what, and the hash of every file."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from repetita.corpus.catalogue import Catalogue, open_catalogue
from repetita.corpus.growing import Committed
from repetita.corpus.pretrained_tokenizer import published_tokenizer
from repetita.corpus.shards import FILES, SCHEMA
from repetita.corpus.source import Source
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import CorpusError
from repetita.journal.disk import sync_folder, write_atomic
from repetita.spec import fingerprint


def versions() -> dict[str, str]:
    """Of the libraries that decide what text becomes."""
    return {name: version(name) for name in ("tokenizers", "numpy")}


def write_manifest(
    folder: Path,
    *,
    source: Source,
    tokenizer: TokenizerSpec,
    facts: Mapping[str, Any],
    files: Mapping[str, Committed],
) -> None:
    """Writes the manifest of a folder whose other files are whole; `facts` are counts, `files` their hashes.

    Files that are not among `files` are hashed here. Raises CorpusError for a corpus without a document.
    """
    catalogue = open_catalogue(folder)
    check_not_empty(source, len(catalogue))
    manifest = {
        "schema": SCHEMA,
        **facts,
        "n_documents": len(catalogue),
        "text_sha256": text_fingerprint(catalogue),
        "versions": versions() | {"repetita": version("repetita")},
        "files": {},
        "card": source.card,
        "tokenizer": published_tokenizer(tokenizer),
    }
    for name in FILES:
        n_bytes, digest = files[name] if name in files else _hashed(folder / name)
        manifest["files"][name] = {"bytes": n_bytes, "sha256": digest}
    manifest["sha256"] = fingerprint(manifest)
    write_atomic(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())
    sync_folder(folder)


def check_not_empty(source: Source, n_documents: int, /) -> None:
    """Raises CorpusError for a corpus without a document."""
    if not n_documents:
        where = source.card.get("source", source.name)
        raise CorpusError(f"the corpus '{where}' is empty: no document has any text; give one that has some")


def text_fingerprint(catalogue: Catalogue, /) -> str:
    """The fingerprint of the three lists `[hashes, sources, dates]`, some thousand values at a time."""
    sha256 = hashlib.sha256()
    before = "[["
    for column in (catalogue.hashes(), iter(catalogue.sources), iter(catalogue.dates)):
        while values := list(islice(column, 10_000)):
            sha256.update((before + json.dumps(values, separators=(",", ":"))[1:-1]).encode())
            before = ","
        before = "],["
    sha256.update(b"]]")
    return sha256.hexdigest()


def _hashed(path: Path) -> Committed:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Committed(path.stat().st_size, digest)
