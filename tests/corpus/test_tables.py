"""Parquet is read row by row in little memory, and what is wrong with a file is named."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from repetita.corpus.documents import Document, find_source, read_documents
from repetita.corpus.tables import BATCH_ROWS
from tests.corpus.tables import not_utf8, parquet, refusal


def test_columns_are_read_as_the_fields_of_json_lines(tmp_path: Path) -> None:
    file = parquet(
        tmp_path / "Geese 1.parquet",
        id=[7, None, 9],
        text=["Gänse\n", "zwei", "drei"],
        date=[date(1911, 1, 2), None, date(1912, 3, 4)],
        source=["zoo", None, "pond"],
        weight=[1.0, 2.0, 3.0],
    )
    source = find_source(str(file))
    assert (source.name, source.card) == ("geese-1", {"source": "Geese 1.parquet"})
    assert list(source.documents()) == [
        Document("Gänse\n", "7", "zoo", "1911-01-02"),
        Document("zwei", "2", "", None),
        Document("drei", "9", "pond", "1912-03-04"),
    ]


def test_rows_without_text_are_passed_over_and_keep_their_number(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", text=[None, "a", "", " \n", "b"])
    assert [(d.text, d.name) for d in read_documents(str(file))] == [("a", "2"), ("b", "5")]


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.string_view(), "dictionary"])
def test_every_type_of_text_is_text(tmp_path: Path, kind: object) -> None:
    column = pyarrow.array(["a", "b", "a"])
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    file = parquet(tmp_path / "a.parquet", body=column)
    assert [d.text for d in read_documents(str(file), text_field="body")] == ["a", "b", "a"]


def test_rows_come_in_order_over_pages_batches_and_row_groups(tmp_path: Path) -> None:
    texts = [f"{number} " * (1 + number % 50) for number in range(5 * BATCH_ROWS)]
    table = pyarrow.table({"text": texts, "junk": texts})
    for size in (len(texts), 100):
        file = tmp_path / f"{size}.parquet"
        pyarrow.parquet.write_table(table, file, row_group_size=size, data_page_size=1000)
        assert [d.text for d in read_documents(str(file))] == texts


def test_a_column_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", body=["a"], n=[1], parts=[["a"]], data=[b"a"])
    assert "a.parquet has no column 'text' (it has body, n, parts, data); name" in refusal(file)
    for column, kind in {"n": "int64", "parts": "list<", "data": "binary"}.items():
        assert f"the column '{column}' of {file} holds {kind}" in refusal(file, text_field=column)
    assert "(it has none)" in refusal(parquet(tmp_path / "none.parquet"))


def test_bytes_that_are_not_utf8_are_named_with_their_row(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", text=not_utf8([b"ok", b"G\xe4nse"]))
    assert "a.parquet, row 2: the column 'text' is not UTF-8: byte 1 is 0xe4; " in refusal(file)
    surrogate = parquet(tmp_path / "b.parquet", text=not_utf8([b"ab\xed\xa0\x80"]))
    assert "row 1: the column 'text' is not UTF-8: byte 2 is 0xed; " in refusal(surrogate)
    named = parquet(tmp_path / "c.parquet", text=["ok"], title=not_utf8([b"\xff"]))
    assert "row 1: the column 'title' is not UTF-8: byte 0 is 0xff; " in refusal(named)


def test_a_file_that_is_cut_or_garbled_is_named(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"text {number}" * 9 for number in range(1000)]})
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, file, compression="zstd", write_page_checksum=True)
    sound = file.read_bytes()
    garbled = bytearray(sound)
    garbled[len(sound) // 3] ^= 0xFF
    for data in (sound[: len(sound) // 2], sound[:-3], b"", b"PAR1", bytes(garbled), b"words " * 99):
        file.write_bytes(data)
        assert "a.parquet is not a sound Parquet file (" in refusal(file)


def test_what_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = parquet(tmp_path / "a.parquet", text=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "a.parquet needs pyarrow; run: pip install 'repetita[hf]'" in refusal(file)


PEAK = """
import resource, sys
from repetita.corpus.documents import read_documents
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
documents = read_documents(sys.argv[1])
next(documents)
before = peak()
print(sum(len(document.text) for document in documents), (peak() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_memory_does_not_grow_with_a_row_group(tmp_path: Path, compression: str) -> None:
    texts = [(chr(97 + number % 26) + str(number)) * 1000 for number in range(40_000)]
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts}), file, row_group_size=len(texts), compression=compression
    )
    done = subprocess.run([sys.executable, "-c", PEAK, str(file)], capture_output=True, text=True, check=True)
    n_characters, megabytes = map(int, done.stdout.split())
    assert n_characters > 200e6
    assert megabytes < 64
