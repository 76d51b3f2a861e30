"""Building a corpus: read, train, encode on all cores, and go on where a killed build was."""

import fcntl
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from repetita.corpus.by_file import Makers, build_by_file, local_makers
from repetita.corpus.catalogue import RECORDS, STRINGS
from repetita.corpus.encoding import PROGRAM, Encoder, Stretch, Task, unpack
from repetita.corpus.finishing import versions, write_manifest
from repetita.corpus.growing import Committed, GrowingFile
from repetita.corpus.input_files import bundles, documents_to_lay_out
from repetita.corpus.layout import Cutter, Layout, constants
from repetita.corpus.pretrained_tokenizer import open_pretrained, tokenizer_identity
from repetita.corpus.shards import Shards, open_shards
from repetita.corpus.source import Document, InputFile, LongDocument, Source
from repetita.corpus.token_files import BEGINNING, TOKEN_FILES, TokenFiles
from repetita.corpus.tokenizer import Tokenizer, TokenizerSpec
from repetita.corpus.training_sample import TEXT, trained_tokenizer
from repetita.corpus.workers import WorkerGone, Workers, cores
from repetita.errors import RunStopped, StorageError
from repetita.journal.disk import storage_errors, sync_folder, write_atomic
from repetita.spec import fingerprint

log = logging.getLogger(__name__)

BUILDING = 1
"""Raised when an unfinished build of the version before cannot be gone on with."""
IN_PROCESS_BYTES = 4 << 20
"""Less text than this is encoded at once, without starting workers."""
BY_FILE_BYTES = 32 << 20
"""Less is read by one process, however many files it is: starting on each takes time, too."""
COMMIT_SECONDS = 5.0
"""A killed build loses about so much."""

STATE, TOKENIZER = "state.json", "tokenizer.json"
PARTS = ".parts"
"""How folders end that hold what was made file by file."""
GROWING = (TEXT, RECORDS, STRINGS, *TOKEN_FILES)

Progress = Callable[[str, float], None]
"""Told the stage and the share of it that is done, 0 while that is not known."""


def build_shards(
    path: Path,
    *,
    source: Source,
    tokenizer: TokenizerSpec,
    limit_documents: int | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    given: Tokenizer | None = None,
    makers: Makers | None = None,
) -> Shards:
    """Open the corpus at `path`, building it first when it is not there.

    It is built in a folder beside it and renamed, under a lock, so that a killed build leaves nothing behind
    that counts and two processes build it once; the next build goes on where a killed one was. `workers`
    processes encode (default: one a core); the files are the same for any number of them, and whether the
    text is read by one process or file by file: by `makers` where they are given, else where there are files
    enough for all workers. `given` is the tokenizer where it was trained on another text
    (`tokenizer.trained_on`). Raises CorpusError for a text that cannot be read or is empty, StorageError when
    the disk refuses.
    """
    if path.exists():
        return open_shards(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent / f".{path.name}.lock"):
            if not path.exists():
                folder = path.parent / f".{path.name}.building"
                try:
                    given = open_pretrained(tokenizer) if tokenizer.kind == "hf" else given
                    told = _Told(source, tokenizer, given, limit_documents, progress or _silent)
                    _build_either_way(path, folder, told, workers=workers or cores(), makers=makers)
                except (OSError, StorageError, WorkerGone, RunStopped):
                    raise  # What is committed stays, to be gone on with.
                except Exception:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                sync_folder(path.parent)
                return open_shards(path, verify=True)
    return open_shards(path)


class Builders(TypedDict, total=False):
    """Who builds a corpus: see `build_shards`."""

    workers: int | None
    makers: Makers | None


class _Told(NamedTuple):
    """What is to be built."""

    source: Source
    tokenizer: TokenizerSpec
    given: Tokenizer | None
    limit: int | None
    progress: Progress


