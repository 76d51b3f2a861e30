"""Interleaved rounds: contenders take turns, ratios are taken within a round and have intervals."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from repetita.fit.estimate import Estimate, t_interval
from repetita.journal.disk import write_atomic

RESULTS = Path(__file__).parent / "results"
ROUNDS = 7
"""Rounds where one is short: a t interval over fewer says little, and is wide."""


class Compared(NamedTuple):
    """What each contender scored in each round, in one unit."""

    values: Mapping[str, Sequence[float]]

    def ratio(self, name: str, *, to: str) -> Estimate:
        """Geometric mean over rounds of `name` / `to`, with its t interval on the log scale."""
        ratios = [a / b for a, b in zip(self.values[name], self.values[to], strict=True)]
        return t_interval(ratios, scale="log", contains="rounds")

    def middle(self, name: str) -> float:
        """The median over rounds."""
        ordered = sorted(self.values[name])
        half = len(ordered) // 2
        return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def interleaved(
    contenders: Mapping[str, Callable[[], float]],
    *,
    rounds: int = ROUNDS,
    on_round: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Compared:
    """Calls each contender once a round, in an order that turns from round to round."""
    names = list(contenders)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            values[name].append(contenders[name]())
        if on_round is not None:
            on_round(number, {name: values[name][-1] for name in names})
    return Compared(values)


def machine(*packages: str) -> dict[str, Any]:
    """What a result depends on and may be told of a machine: no host name, no path."""
    found = {}
    for name in ("repetita", "torch", "numpy", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": _cores(),
        "packages": found,
        "commit": _commit(),
    }


def estimate(of: Estimate) -> dict[str, float | int | None]:
    """An estimate as JSON types, to four digits."""
    rounded = {name: None if (v := getattr(of, name)) is None else float(f"{v:.4g}") for name in _BOUNDS}
    return rounded | {"n": of.n}


def save(name: str, result: Mapping[str, Any]) -> Path:
    """Writes `results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())
    return path


def say(line: str = "") -> None:
    """A line on the terminal, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


_BOUNDS = ("value", "low", "high")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
