"""Token ids of a corpus on disk: memory-mapped, written once, every file with its hash."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita import seeds
from repetita.corpus.documents import Document, Source
from repetita.corpus.sentences import byte_offsets, paragraph_ends, sentence_ends
from repetita.corpus.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer, train_tokenizer
from repetita.errors import CorpusError, DamagedError
from repetita.journal.disk import storage_errors, sync_folder
from repetita.spec import fingerprint, plain

SCHEMA = 1
TRAINING_BYTES = 64 << 20
"""A tokenizer is trained on documents of at most so many bytes, by a keyed choice where there are more."""
BATCH_BYTES = 4 << 20

Progress = Callable[[str, float], None]
"""Told the stage and the share of it that is done."""


class Shards:
    """A built corpus: token ids with one separator (id 0) after each document, and what is known of each.

    Opening checks the manifest and the size of every file, and the content of those that are read whole;
    `verify` reads them all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = _read_manifest(path)
        files = self.manifest["files"]
        for name, entry in files.items():
            size = (path / name).stat().st_size if (path / name).exists() else None
            if size != entry["bytes"]:
                what = "is missing" if size is None else f"has {size} bytes, not {entry['bytes']}"
                raise _damaged(path, name, what)
        documents = json.loads(self._checked("documents.json"))
        self.names: list[str] = documents["names"]
        self.sources: list[str] = documents["sources"]
        self.dates: list[str | None] = documents["dates"]
        self.text_hashes: list[str] = documents["text_hashes"]
        self.n_bytes: NDArray[np.int64] = np.array(documents["bytes"], dtype=np.int64)
        self.n_tokens: NDArray[np.int64] = np.array(documents["tokens"], dtype=np.int64)
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.n_tokens + 1)])[:-1]
        """Position of each document's first token in `tokens`."""
        self.tokenizer: Tokenizer = load_tokenizer(self._checked("tokenizer.json").decode())
        self.tokens: NDArray[np.unsignedinteger[Any]] = np.memmap(
            path / "tokens.bin", self.manifest["dtype"], "r"
        )

    @property
    def sentence_ends(self) -> NDArray[np.int64]:
        """Positions in `tokens` just behind the last token of each sentence, rising."""
        return np.frombuffer(self._checked("sentences.bin"), np.int64)

    @property
    def paragraph_ends(self) -> NDArray[np.int64]:
        """Positions in `tokens` just behind the last token of each paragraph, rising."""
        return np.frombuffer(self._checked("paragraphs.bin"), np.int64)

    def verify(self) -> None:
        """Compare every file with its recorded hash; DamagedError names the first that differs."""
        for name, entry in self.manifest["files"].items():
            with (self.path / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise _damaged(self.path, name, "does not match its recorded hash")

    def _checked(self, name: str) -> bytes:
        data = (self.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][name]["sha256"]:
            raise _damaged(self.path, name, "does not match its recorded hash")
        return data


def open_shards(path: Path, *, verify: bool = False) -> Shards:
    """Open a built corpus; `verify` also reads it all. DamagedError names the file and the fix."""
    shards = Shards(path)
    if verify:
        shards.verify()
    return shards


def build_shards(
    path: Path,
    *,
    source: Source,
    tokenizer: TokenizerSpec,
    limit_documents: int | None = None,
    progress: Progress | None = None,
) -> Shards:
    """Open the corpus at `path`, building it first when it is not there.

    It is built in a folder beside it and renamed, under a lock, so that a killed build leaves nothing behind
    that counts and two processes build it once. Raises CorpusError for a text that cannot be read or is
    empty, StorageError when the disk refuses.
    """
    if path.exists():
        return open_shards(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent / f".{path.name}.lock"):
            if not path.exists():
                temporary = path.parent / f".{path.name}.building"
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                try:
                    _build(temporary, source, tokenizer, limit_documents, progress or _silent)
                    sync_folder(temporary)
                    temporary.rename(path)
                except BaseException:
                    shutil.rmtree(temporary, ignore_errors=True)
                    raise
                sync_folder(path.parent)
                return open_shards(path, verify=True)
    return open_shards(path)


class _Texts(NamedTuple):
    """The documents' text laid out in one temporary file, and their records."""

    path: Path
    bytes: list[int]
    names: list[str]
    sources: list[str]
    dates: list[str | None]
    text_hashes: list[str]

    def starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(np.array(self.bytes, dtype=np.int64))])


