"""Tables of every kind give the same columns, and each mistake is named by file, column and row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.errors import SpecError, UserError
from repetita.fit.columns import Columns, chosen, columns_of

ROWS = [{"params": 1000.0 * i, "loss": 5.0 - 0.1 * i} for i in range(1, 6)]
ROLES = {"params": "params", "loss": "loss"}


def written(folder: Path, kind: str) -> Path:
    path = folder / f"runs{kind}"
    if kind == ".parquet":
        pl.DataFrame(ROWS).write_parquet(path)
    elif kind in (".jsonl", ".ndjson"):
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    else:
        cut = {".tsv": "\t"}.get(kind, ",")
        lines = [cut.join(ROWS[0]), *(cut.join(str(v) for v in row.values()) for row in ROWS)]
        path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_files_of_every_kind(kind: str, tmp_path: Path) -> None:
    found = chosen(columns_of(str(written(tmp_path, kind))), roles=ROLES, positive=ROLES)
    assert found.numbers["params"].tolist() == [row["params"] for row in ROWS]
    assert found.numbers["loss"].tolist() == [row["loss"] for row in ROWS]
    assert not found.warnings


@pytest.mark.parametrize(
    "table", [ROWS, pl.DataFrame(ROWS), {name: [row[name] for row in ROWS] for name in ROWS[0]}]
)
def test_tables_in_memory(table: Any) -> None:
    assert chosen(columns_of(table), roles=ROLES, positive=()).numbers["loss"][0] == 4.9


def test_a_semicolon_separates_where_the_heads_say_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text('"params";"loss"\r\n1e6;3.5\r\n')
    assert dict(columns_of(path)) == {"params": ["1e6"], "loss": ["3.5"]}


def test_rows_that_lack_a_number_are_left_out_and_said() -> None:
    table: Columns = {"params": ["1", "", None, "4"], "loss": [2.0, 2.0, 2.0, " "]}
    found = chosen(table, roles=ROLES, positive=ROLES)
    assert found.rows.tolist() == [0]
    assert found.warnings == ("3 rows lack a number in a column and are left out",)


def test_the_worst_rows_are_those_of_highest_loss() -> None:
    table: Columns = {"params": [1, 2, 3, 4], "loss": [2.0, 9.0, 1.0, 3.0]}
    assert chosen(table, roles=ROLES, positive=ROLES, drop_worst=2).rows.tolist() == [0, 2]
    for k in (-1, 4):
        with pytest.raises(SpecError, match=f"cannot drop the {k} worst of 4 rows"):
            chosen(table, roles=ROLES, positive=ROLES, drop_worst=k)


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        ({"parms": [1], "loss": [1]}, r"no column 'params' \(--params names another\); did you mean 'parms'"),
        ({"params": [1, "ten"], "loss": [1, 1]}, "no number, 'ten' in row 2"),
        ({"params": [1, [2]], "loss": [1, 1]}, "no number, '\\[2\\]' in row 2"),
        ({"params": [1, 2], "loss": [1, float("nan")]}, "'loss' has nan in row 2, which is no finite number"),
        ({"params": ["1", "inf"], "loss": [1, 1]}, "'params' has inf in row 2"),
        ({"params": np.array([np.nan, 1]), "loss": np.ones(2)}, "'params' has nan in row 1"),
        ({"params": [1, 0], "loss": [1, 1]}, "'params' has 0 in row 2; the law needs values above 0"),
        ({"params": [1, 1], "loss": [1, -2]}, "'loss' has -2 in row 2"),
    ],
)
def test_mistakes_are_named(table: dict[str, list[Any]], hint: str) -> None:
    with pytest.raises(SpecError, match=hint):
        chosen(table, roles=ROLES, positive=ROLES)


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("none.csv", None, "there is no file"),
        ("runs.xlsx", b"x", r"cannot tell what 'runs.xlsx' is; name a table .csv, .tsv"),
        ("runs.csv", b"", "is empty"),
        ("runs.csv", b"params,loss\n", "is empty"),
        ("runs.csv", b"params,loss\n1,2,3\n", "3 cells in row 1, but 2 heads"),
        ("runs.csv", b"loss,loss\n1,2\n", "two columns 'loss'"),
        ("runs.csv", b'params,loss\n1,"2\n', "is no CSV"),
        ("runs.csv", b"params,loss\n\xff\xfe,2\n", "not UTF-8"),
        ("runs.jsonl", b"", "is empty"),
        ("runs.jsonl", b'{"a": 1}\n[1]\n', "line 2 of .* is no JSON object"),
        ("runs.jsonl", b'{"a": 1\n', "line 1 of .* is no JSON object"),
        ("runs.parquet", b"no parquet", "cannot be read as Parquet"),
    ],
)
def test_files_that_are_no_tables(name: str, content: bytes | None, hint: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=hint):
        columns_of(tmp_path / name)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        columns_of(tmp_path)


def test_numbers_are_not_rounded() -> None:
    value = 1.234567890123456
    found = chosen({"params": [str(value)], "loss": [value]}, roles=ROLES, positive=ROLES)
    assert np.all([column[0] == value for column in found.numbers.values()])
