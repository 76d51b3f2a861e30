"""The documents' text laid out in one file, and cut into stretches that can be encoded on their own."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from repetita.corpus.catalogue import RECORD, Entry
from repetita.corpus.encoding import Task, pread
from repetita.corpus.growing import GrowingFile
from repetita.corpus.source import Document, LongDocument
from repetita.corpus.tokenizer import Tokenizer

STRETCH_BYTES = 1 << 20
"""A task for a worker is about so much text: a quarter of a second, and some 40 MB while it is encoded."""
LONG_BYTES = 2 << 20
"""Documents beyond this are encoded in parts."""
NEIGHBOURS = 256
"""Characters on either side of a cut that are encoded to see whether it changes anything."""
WINDOW_BYTES = 1 << 16
"""Text that is searched at a time for a place to cut."""
TRIALS = 64
"""Cuts that are tried in a row before a document is encoded in one piece."""

_RECORDS_AT_ONCE = 1 << 14
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
_CUT = re.compile(r"(?<=\S)[ \n]")
_CONTINUES = re.compile(rb"[\x80-\xbf]*")


def constants() -> list[int]:
    """What decides where long documents are cut: a build that goes on must have what it began with."""
    return [STRETCH_BYTES, LONG_BYTES, NEIGHBOURS, WINDOW_BYTES, TRIALS]


class Layout:
    """Documents as they are laid out: their text, a record of each, their strings."""

    def __init__(self, *, text: GrowingFile, records: GrowingFile, strings: GrowingFile) -> None:
        self._text, self._records, self._strings = text, records, strings

    @property
    def n_documents(self) -> int:
        """Documents laid out so far."""
        return self._records.bytes // RECORD.itemsize

    @property
    def n_bytes(self) -> int:
        """Bytes of text laid out so far."""
        return self._text.bytes

    def skip(self, documents: Iterator[Document | LongDocument]) -> bool:
        """Passes over those that are laid out already; False when the last of them is another one now."""
        n = self.n_documents
        if n == 0:
            return True
        last = next(islice(documents, n - 1, None), None)
        descriptor = os.open(self._records.path, os.O_RDONLY)
        try:
            record = pread(descriptor, (n - 1) * RECORD.itemsize, n * RECORD.itemsize)
        finally:
            os.close(descriptor)
        return last is not None and _entry(last, _parts(last)).packed()[0] == record

    def take(self, documents: Iterable[Document | LongDocument]) -> Iterator[None]:
        """Lays documents out; halts after every so much text, when all files can be read by others."""
        halt = self.n_bytes + STRETCH_BYTES
        for document in documents:
            record, strings = _entry(document, self._written(document)).packed()
            self._records.write(record)
            self._strings.write(strings)
            if self.n_bytes >= halt:
                self.flush()
                yield
                halt = self.n_bytes + STRETCH_BYTES
        self.flush()
        yield

    def _written(self, document: Document | LongDocument) -> Iterator[bytes]:
        for part in _parts(document):
            self._text.write(part)
            yield part

    def flush(self) -> None:
        """Lets others read what is laid out."""
        for file in (self._text, self._records, self._strings):
            file.flush()


def _entry(document: Document | LongDocument, parts: Iterable[bytes]) -> Entry:
    sha256, size = hashlib.sha256(), 0
    for part in parts:
        sha256.update(part)
        size += len(part)
    return Entry(size, sha256.digest(), document.name, document.source, document.date)


def _parts(document: Document | LongDocument) -> Iterator[bytes]:
    """The text in UTF-8, so that a long one is never there as a whole."""
    if isinstance(document, LongDocument):
        return (part.encode() for part in document.parts())
    text = document.text
    return (text[at : at + STRETCH_BYTES].encode() for at in range(0, len(text), STRETCH_BYTES))


class Cutter:
    """Cuts what is laid out into tasks, from one place on."""

    def __init__(self, *, text: Path, records: Path, tokenizer: Tokenizer) -> None:
        self._text, self._records = (os.open(path, os.O_RDONLY) for path in (text, records))
        self._tokenizer = tokenizer
        self._document = self._first = self._start = self._at = 0

    def close(self) -> None:
        """Nothing more will be cut."""
        os.close(self._text)
        os.close(self._records)

    def go_to(self, *, document: int, at: int) -> None:
        """The next task begins at this byte of the text, in this document."""
        self._document, self._first, self._at = document, document, at
        self._start = sum(size for sizes in self._sizes(0, document) for size in sizes)

    def tasks(self, *, until: int) -> Iterator[Task]:
        """The tasks of the documents that are laid out and before this one."""
        for sizes in self._sizes(self._document, until):
            for size in sizes:
                if size > LONG_BYTES:
                    yield from self._gathered(self._document)
                    yield from self._in_parts(size)
                    self._at = self._start + size
                self._document += 1
                self._start += size
                if size > LONG_BYTES:
                    self._first = self._document
                if self._start - self._at >= STRETCH_BYTES:
                    yield from self._gathered(self._document)
        yield from self._gathered(self._document)

    def _gathered(self, document: int) -> Iterator[Task]:
        """One task of the whole documents since the last one."""
        if self._start > self._at:
            yield Task(self._at, self._start, self._first, document - self._first)
            self._at = self._start
        self._first = document

    def _in_parts(self, size: int) -> Iterator[Task]:
        start, stop = self._start, self._start + size
        lines = not self._has_blank_line(start, stop)
        at = self._at
        while at < stop:
            to = self._cut(at + STRETCH_BYTES, stop) if stop - at > LONG_BYTES else stop
            yield Task(at, to, self._document, 1, opens=at == start, closes=to == stop, lines=lines)
            at = to

    def _cut(self, place: int, stop: int) -> int:
        """A place from `place` on where the text can be cut, or `stop`: before a space that follows a word.

        Tokenizers end a word there, but not all of them; whether this one does is tried.
        """
        tried = 0
        while place < stop:
            data = pread(self._text, place - 4 * NEIGHBOURS, min(place + WINDOW_BYTES, stop))
            lead = _CONTINUES.match(data).end()  # type: ignore[union-attr]
            text = data[lead:].decode(errors="ignore")
            for match in _CUT.finditer(text, NEIGHBOURS, len(text) - NEIGHBOURS):
                cut = match.start()
                if self._tokenizer.separable(text[cut - NEIGHBOURS : cut], text[cut : cut + NEIGHBOURS]):
                    return place - 4 * NEIGHBOURS + lead + len(text[:cut].encode())
                tried += 1
                if tried == TRIALS:
                    return stop
            place += WINDOW_BYTES - 8 * NEIGHBOURS
        return stop

    def _has_blank_line(self, start: int, stop: int) -> bool:
        rest = b""
        for at in range(start, stop, STRETCH_BYTES):
            data = rest + pread(self._text, at, min(at + STRETCH_BYTES, stop))
            if _BLANK_LINE.search(data):
                return True
            filled = data.rstrip(b" \t\r")
            rest = data[len(filled) - 1 :] if filled.endswith(b"\n") else b""
        return False

    def _sizes(self, first: int, last: int) -> Iterator[list[int]]:
        """Bytes of these documents, some thousands at a time."""
        for at in range(first, last, _RECORDS_AT_ONCE):
            stop = min(at + _RECORDS_AT_ONCE, last)
            data = pread(self._records, at * RECORD.itemsize, stop * RECORD.itemsize)
            yield np.frombuffer(data, RECORD)["bytes"].tolist()
