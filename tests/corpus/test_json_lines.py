"""JSON lines give a document a line, and every line without one is named."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from repetita.corpus import compressed
from repetita.corpus.documents import Document, read_documents
from repetita.corpus.json_lines import _lines
from tests.corpus.tables import refusal

LINES: list[dict[str, object]] = [
    {"text": "Gänse schnattern.\n\nLaut."},
    {"text": "Zwei", "date": 1911, "source": "zoo", "id": 7},
]


def jsonl(lines: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


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


def test_null_counts_as_no_text_and_as_no_name(tmp_path: Path) -> None:
    line: dict[str, object] = {"text": "a", "name": None, "id": 0, "source": None, "date": None, "year": 1911}
    (tmp_path / "c.jsonl").write_bytes(jsonl([{"text": None}, line]))
    assert list(read_documents(str(tmp_path / "c.jsonl"))) == [Document("a", "0", "", "1911")]


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    first = jsonl(LINES[:1])
    (tmp_path / "c.jsonl").write_bytes(first + b'{"text": "\xe4"}\n')
    assert f"byte {len(first) + 10} is 0xe4" in refusal(tmp_path / "c.jsonl")


@pytest.mark.parametrize("size", [1, 7, 16, 1 << 20])
def test_lines_longer_than_what_is_read_at_a_time_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(compressed, "READ_BYTES", size)
    for data in (b"", b"\n", b"a" * 50, b"a" * 15 + b"\n" + b"b" * 16 + b"\n\n" + b"c" * 99, b"a\nb\n"):
        (tmp_path / "c.jsonl").write_bytes(data)
        assert list(_lines(tmp_path / "c.jsonl")) == data.splitlines(keepends=True)


def test_what_is_packed_very_small_comes_a_little_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "c.zst").write_bytes(zstandard.compress(b"a" * (128 << 20)))
    sizes = [len(chunk) for chunk in compressed.chunks(tmp_path / "c.zst")]
    assert sum(sizes) == 128 << 20 and max(sizes) <= 33 << 20


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.jsonl.zst"])
def test_a_compressed_file_that_is_cut_or_garbled_is_an_error(tmp_path: Path, name: str) -> None:
    packed = gzip.compress(jsonl(LINES)) if name.endswith("gz") else zstandard.compress(jsonl(LINES))
    (tmp_path / name).write_bytes(packed[:-6])
    assert "ends amid its compressed data" in refusal(tmp_path / name)
    (tmp_path / name).write_bytes(b"garbage" + packed)
    assert "is not a sound" in refusal(tmp_path / name)
