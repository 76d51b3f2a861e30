"""Files that grow, of which only the committed part counts after a kill."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple, Self

READ_BYTES = 1 << 20


class Committed(NamedTuple):
    """What is sure to be on disk of a file."""

    bytes: int
    sha256: str


class GrowingFile:
    """A file that is only appended to, its hash kept along the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._file = path.open("ab")

    @classmethod
    def reopen(cls, path: Path, *, committed: Committed) -> Self | None:
        """The file as it was committed, what came after cut off; None where that part is not there."""
        file = cls(path)
        with path.open("rb") as read:
            while file.bytes < committed.bytes:
                if not (data := read.read(min(READ_BYTES, committed.bytes - file.bytes))):
                    break
                file._hash.update(data)
                file.bytes += len(data)
        if file.bytes != committed.bytes or file._hash.hexdigest() != committed.sha256:
            file.close()
            return None
        file._file.truncate(committed.bytes)
        return file

    def write(self, data: bytes) -> None:
        """Appends; others can read it after `flush`."""
        self._file.write(data)
        self._hash.update(data)
        self.bytes += len(data)

    def flush(self) -> None:
        """Hands everything to the operating system."""
        self._file.flush()

    def commit(self) -> Committed:
        """Makes everything so far survive a power cut."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return Committed(self.bytes, self._hash.hexdigest())

    def close(self) -> None:
        """Nothing more will be written."""
        self._file.close()
