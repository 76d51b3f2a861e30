"""Text files: one file is one document, a folder's files are documents in the order of their names."""

import os
from collections.abc import Iterator
from pathlib import Path

from repetita.corpus.source import Document, read_text

TEXT_SUFFIXES = tuple(
    ".txt .text .md .markdown .rst .tex .org .adoc .html .htm .xml .csv .tsv .c .h .cc .cpp .hpp .cs .go .hs "
    ".java .jl .js .kt .lua .ml .php .pl .py .pyi .r .rb .rs .scala .sh .sql .swift .ts .tsx".split()
)
"""Files of a folder that are read as text."""


def text_documents(paths: list[Path], *, root: Path) -> Iterator[Document]:
    """A document a file, named and given its stratum by its place below `root`; blank ones are left out."""
    for path in paths:
        text = read_text(path)
        if text.strip():
            name = path.relative_to(root).as_posix()
            yield Document(text=text, name=name, source=folder_stratum(path, root=root), date=None)


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
