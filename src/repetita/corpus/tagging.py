"""Tags a corpus once: the words of each document and their classes, by place in its text, on disk."""

import hashlib
import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita import seeds
from repetita.corpus.building import Progress, locked
from repetita.corpus.encoding import answer
from repetita.corpus.sentences import byte_offsets, text_ends
from repetita.corpus.shards import Shards, open_shards
from repetita.corpus.taggers import CLASSES, Tagger, TaggerName, find_tagger, installed, open_tagger
from repetita.corpus.workers import Workers, cores
from repetita.errors import CorpusError, DamagedError
from repetita.journal.disk import storage_errors, sync_file, sync_folder, write_atomic
from repetita.spec import fingerprint

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]

SEMANTICS = 1
"""Raised when the same tagger comes to say something else of the same text."""
MANIFEST = "tags.json"
SPANS, PLACES = "spans.bin", "places.bin"

IN_PROCESS_BYTES = 1 << 18
"""Less text than this is tagged at once, without starting workers."""
TASK_BYTES = 1 << 17
"""Text of a task for a worker, in whole documents."""
SAMPLE_DOCUMENT_BYTES = 10_000
SAMPLE_BYTES = 300_000
"""Text that a second tagger reads as well, to see how far the two agree: beginnings of documents that a key
chooses."""
OPENS = 0x80
"""Added to the class of the first word of a sentence."""

_PROGRAM = "from repetita.corpus.tagging import serve; serve()"


class DocumentWords(NamedTuple):
    """The words of a document, in order; places are bytes of its text in UTF-8."""

    starts: Ints
    stops: Ints
    classes: NDArray[np.int8]
    opens: NDArray[np.bool_]
    """Whether a word is the first of its sentence."""

    def packed(self) -> bytes:
        """As it is kept."""
        gaps = self.starts - np.concatenate([[0], self.stops[:-1]])
        numbers = np.concatenate([gaps, self.stops - self.starts]).astype("<u4")
        kinds = (self.classes.astype(np.uint8) + OPENS * self.opens).astype(np.uint8)
        return zlib.compress(numbers.tobytes() + kinds.tobytes(), 6)

    @classmethod
    def unpacked(cls, data: bytes) -> "DocumentWords":
        """What `packed` made."""
        raw = zlib.decompress(data)
        n = len(raw) // 9
        gaps, lengths = np.frombuffer(raw, "<u4", 2 * n).reshape(2, n).astype(np.int64)
        kinds = np.frombuffer(raw, np.uint8, n, 8 * n)
        stops = np.cumsum(gaps + lengths)
        return cls(stops - lengths, stops, (kinds & 0x7F).astype(np.int8), kinds >= OPENS)


def tag_text(text: str, /, *, tagger: Tagger) -> DocumentWords:
    """The words of a text: each sentence is cut and tagged on its own."""
    sentences, offsets = sentences_of(text)
    cut = [tagger.split(sentence) for sentence in sentences]
    classes = tagger.classes(cut)
    starts = [at + start for one, at in zip(cut, offsets, strict=True) for start, _ in one.spans]
    stops = [at + stop for one, at in zip(cut, offsets, strict=True) for _, stop in one.spans]
    opens = [place == 0 for one in cut for place in range(len(one.spans))]
    return DocumentWords(
        byte_offsets(text, offsets=np.array(starts, dtype=np.int64)),
        byte_offsets(text, offsets=np.array(stops, dtype=np.int64)),
        np.array([of_word for of_sentence in classes for of_word in of_sentence], dtype=np.int8),
        np.array(opens, dtype=np.bool_),
    )


def sentences_of(text: str, /) -> tuple[list[str], list[int]]:
    """The sentences of a text and the character at which each begins, white space included."""
    if not text:
        return [], []
    ends = [0, *text_ends(text).sentences.tolist()]
    return [text[start:stop] for start, stop in pairwise(ends)], ends[:-1]


