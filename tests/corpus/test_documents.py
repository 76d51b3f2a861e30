"""Readers give every document once, in order, and name what is wrong with a file."""

import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from repetita.corpus.documents import Document, decode_utf8, find_source, public_source, read_documents
from repetita.errors import CorpusError, SpecError
from tests.corpus.tables import parquet, refusal


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    file = tmp_path / "goose.txt"
    file.write_bytes("\ufeffGänse\r\nschnattern".encode())
    assert list(read_documents(str(file))) == [Document("Gänse\r\nschnattern", "goose.txt", "", None)]


def test_a_folder_gives_its_text_files_in_order_and_leaves_the_others(tmp_path: Path) -> None:
    for name, data in {
        "b.txt": b"b",
        "a/z.md": b"z",
        "a/picture.png": b"\x89PNG\xff",
        ".hidden/c.txt": b"c",
        ".d.txt": b"d",
        "blank.txt": b" \n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = list(read_documents(str(tmp_path)))
    assert [(d.name, d.source, d.text) for d in found] == [("a/z.md", "a", "z"), ("b.txt", "", "b")]


def test_what_is_not_utf8_is_named_with_its_byte(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Gänse".encode("latin1"))
    assert "latin.txt is not UTF-8: byte 1 is 0xe4" in refusal(tmp_path / "latin.txt")
    assert "latin.txt is not UTF-8: byte 1" in refusal(tmp_path)
    with pytest.raises(CorpusError, match="byte 102"):
        decode_utf8(b"ab\xff", name="x", start=100)


def test_a_missing_corpus_names_the_nearest_built_in(tmp_path: Path) -> None:
    assert "did you mean 'sotu'?" in refusal("sotuu")
    assert "no text file" in refusal(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_folder_of_tables_is_read_in_the_order_of_its_names(tmp_path: Path, kind: str) -> None:
    for name, texts in {"b": ["3"], "a/y": ["2"], "a/x": ["0", "1"]}.items():
        file = tmp_path / f"{name}.{kind}"
        file.parent.mkdir(exist_ok=True)
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file)
        else:
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "picture.png").write_bytes(b"")
    assert [(d.text, d.name, d.source) for d in read_documents(str(tmp_path))] == [
        ("0", f"a/x.{kind}:1", "a"),
        ("1", f"a/x.{kind}:2", "a"),
        ("2", f"a/y.{kind}:1", "a"),
        ("3", f"b.{kind}:1", ""),
    ]


@pytest.mark.parametrize("name", ["words.md", "data/README.md"])
def test_a_folder_of_two_kinds_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("words")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    said = refusal(tmp_path)
    assert f"text ({name}) and JSON lines (a.jsonl); leave one kind in it" in said


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_cloned_data_set_is_its_tables(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data").mkdir()
    if kind == "parquet":
        parquet(tmp_path / "data" / "train.parquet", text=["a"])
    else:
        (tmp_path / "data" / "train.jsonl").write_text('{"text": "a"}')
    before = find_source(str(tmp_path)).signature
    for name in ("README.md", "readme_de.txt", "LICENSE", "License.txt", ".gitattributes"):
        (tmp_path / name).write_text("words")
    assert [document.text for document in read_documents(str(tmp_path))] == ["a"]
    assert find_source(str(tmp_path)).signature == before


@pytest.mark.parametrize("source", ["sotu", "python-stdlib", "synthetic", "nowhere"])
def test_a_subset_or_split_without_effect_is_an_error(source: str) -> None:
    with pytest.raises(SpecError, match=f"subset = 'en' has no effect on source '{source}'; "):
        find_source(source, subset="en")
    if source != "nowhere":
        with pytest.raises(SpecError, match=f"split = 'test' has no effect on source '{source}'; "):
            find_source(source, split="test")


def test_a_path_without_splits_takes_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    for path in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(SpecError, match="has no splits; leave it out"):
            find_source(str(path), split="test")


def test_others_read_no_more_of_a_path_than_its_last_part(tmp_path: Path) -> None:
    assert public_source("sotu") == "sotu"
    assert public_source("hf:owner/name@abc") == "hf:owner/name@abc"
    assert public_source(str(tmp_path / "mine")) == "mine"
    assert public_source(str(tmp_path / "sotu")) == "./sotu"
    assert public_source(str(tmp_path / "hf:mine")) == "./hf:mine"


def test_the_signature_changes_with_the_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    before = find_source(str(file)).signature
    assert find_source(os.path.relpath(file)).signature == before
    file.write_text("three")
    assert find_source(str(file)).signature != before


def test_patterns_that_end_alike_keep_their_parts_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / "1.jsonl").write_text('{"text": "x"}\n')
    patterns = ("*/in/*.jsonl", "?/*/*.jsonl")
    assert len({find_source(f"{tmp_path}/{pattern}").place for pattern in patterns}) == 2
