"""Find a corpus: text, folders, JSON lines, Parquet, Hugging Face data sets and the built-in ones."""

import re
from collections.abc import Iterator
from pathlib import Path

from repetita.corpus.built_in import BUILT_IN, built_in
from repetita.corpus.hub import HUB, hub_dataset
from repetita.corpus.input_files import local_files, read_files
from repetita.corpus.json_lines import JSONL_SUFFIXES
from repetita.corpus.saved_dataset import is_saved_dataset, saved_dataset
from repetita.corpus.source import Document, InputFile, Source, decode_utf8, files_signature, slug
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.text_files import TEXT_SUFFIXES, files_below
from repetita.errors import CorpusError, SpecError, nearest
from repetita.spec import fingerprint

__all__ = [
    "BUILT_IN",
    "Document",
    "Source",
    "check_parts",
    "decode_utf8",
    "find_source",
    "is_named",
    "public_source",
    "read_documents",
]

PARQUET_SUFFIXES = (".parquet",)

KINDS = {"text": TEXT_SUFFIXES, "Parquet": PARQUET_SUFFIXES, "JSON lines": JSONL_SUFFIXES}
"""Kinds of files that a folder may hold, one of them at a time."""

TABLES = ("Parquet", "JSON lines")
"""Kinds of files that hold a document a row."""

ABOUT = ("readme", "license")
"""How files begin, in any case, that a data set is published with: beside tables they are no text of it."""


def read_documents(
    source: str,
    *,
    text_field: str = "text",
    subset: str | None = None,
    split: str | None = None,
    synthetic: SyntheticSpec | None = None,
) -> Iterator[Document]:
    """The documents of a corpus, in a fixed order; those without any text (null, empty, blank) are left out.

    See `find_source` for what `source` may be. Raises CorpusError for what is missing, damaged, not UTF-8
    (file and byte offset) or without text (line or row number).
    """
    return find_source(
        source, text_field=text_field, subset=subset, split=split, synthetic=synthetic
    ).documents()


def find_source(
    source: str,
    *,
    text_field: str = "text",
    subset: str | None = None,
    split: str | None = None,
    synthetic: SyntheticSpec | None = None,
) -> Source:
    """Find a corpus: a built-in name, `hf:NAME` of the Hugging Face hub, else a path.

    A path is a text file, JSON lines, a Parquet file, a folder that `datasets` saved, or a folder of text
    files, of Parquet files or of JSON lines, or a pattern of such files (data/*.jsonl), read in the order of
    their names; README and LICENSE at the top of a folder of tables are left out. A file `./sotu` is not
    hidden by the name: write it with its `./`. Raises CorpusError when there is nothing there, or files of
    two kinds; SpecError for a `subset` or `split` without effect.
    """
    check_parts(source, subset=subset, split=split)
    if source in BUILT_IN:
        return built_in(source, synthetic=synthetic)
    if source.startswith(HUB):
        return hub_dataset(source, text_field=text_field, subset=subset, split=split)
    if not source.strip():
        raise CorpusError(f"the corpus has no name; give a path or one of: {', '.join(BUILT_IN)}")
    path = Path(source).expanduser()
    if path.is_dir() and is_saved_dataset(path):
        return saved_dataset(path, text_field=text_field, split=split)
    matched = None if path.exists() else _pattern(source, text_field)
    if split is not None and (matched or path.exists()):
        raise SpecError(
            f"split = '{split}' has no effect on {path}, which has no splits; leave it out, or give the "
            f"files of that split by their own path"
        )
    if path.is_dir():
        return _folder(path, text_field)
    if path.is_file():
        return _file(path, text_field)
    if matched is not None:
        return matched
    beside = [str(path.parent / one.name) for one in path.parent.glob("[!.]*")]
    hint = nearest(source, [*BUILT_IN, *beside])
    if not hint.startswith("did"):
        hint = f"give a path that is there, or one of: {', '.join(BUILT_IN)}"
    raise CorpusError(f"no corpus '{source}': it is neither a file or folder nor a built-in corpus; {hint}")


