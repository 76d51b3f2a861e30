"""Small Parquet files and what a corpus that cannot be read is refused with."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from repetita.corpus.documents import read_documents
from repetita.errors import CorpusError


def refusal(source: Path | str, **options: Any) -> str:
    """The one sentence with which a corpus is refused."""
    with pytest.raises(CorpusError) as caught:
        list(read_documents(str(source), **options))
    said = str(caught.value)
    assert "; " in said and "\n" not in said
    return said


def parquet(file: Path, **columns: Any) -> Path:
    """A Parquet file of these columns."""
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file


def not_utf8(rows: list[bytes]) -> pyarrow.Array:
    """A column of text that holds these bytes, whatever they are."""
    return pyarrow.Array.from_buffers(pyarrow.string(), len(rows), pyarrow.array(rows).buffers())
