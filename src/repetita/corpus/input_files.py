"""The files of a corpus: found with what their documents are called, and read one by one in any process."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import file_digest, sha256
from itertools import chain
from pathlib import Path

from repetita.corpus.hub import hub_rows
from repetita.corpus.json_lines import json_rows
from repetita.corpus.source import Document, InputFile, LongDocument, Row, Source, row_documents, unreadable
from repetita.corpus.tables import arrow_rows, parquet_rows
from repetita.corpus.text_files import folder_stratum, text_documents
from repetita.errors import CorpusError
from repetita.spec import fingerprint

BUNDLE_BYTES = 16 << 20
"""Files below this are read several at a time, about so much together: half a minute of a core."""
SMALLEST = 1 << 12
"""What a file counts for at least, since opening it takes time, too."""


def local_files(paths: Sequence[Path], *, root: Path, kind: str, text_field: str) -> list[InputFile]:
    """Files below `root`, all of one kind, with their sizes and times of now."""
    found = []
    for path in paths:
        below = path.relative_to(root).as_posix()
        name = below if kind == "text" else f"{below}:" if len(paths) > 1 else ""
        found.append(stamped(InputFile(kind, str(path), name, folder_stratum(path, root=root), text_field)))
    return found


def stamped(file: InputFile, /) -> InputFile:
    """The file with its size and time of now."""
    stat = Path(file.path).stat()
    return file._replace(n_bytes=stat.st_size, modified_ns=stat.st_mtime_ns)


def read_files(files: Iterable[InputFile], /) -> Iterator[Document]:
    """Their documents, each with the whole of its text."""
    for document in chain.from_iterable(map(documents_of, files)):
        if isinstance(document, LongDocument):
            text = "".join(document.parts())
            yield Document(text, document.name, document.source, document.date)
        else:
            yield document


def documents_to_lay_out(source: Source) -> Iterator[Document | LongDocument]:
    """The documents of a corpus, long ones in pieces where they are files of this machine."""
    if not source.place:
        return iter(source.documents())
    return chain.from_iterable(map(documents_of, source.files()))


def documents_of(
    file: InputFile, /, *, on_row: Callable[[], None] | None = None
) -> Iterator[Document | LongDocument]:
    """The documents of one file, `on_row` told of each row that is read; CorpusError where it cannot be."""
    if file.kind == "text":
        return text_documents(file)
    rows = rows_of(file)
    if on_row is not None:
        rows = _told(rows, on_row)
    return row_documents(rows, text_field=file.text_field, prefix=file.name, stratum=file.stratum)


def _told(rows: Iterator[Row], on_row: Callable[[], None]) -> Iterator[Row]:
    for row in rows:
        on_row()
        yield row


def rows_of(file: InputFile, /) -> Iterator[Row]:
    """The rows of a file that is no text file."""
    path = Path(file.path)
    if file.kind == "JSON lines":
        return json_rows(path)
    if file.kind == "hub":
        return hub_rows(file)
    read = {"Parquet": parquet_rows, "Arrow": arrow_rows}[file.kind]
    return read(path, text_field=file.text_field)


def content_of(file: InputFile, /) -> str:
    """What changes when the content of a file does, and only then: its hash, or the commit that it is of.

    Raises CorpusError where it is not the file any more that was found.
    """
    if file.piece is not None:
        return fingerprint([file.path, file.piece])
    check_unchanged(file)
    try:
        with Path(file.path).open("rb") as opened:
            return file_digest(opened, sha256).hexdigest()
    except OSError as error:
        raise unreadable(Path(file.path), error) from None


def check_unchanged(file: InputFile, /) -> None:
    """Raises CorpusError where a file is gone or has another size or time than when it was found."""
    if file.piece is not None:
        return
    try:
        now = stamped(file)
    except FileNotFoundError:
        raise CorpusError(
            f"{file.path} is not there; give a path that every process and machine of the build sees, and "
            f"leave its files there until the end"
        ) from None
    except OSError as error:
        raise unreadable(Path(file.path), error) from None
    if now != file:
        raise CorpusError(f"{file.path} was changed while the corpus was built; build again to read it anew")


def bundles(files: Sequence[InputFile], /) -> list[tuple[InputFile, ...]]:
    """The files in their order, each large one alone, small ones in bundles of about BUNDLE_BYTES.

    Where a bundle ends is drawn by name, the likelier the larger a file is: one that changes its size moves
    the ends of its own bundle at most.
    """
    found: list[tuple[InputFile, ...]] = []
    bundle: list[InputFile] = []
    for file in files:
        alone = file.piece is not None or file.n_bytes >= BUNDLE_BYTES
        if alone and bundle:
            found.append(tuple(bundle))
            bundle = []
        bundle.append(file)
        drawn = int.from_bytes(sha256(file.name.encode()).digest()[:8], "little") / 2**64
        if alone or drawn * BUNDLE_BYTES < max(file.n_bytes, SMALLEST):
            found.append(tuple(bundle))
            bundle = []
    return [*found, tuple(bundle)] if bundle else found
