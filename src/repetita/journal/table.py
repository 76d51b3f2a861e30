"""Many run folders as one table of measurements: the only reader of journals."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from repetita.errors import DamagedError
from repetita.journal.folder import final_position, items_name, prefix_matches, read_header, read_journal

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
_EVENTS = _RUN | {"kind": pl.String, "message": pl.String}


def measurements(paths: Iterable[Path]) -> pl.DataFrame:
    """One row a measurement of the runs in these folders, finished or not.

    Columns: run (whole fingerprint), path, step (updates made before), tokens (scored tokens trained on
    before), tokens_total (those of the runs that it started from included), probe (fingerprint), metric, on
    (the set), value (null: not applicable), n, detail (JSON text or null). Raises DamagedError naming file
    and line.
    """

    def rows(line: dict[str, Any]) -> Iterator[Row]:
        line = {"tokens_total": line["tokens"]} | line
        detail = None if line["detail"] is None else json.dumps(line["detail"], sort_keys=True)
        yield (*(line[name] for name in list(_MEASUREMENTS)[2:-1]), detail)

    return _table(paths, "measurements", _MEASUREMENTS, rows)


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
