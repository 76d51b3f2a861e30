"""A table of an order is read in any of its forms, and every bad one is a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.errors import CorpusError, SpecError
from repetita.study.known_order import FromTable

ROWS = {"update": [3, 0, 3, 7, 3], "name": ["a", "b", "b", "a", "a"]}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_times_seen_are_counted_before_a_step(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"order{suffix}"
    writers: dict[str, Any] = {
        ".parquet": pl.DataFrame.write_parquet,
        ".csv": pl.DataFrame.write_csv,
        ".jsonl": pl.DataFrame.write_ndjson,
    }
    writers[suffix](pl.DataFrame(ROWS), path)
    order = FromTable(path=str(path), step="update", text="name").read()
    np.testing.assert_array_equal(order.times_seen("a", step=[0, 3, 4, 7, 8]), [0, 0, 2, 2, 3])
    np.testing.assert_array_equal(order.times_seen("b", step=[0, 1, 4]), [0, 1, 2])
    assert order.times_seen("c", step=9) == 0
    assert (order.known("x", "b", "a"), order.known("x")) == ("b", None)


def test_the_first_update_may_have_any_number(tmp_path: Path) -> None:
    pl.DataFrame({"step": [1, 2], "text": ["a", "a"]}).write_csv(tmp_path / "order.csv")
    order = FromTable(path=str(tmp_path / "order.csv"), first=1).read()
    np.testing.assert_array_equal(order.times_seen("a", step=[0, 1, 2]), [0, 1, 2])
    with pytest.raises(CorpusError, match="has a step below first = 2"):
        FromTable(path=str(tmp_path / "order.csv"), first=2).read()


def test_what_is_no_order_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "order.csv").write_text("steps,text\n1,a\n,b\n")
    with pytest.raises(CorpusError, match="has no column 'step'; did you mean 'steps'"):
        FromTable(path=str(tmp_path / "order.csv")).read()
    with pytest.raises(CorpusError, match="must hold a whole number in every row"):
        FromTable(path=str(tmp_path / "order.csv"), step="steps").read()
    with pytest.raises(CorpusError, match=r"there is no table .*did you mean 'order.csv'"):
        FromTable(path=str(tmp_path / "ordre.csv")).read()
    with pytest.raises(SpecError, match=r"is no table; give a .parquet"):
        FromTable(path=str(tmp_path / "order.txt")).read()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match=r"bad.parquet cannot be read \("):
        FromTable(path=str(tmp_path / "bad.parquet")).read()