def _build_either_way(path: Path, folder: Path, told: _Told, *, workers: int, makers: Makers | None) -> None:
    """Builds the corpus at `path`, the way it was begun: in one stream through `folder`, or file by file."""
    source, tokenizer, given, limit, progress = told
    identity = tokenizer_identity(tokenizer, sha256=_content(given))
    family = fingerprint([source.place or source.signature, limit, identity])[:12]
    parts = path.parent.resolve() / f".{source.name}-{family}{PARTS}"
    _mention_left_over(path, parts)
    begun = (folder / STATE).exists()
    files: Sequence[InputFile] = ()
    if makers is not None or parts.exists() or (limit is None and not begun):
        files = source.files()
    if not files or not (makers or parts.exists() or _enough(files, workers)):
        _build(folder, source, tokenizer, given, limit, progress, workers)
        folder.rename(path)
        return
    with locked(parts.with_suffix(".lock")):
        build_by_file(
            folder,
            parts=parts,
            source=source,
            files=files,
            tokenizer=tokenizer,
            given=given,
            limit=limit,
            progress=progress,
            makers=makers or local_makers(workers),
        )
        folder.rename(path)
        shutil.rmtree(parts, ignore_errors=True)


def _enough(files: Sequence[InputFile], workers: int) -> bool:
    """Whether there are so many files that reading each on its own keeps all workers busy."""
    sizes = [sum(file.n_bytes for file in bundle) for bundle in bundles(files)]
    if len(sizes) < 2:
        return False
    if files[0].piece is not None:  # Sizes are not known.
        return len(sizes) >= workers
    return sum(sizes) >= max(BY_FILE_BYTES, max(sizes) * workers)


def _content(given: Tokenizer | None) -> str | None:
    return hashlib.sha256(given.to_json().encode()).hexdigest() if given else None


def _build(
    folder: Path,
    source: Source,
    spec: TokenizerSpec,
    given: Tokenizer | None,
    limit: int | None,
    progress: Progress,
    workers: int | None,
) -> None:
    identity = fingerprint(
        {
            "building": BUILDING,
            "signature": source.signature,
            "tokenizer": tokenizer_identity(spec, sha256=_content(given)),
            "limit": limit,
            "versions": versions(),
            # A document of which a part is encoded has to be cut at the same places again.
            "layout": constants(),
        }
    )
    with ExitStack() as stack:
        build = _Build(folder, identity, dtype=np.dtype("<u2" if spec.vocab_size <= 1 << 16 else "<u4"))
        stack.callback(build.close)
        documents = islice(documents_to_lay_out(source), limit)
        if not build.laid_out and not build.layout.skip(documents):
            build.start_over()
            documents = islice(documents_to_lay_out(source), limit)
        if spec.kind == "bpe" and given is None:
            for _ in build.reading(documents, progress):
                pass
        kept = folder / TOKENIZER
        tokenizer = given or trained_tokenizer(spec, folders=[folder], kept=kept, progress=progress)
        write_atomic(kept, tokenizer.to_json().encode())
        cutter = Cutter(text=folder / TEXT, records=folder / RECORDS, tokenizer=tokenizer)
        stack.callback(cutter.close)
        tasks = build.tasks(cutter, documents, progress)
        results = stack.enter_context(_encoded(build, tasks, tokenizer, workers))
        for task, stretch in results:
            build.write(task, stretch)
            if build.laid_out:
                progress("tokenizing", task.stop / build.layout.n_bytes)
            build.commit_now_and_then()
        build.finish(source, spec)


