"""A corpus with every kind of document, in sizes at which it is built in many stretches."""

from collections.abc import Iterator

import pytest

from repetita.corpus import building, layout
from repetita.corpus.documents import find_source
from repetita.corpus.shards import FILES, Shards
from repetita.corpus.source import Document, Source
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.tokenizer import TokenizerSpec

BYTES = TokenizerSpec(kind="bytes")
BPE = TokenizerSpec(vocab_size=300)


def hashes(shards: Shards) -> dict[str, str]:
    return {name: shards.manifest["files"][name]["sha256"] for name in FILES}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a small corpus is many tasks and its documents have parts."""
    monkeypatch.setattr(building, "IN_PROCESS_BYTES", 3000)
    monkeypatch.setattr(layout, "STRETCH_BYTES", 700)
    monkeypatch.setattr(layout, "LONG_BYTES", 1500)
    monkeypatch.setattr(layout, "WINDOW_BYTES", 400)
    monkeypatch.setattr(layout, "NEIGHBOURS", 20)


def synthetic() -> Source:
    return find_source("synthetic", synthetic=SyntheticSpec(n_documents=60, n_words=100))


def mixed() -> Source:
    """Short documents, and long ones that are cut: with and without blank lines, with hardly a space."""
    texts = [document.text for document in synthetic().documents()]
    texts[3] = "\n\n".join(texts[4:20]) + " Déjà vu... Mr. Smith! No."
    texts[30] = " ".join(text.replace("\n", " ") for text in texts[10:18]) + "\nÉté. Fin"
    texts[40] = "x" * 4000 + " y. Z"

    def documents() -> Iterator[Document]:
        for number, text in enumerate(texts):
            yield Document(text, f"d{number}", "ab"[number % 2], None if number % 3 else str(1900 + number))

    return Source("mixed", "1", {"source": "mixed"}, documents)
