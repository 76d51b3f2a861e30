"""JSON lines, plain, .gz or .zst, as rows."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repetita.corpus.source import READ_BYTES, Row, decode_utf8, unreadable
from repetita.errors import CorpusError

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")


def json_rows(path: Path) -> Iterator[Row]:
    """One row a line, blank lines left out.

    Raises CorpusError for a line that is no JSON object or not UTF-8, and for a file that is cut short.
    """
    offset = 0
    for number, line in enumerate(_lines(path), start=1):
        text = decode_utf8(line, name=str(path), start=offset)
        offset += len(line)
        if text.strip():
            yield Row(_fields(text, where=f"{path}, line {number}"), number, f"{path}, line {number}")


def _fields(line: str, *, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: not JSON ({error}); write one object a line") from None
    if not isinstance(value, dict):
        raise CorpusError(
            f"{where}: no text, for it is a {type(value).__name__} and no object; write one object a line"
        )
    return value


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a file, decompressed by its suffix; CorpusError if it is cut short or damaged."""
    rest = b""
    for chunk in _chunks(path):
        *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        if path.suffix == ".zst":
            yield from _zst_chunks(path)
            return
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while chunk := file.read(READ_BYTES):
                yield chunk
    except EOFError:
        raise CorpusError(f"{path} ends amid its compressed data; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{path} is not a sound gzip file ({error}); copy or download it again") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _zst_chunks(path: Path) -> Iterator[bytes]:
    """Decompressed chunks of every frame; the library's own reader is silent about a cut last frame."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    frame = None
    try:
        with path.open("rb") as file:
            while data := file.read(READ_BYTES):
                while data:
                    frame = frame or decompressor.decompressobj()
                    yield frame.decompress(data)
                    data = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise CorpusError(f"{path} is not a sound zstd file ({error}); copy or download it again") from None
    if frame is not None:
        raise EOFError
