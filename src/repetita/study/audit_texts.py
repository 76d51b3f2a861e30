"""The texts of an audit: a file, a folder or a table a group, each text known by its content."""

import csv
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from repetita.corpus.documents import find_source
from repetita.corpus.source import Document, Row, read_text, row_documents
from repetita.errors import CorpusError


class Text(NamedTuple):
    """One text."""

    sha256: str
    """Of its UTF-8: the same text anywhere has the same."""
    group: str
    """What it was given in: the last part of a path, or the whole of it where two are alike."""
    name: str
    text: str

    @property
    def document(self) -> Document:
        """As `corpus.windows.Windows` reads it."""
        return Document(self.text, self.name, self.group, None)


def read_texts(
    sources: tuple[str, ...], /, *, text_field: str = "text", limit: int | None = None
) -> list[Text]:
    """The texts of each source, in the order of its files and rows, the first `limit` of each.

    A .csv, .jsonl (.gz, .zst) or .parquet file holds a text a row, in the field `text_field`; a folder a text
    a file; any other file is one text. Texts of nothing but white space are left out where others are beside
    them. Raises CorpusError for a source that is not there, twice there, empty or without that field.
    """
    # `.` has no last part of its own.
    last = [Path(source).name or Path(source).resolve().name for source in sources]
    found: list[Text] = []
    for source, name in zip(sources, last, strict=True):
        if sources.count(source) > 1:
            raise CorpusError(f"the text '{source}' is given twice; name it once")
        group = source if last.count(name) > 1 else name
        documents = list(islice(_documents(source, text_field), limit))
        if not documents:
            raise CorpusError(f"'{source}' holds no text: it is empty; give a file that has some")
        found += [
            Text(hashlib.sha256(one.text.encode()).hexdigest(), group, one.name, one.text)
            for one in documents
        ]
    return found


def distinct(texts: list[Text], /) -> list[Text]:
    """Each content once, the shortest first: rows of one batch are then about as long."""
    return sorted({one.sha256: one for one in texts}.values(), key=lambda one: (len(one.text), one.sha256))


def blocks(texts: list[Text], /, *, most_texts: int, most_characters: int) -> Iterator[list[Text]]:
    """Texts in their order, as many at a time as both limits allow; a longer one is alone."""
    block: list[Text] = []
    size = 0
    for one in texts:
        if block and (len(block) == most_texts or size + len(one.text) > most_characters):
            yield block
            block, size = [], 0
        block.append(one)
        size += len(one.text)
    if block:
        yield block


def _documents(source: str, text_field: str) -> Iterator[Document]:
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() == ".csv":
        return row_documents(_csv_rows(path), text_field=text_field)
    return find_source(source, text_field=text_field).documents()


def _csv_rows(path: Path) -> Iterator[Row]:
    # A text may be longer than what the library takes for one field.
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(read_text(path).splitlines(keepends=True), strict=True)
    try:
        for number, fields in enumerate(reader, start=1):
            yield Row(fields, number, f"{path}, row {number}")
    except csv.Error as error:
        raise CorpusError(
            f"{path} is not a sound CSV file ({error}); quote its texts, or write JSON lines"
        ) from None
