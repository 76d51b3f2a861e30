"""JSON lines, plain, .gz or .zst, as rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repetita.corpus.compressed import chunks
from repetita.corpus.source import Row, decode_utf8
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
    begun: list[bytes] = []  # Of a line that is longer than a chunk, joined once.
    for chunk in chunks(path):
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*begun, line, b"\n"])
            begun.clear()
        begun.append(rest)
    if last := b"".join(begun):
        yield last
