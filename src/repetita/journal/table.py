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
_TEXT = r'"((?:[^"\\]|\\.)*)"'
_LINE = (
    r'^\{"step":(?P<step>\d+),"tokens":(?P<tokens>\d+),"probe":"(?P<probe>[^"\\]*)",'
    rf'"metric":{_TEXT.replace("(", "(?P<metric>", 1)},"on":{_TEXT.replace("(", "(?P<on>", 1)},'
    r'"value":(?P<value>[^,]+),"n":(?P<n>-?\d+),"detail":(?P<detail>.*?)'
    r'(?:,"tokens_total":(?P<tokens_total>\d+))?,"check":"[0-9a-f]{8}"\}$'
)
"""A line of `measurements.jsonl` as `RunFolder.write_measurements` writes it."""

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
    frame = given.with_columns(lines.str.extract_groups(_LINE).struct.unnest())
    odd = frame["step"].is_null()
    if odd.any():
        raise DamagedError(f"{frame.filter(odd)['path'][0]}: a line of measurements.jsonl cannot be read")
    whole = {name: pl.col(name).cast(kind) for name, kind in _MEASUREMENTS.items() if kind != pl.String}
    whole["value"] = pl.col("value").replace("null", None).cast(pl.Float64)
    whole["tokens_total"] = pl.coalesce("tokens_total", "tokens").cast(pl.Int64)
    whole["detail"] = pl.col("detail").replace("null", None)
    for name in ("metric", "on"):  # Names are plain words; one with a quote or accent is unescaped by JSON.
        if frame[name].str.contains("\\", literal=True).any():
            whole[name] = pl.col(name).map_elements(
                lambda text: json.loads(f'"{text}"'), return_dtype=pl.String
            )
    return frame.with_columns(**whole).select(list(_MEASUREMENTS))


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