class Tags:
    """The words of all documents of a corpus as they lie on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = _read_manifest(path)
        self._places = np.frombuffer(self._checked(PLACES), "<i8")
        self._spans = self._checked(SPANS)

    @property
    def tagger(self) -> TaggerName:
        """Which tagger has made them."""
        return TaggerName(*self.manifest["tagger"])

    def words(self, document: int, /) -> DocumentWords:
        """The words of the document at this place in the corpus."""
        start, stop = self._places[document : document + 2].tolist()
        return DocumentWords.unpacked(self._spans[start:stop])

    def _checked(self, name: str) -> bytes:
        file = self.path / name
        data = file.read_bytes() if file.exists() else b""
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][name]:
            raise DamagedError(
                f"{file} is missing or does not match its recorded hash; delete the folder {self.path} and "
                f"run again to have the corpus tagged anew"
            )
        return data


def tags_path(shards: Shards, *, tagger: TaggerName) -> Path:
    """Where the tags of a corpus are: beside its shards, by text and tagger, whatever the tokenizer."""
    text = shards.manifest["text_sha256"]
    return shards.path.parent / f"tags-{fingerprint([SEMANTICS, text, list(tagger)])[:12]}"


def open_tags(shards: Shards) -> Tags:
    """The tags of a corpus by the tagger of this machine; CorpusError where it was not tagged by it."""
    tagger = find_tagger()
    path = tags_path(shards, tagger=tagger)
    if not (path / MANIFEST).exists():
        raise CorpusError(
            f"the corpus in {shards.path} has no parts of speech by {tagger.text}; tag it first with "
            f"Corpus.tag(), as a study does by itself before its runs"
        )
    return Tags(path)


def tag_shards(shards: Shards, *, progress: Progress | None = None, workers: int | None = None) -> Tags:
    """The tags of a corpus, made first where they are missing; the files do not depend on `workers`.

    Raises CorpusError where no tagger is installed or the tokens do not give back the text, and StorageError.
    """
    tagger = find_tagger()
    if not shards.manifest.get("lossless", True):
        raise CorpusError(
            f"the tokenizer of {shards.path} does not keep the text to the byte, so that its tokens have no "
            f"place in it and no part of speech; use kind 'bpe' or 'bytes'"
        )
    path = tags_path(shards, tagger=tagger)
    if not (path / MANIFEST).exists():
        with storage_errors(path), locked(path.parent / f".{path.name}.lock"):
            if not (path / MANIFEST).exists():
                _make(path, shards, tagger, progress or _silent, workers)
    return Tags(path)


def _make(path: Path, shards: Shards, tagger: TaggerName, progress: Progress, workers: int | None) -> None:
    folder = path.parent / f".{path.name}.making"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stage = f"tagging parts of speech with {tagger.text}"
    places, sha256, counts = [0], hashlib.sha256(), np.zeros(len(CLASSES), dtype=np.int64)
    progress(stage, 0.0)
    with (folder / SPANS).open("wb") as file:
        for data in _tagged(shards, tagger, workers):
            file.write(data)
            sha256.update(data)
            places.append(places[-1] + len(data))
            counts += np.bincount(DocumentWords.unpacked(data).classes, minlength=len(CLASSES))
            progress(stage, (len(places) - 1) / len(shards.n_tokens))
    sync_file(folder / SPANS)
    placed = np.array(places, dtype="<i8").tobytes()
    write_atomic(folder / PLACES, placed)
    manifest: dict[str, Any] = {
        "tagger": list(tagger),
        "text_sha256": shards.manifest["text_sha256"],
        "words": dict(zip(CLASSES[1:], counts[1:].tolist(), strict=True)),
        "agreement": agreement(shards, tagger=tagger),
        "files": {SPANS: sha256.hexdigest(), PLACES: hashlib.sha256(placed).hexdigest()},
    }
    manifest["sha256"] = fingerprint(manifest)
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    shutil.rmtree(path, ignore_errors=True)
    folder.rename(path)
    sync_folder(path.parent)


def _silent(stage: str, share: float) -> None:
    """No one is told."""


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
        if manifest.pop("sha256") == fingerprint(manifest):
            return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise DamagedError(
        f"{path / MANIFEST} does not match its recorded hash; delete the folder {path} and run again to have "
        f"the corpus tagged anew"
    )


def _tagged(shards: Shards, tagger: TaggerName, workers: int | None) -> Iterator[bytes]:
    """What is kept of each document, in order: made here where they are few, else in worker processes."""
    n = workers or cores()
    tasks = list(_tasks(shards))
    if n > 1 and int(shards.manifest["n_bytes"]) > IN_PROCESS_BYTES:
        told = {"shards": str(shards.path), "tagger": list(tagger)}
        try:
            pool: Workers[tuple[int, int], list[bytes]] = Workers(
                n, told=told, program=_PROGRAM, decode=_unjoined
            )
        except OSError as error:
            log.warning("no worker can be started (%s); one process tags", error)
        else:
            with closing(pool):
                for _, of_task in pool.encode(tasks):
                    yield from of_task
            return
    for task in tasks:
        yield from _of_task(shards, task, open_tagger(tagger))


def _tasks(shards: Shards) -> Iterator[tuple[int, int]]:
    """(first document, documents) of each task."""
    first, size = 0, 0
    for document, n_bytes in enumerate(shards.documents.n_bytes.tolist()):
        size += n_bytes
        if size >= TASK_BYTES:
            yield first, document + 1 - first
            first, size = document + 1, 0
    if first < len(shards.documents):
        yield first, len(shards.documents) - first


def _of_task(shards: Shards, task: Sequence[int], tagger: Tagger) -> Iterator[bytes]:
    first, n = task
    for document in range(first, first + n):
        yield tag_text(text_of(shards, document), tagger=tagger).packed()


def text_of(shards: Shards, document: int, /) -> str:
    """The text of a document, from its tokens."""
    start = int(shards.offsets[document])
    return shards.tokenizer.decode(shards.tokens[start : start + int(shards.n_tokens[document])].tolist())


def agreement(shards: Shards, *, tagger: TaggerName) -> dict[str, Any] | None:
    """How far another tagger that is installed agrees, on a sample of the corpus; None where there is none.

    `same_words`: share of this tagger's words that the other one cuts alike; `same_class`: of these, the
    share that it gives the same class, and by class the share among this tagger's words of it.
    """
    others = [name for name in installed() if name != tagger]
    if not others:
        return None
    one, other = open_tagger(tagger), open_tagger(others[0])
    n, size, counts, words = len(shards.documents), 0, np.zeros((2, len(CLASSES)), dtype=np.int64), 0
    order = seeds.Permutation(n, seeds.key(0, "tagger-agreement"))
    for document in order(np.arange(n)).tolist():
        text = text_of(shards, document)[:SAMPLE_DOCUMENT_BYTES]
        ours, theirs = tag_text(text, tagger=one), tag_text(text, tagger=other)
        alike = dict(zip(zip(theirs.starts, theirs.stops, strict=True), theirs.classes.tolist(), strict=True))
        for start, stop, kind in zip(ours.starts, ours.stops, ours.classes.tolist(), strict=True):
            same = alike.get((start, stop))
            if same is not None:
                counts[:, kind] += (1, same == kind)
        words, size = words + len(ours.starts), size + len(text)
        if size >= SAMPLE_BYTES:
            break
    seen, agreed = counts
    return {
        "with": others[0].text,
        "words": words,
        "same_words": int(seen.sum()) / max(1, words),
        "same_class": int(agreed.sum()) / max(1, int(seen.sum())),
        "by_class": {CLASSES[c]: int(agreed[c]) / int(seen[c]) for c in range(1, len(CLASSES)) if seen[c]},
    }


def serve() -> None:
    """A worker process: documents come in, their words go out."""

    def begin(told: dict[str, Any]) -> Callable[[list[int]], bytes]:
        shards, tagger = open_shards(Path(told["shards"])), open_tagger(TaggerName(*told["tagger"]))
        return lambda task: _joined(list(_of_task(shards, task, tagger)))

    answer(begin)


def _joined(parts: Iterable[bytes]) -> bytes:
    listed = list(parts)
    sizes = np.array([len(listed), *map(len, listed)], dtype="<i8").tobytes()
    return sizes + b"".join(listed)


def _unjoined(data: bytes) -> list[bytes]:
    n = int(np.frombuffer(data, "<i8", 1)[0])
    ends = (8 * (n + 1) + np.cumsum(np.frombuffer(data, "<i8", n, 8))).tolist()
    return [data[start:stop] for start, stop in zip([8 * (n + 1), *ends], ends, strict=False)]