def _build(folder: Path, source: Source, spec: TokenizerSpec, limit: int | None, progress: Progress) -> None:
    progress("reading", 0.0)
    texts = _lay_out(folder / "text.tmp", source, limit)
    progress("training the tokenizer", 0.0)
    tokenizer = train_tokenizer(spec, texts=_training_texts(texts))
    dtype = np.dtype("<u2") if tokenizer.vocab_size <= 1 << 16 else np.dtype("<u4")
    n_tokens = _write_tokens(folder, texts, tokenizer, dtype, progress)
    texts.path.unlink()
    documents = {
        "names": texts.names,
        "sources": texts.sources,
        "dates": texts.dates,
        "bytes": texts.bytes,
        "tokens": n_tokens,
        "text_hashes": texts.text_hashes,
    }
    _write(folder / "documents.json", json.dumps(documents, ensure_ascii=False).encode())
    _write(folder / "tokenizer.json", tokenizer.to_json().encode())
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "card": source.card,
        "tokenizer": plain(spec),
        "dtype": dtype.str,
        "n_documents": len(texts.names),
        "n_bytes": sum(texts.bytes),
        "n_tokens": sum(n_tokens),
        "text_sha256": fingerprint([texts.text_hashes, texts.sources, texts.dates]),
        "versions": {name: version(name) for name in ("repetita", "tokenizers", "numpy")},
        "files": {},
    }
    for name in ("tokens.bin", "sentences.bin", "paragraphs.bin", "documents.json", "tokenizer.json"):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        manifest["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": digest}
    manifest["sha256"] = fingerprint(manifest)
    _write(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())


def _lay_out(path: Path, source: Source, limit: int | None) -> _Texts:
    """Read every document once, so that a stream of any size needs memory for one document only."""
    texts = _Texts(path, [], [], [], [], [])
    with path.open("wb") as file:
        for document in _limited(source, limit):
            data = document.text.encode()
            file.write(data)
            texts.bytes.append(len(data))
            texts.names.append(document.name)
            texts.sources.append(document.source)
            texts.dates.append(document.date)
            texts.text_hashes.append(hashlib.sha256(data).hexdigest())
    if not texts.names:
        where = source.card.get("source", source.name)
        raise CorpusError(f"the corpus '{where}' is empty: no document has any text; give one that has some")
    return texts


def _limited(source: Source, limit: int | None) -> Iterator[Document]:
    for number, document in enumerate(source.documents()):
        if limit is not None and number >= limit:
            return
        yield document


def _training_texts(texts: _Texts) -> Iterator[str]:
    """All documents, or a keyed choice of them up to TRAINING_BYTES, in their order."""
    starts, n = texts.starts(), len(texts.bytes)
    chosen = np.arange(n)
    if starts[-1] > TRAINING_BYTES:
        order = seeds.Permutation(n, seeds.key(0, "tokenizer"))(chosen)
        n_chosen = 1 + int(np.searchsorted(np.cumsum(np.array(texts.bytes)[order]), TRAINING_BYTES))
        chosen = np.sort(order[:n_chosen])
    left = TRAINING_BYTES
    with texts.path.open("rb") as file:
        for document in chosen.tolist():
            file.seek(int(starts[document]))
            # A cut at the limit may split a character, which is then left out.
            text = file.read(min(left, texts.bytes[document])).decode("utf-8", errors="ignore")
            left -= min(left, texts.bytes[document])
            yield text


def _write_tokens(
    folder: Path, texts: _Texts, tokenizer: Tokenizer, dtype: np.dtype[Any], progress: Progress
) -> list[int]:
    """Write the ids and the ends of sentences and paragraphs; tokens of each document."""
    n_tokens: list[int] = []
    position, done, total = 0, 0, sum(texts.bytes)
    with (
        texts.path.open("rb") as source,
        (folder / "tokens.bin").open("wb") as tokens,
        (folder / "sentences.bin").open("wb") as sentences,
        (folder / "paragraphs.bin").open("wb") as paragraphs,
    ):
        for batch in _batches(texts.bytes):
            progress("tokenizing", done / total)
            decoded = [source.read(n).decode() for n in batch]
            for text, ids in zip(decoded, tokenizer.encode_all(decoded), strict=True):
                reached = np.cumsum(tokenizer.token_bytes[ids])
                for file, ends in ((sentences, sentence_ends(text)), (paragraphs, paragraph_ends(text))):
                    # A token that crosses the end belongs to what ends there.
                    places = np.searchsorted(reached, byte_offsets(text, offsets=ends)) + 1 + position
                    file.write(np.unique(places).astype("<i8").tobytes())
                tokens.write(np.append(ids, 0).astype(dtype).tobytes())
                n_tokens.append(len(ids))
                position += len(ids) + 1
            done += sum(batch)
        for file in (tokens, sentences, paragraphs):
            _sync(file)
    progress("tokenizing", 1.0)
    return n_tokens


def _batches(sizes: list[int]) -> Iterator[list[int]]:
    """Consecutive sizes in groups of about BATCH_BYTES."""
    batch: list[int] = []
    total = 0
    for size in sizes:
        batch.append(size)
        total += size
        if total >= BATCH_BYTES:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_bytes())
        recorded = manifest.pop("sha256")
        sound = recorded == fingerprint(manifest)
    except FileNotFoundError:
        raise _damaged(path, "manifest.json", "is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise _damaged(path, "manifest.json", "does not match its recorded hash")
    if manifest["schema"] != SCHEMA:
        raise CorpusError(
            f"{path} was built by another version (schema {manifest['schema']}, here {SCHEMA}); delete it "
            f"and build again"
        )
    return manifest


def _damaged(path: Path, name: str, what: str) -> DamagedError:
    return DamagedError(f"{path / name} {what}; delete the folder {path} and build the corpus again")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for the lock file; it stays, since removing it would let a third process lock another one."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        _sync(file)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _silent(stage: str, share: float) -> None:
    """No one is told."""
