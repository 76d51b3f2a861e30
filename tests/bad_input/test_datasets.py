"""Parquet files and data sets that cannot be read, end to end: one sentence, exit code 2, nothing left."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from tests.bad_input.worlds import HARM, Say, refused
from tests.corpus.tables import not_utf8, parquet

GOOD = ["A text that is long enough. " * 9] * 40


def build(say: Say, source: object, tmp_path: Path, *options: object, parts: list[str]) -> None:
    root = tmp_path / "out"
    cuts = ("--tokenizer", "bytes", "--length", 16, "--root", root)
    refused(say("corpus", "build", source, *cuts, *options), *parts)
    assert not [file for file in root.rglob("*") if not file.name.endswith(".lock") and file.is_file()]
    assert not list(root.glob("corpora/.*.building"))


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        (
            {"body": GOOD, "n": [1] * 40},
            ["no column 'text' (it has body, n)", "name the right one as text_field"],
        ),
        ({}, ["no column 'text' (it has none)"]),
        ({"text": [1, 2]}, ["the column 'text'", "holds int64, not text"]),
        ({"text": [["a"]]}, ["holds list<", "not text"]),
        ({"text": [b"a"]}, ["holds binary, not text"]),
        ({"text": pyarrow.array([], pyarrow.string())}, ["'a.parquet' is empty", "give one that has some"]),
        ({"text": [None, "", " \n"]}, ["'a.parquet' is empty", "give one that has some"]),
        ({"text": not_utf8([b"ok", b"\xe4"])}, ["row 2", "not UTF-8: byte 0 is 0xe4"]),
        ({"text": not_utf8([b"a\xed\xa0\x80"])}, ["row 1", "not UTF-8: byte 1 is 0xed"]),
        ({"text": GOOD, "source": not_utf8([b"\xff"] * 40)}, ["row 1", "'source' is not UTF-8"]),
    ],
)
def test_a_parquet_file_without_text(
    say: Say, tmp_path: Path, columns: dict[str, object], parts: list[str]
) -> None:
    build(say, parquet(tmp_path / "a.parquet", **columns), tmp_path, parts=parts)


@pytest.mark.parametrize("harm", ["cut", "gone", "empty", "text"])
def test_a_parquet_file_that_is_damaged(say: Say, tmp_path: Path, harm: str) -> None:
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "a.parquet", text=GOOD)
    file = parquet(tmp_path / "data" / "b.parquet", text=GOOD)
    if harm in HARM:
        HARM[harm](file)
    else:
        file.write_bytes(b"" if harm == "empty" else b"only words " * 50)
    parts = ["b.parquet is not a sound Parquet file", "copy or download it again"]
    if harm == "gone":
        file.symlink_to(tmp_path / "nowhere")
        (tmp_path / "data" / "a.parquet").unlink()
        parts = ["has no text file", "no Parquet file", "give a folder that has some"]
    build(say, tmp_path / "data", tmp_path, parts=parts)


def test_a_text_that_is_half_a_pair(say: Say, tmp_path: Path) -> None:
    for line in ('{"text": "a\\ud800"}', '{"text": "a", "title": "\\udc00b"}'):
        (tmp_path / "a.jsonl").write_text(line + "\n")
        build(say, tmp_path / "a.jsonl", tmp_path, parts=["line 1", "half of a surrogate pair", "write the"])


def test_a_folder_of_two_kinds(say: Say, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "a.parquet", text=GOOD)
    (tmp_path / "data" / "notes.md").write_text("words")
    parts = ["text (notes.md) and Parquet (a.parquet)", "leave one kind in it"]
    build(say, tmp_path / "data", tmp_path, parts=parts)


@pytest.fixture
def saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    data = datasets.Dataset.from_dict({"text": GOOD, "n": [1] * len(GOOD)})
    datasets.DatasetDict(train=data, test=data).save_to_disk(tmp_path / "saved")
    capsys.readouterr()  # The library's own bar.
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--split", "tset"), ["has no split 'tset' (it has train, test)", "did you mean 'test'?"]),
        (("--subset", "en"), ["subset = 'en' has no effect", "leave it out"]),
        (("--text-field", "body"), ["has no column 'body' (it has text, n)"]),
        (("--text-field", "n"), ["holds int64, not text"]),
    ],
)
def test_a_part_that_a_saved_dataset_lacks(
    say: Say, saved: Path, tmp_path: Path, options: tuple[str, ...], parts: list[str]
) -> None:
    build(say, saved, tmp_path, *options, parts=parts)


@pytest.mark.parametrize(
    ("name", "harm", "part"),
    [
        ("train/data-00000-of-00001.arrow", Path.unlink, "data-00000-of-00001.arrow is missing"),
        ("train/data-00000-of-00001.arrow", HARM["cut"], "is not a sound Arrow file"),
        ("train/state.json", Path.unlink, "state.json is missing"),
        ("train/state.json", HARM["cut"], "state.json cannot be read"),
        ("dataset_dict.json", HARM["cut"], "dataset_dict.json cannot be read"),
    ],
)
def test_a_saved_dataset_that_is_damaged(
    say: Say, saved: Path, tmp_path: Path, name: str, harm: Callable[[Path], None], part: str
) -> None:
    harm(saved / name)
    build(say, saved, tmp_path, parts=[part, "again"])


@pytest.mark.parametrize("module", ["pyarrow", "datasets"])
def test_what_is_not_installed(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    source = parquet(tmp_path / "a.parquet", text=GOOD) if module == "pyarrow" else "hf:owner/geese"
    monkeypatch.setitem(sys.modules, module, None)
    build(say, source, tmp_path, parts=[f"needs {module}; run: pip install 'repetita[hf]'"])


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_is_not_there(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", _no_route)
    parts = ["the hub cannot be reached for hf:owner/geese", "go online, or save it elsewhere"]
    build(say, "hf:owner/geese", tmp_path, parts=parts)


def _no_route(*_: object, **__: object) -> None:
    raise ConnectionError(os.strerror(113))


@pytest.mark.parametrize("name", ["hf:", "hf:geese@", "hf:./here"])
def test_a_name_that_is_none_of_the_hubs(say: Say, tmp_path: Path, name: str) -> None:
    build(say, name, tmp_path, parts=[f"'{name}' names no data set of the hub", "write hf:NAME"])
