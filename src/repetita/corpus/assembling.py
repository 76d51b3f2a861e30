"""Parts put together to the corpus that one build in one process makes, byte for byte, in a stream."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repetita.corpus.catalogue import RECORD, RECORDS, STRINGS, open_catalogue
from repetita.corpus.growing import READ_BYTES, Committed, GrowingFile
from repetita.corpus.hub import NUMBERED
from repetita.corpus.parts import MANIFEST, sealed
from repetita.corpus.token_files import LENGTHS, PARAGRAPHS, SENTENCES, TOKENS
from repetita.errors import CorpusError


class Pair(NamedTuple):
    """Where a part's documents are, and where its tokens."""

    read: Path
    encoded: Path


def assemble(pairs: Sequence[Pair], *, folder: Path, dtype: str, numbered: bool) -> dict[str, Committed]:
    """Writes the files of a corpus from its parts, in their order; what was written.

    `numbered`: documents without a name of their own are called by the number of their row in all parts.
    Raises CorpusError for a part that is damaged, which is removed: the next build makes it again.
    """
    done = {}
    for name in (LENGTHS, TOKENS):
        done[name] = _joined(folder / name, (_checked(pair.encoded, name) for pair in pairs))
    for name in (SENTENCES, PARAGRAPHS):
        done[name] = _joined(folder / name, _moved(pairs, name, dtype=np.dtype(dtype).itemsize))
    if numbered:
        return done | _named(pairs, folder)
    for name in (RECORDS, STRINGS):
        done[name] = _joined(folder / name, (_checked(pair.read, name) for pair in pairs))
    return done


def _joined(path: Path, parts: Iterator[Iterator[bytes]]) -> Committed:
    file = GrowingFile(path)
    try:
        for part in parts:
            for data in part:
                file.write(data)
        return file.commit()
    finally:
        file.close()


def _checked(folder: Path, name: str) -> Iterator[bytes]:
    """A file of a part, read to its end and compared with its hash."""
    told = sealed(folder)
    size, digest = told[1].get(name, (0, "")) if told else (0, "")
    sha256 = hashlib.sha256()
    # Whoever reads numbers out of it relies on the size.
    with suppress(FileNotFoundError):
        if (folder / name).stat().st_size == size:
            with (folder / name).open("rb") as file:
                while data := file.read(READ_BYTES):
                    sha256.update(data)
                    yield data
    if sha256.hexdigest() != digest:
        (folder / MANIFEST).unlink(missing_ok=True)
        raise CorpusError(
            f"{folder / name}, a part of an unfinished build, was damaged since it was made; build again to "
            f"make that part anew"
        )


def _moved(pairs: Sequence[Pair], name: str, *, dtype: int) -> Iterator[Iterator[bytes]]:
    """The ends of each part, counted from the first token of all."""
    position = 0
    for pair in pairs:
        yield _added(_checked(pair.encoded, name), position)
        position += (pair.encoded / TOKENS).stat().st_size // dtype


def _added(chunks: Iterator[bytes], position: int) -> Iterator[bytes]:
    for data in chunks:  # READ_BYTES is a multiple of a number's eight bytes.
        yield (np.frombuffer(data, "<i8") + position).tobytes()


def _named(pairs: Sequence[Pair], folder: Path) -> dict[str, Committed]:
    """Records and strings with the names as they are in the whole."""
    files = {name: GrowingFile(folder / name) for name in (RECORDS, STRINGS)}
    before = 0
    try:
        for pair in pairs:
            told = sealed(pair.read)
            for name in files:
                for _ in _checked(pair.read, name):
                    pass
            assert told is not None
            _rename(pair.read, files, before=before)
            before += told[0].n_rows
        return {name: file.commit() for name, file in files.items()}
    finally:
        for file in files.values():
            file.close()


def _rename(part: Path, files: dict[str, GrowingFile], *, before: int) -> None:
    catalogue = open_catalogue(part)
    records = np.fromfile(part / RECORDS, RECORD)
    columns = zip(catalogue.names, catalogue.sources, catalogue.dates, strict=True)
    for record, (name, source, date) in zip(records, columns, strict=True):
        assert name is not None
        own = str(before + int(name[1:])) if name.startswith(NUMBERED) else name[1:]
        data = own.encode()
        record["name"] = len(data)
        files[RECORDS].write(record.tobytes())
        files[STRINGS].write(data + (source or "").encode() + (date or "").encode())
