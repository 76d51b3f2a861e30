"""What a worker says about its order, in a small file of its own that the driver reads."""

import json
import time
from pathlib import Path
from typing import Literal, NamedTuple

from repetita.errors import StorageError
from repetita.journal.disk import storage_errors

State = Literal["starting", "running", "done", "failed", "busy", "died", "lost"]

EVERY_SECONDS = 0.5


class Sight(NamedTuple):
    """What is known of a worker's present order."""

    order: int = 0
    """Number of the order; an older number means that the worker has not begun with this one."""
    state: State = "starting"
    """At its end done, failed, busy (another process writes that run), died (one of its processes did), or
    lost (its job was stopped)."""
    message: str = ""
    """Why it failed, or which probes did."""
    step: int = 0
    steps: int = 0
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    """Since the worker began with the order."""

    @property
    def share(self) -> float:
        """How much of its steps is done, between 0 and 1."""
        return self.step / self.steps if self.steps else 0.0

    @property
    def ended(self) -> bool:
        """Whether the order came to its end, one way or the other."""
        return self.state in ("done", "failed", "busy", "died", "lost")


class ProgressFile:
    """The writing end: now and then while a run goes on, at once when it ends."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last = 0.0
        self._order, self._began = 0, time.monotonic()

    def show(self, sight: Sight) -> None:
        """Replaces what the file says; does nothing without a path or too soon after the last time."""
        now = time.monotonic()
        if sight.order != self._order:
            self._order, self._began = sight.order, now
        if self._path is None or (now - self._last < EVERY_SECONDS and sight.state == "running"):
            return
        self._last = now
        # Whole or not at all, but not synced: after a power cut nobody reads it, and a sync stalls the run.
        temporary = self._path.with_suffix(".tmp")
        try:
            with storage_errors(self._path):
                temporary.write_text(json.dumps(sight._asdict() | {"seconds": round(now - self._began, 3)}))
                temporary.replace(self._path)
        except StorageError:
            if sight.ended:  # The driver must hear of this; of steps it need not.
                raise


def read_sight(path: Path) -> Sight | None:
    """What a worker last wrote; None before it wrote anything, and for what is none of this version."""
    try:
        return Sight(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
