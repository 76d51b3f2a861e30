"""A document, a corpus that was found but not yet read, and what all readers share."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from repetita.errors import CorpusError
from repetita.spec import fingerprint

READ_BYTES = 1 << 20
"""Bytes that a reader asks of a file at a time."""

NAME_FIELDS = ("name", "id", "title")
DATE_FIELDS = ("date", "year")
SOURCE_FIELD = "source"
KNOWN_FIELDS = (*NAME_FIELDS, *DATE_FIELDS, SOURCE_FIELD)
"""Fields of a row that are read besides its text, where it has them."""


class Document(NamedTuple):
    """One text with what the splits are matched on: its stratum and its date."""

    text: str
    name: str
    source: str
    """Stratum of the text inside its corpus (a genre, a folder, an outlet); splits are balanced over it."""
    date: str | None
    """ISO date or year, for ordering only."""


class LongDocument(NamedTuple):
    """A document whose text is read in pieces, each time anew: all that building needs of a large one."""

    parts: Callable[[], Iterator[str]]
    name: str
    source: str
    date: str | None


class InputFile(NamedTuple):
    """A file of a corpus, told so that any process can read it without the others."""

    kind: str
    """How it is read: text, JSON lines, Parquet, Arrow or hub."""
    path: str
    name: str
    """The name of the document that it is; of rows, what stands before the numbers of those without one."""
    stratum: str = ""
    text_field: str = "text"
    n_bytes: int = 0
    """Its size as it lies there; 0 where that is not known."""
    modified_ns: int = 0
    piece: tuple[str, str | None, str, int, int] | None = None
    """Of a data set of the hub: commit, subset, split, and which file of how many."""


class Source(NamedTuple):
    """A corpus that was found but not yet read."""

    name: str
    """Short name, fit for a folder."""
    signature: str
    """Changes whenever the text may have changed: sizes and times of files, a package's version, a commit."""
    card: dict[str, str]
    """Provenance: where the text is from, its version and its licence."""
    documents: Callable[[], Iterator[Document]]
    files: Callable[[], Sequence[InputFile]] = tuple
    """The files that hold it, in their order; none where it is not made of files."""
    place: str = ""
    """What stays the same when its files change: where they are."""


class Row(NamedTuple):
    """One row of JSON lines or of a table, before its text is looked for."""

    fields: Mapping[str, Any]
    number: int
    """Place in its file, from 1."""
    where: str
    """The place as an error names it."""


def row_documents(
    rows: Iterable[Row], *, text_field: str, prefix: str = "", stratum: str = ""
) -> Iterator[Document]:
    """The documents of rows; a null, empty or blank text is passed over.

    A row's name is its first of `name`, `id` and `title`, else `prefix` and its number; its date the first of
    `date` and `year`; its source `source`, else `stratum`. Raises CorpusError where the text field is missing
    or no text, and where a text is not Unicode.
    """
    for row in rows:
        text = row.fields.get(text_field)
        if text is None and text_field in row.fields:
            continue
        if not isinstance(text, str):
            raise CorpusError(
                f"{row.where}: no text in the field '{text_field}' ({_has(row.fields, text_field)}); name "
                f"the right one as text_field"
            )
        if text.strip():
            document = Document(
                text=text,
                name=_first(row.fields, NAME_FIELDS) or f"{prefix}{row.number}",
                source=_first(row.fields, (SOURCE_FIELD,)) or stratum,
                date=_first(row.fields, DATE_FIELDS),
            )
            _check_unicode(document, where=row.where)
            yield document


def _has(fields: Mapping[str, Any], text_field: str) -> str:
    if text_field in fields:
        return f"it holds {type(fields[text_field]).__name__}"
    return f"it has {', '.join(map(str, fields))}" if fields else "it has no fields"


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(fields[name]) for name in names if fields.get(name) is not None), None)


def _check_unicode(document: Document, *, where: str) -> None:
    for what, value in document._asdict().items():
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{where}: character {error.start} of the {what} is half of a surrogate pair, which is not "
                f"Unicode text; write the character itself"
            ) from None


def decode_utf8(data: bytes, *, name: str, start: int = 0) -> str:
    """`data` as text, a byte-order mark left out; CorpusError with file and byte offset if not UTF-8."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise not_utf8(name, byte=start + error.start, value=data[error.start]) from None


def not_utf8(name: str, *, byte: int, value: int) -> CorpusError:
    """The error for a byte, at this place, that is no UTF-8."""
    return CorpusError(
        f"{name} is not UTF-8: byte {byte} is 0x{value:02x}; convert it, for example with iconv -f latin1 -t "
        f"utf-8"
    )


def read_text(path: Path) -> str:
    """The text of a file; CorpusError where it cannot be read or is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    return decode_utf8(data, name=str(path))


def unreadable(path: Path, error: OSError) -> CorpusError:
    """The error for a file that the system does not let us read."""
    return CorpusError(f"cannot read {path}: {error.strerror}; check its permissions")


def files_signature(paths: list[Path], *, root: Path) -> str:
    """A hash of the files' names below `root`, their sizes and times of modification."""
    rows = [[path.relative_to(root).as_posix(), (s := path.stat()).st_size, s.st_mtime_ns] for path in paths]
    return fingerprint([str(root.resolve()), rows])


def slug(name: str) -> str:
    """The name as a part of a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "corpus"
