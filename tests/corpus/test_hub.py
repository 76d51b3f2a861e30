"""A data set of the hub is streamed at one commit, and every reason why it cannot be is one sentence."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest
from huggingface_hub import constants

from repetita.corpus.documents import Document, find_source, read_documents
from repetita.errors import SpecError
from tests.corpus.local_hub import COMMIT, NAME, local_hub
from tests.corpus.tables import refusal

ROWS: list[dict[str, Any]] = [
    {"text": "a", "title": "A", "n": 1},
    {"text": None, "title": "B", "n": 2},
    {"text": "c", "title": None, "n": 3},
]


def whole() -> Iterator[dict[str, Any]]:
    yield from ROWS


def broken() -> Iterator[dict[str, Any]]:
    yield ROWS[0]
    raise OSError("connection reset\nby peer")


class Planted:
    """A hub that knows one commit, and what it was asked."""

    def __init__(self) -> None:
        self.rows = whole
        self.commit = COMMIT
        self.trouble: Exception | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.loaded: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.switches: list[bool] = []

    def dataset_info(self, _: Any, name: str, **options: Any) -> Any:
        self.asked.append((name, options["revision"]))
        if self.trouble is not None:
            raise self.trouble
        return SimpleNamespace(sha=self.commit, card_data=SimpleNamespace(license="cc0-1.0"))

    def load_dataset(self, *names: Any, **options: Any) -> Any:
        self.loaded.append((names, options))
        self.switches = [datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, not constants.HF_HUB_DISABLE_TELEMETRY]
        return datasets.IterableDataset.from_generator(self.rows, features=self.features())

    def features(self) -> datasets.Features:
        text = datasets.Value("string")
        return datasets.Features(text=text, title=text, n=datasets.Value("int64"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Planted:
    planted = Planted()

    def nothing(*_: Any, **__: Any) -> Any:
        raise huggingface_hub.errors.EntryNotFoundError("no card")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *a, **o: planted.dataset_info(*a, **o))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", planted.load_dataset)
    monkeypatch.chdir(tmp_path)
    return planted


def test_what_reaches_the_library_is_what_was_named(hub: Planted) -> None:
    before = [datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, not constants.HF_HUB_DISABLE_TELEMETRY]
    documents = read_documents("hf:owner/geese@v2", subset="en", split="test")
    assert list(documents) == [Document("a", "A", "", None), Document("c", "3", "", None)]
    assert hub.asked == [("owner/geese", "v2")]
    ((names, options),) = hub.loaded
    assert names == ("owner/geese",)
    assert options == {"name": "en", "split": "test", "revision": COMMIT, "streaming": True}
    assert hub.switches == [False, False], "nothing is counted or told while the hub is asked"
    assert before == [datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, not constants.HF_HUB_DISABLE_TELEMETRY]


def test_the_train_split_of_main_is_the_default(hub: Planted) -> None:
    list(read_documents("hf:geese"))
    assert hub.asked == [("geese", "main")]
    assert hub.loaded[0][1]["split"] == "train"
    assert hub.loaded[0][1]["name"] is None


def test_a_branch_that_moves_is_another_corpus(hub: Planted) -> None:
    before = find_source("hf:owner/geese", subset="en")
    assert find_source("hf:owner/geese@main", subset="en", split="train").signature == before.signature
    others = [find_source("hf:owner/geese"), find_source("hf:owner/geese", subset="en", split="test")]
    hub.commit = "b" * 40
    others.append(find_source("hf:owner/geese", subset="en"))
    assert len({before.signature, *(one.signature for one in others)}) == 4
    assert before.card == {
        "source": "hf:owner/geese",
        "version": COMMIT,
        "licence": "cc0-1.0",
        "split": "train",
        "subset": "en",
    }


def test_a_revision_that_cannot_be_resolved_stands_as_it_is(hub: Planted) -> None:
    resolved = find_source("hf:geese")
    hub.trouble = ConnectionError("no route")
    source = find_source("hf:geese@v2")
    assert source.card["version"] == "v2, not resolved to a commit"
    assert source.card["licence"] == "unknown"
    assert "the hub cannot be reached for hf:geese@v2 (ConnectionError: no route); " in refusal("hf:geese@v2")
    assert not hub.loaded
    pinned = find_source(f"hf:geese@{COMMIT}")
    assert pinned.card["version"] == COMMIT
    assert pinned.signature == resolved.signature, "what was built online is found offline"


def test_offline_the_library_may_have_it(hub: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.trouble = huggingface_hub.errors.OfflineModeIsEnabled("offline")
    assert len(list(read_documents("hf:geese"))) == 2
    assert hub.loaded[0][1]["revision"] == "main"


def test_only_the_columns_that_are_read_are_decoded(hub: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[list[str]] = []
    original = datasets.IterableDataset.select_columns

    def select(self: Any, columns: list[str]) -> Any:
        chosen.append(columns)
        return original(self, columns)

    monkeypatch.setattr(datasets.IterableDataset, "select_columns", select)
    list(read_documents("hf:geese"))
    assert chosen == [["text", "title"]]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("body", "hf:geese has no column 'body' (it has text, title, n); "),
        ("n", "row 1: no text in the field 'n'"),
    ],
)
def test_a_column_that_is_no_text_is_named(hub: Planted, field: str, said: str) -> None:
    assert said in refusal("hf:geese", text_field=field)


def test_a_stream_that_breaks_off_is_no_shorter_corpus(hub: Planted) -> None:
    hub.rows = broken
    assert "hf:geese, row 2: the stream broke off (OSError: connection reset); " in refusal("hf:geese")


@pytest.mark.parametrize("name", ["hf:", "hf: ", "hf:@v1", "hf:geese@", "hf:/etc", "hf:../up", "hf:a/b/c"])
def test_a_name_that_is_none_of_the_hubs(hub: Planted, name: str) -> None:
    assert f"'{name}' names no data set of the hub; write hf:NAME" in refusal(name)
    assert not hub.asked


def test_a_folder_does_not_pass_for_a_data_set_of_the_hub(hub: Planted, tmp_path: Path) -> None:
    (tmp_path / "geese").mkdir()
    assert "give its path as ./geese" in refusal("hf:geese")
    assert not hub.asked


@pytest.mark.parametrize("module", ["datasets", "huggingface_hub"])
def test_what_to_install_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert refusal("hf:geese") == "reading hf:geese needs datasets; run: pip install 'repetita[hf]'"


ASK = """
import json, sys
from repetita.corpus.documents import find_source
from repetita.errors import UserError
answers = []
for source, options in json.loads(sys.argv[1]):
    answers.append({})
    try:
        found = find_source(source, **options)
        answers[-1] |= {"signature": found.signature, "card": found.card}
        answers[-1]["texts"] = [document.text for document in found.documents()]
    except UserError as error:
        answers[-1]["error"] = str(error)
