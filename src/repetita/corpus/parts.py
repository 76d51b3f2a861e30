"""Parts of a corpus: what one input file, or a bundle of small ones, comes to, made in any process."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repetita import errors
from repetita.corpus.catalogue import RECORD, RECORDS, STRINGS
from repetita.corpus.encoding import Encoder, answer
from repetita.corpus.finishing import versions
from repetita.corpus.growing import GrowingFile
from repetita.corpus.input_files import check_unchanged, content_of, documents_of
from repetita.corpus.layout import Cutter, Layout, constants
from repetita.corpus.source import Document, InputFile, LongDocument
from repetita.corpus.token_files import TOKEN_FILES, TokenFiles
from repetita.corpus.tokenizer import Tokenizer, load_tokenizer
from repetita.corpus.training_sample import TEXT
from repetita.journal.disk import storage_errors, sync_folder, write_atomic
from repetita.spec import fingerprint

SEMANTICS = 1
"""Raised when a part of the version before is not what would be made now."""

MANIFEST = "part.json"
UNFINISHED = ".making-"
"""How folders of parts begin that are being made, or were when their process was killed."""


class Job(NamedTuple):
    """A part to be made: files to be read, or the text of another part to be encoded."""

    folder: str
    """The folder of all parts."""
    files: tuple[InputFile, ...] = ()
    take: int | None = None
    """Documents that are read at most."""
    text: str = ""
    """Name of the part whose text is encoded; empty where files are read."""
    tokenizer: str = ""
    """Its file; empty where nothing is encoded but the text is kept."""
    dtype: str = "<u2"

    def as_json(self) -> str:
        """The job as one string."""
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """What `as_json` wrote."""
        folder, files, *rest = json.loads(text)
        read = [InputFile(*values) for values in files]
        for number, file in enumerate(read):
            if file.piece is not None:  # JSON knows lists alone.
                piece: Any = tuple(file.piece)
                read[number] = file._replace(piece=piece)
        return cls(folder, tuple(read), *rest)


class Part(NamedTuple):
    """A part that is whole, or why there is none."""

    name: str = ""
    """The hash of what went into it, which is its folder's name."""
    n_documents: int = 0
    n_bytes: int = 0
    n_tokens: int = 0
    unknown: int = 0
    lossless: bool = True
    n_rows: int = 0
    """Of a file of the hub: rows, with those that are no documents."""
    again: bool = False
    """Whether it was there already."""
    error: str = ""
    message: str = ""

    def as_json(self) -> str:
        """The part as one string."""
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> "Part":
        """What `as_json` wrote."""
        return cls(*json.loads(text))

    def check(self) -> "Part":
        """The part, or the error that stands in its place."""
        if self.error:
            raise getattr(errors, self.error, errors.CorpusError)(self.message)
        return self


def make(text: str) -> str:
    """The part that a job asks for, both as JSON; a part that is there and whole is not made again."""
    try:
        return _made(Job.from_json(text)).as_json()
    except errors.UserError as error:
        kinds = (kind.__name__ for kind in type(error).mro() if hasattr(errors, kind.__name__))
        return Part(error=next(kinds), message=str(error)).as_json()


