"""A corpus built file by file, by any number of processes or machines; what is done is kept until the end."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from repetita.corpus.assembling import Pair, assemble
from repetita.corpus.finishing import check_not_empty, versions, write_manifest
from repetita.corpus.input_files import bundles
from repetita.corpus.parts import PROGRAM, UNFINISHED, Job, Part, clear_unfinished, make
from repetita.corpus.source import InputFile, Source
from repetita.corpus.tokenizer import Tokenizer, TokenizerSpec, train_tokenizer
from repetita.corpus.training_sample import TRAINING_BYTES, trained_tokenizer
from repetita.corpus.workers import Workers
from repetita.errors import RepetitaError
from repetita.journal.disk import write_atomic
from repetita.spec import fingerprint

log = logging.getLogger(__name__)

TOKENIZER = "tokenizer.json"

Make = Callable[[Sequence[str]], Iterator[tuple[int, str]]]
"""Has jobs done (see `parts.make`), in any order: the number of each with its answer, as they come."""
Makers = Callable[[Path], AbstractContextManager[Make]]
"""Who makes parts in a folder; opened when there is something to make, closed when all is or on an error."""


class Share(float):
    """The share of a stage that is done, and the same `words` that say of how much."""

    words: str = ""

    @classmethod
    def of(cls, share: float, words: str) -> "Share":
        """The share, with its words."""
        made = cls(share)
        made.words = words
        return made


def local_makers(n: int, /) -> Makers:
    """Processes of this machine; this one alone where `n` is 1 or none can be started."""

    @contextmanager
    def opened(_: Path) -> Iterator[Make]:
        pool = None
        if n > 1:
            try:
                pool = Workers[tuple[str], str](n, told={}, program=PROGRAM, decode=bytes.decode)
            except OSError as error:
                log.warning("no worker can be started (%s); one process makes all parts", error)
        if pool is None:
            yield lambda jobs: enumerate(map(make, jobs))
            return
        try:
            yield lambda jobs: pool.as_done([(job,) for job in jobs])
        finally:
            pool.close()

    return opened


def build_by_file(
    folder: Path,
    *,
    parts: Path,
    source: Source,
    files: Sequence[InputFile],
    tokenizer: TokenizerSpec,
    given: Tokenizer | None,
    limit: int | None,
    progress: Callable[[str, float], None],
    makers: Makers,
) -> None:
    """Builds a corpus in `folder` out of parts, one a file or bundle of small ones, kept in `parts`.

    A part is named by the content of its files and by the rules that it was made by, so that another build
    with the same folder of parts makes only those that are missing, damaged or of a file that changed. Of
    parts in whatever order the corpus is that of one process. Raises the error of the first file that cannot
    be read; the parts of others stay.
    """
    parts.mkdir(exist_ok=True)
    clear_unfinished(parts)
    dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
    try:
        with makers(parts) as make_parts:
            builder = _Builder(parts, bundles(files), dtype, progress, make_parts)
            if tokenizer.kind == "bytes":
                given = train_tokenizer(tokenizer, texts=[])
            read = builder.read(limit) if given is None or limit is not None else None
            given = given or _trained(tokenizer, parts, read or [], progress)
            encoded = builder.encode(given, read)
        check_not_empty(source, sum(part.n_documents for part in encoded))
    except RepetitaError:
        if not any(path.is_dir() and not path.name.startswith(UNFINISHED) for path in parts.iterdir()):
            shutil.rmtree(parts, ignore_errors=True)
        raise
    finally:
        if parts.exists():
            clear_unfinished(parts)
    progress("putting the parts together", 0.0)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = [(one.name, two.name) for one, two in zip(read or encoded, encoded, strict=True)]
    done = assemble(
        [Pair(parts / one, parts / two) for one, two in names],
        folder=folder,
        dtype=dtype,
        numbered=any(file.piece is not None for file in files),
    )
    write_atomic(folder / TOKENIZER, given.to_json().encode())
    facts: dict[str, Any] = {
        "dtype": np.dtype(dtype).str,
        "n_bytes": sum(part.n_bytes for part in encoded),
        "n_tokens": sum(part.n_tokens for part in encoded),
        "lossless": all(part.lossless for part in encoded),
        "unknown_tokens": sum(part.unknown for part in encoded),
    }
    write_manifest(folder, source=source, tokenizer=tokenizer, facts=facts, files=done)


def _trained(
    spec: TokenizerSpec, parts: Path, read: Sequence[Part], progress: Callable[[str, float], None]
) -> Tokenizer:
    named = fingerprint([spec.vocab_size, TRAINING_BYTES, versions(), [part.name for part in read]])
    folders = [parts / part.name for part in read]
    kept = parts / f"trained-{named[:32]}.json"
    return trained_tokenizer(spec, folders=folders, kept=kept, progress=progress)


class _Builder:
    """Makes the parts of a corpus, stage by stage."""

    def __init__(
        self,
        parts: Path,
        files: Sequence[tuple[InputFile, ...]],
        dtype: str,
        progress: Callable[[str, float], None],
        make_parts: Make,
    ) -> None:
        self._parts, self._files, self._dtype = parts, files, dtype
        self._progress, self._make = progress, make_parts

    def read(self, limit: int | None) -> list[Part]:
        """Parts that hold text; with a limit file after file, until there are enough documents."""
        jobs = [Job(str(self._parts), files) for files in self._files]
        if limit is None:
            return self._all("reading", jobs)
        read: list[Part] = []
        self._progress("reading", 0.0)
        for job in jobs:
            left = limit - sum(part.n_documents for part in read)
            if not left:
                break
            ((_, answer),) = self._make([job._replace(take=left).as_json()])
            read.append(Part.from_json(answer).check())
        self._progress("reading", 1.0)
        return read

    def encode(self, tokenizer: Tokenizer, read: Sequence[Part] | None) -> list[Part]:
        """Parts that hold tokens, and where nothing was read before also what is known of documents."""
        content = tokenizer.to_json().encode()
        path = self._parts / f"tokenizer-{fingerprint(content.decode())[:32]}.json"
        write_atomic(path, content)
        job = Job(str(self._parts), tokenizer=str(path), dtype=self._dtype)
        if read is None:
            return self._all("tokenizing", [job._replace(files=files) for files in self._files])
        return self._all("tokenizing", [job._replace(text=part.name) for part in read])

    def _all(self, stage: str, jobs: Sequence[Job]) -> list[Part]:
        """The part of each job, those that take longest first."""
        sizes = [max(1, sum(file.n_bytes for file in files)) for files in self._files][: len(jobs)]
        counted = _Counted(stage, self._files, sizes, self._progress)
        order = sorted(range(len(jobs)), key=lambda number: (-sizes[number], number))
        made: dict[int, Part] = {}
        for place, answer in self._make([jobs[number].as_json() for number in order]):
            number = order[place]
            made[number] = Part.from_json(answer).check()
            counted.done(number, made[number])
        return [made[number] for number in range(len(jobs))]


class _Counted:
    """Tells of the files of a stage that are done, their tokens and the time that is left."""

    def __init__(
        self,
        stage: str,
        files: Sequence[tuple[InputFile, ...]],
        sizes: Sequence[int],
        progress: Callable[[str, float], None],
    ) -> None:
        self._stage, self._sizes, self._progress = stage, sizes, progress
        self._of = [len(bundle) for bundle in files[: len(sizes)]]
        self._all_files, self._all_bytes = sum(self._of), sum(sizes)
        self._began = time.monotonic()
        self._n_files = self._n_tokens = self._bytes = self._made = 0
        progress(stage, 0.0)

    def done(self, number: int, part: Part) -> None:
        """A part is there."""
        self._n_files += self._of[number]
        self._n_tokens += part.n_tokens
        self._bytes += self._sizes[number]
        if not part.again:
            self._made += self._sizes[number]
        words = f"{self._n_files:,} of {self._all_files:,} files"
        if self._n_tokens:
            words += f", {self._n_tokens:,} tokens"
        left = self._all_bytes - self._bytes
        if self._made and left:
            seconds = (time.monotonic() - self._began) * left / self._made
            words += f", {_duration(seconds)} left"
        self._progress(self._stage, Share.of(self._bytes / self._all_bytes, words))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