class _Build:
    """The folder of a build under way: its files, and how far they are committed."""

    def __init__(self, folder: Path, identity: str, *, dtype: "np.dtype[Any]") -> None:
        self.folder, self._identity, self.dtype = folder, identity, dtype
        self.files: dict[str, GrowingFile] = {}
        if not self._go_on():
            self.start_over()

    def start_over(self) -> None:
        """An empty folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.files = {name: GrowingFile(self.folder / name) for name in GROWING}
        self._begin({"laid_out": False} | BEGINNING)

    def _go_on(self) -> bool:
        """Goes back to what was committed; False where nothing of the same build was, or it is damaged."""
        try:
            state = json.loads((self.folder / STATE).read_bytes())
            if state["identity"] != self._identity:
                return False
            for name, entry in state["files"].items():
                file = GrowingFile.reopen(self.folder / name, committed=Committed(*entry))
                if file is None:
                    return False
                self.files[name] = file
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self._begin(state)
        return True

    def _begin(self, state: dict[str, Any]) -> None:
        self.laid_out: bool = state["laid_out"]
        self._tokens = TokenFiles(self.files, dtype=self.dtype, state=state)
        self.layout = Layout(text=self.files[TEXT], records=self.files[RECORDS], strings=self.files[STRINGS])
        self._committed = time.monotonic()

    def reading(self, documents: Iterator[Document | LongDocument], progress: Progress) -> Iterator[None]:
        """Lays out what is left of the documents, and halts now and then."""
        progress("reading", 0.0)
        if not self.laid_out:
            for _ in self.layout.take(documents):
                progress("reading", 0.0)
                self.commit_now_and_then()
                yield
            self.laid_out = True
            self.commit()
        progress("reading", 1.0)

    def tasks(
        self, cutter: Cutter, documents: Iterator[Document | LongDocument], progress: Progress
    ) -> Iterator[Task]:
        """What is still to be encoded, while it is being laid out."""
        cutter.go_to(document=self._tokens.n_documents, at=self._tokens.encoded)
        yield from cutter.tasks(until=self.layout.n_documents)
        for _ in () if self.laid_out else self.reading(documents, progress):
            yield from cutter.tasks(until=self.layout.n_documents)

    def write(self, task: Task, stretch: Stretch) -> None:
        """Appends what a task came to; tasks come in order."""
        self._tokens.append(task, stretch)

    def commit_now_and_then(self) -> None:
        """Commits if the last time was long ago."""
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """What is written counts from here on, also after a kill or a power cut."""
        state = {
            "identity": self._identity,
            "files": {name: file.commit() for name, file in self.files.items()},
            "laid_out": self.laid_out,
        } | self._tokens.state
        write_atomic(self.folder / STATE, json.dumps(state).encode())
        self._committed = time.monotonic()

    def finish(self, source: Source, tokenizer: TokenizerSpec) -> None:
        """Writes the manifest; what only the build needed goes."""
        self.commit()
        facts = {
            "dtype": self.dtype.str,
            "n_bytes": self.layout.n_bytes,
            "n_tokens": self._tokens.n_tokens,
            "lossless": self._tokens.lossless,
            "unknown_tokens": self._tokens.unknown,
        }
        write_manifest(self.folder, source=source, tokenizer=tokenizer, facts=facts, files={})
        for name in (TEXT, STATE):
            (self.folder / name).unlink()
        sync_folder(self.folder)

    def close(self) -> None:
        """Nothing more will be written."""
        for file in self.files.values():
            file.close()


@contextmanager
def _encoded(
    build: _Build, tasks: Iterator[Task], tokenizer: Tokenizer, workers: int | None
) -> Iterator[Iterator[tuple[Task, Stretch]]]:
    """The tasks with what became of them, in order: here while they are few, else in worker processes."""
    first, size = [], 0
    for task in tasks:
        first.append(task)
        size += task.stop - task.start
        if size > IN_PROCESS_BYTES:
            break
    n = workers or cores()
    paths = {"text": build.files[TEXT].path, "records": build.files[RECORDS].path}
    if n > 1 and size > IN_PROCESS_BYTES:
        told = {name: str(path) for name, path in paths.items()} | {"dtype": build.dtype.str}
        try:
            told |= {"tokenizer": str(build.folder / TOKENIZER)}
            pool: Workers[Task, Stretch] = Workers(n, told=told, program=PROGRAM, decode=unpack)
        except OSError as error:
            log.warning("no worker can be started (%s); one process encodes", error)
        else:
            try:
                yield pool.encode(chain(first, tasks))
            finally:
                pool.close()
            return
    encoder = Encoder(**paths, tokenizer=tokenizer, dtype=build.dtype.str)
    try:
        yield ((task, encoder.encode(task)) for task in chain(first, tasks))
    finally:
        encoder.close()


def _mention_left_over(path: Path, parts: Path) -> None:
    """Says what builds of other corpora that were stopped have left beside this one."""
    for folder in sorted([*path.parent.glob(".*.building"), *path.parent.glob(f".*{PARTS}")]):
        name = folder.name.removeprefix(".").removesuffix(".building").removesuffix(PARTS)
        lock = path.parent / f".{name}.lock"
        if path.name == name or parts.name == folder.name or not lock.exists():
            continue
        with lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # It is being built.
        size = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
        log.warning(
            "%s is left by a build that was stopped (%.0f MB); build that corpus again to go on with it, or "
            "delete the folder",
            folder,
            size / 1e6,
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits for the lock file; it stays, since removing it would let a third process lock another one."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _silent(stage: str, share: float) -> None:
    """No one is told."""
