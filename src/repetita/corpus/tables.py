"""Parquet files and the Arrow files of `Dataset.save_to_disk` as rows, a few at a time."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repetita.corpus.source import KNOWN_FIELDS, READ_BYTES, Row, unreadable
from repetita.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow

BATCH_BYTES = 4 << 20
"""Text of a Parquet file that is decoded at a time, as far as its rows are alike."""
BATCH_ROWS = 256

TEXT_TYPES = ("string", "large_string", "string_view", "null")
"""Arrow's types of a column of text, plain or as the values of a dictionary; nulls alone are no documents."""


def parquet_rows(path: Path, *, text_field: str) -> Iterator[Row]:
    """The rows of a Parquet file; of their columns the text and KNOWN_FIELDS.

    Pages are read and decoded one after another, so that a row group of any size needs little memory.
    Raises CorpusError where pyarrow is missing, the file is damaged, the column is not there, holds
    something else or a text that is not UTF-8 (row and byte).
    """
    arrow = needs_pyarrow(path)
    import pyarrow.parquet as parquet

    try:
        # Without a buffer, or with pre_buffer, the column of a whole row group would be read at once.
        with parquet.ParquetFile(
            path, buffer_size=READ_BYTES, pre_buffer=False, page_checksum_verification=True
        ) as file:
            columns = _columns(file.schema_arrow, path=path, text_field=text_field)
            batches = file.iter_batches(_batch_rows(file, text_field), columns=columns, use_threads=False)
            yield from _rows(batches, path=path)
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def arrow_rows(path: Path, *, text_field: str) -> Iterator[Row]:
    """The rows of a file in Arrow's stream format, batch by batch; as `parquet_rows` otherwise."""
    arrow = needs_pyarrow(path)
    try:
        # Read rather than mapped: mapped pages would count as this process's memory.
        with arrow.OSFile(str(path)) as file:
            with arrow.ipc.open_stream(file) as stream:
                schema = stream.schema
            columns = _columns(schema, path=path, text_field=text_field)
            options = arrow.ipc.IpcReadOptions(included_fields=[schema.names.index(name) for name in columns])
            file.seek(0)
            with arrow.ipc.open_stream(file, options=options) as stream:
                yield from _rows(stream, path=path)
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def needs_pyarrow(path: Path) -> Any:
    """The module pyarrow; CorpusError with what to install."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise CorpusError(f"reading {path} needs pyarrow; run: pip install 'repetita[hf]'") from None
    return pyarrow


def _columns(schema: "pyarrow.Schema", *, path: Path, text_field: str) -> list[str]:
    """The columns to read; CorpusError unless one of them is the text."""
    names = schema.names
    if names.count(text_field) != 1:
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise CorpusError(f"{path} has no column '{text_field}' ({has}); name the right one as text_field")
    kind = str(schema.field(text_field).type)
    if kind.removeprefix("dictionary<values=").split(",")[0] not in TEXT_TYPES:
        raise CorpusError(
            f"the column '{text_field}' of {path} holds {kind}, not text; name another of its columns as "
            f"text_field ({', '.join(names)}) or write it as strings"
        )
    return [text_field, *(name for name in KNOWN_FIELDS if names.count(name) == 1 and name != text_field)]


def _batch_rows(file: Any, text_field: str) -> int:
    """Rows that hold about BATCH_BYTES of text, by the sizes that the file gives."""
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    place = [file.metadata.schema.column(leaf).path for leaf in range(file.metadata.num_columns)].index(
        text_field
    )
    n_bytes: int = sum(group.column(place).total_uncompressed_size for group in groups)
    return max(1, min(BATCH_ROWS, BATCH_BYTES * int(file.metadata.num_rows) // max(n_bytes, 1)))


def _rows(batches: Iterable["pyarrow.RecordBatch"], *, path: Path) -> Iterator[Row]:
    number = 0
    for batch in batches:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for place in range(batch.num_rows):
            number += 1
            where = f"{path}, row {number}"
            yield Row({name: _value(of[place], name, where) for name, of in columns.items()}, number, where)


def _value(scalar: Any, name: str, where: str) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{where}: the column '{name}' is not UTF-8: byte {error.start} is "
            f"0x{error.object[error.start]:02x}; write the file again with its text decoded"
        ) from None


def _damaged(path: Path, error: Exception) -> CorpusError:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, FileNotFoundError):
        return unreadable(path, error)
    if isinstance(error, FileNotFoundError):
        return CorpusError(f"{path} is missing; copy or download the data set again")
    kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
    said = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    return CorpusError(f"{path} is not a sound {kind} file ({said}); copy or download it again")
