"""Text files: one file is one document, a folder's files are documents in the order of their names."""

import os
from codecs import getincrementaldecoder
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from repetita.corpus.compressed import chunks
from repetita.corpus.source import Document, InputFile, LongDocument, not_utf8, read_text

TEXT_SUFFIXES = tuple(
    ".txt .text .md .markdown .rst .tex .org .adoc .html .htm .xml .csv .tsv .c .h .cc .cpp .hpp .cs .go .hs "
    ".java .jl .js .kt .lua .ml .php .pl .py .pyi .r .rb .rs .scala .sh .sql .swift .ts .tsx "
    ".txt.gz .txt.zst".split()
)
"""Files of a folder that are read as text."""

COMPRESSED = (".gz", ".zst")


WHOLE_BYTES = 8 << 20
"""A text file beyond this is laid out without ever being in memory as a whole."""


def text_documents(file: InputFile, /) -> Iterator[Document | LongDocument]:
    """The document that a text file is, its text in pieces where it is large; none where that is blank.

    Raises CorpusError where it cannot be read or is not UTF-8.
    """
    path = Path(file.path)
    if file.n_bytes > WHOLE_BYTES or path.suffix.lower() in COMPRESSED:
        if any(part.strip() for part in text_parts(path)):
            yield LongDocument(lambda: text_parts(path), file.name, file.stratum, None)
        return
    text = read_text(path)
    if text.strip():
        yield Document(text=text, name=file.name, source=file.stratum, date=None)


def text_parts(path: Path) -> Iterator[str]:
    """The text of a file piece by piece; as `read_text` otherwise."""
    decoder = getincrementaldecoder("utf-8")()
    fed, begun = 0, False
    for chunk in chain(chunks(path), [b""]):
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            place = fed - held + error.start
            raise not_utf8(str(path), byte=place, value=error.object[error.start]) from None
        fed += len(chunk)
        if text:
            yield text if begun else text.removeprefix("\ufeff")
            begun = True


def folder_stratum(path: Path, *, root: Path) -> str:
    """The folder of a file below `root`, as the stratum of what is read from it."""
    relative = path.relative_to(root)
    return "" if len(relative.parts) == 1 else relative.parent.as_posix()


def files_below(root: Path, *, suffixes: tuple[str, ...], skip: frozenset[str] = frozenset()) -> list[Path]:
    """Files whose names end so, sorted; hidden ones and folders called `skip` or __pycache__ left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in {*skip, "__pycache__"}
        ]
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and name.lower().endswith(suffixes) and Path(folder, name).is_file()
        ]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())
