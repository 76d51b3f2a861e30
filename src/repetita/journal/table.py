"""Many run folders as one table of measurements: the only reader of journals."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from repetita.errors import DamagedError
from repetita.journal.folder import (
    final_position,
    items_name,
    prefix_matches,
    read_header,
    read_journal,
    verified_lines,
)
from repetita.journal.lines import parse

Row = tuple[Any, ...]

_RUN = {"run": pl.String, "path": pl.String, "step": pl.Int64}
_MEASUREMENTS = _RUN | {
    "tokens": pl.Int64,
    "tokens_total": pl.Int64,
    "probe": pl.String,
    "metric": pl.String,
    "on": pl.String,
    "value": pl.Float64,
    "n": pl.Int64,
    "detail": pl.String,
}
_STEPS = _RUN | {
    "tokens": pl.Int64,
    "tokens_total": pl.Int64,
    "learning_rate": pl.Float64,
    "gradient_norm": pl.Float64,
    "seconds": pl.Float64,
    "lane": pl.String,
    "loss_sum": pl.Float64,
    "hits": pl.Int64,
    "n": pl.Int64,
}
_CORRUPTION = _RUN | {
    "tokens": pl.Int64,
    "kind": pl.String,
    "loss_sum": pl.Float64,
    "hits": pl.Int64,
    "n": pl.Int64,
}
_CHECK_LENGTH = len(',"check":"00000000"}')
_LINE = (
    r'^\{"step":(?P<step>[0-9]+),"tokens":(?P<tokens>[0-9]+),"probe":"(?P<probe>[^"\\]*)",'
    r'"metric":"(?P<metric>[^"\\]*)","on":"(?P<on>[^"\\]*)",'
    r'"value":(?P<value>[^,]+),"n":(?P<n>-?[0-9]+),"detail":(?P<detail>.*)$'
)
"""A line of `measurements.jsonl` without its checksum, as nearly all are; one pass suffices to match it."""
_TOTAL = r'^(?P<detail>.*),"tokens_total":(?P<tokens_total>[0-9]+)$'
"""What stands after `detail` in runs that start from others."""

RUNS_AT_ONCE = 500
"""Runs whose lines are in memory as text."""

_EVENTS = _RUN | {"kind": pl.String, "message": pl.String}


def measurements(paths: Iterable[Path]) -> pl.DataFrame:
    """One row a measurement of the runs in these folders, finished or not.

    Columns: run (whole fingerprint), path, step (updates made before), tokens (scored tokens trained on
    before), tokens_total (those of the runs that it started from included), probe (fingerprint), metric, on
    (the set), value (null: not applicable), n, detail (JSON text or null). Raises DamagedError naming file
    and line.
    """

    empty = pl.DataFrame(schema=_MEASUREMENTS)
    given = list(paths)
    parts = (given[start : start + RUNS_AT_ONCE] for start in range(0, len(given), RUNS_AT_ONCE))
    return pl.concat([empty, *map(_measured, parts)])


def steps(paths: Iterable[Path]) -> pl.DataFrame:
    """One row a step and lane: loss sum (nats), hits and scored tokens of the batch before its update.

    A step whose batch is empty has one row with a null lane. Raises DamagedError naming file and line.
    """

    def rows(line: dict[str, Any]) -> Iterator[Row]:
        line = {"tokens_total": line["tokens"]} | line
        common = tuple(line[name] for name in list(_STEPS)[2:8])
        for lane, (loss_sum, hits, n) in line["sets"].items():
            yield (*common, lane, loss_sum, int(hits), int(n))
        if not line["sets"]:
            yield (*common, None, 0.0, 0, 0)

    return _table(paths, "steps", _STEPS, rows)


def corruption(paths: Iterable[Path]) -> pl.DataFrame:
    """One row a step of a masked run and kind of corruption: the sums of `steps` by what the model was shown.

    Kinds are mask, random and kept. Causal runs have no rows. Raises DamagedError naming file and line.
    """

    def rows(line: dict[str, Any]) -> Iterator[Row]:
        for kind, (loss_sum, hits, n) in line.get("corruption", {}).items():
            yield line["step"], line["tokens"], kind, loss_sum, int(hits), int(n)

    return _table(paths, "steps", _CORRUPTION, rows)


def events(paths: Iterable[Path]) -> pl.DataFrame:
    """One row an event: run, path, step, kind, message."""

    def rows(line: dict[str, Any]) -> Iterator[Row]:
        yield line["step"], line["kind"], line["message"]

    return _table(paths, "events", _EVENTS, rows)


def items(path: Path, *, probe: str, step: int) -> dict[str, NDArray[np.generic]]:
    """The arrays that one probe (its fingerprint) kept at one step, by `<on>/<name>`; {} where none.

    Raises DamagedError where the file is not what the finished run wrote.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    name = items_name(probe, step=step)
    if not (path / name).exists():
        return {}
    data = (path / name).read_bytes()
    position = final_position(path)
    intact = position is None or name not in position.files or prefix_matches(data, position.files[name])
    try:
        if intact:
            return dict(load(data))
    except SafetensorError:
        pass
    raise DamagedError(f"{path / name} is damaged; delete the run's folder and run again")


