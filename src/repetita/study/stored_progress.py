"""How far runs are, told through a storage where their driver sees no file of theirs."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from repetita.errors import StorageError
from repetita.journal.disk import write_atomic
from repetita.journal.storage import Storage
from repetita.journal.stored_run import PAUSES
from repetita.study.progress import ProgressFile, Sight

TOLD_SECONDS = 10.0
"""How often a run is told of, and asked for: each time is a request to the store."""
AT_ONCE = 16


def _folder(work: Path) -> str:
    return f"progress/{work.name}"


class StoredProgress(ProgressFile):
    """A progress file that is also written to a storage, now and then, until the storage refuses."""

    def __init__(self, path: Path, *, storage: Storage) -> None:
        super().__init__(path)
        self._storage: Storage | None = storage
        self._name = f"{_folder(path.parent)}/{path.name}"
        self._told = -TOLD_SECONDS
        self._since = time.monotonic()

    def show(self, sight: Sight) -> None:
        """See `ProgressFile.show`."""
        super().show(sight)
        now = time.monotonic()
        if self._storage is None or sight.ended or now - self._told < TOLD_SECONDS:
            return
        self._told = now
        told = sight._asdict() | {"seconds": round(now - self._since, 3)}
        try:
            self._storage.put(self._name, json.dumps(told).encode())
        except StorageError:  # A display is not worth that a run waits again.
            self._storage = None


class StoredSights:
    """The driver's end: brings what was told to the files that it looks at."""

    def __init__(self, storage: Storage, *, work: Path) -> None:
        self._storage, self._work = storage, work
        self._looked = time.monotonic()

    def refresh(self) -> None:
        """Brings what is new, unless it was asked for a moment ago."""
        began = time.monotonic()
        if began - self._looked < TOLD_SECONDS:
            return
        with suppress(StorageError), ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self._bring, self._storage.names(_folder(self._work))))
        now = time.monotonic()
        self._looked = now + PAUSES * (now - began)  # A storage that does not answer is not waited for long.

    def forget(self) -> None:
        """Takes away what was told."""
        with suppress(StorageError):
            names = self._storage.names(_folder(self._work))
            self._storage.remove(f"{_folder(self._work)}/{name}" for name in names)

    def _bring(self, name: str) -> None:
        with suppress(FileNotFoundError, StorageError):
            data = self._storage.get(f"{_folder(self._work)}/{name}")
            # The driver may look at any time, and a full disk is no reason to stop.
            write_atomic(self._work / Path(name).name, data, durable=False)