print(json.dumps(answers))
"""


def ask(questions: list[tuple[str, dict[str, str]]], *, home: Path, address: str) -> list[dict[str, Any]]:
    """What another process, with a cache of its own, makes of these sources."""
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": address, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(questions)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **settings},
        cwd=home,
    )
    assert done.stderr == "", "no bars and no warnings"
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


@pytest.mark.slow
@pytest.mark.ci
def test_the_real_libraries_on_a_hub_of_this_machine(tmp_path: Path) -> None:
    source = f"hf:{NAME}"
    with local_hub() as (address, asked):
        answers = ask(
            [
                (source, {"subset": "en"}),
                (source, {"subset": "de"}),
                (source, {}),
                (source, {"subset": "fr"}),
                (source, {"subset": "en", "split": "tst"}),
                (f"{source}@v9", {"subset": "en"}),
                ("hf:owner/ducks", {}),
            ],
            home=tmp_path,
            address=address,
        )
    assert answers[0]["card"]["version"] == COMMIT
    assert answers[0]["card"]["licence"] == "cc-by-4.0"
    assert answers[0]["texts"] == [f"goose {number}" for number in range(50)]
    assert answers[1]["texts"] == ["Gänse"]
    said = [one["error"] for one in answers[2:]]
    assert said[0] == f"{source} has several subsets (it has en, de); name one as subset"
    assert f"{source} has no subset 'fr' (it has en, de); " in said[1]
    assert said[2] == f"{source} has no split 'tst' (it has train, test); did you mean 'test'?"
    assert f"the data set '{source}' has no revision 'v9'; " in said[3]
    assert "the hub has no data set 'owner/ducks'" in said[4]
    assert all(NAME in one or "owner/ducks" in one for one in asked), "nothing else was asked for"
    # Without the network the same commit is known, so that what was built is found.
    (answer,) = ask([(source, {"subset": "en"})], home=tmp_path, address=address)
    assert answer["signature"] == answers[0]["signature"]
    assert f"the hub cannot be reached for {source} (" in answer["error"]


def test_unknown_parts_are_errors_of_the_spec(hub: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("BuilderConfig 'fr' not found. Available: ['en', 'de']")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(SpecError, match=r"no subset 'fr' \(it has en, de\); "):
        list(read_documents("hf:geese", subset="fr"))
