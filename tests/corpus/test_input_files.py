"""Files are told one by one: large texts in pieces, compressed ones, patterns, what is wrong with them."""

import gzip
from pathlib import Path

import pytest
import zstandard

from repetita.corpus import text_files
from repetita.corpus.building import build_shards
from repetita.corpus.documents import find_source, read_documents
from repetita.corpus.input_files import documents_to_lay_out
from repetita.corpus.source import LongDocument
from repetita.errors import CorpusError, SpecError
from tests.corpus.built import BYTES

TEXT = "\ufeffGänse schnattern. Laut!\n\n" + "Füchse schweigen 🦊. " * 40


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text is a large one, read three bytes at a time: characters lie across."""
    monkeypatch.setattr(text_files, "WHOLE_BYTES", 0)
    monkeypatch.setattr("repetita.corpus.compressed.READ_BYTES", 3)


def test_a_text_in_pieces_is_the_text(tmp_path: Path, pieces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    source = find_source(str(tmp_path / "a.txt"))
    (document,) = documents_to_lay_out(source)
    assert isinstance(document, LongDocument)
    assert max(map(len, document.parts())) <= 3
    assert "".join(document.parts()) == TEXT[1:]
    assert [one.text for one in source.documents()] == [TEXT[1:]]
    parts = build_shards(tmp_path / "parts", source=source, tokenizer=BYTES)
    monkeypatch.undo()
    whole = build_shards(tmp_path / "whole", source=source, tokenizer=BYTES)
    assert [isinstance(one, LongDocument) for one in documents_to_lay_out(source)] == [False]
    assert parts.manifest == whole.manifest


@pytest.mark.parametrize("data", [b"ab \xff", b"abcdefg\xf0\x9f\xa6", b"\xef\xbb\xbfab\xc3("])
def test_the_byte_that_is_not_utf8_is_the_same_in_pieces(
    tmp_path: Path, data: bytes, pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(data)

    def said() -> str:
        with pytest.raises(CorpusError, match="is not UTF-8: byte") as refused:
            build_shards(tmp_path / "built", source=find_source(str(tmp_path / "a.txt")), tokenizer=BYTES)
        return str(refused.value)

    in_pieces = said()
    monkeypatch.undo()
    assert said() == in_pieces


def test_blank_files_are_no_documents_in_pieces_either(tmp_path: Path, pieces: None) -> None:
    (tmp_path / "a.txt").write_text(" \n" * 20)
    assert not list(documents_to_lay_out(find_source(str(tmp_path / "a.txt"))))


def test_compressed_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "b.txt.zst").write_bytes(zstandard.compress(TEXT.encode()))
    (tmp_path / "c.txt").write_bytes(TEXT.encode())
    (tmp_path / "d.TXT.GZ").write_bytes(gzip.compress(TEXT.encode()))
    documents = list(read_documents(str(tmp_path)))
    assert [document.name for document in documents] == ["a.txt.gz", "b.txt.zst", "c.txt", "d.TXT.GZ"]
    assert {document.text for document in documents} == {TEXT[1:]}
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode())[:-9])
    with pytest.raises(CorpusError, match=r"a\.txt\.gz ends amid its compressed data"):
        list(read_documents(str(tmp_path)))


def test_a_pattern_names_files(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "b/1.jsonl", "a/1.jsonl", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "' + name + '"}\n')
    (tmp_path / "a" / ".jsonl").write_bytes(b"\xff")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "1.jsonl").write_text('{"text": "hidden"}\n')
    assert [one.text for one in read_documents(f"{tmp_path}/.g*/*.jsonl")] == ["hidden"]
    assert [one.text for one in read_documents(f"{tmp_path}/a/*.jsonl")] == ["a/1.jsonl"]
    found = find_source(f"{tmp_path}/*/1.jsonl")
    assert [document.text for document in found.documents()] == ["a/1.jsonl", "b/1.jsonl"]
    assert [document.source for document in found.documents()] == ["a", "b"]
    assert found.card == {"source": "1.jsonl"}
    with pytest.raises(CorpusError, match=r"the pattern .* files of several kinds"):
        find_source(f"{tmp_path}/**/*")
    with pytest.raises(CorpusError, match="neither a file or folder"):
        find_source(f"{tmp_path}/*/3.jsonl")
    with pytest.raises(SpecError, match="split = 'test' has no effect"):
        find_source(f"{tmp_path}/*/1.jsonl", split="test")
    (tmp_path / "x[1].txt").write_text("A file of that name.")
    assert [one.text for one in read_documents(str(tmp_path / "x[1].txt"))] == ["A file of that name."]
