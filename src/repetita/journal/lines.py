"""A journal file: appended lines of JSON, each with its own checksum."""

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repetita.errors import DamagedError
from repetita.journal.disk import storage_errors
from repetita.journal.records import SCHEMA

_BUFFER = 1 << 16
FLUSH_SECONDS = 2.0
"""How long a line may wait in the buffer for the next one: a run can be watched while it goes on."""

_CHECK = b',"check":"'
_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def encode(values: dict[str, Any]) -> bytes:
    """The line of `values` (at least one), newline included; ValueError where a number is not finite.

    The last key is `check`, the CRC-32 of what stands before it, so that a flipped bit is found in the
    very line, also in a run that is still going on.
    """
    body = _encoder.encode(values).encode()[:-1]
    return b'%s%s%08x"}\n' % (body, _CHECK, zlib.crc32(body))


def first_line(journal: str) -> bytes:
    """The line every journal starts with: its schema number and which journal it is."""
    return encode({"schema": SCHEMA, "journal": journal})


def parse(line: bytes) -> dict[str, Any] | None:
    """The record of one line without its newline, checksum taken off; None where it is damaged."""
    body, mark, check = line.rpartition(_CHECK)
    if not mark or check != b'%08x"}' % zlib.crc32(body):
        return None
    values: dict[str, Any] = json.loads(body + b"}")
    return values


def check_first(values: dict[str, Any], *, path: Path) -> None:
    """Raises DamagedError where a journal's first line says another schema than this version reads."""
    if values.get("schema") != SCHEMA:
        raise DamagedError(
            f"{path}: line 1 has schema {values.get('schema')}, this version of repetita reads {SCHEMA}; "
            f"update repetita"
        )


def decode(data: bytes, *, path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal's bytes, its first line and the checksums taken off.

    A last line without newline is one that a killed process left half-written, and is passed over.
    Raises DamagedError with `path` and the line for any other line that is not as it was written.
    """
    lines = data.split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        values = parse(line)
        if values is None:
            raise DamagedError(
                f"{path}: line {number} is damaged (its checksum does not match); restore the file, or "
                f"delete the run's folder and run again"
            )
        if number > 1:
            yield values
        else:
            check_first(values, path=path)


class JournalFile:
    """One append-only file with a small buffer and a running hash.

    Its end is wherever the last process left it; call `cut` before `append`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.buffer = bytearray()
        with storage_errors(path):
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.length = 0
        self.hash = hashlib.sha256()
        self.flushed = time.monotonic()

    def cut(self, length: int) -> None:
        """Keeps the first `length` bytes, or starts the file anew when that is 0."""
        self.buffer.clear()
        with storage_errors(self.path):
            os.ftruncate(self.descriptor, length)
        self.hash = hashlib.sha256(self.path.read_bytes())
        self.length = length
        if length == 0:
            self.append(first_line(self.path.stem))

    def append(self, line: bytes) -> None:
        """Adds one or more encoded lines, to the buffer first."""
        self.buffer += line
        if len(self.buffer) > _BUFFER or time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hands the buffer to the operating system."""
        self.flushed = time.monotonic()
        data, self.buffer = bytes(self.buffer), bytearray()
        self.hash.update(data)
        self.length += len(data)
        with storage_errors(self.path):
            while data:
                data = data[os.write(self.descriptor, data) :]

    def commit(self) -> tuple[int, str]:
        """Makes the file durable; its length in bytes and its SHA-256."""
        self.flush()
        with storage_errors(self.path):
            os.fsync(self.descriptor)
        return self.length, self.hash.hexdigest()