def check_parts(source: str, *, subset: str | None, split: str | None) -> None:
    """SpecError where `subset` or `split` has no effect, whatever lies at a path."""
    if subset is not None and not source.startswith(HUB):
        raise SpecError(
            f"subset = '{subset}' has no effect on source '{source}'; leave it out, or give a data set "
            f"of the hub as {HUB}NAME"
        )
    if split is not None and source in BUILT_IN:
        raise SpecError(f"split = '{split}' has no effect on source '{source}'; leave it out")


def is_named(source: str) -> bool:
    """Whether a source is a name, built in or of the hub, rather than a path."""
    return source in BUILT_IN or source.startswith(HUB)


def public_source(source: str) -> str:
    """The source as others may read it: a name, or of a path its last part only."""
    if is_named(source):
        return source
    name = Path(source).expanduser().resolve().name
    return f"./{name}" if is_named(name) else name


def _file(path: Path, text_field: str) -> Source:
    kind = next((kind for kind in TABLES if path.name.lower().endswith(KINDS[kind])), "text")
    name = path.name.removesuffix(".gz").removesuffix(".zst").rsplit(".", 1)[0]
    return _source([path], root=path.parent, kind=kind, text_field=text_field, name=name, shown=path.name)


def _pattern(source: str, text_field: str) -> Source | None:
    """The files that a pattern such as data/*.jsonl matches, all of one kind; None where none does.

    Hidden ones are left out unless the pattern has a part that begins with a dot.
    """
    parts = Path(source).expanduser().parts
    fixed = next((place for place, part in enumerate(parts) if set(part) & set("*?[")), None)
    if fixed is None:
        return None
    root = Path(*parts[:fixed])
    try:
        paths = [path for path in root.glob(str(Path(*parts[fixed:]))) if path.is_file()]
        if not any(part.startswith(".") for part in parts[fixed:]):  # As of a folder, and in a shell.
            paths = [path for path in paths if not _hidden(path.relative_to(root))]
    except (OSError, ValueError):  # A pattern that is none, or a folder that may not be read.
        return None
    paths.sort(key=lambda path: path.relative_to(root).as_posix())
    found: dict[str, list[Path]] = {}
    for path in paths:
        kind = next((kind for kind in KINDS if path.name.lower().endswith(KINDS[kind])), "text")
        found.setdefault(kind, []).append(path)
    if not found:
        return None
    kind = _one_kind(found, root=root, what=f"the pattern {source} matches")
    name = re.sub(r"[*?\[\]]", "", parts[-1].rsplit(".", 1)[0]) or root.resolve().name
    within = str(Path(*parts[fixed:]))
    return _source(
        paths, root=root, kind=kind, text_field=text_field, name=name, shown=parts[-1], within=within
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _folder(root: Path, text_field: str) -> Source:
    found = {kind: files_below(root, suffixes=suffixes) for kind, suffixes in KINDS.items()}
    if any(found[kind] for kind in TABLES):
        found["text"] = [
            path for path in found["text"] if path.parent != root or not path.name.lower().startswith(ABOUT)
        ]
    found = {kind: paths for kind, paths in found.items() if paths}
    if not found:
        raise CorpusError(
            f"the folder {root} has no text file (.txt, .md, .py, ...), no Parquet file (.parquet) and no "
            f"JSON lines (.jsonl, ...); give a folder that has some"
        )
    kind = _one_kind(found, root=root, what=f"the folder {root} holds")
    name = root.resolve().name
    return _source(found[kind], root=root, kind=kind, text_field=text_field, name=name, shown=name)


def _one_kind(found: dict[str, list[Path]], *, root: Path, what: str) -> str:
    if len(found) > 1:
        both = " and ".join(f"{kind} ({paths[0].relative_to(root)})" for kind, paths in found.items())
        raise CorpusError(
            f"{what} files of several kinds, {both}; leave one kind in it, or give a file or a folder of one "
            f"kind by its own path"
        )
    return next(iter(found))


def _source(
    paths: list[Path], *, root: Path, kind: str, text_field: str, name: str, shown: str, within: str = ""
) -> Source:
    def files() -> list[InputFile]:
        return local_files(paths, root=root, kind=kind, text_field=text_field)

    return Source(
        slug(name),
        files_signature(paths, root=root),
        {"source": shown},
        lambda: read_files(files()),
        files,
        place=fingerprint([str(root.resolve()), within or shown, text_field]),
    )