def _measured(paths: Sequence[Path]) -> pl.DataFrame:
    """`measurements` of some runs, their lines taken apart all at once: ten thousand runs are read often."""
    runs = [(read_header(path)["fingerprint"], str(path)) for path in paths]
    data = [verified_lines(path, journal="measurements") for path in paths]
    n_lines = [lines.count(b"\n") for lines in data]
    lines = pl.Series("line", b"".join(data).decode().split("\n")[:-1], dtype=pl.String)
    place = pl.Series(np.repeat(np.arange(len(runs), dtype=np.uint32), n_lines))
    given = pl.DataFrame(runs, schema={"run": pl.String, "path": pl.String}, orient="row")[place]
    parts = lines.str.head(-_CHECK_LENGTH).str.extract_groups(_LINE).struct.unnest()
    total = parts["detail"].str.extract_groups(_TOTAL).struct.unnest()
    parts = parts.with_columns(
        tokens_total=pl.coalesce(total["tokens_total"], "tokens"),
        detail=pl.coalesce(total["detail"], "detail"),
    )
    found = given.with_columns(parts).with_columns(pl.col("value", "detail").replace("null", None))
    odd = parts["step"].is_null()
    whole = found.filter(~odd).select(pl.col(name).cast(kind) for name, kind in _MEASUREMENTS.items())
    if not odd.any():
        return whole
    # A name with a quote or a backslash is written with escapes.
    escaped = zip(lines.filter(odd), given.filter(odd).rows(), strict=True)
    slow = pl.DataFrame([_row(line, run=run) for line, run in escaped], schema=_MEASUREMENTS, orient="row")
    return pl.concat([whole, slow])[pl.concat([(~odd).arg_true(), odd.arg_true()]).arg_sort()]


def _row(line: str, *, run: Row) -> Row:
    values = parse(line.encode())
    if values is None:
        raise DamagedError(
            f"{run[1]}: a line of measurements.jsonl is damaged; delete that folder and run again"
        )
    values = {"tokens_total": values["tokens"]} | values
    detail = None if values["detail"] is None else json.dumps(values["detail"], separators=(",", ":"))
    return (*run, *(values[name] for name in list(_MEASUREMENTS)[2:-1]), detail)


def _table(
    paths: Iterable[Path],
    journal: str,
    schema: dict[str, type[pl.DataType]],
    rows: Callable[[dict[str, Any]], Iterator[Row]],
) -> pl.DataFrame:
    columns: list[list[Any]] = [[] for _ in schema]
    for path in paths:
        run = (read_header(path)["fingerprint"], str(path))
        for line in read_journal(path, journal=journal):
            for row in rows(line):
                for column, value in zip(columns, run + row, strict=True):
                    column.append(value)
    return pl.DataFrame(dict(zip(schema, columns, strict=True)), schema=schema)
