"""What is known of each document: records of one size, and strings that are read where they are needed."""

import json
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

RECORDS, STRINGS = "documents.bin", "documents.txt"
"""The files: a record a document, and the names, strata and dates one after the other."""

RECORD = np.dtype(
    [("bytes", "<i8"), ("sha256", "u1", (32,)), ("name", "<i4"), ("source", "<i4"), ("date", "<i4")]
)
"""Bytes of the text, its hash, and the bytes of each string; a date of -1 bytes is none."""
AT_ONCE = 1 << 14
"""Documents whose strings are read together."""
STRINGS_OF = ("name", "source", "date")

WIDE = 64
"""Strings of up to so many bytes are sorted in one array; an array of wider ones could be large."""


class Entry(NamedTuple):
    """A document as it is written down."""

    n_bytes: int
    sha256: bytes
    name: str
    source: str
    date: str | None

    def packed(self) -> tuple[bytes, bytes]:
        """Its record and its strings."""
        name, source, date = (
            value.encode(errors="replace") for value in (self.name, self.source, self.date or "")
        )
        sizes = len(name), len(source), -1 if self.date is None else len(date)
        return struct.pack("<q32s3i", self.n_bytes, self.sha256, *sizes), name + source + date


class Column:
    """One string of every document, by its place."""

    def __init__(self, blob: NDArray[np.uint8], *, starts: Ints, lengths: NDArray[np.int32]) -> None:
        self._blob, self._starts, self._lengths = blob, starts, lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, document: int) -> str | None:
        length = int(self._lengths[document])
        start = int(self._starts[document])
        return None if length < 0 else bytes(self._blob[start : start + length]).decode()

    def __iter__(self) -> Iterator[str | None]:
        for at in range(0, len(self), AT_ONCE):
            starts = self._starts[at : at + AT_ONCE].tolist()
            lengths = self._lengths[at : at + AT_ONCE].tolist()
            first, stop = starts[0], starts[-1] + max(lengths[-1], 0)
            data = self._blob[first:stop].tobytes()
            for start, length in zip(starts, lengths, strict=True):
                yield None if length < 0 else data[start - first : start - first + length].decode()

    def ranks(self) -> Ints:
        """Numbers that sort as the strings do, shape (n,); none and the empty string are one."""
        longest = int(self._lengths.max(initial=0))
        if longest <= 0:
            return np.zeros(len(self), dtype=np.int64)
        if longest > WIDE:
            return ranks([value or "" for value in self])
        # UTF-8 sorts as its characters do. A string that ends in zeros would be equal to one without.
        padded = np.zeros((len(self), longest), dtype=np.uint8)
        for place in range(longest):
            long = np.flatnonzero(self._lengths > place)
            padded[long, place] = self._blob[self._starts[long] + place]
            if not padded[long, place].all():
                return ranks([value or "" for value in self])
        return np.unique(padded.view(f"S{longest}").ravel(), return_inverse=True)[1].astype(np.int64)


class Catalogue:
    """The documents of a corpus in their order."""

    def __init__(self, records: NDArray[Any], strings: NDArray[np.uint8]) -> None:
        self._records, self._strings = records, strings

    def __len__(self) -> int:
        return len(self._records)

    @cached_property
    def n_bytes(self) -> Ints:
        """Bytes of each document's text."""
        return self._records["bytes"].astype(np.int64)

    @property
    def names(self) -> Column:
        """Each document's name."""
        return self._column("name")

    @property
    def sources(self) -> Column:
        """The stratum of each document."""
        return self._column("source")

    @property
    def dates(self) -> Column:
        """Each document's date; it may have none."""
        return self._column("date")

    def hashes(self) -> Iterator[str]:
        """SHA-256 of each document's text."""
        return (record.tobytes().hex() for record in self._records["sha256"])

    def copies(self) -> Ints:
        """A number for each document that is equal for equal texts, shape (n,)."""
        words = np.ascontiguousarray(self._records["sha256"]).view("<i8")
        _, first, number = np.unique(words[:, 0], return_index=True, return_inverse=True)
        if (words[first[number]] != words).any():  # The first 64 bits of two hashes are equal by chance.
            number = np.unique(words, axis=0, return_inverse=True)[1]
        return number.astype(np.int64)

    def _column(self, name: str) -> Column:
        starts = self._starts.copy()
        for before in STRINGS_OF:
            if before == name:
                break
            starts += np.maximum(self._records[before], 0)
        return Column(self._strings, starts=starts, lengths=self._records[name].astype(np.int32))

    @cached_property
    def _starts(self) -> Ints:
        sizes = sum(
            np.maximum(self._records[name], 0).astype(np.int64) for name in ("name", "source", "date")
        )
        return np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)


def ranks(values: Sequence[str]) -> Ints:
    """Numbers that sort as the strings do, shape (n,)."""
    number = {value: i for i, value in enumerate(sorted(set(values)))}
    return np.fromiter(map(number.__getitem__, values), dtype=np.int64, count=len(values))


def open_catalogue(folder: Path) -> Catalogue:
    """The documents of a built corpus; the files stay on disk until something is read."""
    return Catalogue(mapped(folder / RECORDS, RECORD), mapped(folder / STRINGS, np.dtype(np.uint8)))


def catalogue_of_lists(text: bytes) -> Catalogue:
    """From the documents.json of schema 1."""
    lists: dict[str, list[Any]] = json.loads(text)
    columns = (lists[name] for name in ("bytes", "text_hashes", "names", "sources", "dates"))
    packed = [
        Entry(n, bytes.fromhex(sha256), *strings).packed()
        for n, sha256, *strings in zip(*columns, strict=True)
    ]
    records, strings = (b"".join(parts) for parts in zip(*packed, strict=True))
    return Catalogue(np.frombuffer(records, RECORD), np.frombuffer(strings, np.uint8))


def mapped(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The numbers of a file, read from disk as they are needed."""
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)
