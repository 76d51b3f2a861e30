"""Files read a little at a time, decompressed by their suffix, in any case."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from repetita.corpus.source import READ_BYTES, unreadable
from repetita.errors import CorpusError

_ZST_BYTES = 1 << 10
"""Compressed bytes that are taken at a time: four can stand for a block of 128 KiB."""


def chunks(path: Path) -> Iterator[bytes]:
    """The content of a file, .gz and .zst decompressed, a little at a time.

    Raises CorpusError where it cannot be read, is cut short or damaged.
    """
    try:
        suffix = path.suffix.lower()
        if suffix == ".zst":
            yield from _zst_chunks(path)
            return
        with gzip.open(path, "rb") if suffix == ".gz" else path.open("rb") as file:
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
    ready: list[bytes] = []
    size = 0
    try:
        with path.open("rb") as file:
            while data := file.read(_ZST_BYTES):
                while data:
                    frame = frame or decompressor.decompressobj()
                    ready.append(frame.decompress(data))
                    size += len(ready[-1])
                    data = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
                if size >= READ_BYTES:
                    yield b"".join(ready)
                    ready, size = [], 0
    except zstandard.ZstdError as error:
        raise CorpusError(f"{path} is not a sound zstd file ({error}); copy or download it again") from None
    if frame is not None:
        raise EOFError
    yield b"".join(ready)