def _made(job: Job) -> Part:
    tokenizer, content = _tokenizer(job.tokenizer) if job.tokenizer else (None, "")
    parts, name = Path(job.folder), _name(job, content)
    with storage_errors(parts):
        there = whole_part(parts / name)
        if there is not None:
            return there._replace(again=True)
        scratch = Path(tempfile.mkdtemp(dir=parts, prefix=f"{UNFINISHED}{name}-"))
        try:
            part = _write(scratch, job, tokenizer)._replace(name=name)
            _seal(scratch, part)
            for file in job.files:
                check_unchanged(file)
            _move(scratch, parts / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        sync_folder(parts)
    return part


@lru_cache(maxsize=1)
def _tokenizer(path: str) -> tuple[Tokenizer, str]:
    """The tokenizer of a file, which is named by what it holds, and its hash."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise errors.CorpusError(
            f"cannot read {path}: {error.strerror}; give a --root that all processes and machines of the "
            f"build see"
        ) from None
    return load_tokenizer(data.decode()), hashlib.sha256(data).hexdigest()


def _name(job: Job, tokenizer: str) -> str:
    read: Any = job.text
    if not job.text:
        # The place of a file counts where documents have it in their names.
        files = [
            [content_of(file), *file._replace(path=_suffixes(file), modified_ns=0)] for file in job.files
        ]
        read = [SEMANTICS, files, job.take]
    encoded = [tokenizer, job.dtype, versions(), constants()] if tokenizer else None
    return fingerprint([read, encoded])[:32]


def _suffixes(file: InputFile) -> str:
    return file.path if file.piece else Path(file.path).suffix.lower()


def _write(folder: Path, job: Job, tokenizer: Tokenizer | None) -> Part:
    """Reads, encodes, or both; the files of the part."""
    with ExitStack() as stack:

        def growing(name: str) -> GrowingFile:
            file = GrowingFile(folder / name)
            stack.callback(file.close)
            return file

        n_rows, texts = 0, Path(job.folder) / job.text
        if not job.text:
            texts = folder
            layout = Layout(text=growing(TEXT), records=growing(RECORDS), strings=growing(STRINGS))
            reading = _Reading(job.files)
            for _ in layout.take(islice(reading.documents(), job.take)):
                pass
            n_rows = reading.n_rows
        n_documents = (texts / RECORDS).stat().st_size // RECORD.itemsize
        part = Part(n_documents=n_documents, n_bytes=(texts / TEXT).stat().st_size, n_rows=n_rows)
        if tokenizer is not None:
            files = {name: growing(name) for name in TOKEN_FILES}
            tokens = TokenFiles(files, dtype=np.dtype(job.dtype))
            _encode(texts, tokens, tokenizer, n_documents=n_documents, dtype=job.dtype)
            part = part._replace(n_tokens=tokens.n_tokens, unknown=tokens.unknown, lossless=tokens.lossless)
    if tokenizer is not None and not job.text:
        (folder / TEXT).unlink()
    return part


def _encode(texts: Path, tokens: TokenFiles, tokenizer: Tokenizer, *, n_documents: int, dtype: str) -> None:
    with ExitStack() as stack:
        cutter = Cutter(text=texts / TEXT, records=texts / RECORDS, tokenizer=tokenizer)
        stack.callback(cutter.close)
        encoder = Encoder(text=texts / TEXT, records=texts / RECORDS, tokenizer=tokenizer, dtype=dtype)
        stack.callback(encoder.close)
        for task in cutter.tasks(until=n_documents):
            tokens.append(task, encoder.encode(task))


class _Reading:
    """The documents of files, and how many rows of them are read, those among them that are no documents."""

    def __init__(self, files: Sequence[InputFile]) -> None:
        self._files = files
        self.n_rows = 0

    def documents(self) -> Iterator[Document | LongDocument]:
        """One file after the other."""
        return chain.from_iterable(documents_of(file, on_row=self._count) for file in self._files)

    def _count(self) -> None:
        self.n_rows += 1


def _seal(folder: Path, part: Part) -> None:
    """Writes down what the part holds, with the hash of each file, so that it survives a power cut."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        files[path.name] = [path.stat().st_size, digest]
    told: dict[str, Any] = {"part": part, "files": files}
    write_atomic(folder / MANIFEST, json.dumps(told | {"sha256": fingerprint(told)}).encode())


def _move(scratch: Path, folder: Path) -> None:
    """Gives a part its name; where another process was quicker, that one's is as good."""
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def sealed(folder: Path) -> tuple[Part, dict[str, list[Any]]] | None:
    """What a part says that it holds: the files by name, with size and hash; None where it says nothing."""
    try:
        told = json.loads((folder / MANIFEST).read_bytes())
        if told.pop("sha256") != fingerprint(told):
            return None
        return Part(*told["part"]), told["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def whole_part(folder: Path) -> Part | None:
    """The part in a folder, where every file of it has its hash; what else is there goes."""
    told = sealed(folder)
    if told is not None:
        part, files = told
        try:
            if all(_hash(folder / name) == (size, digest) for name, (size, digest) in files.items()):
                return part
        except OSError:
            pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _hash(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def clear_unfinished(parts: Path) -> None:
    """Removes what processes that were killed had begun."""
    for folder in parts.glob(f"{UNFINISHED}*"):
        shutil.rmtree(folder, ignore_errors=True)


PROGRAM = "from repetita.corpus.parts import serve; serve()"
"""What a process runs that makes parts."""


def serve() -> None:
    """A worker process that makes parts; see `encoding.answer`."""
    answer(_making)


def _making(_: dict[str, Any]) -> Callable[[list[Any]], bytes]:
    return lambda task: make(task[0]).encode()
