"""What is written down about a run: the lines of its journal, as values."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

SCHEMA = 1
"""Number in `run.json` and in the first line of each journal; raised when a reader must know."""


class Reading(NamedTuple):
    """What a probe yields: one number about one set of sequences.

    `value` is None where the metric is not defined ("not applicable"), `detail` says why or holds
    small structured extras (JSON types only); `items` are per-sequence or per-token arrays, kept
    beside the journal.
    """

    metric: str
    on: str
    value: float | None
    n: int
    detail: dict[str, Any] | None = None
    items: Mapping[str, NDArray[Any]] | None = None


class Measurement(NamedTuple):
    """One line of `measurements.jsonl`; `step` counts updates made before it was taken.

    `tokens_total` is as in `StepRecord`.
    """

    step: int
    tokens: int
    probe: str
    metric: str
    on: str
    value: float | None
    n: int
    detail: dict[str, Any] | None = None
    tokens_total: int | None = None


class StepRecord(NamedTuple):
    """One line of `steps.jsonl`: the batch of `step`, before its update.

    `sets` maps a lane label (train, repeated, special, placebo, novel, inserted) to `[loss sum in nats,
    hits, scored tokens]`. `tokens` counts scored tokens before this step. `seconds` is wall time
    and the only field in which a resumed run may differ from an uninterrupted one. In a masked run
    `corruption` holds the same sums by what the model was shown at the scored positions (mask, random, kept);
    in a causal one it is empty. In a run that starts from another one `tokens_total` is `tokens` and those
    that its first weights were trained on; in any other it is None, which is not written down.
    """

    step: int
    tokens: int
    learning_rate: float
    gradient_norm: float
    sets: dict[str, list[float]]
    seconds: float
    corruption: dict[str, list[float]] = {}  # noqa: RUF012 - never written to
    tokens_total: int | None = None


class Event(NamedTuple):
    """One line of `events.jsonl`: something happened (resumed, spike, probe failed, damaged)."""

    step: int
    kind: str
    message: str


class JournalPosition(NamedTuple):
    """Length in bytes and SHA-256 of each journal file up to there; the part a resume keeps."""

    files: dict[str, tuple[int, str]]
