"""Columns of numbers from a table: a CSV, JSONL or Parquet file, a frame, rows; each mistake named by row."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.errors import SpecError, UserError, nearest

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
Rows = Iterable[Mapping[str, Any]]

_KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


class Chosen(NamedTuple):
    """The rows that a law reads."""

    numbers: dict[str, NDArray[np.float64]]
    """Columns by role."""
    rows: NDArray[np.int64]
    """Their places in the table."""
    warnings: tuple[str, ...]


def columns_of(table: Any) -> Columns:
    """A table as columns by name; a path is read. Raises UserError for a file that cannot be."""
    if isinstance(table, (str, Path)):
        return read_columns(Path(table))
    if hasattr(table, "get_columns"):
        return {column.name: column.to_list() for column in table.get_columns()}
    if isinstance(table, Mapping):
        return table
    return _by_name(list(table))


def read_columns(path: Path) -> Columns:
    """The columns of a file by its ending: .csv, .tsv, .jsonl (.ndjson) or .parquet."""
    kind = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"there is no file '{path}'; give a table as CSV, JSONL or Parquet")
    if kind not in _KINDS:
        raise UserError(f"cannot tell what '{path.name}' is; name a table {', '.join(_KINDS)}")
    try:
        if kind == ".parquet":
            return _parquet(path)
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is not UTF-8 text; save it as such") from None
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}; check its permissions") from None
    found = _separated(path, text) if kind in (".csv", ".tsv") else _json_lines(path, text)
    if not found or not len(next(iter(found.values()))):
        raise UserError(f"'{path}' is empty; give a table with a row for each run")
    return found


def chosen(
    columns: Columns,
    *,
    roles: Mapping[str, str],
    positive: Iterable[str],
    drop_worst: int = 0,
) -> Chosen:
    """The columns of each role (role -> column name) as numbers, without rows that lack one (an empty cell).

    The roles `positive` must be above 0. The `drop_worst` rows with the highest values of the last role are
    left out. Raises SpecError for an unknown column and for a cell that is no finite number or not above 0.
    """
    for role, name in roles.items():
        if name not in columns:
            option = f" (--{role.replace('_', '-')} names another)" if name == role else ""
            raise SpecError(f"the table has no column '{name}'{option}; {nearest(name, columns)}")
    numbers = {role: to_numbers(columns[name], name=name) for role, name in roles.items()}
    for role, name in roles.items():
        _check_finite(columns[name], numbers[role], name)
    there = np.all([np.isfinite(column) for column in numbers.values()], axis=0)
    warnings = []
    if not there.all():
        n = int((~there).sum())
        warnings.append(
            f"{n} {'row lacks' if n == 1 else 'rows lack'} a number in a column and "
            f"{'is' if n == 1 else 'are'} left out"
        )
    for role in positive:
        low = np.flatnonzero(there & (numbers[role] <= 0))
        if len(low):
            value = numbers[role][low[0]]
            raise SpecError(
                f"the column '{roles[role]}' has {value:g} in row {low[0] + 1}; the law needs values above 0"
            )
    rows = np.flatnonzero(there)
    if drop_worst < 0 or (drop_worst and drop_worst >= len(rows)):
        raise SpecError(f"cannot drop the {drop_worst} worst of {len(rows)} rows; give a smaller number")
    if drop_worst:
        last = numbers[list(roles)[-1]]
        worst = set(rows[np.argsort(last[rows], kind="stable")[len(rows) - drop_worst :]].tolist())
        rows = np.array([row for row in rows.tolist() if row not in worst], dtype=np.int64)
    return Chosen({role: column[rows] for role, column in numbers.items()}, rows, tuple(warnings))


def to_numbers(column: Sequence[Any] | NDArray[Any], *, name: str) -> NDArray[np.float64]:
    """A column as numbers, nothing (None, an empty cell) as nan; SpecError for a cell that is no number."""
    found = np.empty(len(column))
    for i, cell in enumerate(column):
        try:
            if isinstance(cell, str):
                cell = cell.strip() or None
            found[i] = np.nan if cell is None else float(cell)
        except (TypeError, ValueError):
            shown = str(cell) if len(str(cell)) <= 40 else f"{str(cell)[:39]}…"
            raise SpecError(
                f"the column '{name}' holds something that is no number, '{shown}' in row {i + 1}; "
                "mend it or leave the row out"
            ) from None
    return found


def _check_finite(column: Sequence[Any] | NDArray[Any], read: NDArray[np.float64], name: str) -> None:
    """SpecError for a cell that says nan or inf: a law must not lose sight of a run that diverged."""
    for i in np.flatnonzero(~np.isfinite(read)).tolist():
        if column[i] is not None and str(column[i]).strip():
            raise SpecError(
                f"the column '{name}' has {read[i]:g} in row {i + 1}, which is no finite number; leave the "
                "row out, or its cell empty"
            )


def _separated(path: Path, text: str) -> Columns:
    head = text.partition("\n")[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"'{path}' is no CSV (line {reader.line_num}: {error}); mend that line") from None
    heads = [head.strip() for head in rows[0]] if rows else []
    for i, row in enumerate(rows[1:], start=1):
        if len(row) != len(heads):
            raise UserError(
                f"'{path}' has {len(row)} cells in row {i}, but {len(heads)} heads; mend that row"
            )
    twice = {head for head in heads if heads.count(head) > 1}
    if twice:
        raise UserError(f"'{path}' has two columns '{min(twice)}'; rename one")
    return {head: [row[j] for row in rows[1:]] for j, head in enumerate(heads)}


def _json_lines(path: Path, text: str) -> Columns:
    rows: list[Mapping[str, Any]] = []
    for i, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"line {i} of '{path}' is no JSON object; give one object a line")
        rows.append(row)
    return _by_name(rows)


def _parquet(path: Path) -> Columns:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError):
        raise UserError(f"'{path}' cannot be read as Parquet; write it anew") from None
    return columns_of(frame)


def _by_name(rows: list[Mapping[str, Any]]) -> Columns:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
