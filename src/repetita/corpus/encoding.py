"""Stretches of laid-out text to token ids and the ends of sentences, here or in worker processes."""

import json
import os
import re
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.catalogue import RECORD
from repetita.corpus.sentences import byte_offsets, text_ends
from repetita.corpus.tokenizer import Encoded, Tokenizer, load_tokenizer

Ints = NDArray[np.int64]

CONTEXT_BYTES = 256
"""Text before a part of a document that is read along with it, to see where a sentence ends."""
_CONTINUES = re.compile(rb"[\x80-\xbf]*")


class Task(NamedTuple):
    """A stretch of the laid-out text: whole documents, or a part of a long one."""

    start: int
    stop: int
    """Bytes of the text."""
    first: int
    n_documents: int
    opens: bool = True
    closes: bool = True
    """Whether it begins and ends where a document does."""
    lines: bool | None = None
    """Of a part: whether the document's paragraphs are its lines."""


class Stretch(NamedTuple):
    """What a stretch of text became; positions count from its first token."""

    n_tokens: Ints
    """Of each document, or of the part."""
    tokens: bytes
    """Ids, a separator after each document."""
    sentence_ends: Ints
    paragraph_ends: Ints
    n_unknown: int
    lossless: bool


class Encoder:
    """Encodes stretches of a text that was laid out."""

    def __init__(self, *, text: Path, records: Path, tokenizer: Tokenizer, dtype: str) -> None:
        self._text, self._records = (os.open(path, os.O_RDONLY) for path in (text, records))
        self._tokenizer, self._dtype = tokenizer, np.dtype(dtype)

    def close(self) -> None:
        """Nothing more will be encoded."""
        os.close(self._text)
        os.close(self._records)

    def encode(self, task: Task, /) -> Stretch:
        """Reads, encodes and finds the ends: a pure function of text and task."""
        data = pread(self._text, task.start, task.stop)
        sizes = self._sizes(task)
        at, texts = 0, []
        for size in sizes:
            texts.append(data[at : at + size].decode())
            at += size
        before = "" if task.opens else self._before(task.start)
        encoded = self._tokenizer.encode_all(texts)
        tokens: list[NDArray[np.int32]] = []
        sentences: list[Ints] = []
        paragraphs: list[Ints] = []
        counts, position = [], 0
        for text, one in zip(texts, encoded, strict=True):
            starts = self._starts(one)
            for found, into in zip(
                text_ends(before + text, lines=task.lines), (sentences, paragraphs), strict=True
            ):
                ends = found - len(before)
                # An end between two parts is seen from the second, which knows what comes before it.
                ends = ends[(ends >= 0) & ((ends < len(text)) | task.closes)]
                ends = ends if one.starts is not None else byte_offsets(text, offsets=ends)
                # A token that crosses the end belongs to what ends there.
                into.append(np.unique(np.searchsorted(starts, ends)) + position)
            tokens.append(one.ids)
            counts.append(len(one.ids))
            if task.closes:
                tokens.append(_SEPARATOR)
            position += len(one.ids) + task.closes
        unknown = self._tokenizer.unknown
        return Stretch(
            np.array(counts, dtype=np.int64),
            np.concatenate(tokens).astype(self._dtype).tobytes(),
            np.concatenate(sentences).astype("<i8"),
            np.concatenate(paragraphs).astype("<i8"),
            0 if unknown is None else sum(int((one.ids == unknown).sum()) for one in encoded),
            all(one.starts is None for one in encoded),
        )

    def _sizes(self, task: Task) -> Sequence[int]:
        if not (task.opens and task.closes):
            return [task.stop - task.start]
        size = RECORD.itemsize
        data = pread(self._records, task.first * size, (task.first + task.n_documents) * size)
        sizes: list[int] = np.frombuffer(data, RECORD)["bytes"].tolist()
        return sizes

    def _before(self, start: int) -> str:
        data = pread(self._text, max(0, start - CONTEXT_BYTES), start)
        return data[_CONTINUES.match(data).end() :].decode()  # type: ignore[union-attr]

    def _starts(self, one: Encoded) -> Ints:
        """Where the tokens of a text begin: bytes of it, or characters where bytes say nothing."""
        if one.starts is not None:
            return one.starts
        sizes = self._tokenizer.token_bytes[one.ids]
        return np.asarray(np.cumsum(sizes) - sizes)


_SEPARATOR = np.zeros(1, dtype=np.int32)


def pread(descriptor: int, start: int, stop: int) -> bytes:
    """These bytes of a file; fewer only where it ends."""
    parts = []
    while start < stop and (data := os.pread(descriptor, stop - start, start)):
        parts.append(data)
        start += len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


_HEADER = struct.Struct("<5q?")
_LENGTH = struct.Struct("<q")


def send(pipe: IO[bytes], data: bytes) -> None:
    """One message, its length first."""
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None when the other side is gone."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    return data if len(data) == length else None


def pack(stretch: Stretch) -> bytes:
    """As a message, of raw numbers: several times quicker than pickling them."""
    arrays = (stretch.n_tokens, stretch.sentence_ends, stretch.paragraph_ends)
    sizes = (*(len(array) for array in arrays), len(stretch.tokens), stretch.n_unknown)
    head = _HEADER.pack(*sizes, stretch.lossless)
    return b"".join([head, *(array.astype("<i8").tobytes() for array in arrays), stretch.tokens])


def unpack(data: bytes) -> Stretch:
    """The stretch that `pack` made a message of."""
    n_counts, n_sentences, n_paragraphs, n_bytes, n_unknown, lossless = _HEADER.unpack_from(data)
    numbers = np.frombuffer(data, "<i8", n_counts + n_sentences + n_paragraphs, _HEADER.size)
    counts, sentences, paragraphs = np.split(numbers, [n_counts, n_counts + n_sentences])
    return Stretch(counts, data[len(data) - n_bytes :], sentences, paragraphs, n_unknown, lossless)


PROGRAM = "from repetita.corpus.encoding import serve; serve()"
"""What a process runs that encodes."""


def serve() -> None:
    """A worker process that encodes; see `answer`."""
    answer(_encoding)


def answer(begin: Callable[[dict[str, Any]], Callable[[list[Any]], bytes]], /) -> None:
    """A worker process: tasks come in, answers go out, until the other side closes or is gone.

    `begin` makes of what the process is told at first what answers a task.
    """
    # Whatever a library prints must not come between the messages.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    start = receive(sys.stdin.buffer)
    if start is None:
        return
    reply = begin(json.loads(start))
    while (message := receive(sys.stdin.buffer)) is not None:
        send(out, reply(json.loads(message)))


def _encoding(told: dict[str, Any]) -> Callable[[list[Any]], bytes]:
    tokenizer = load_tokenizer(Path(told["tokenizer"]).read_text(encoding="utf-8"))
    encoder = Encoder(
        text=Path(told["text"]), records=Path(told["records"]), tokenizer=tokenizer, dtype=told["dtype"]
    )
    return lambda task: pack(encoder.encode(Task(*task)))
