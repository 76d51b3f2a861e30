"""Writing so that a file is there whole or not at all, with a sentence for every refusal of the disk."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from repetita.errors import StorageError

_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again to continue",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again to continue",
    errno.EFBIG: "the file would exceed the size that is allowed here (ulimit -f); raise it and run again",
    errno.EROFS: "the file system is read-only; choose another folder with --root",
    errno.EACCES: "writing there is not permitted; choose another folder with --root",
    errno.EPERM: "writing there is not permitted; choose another folder with --root",
    errno.ENOTDIR: "a part of the path is a file; choose another folder with --root",
    errno.EEXIST: "a file is in the way; remove it or choose another folder with --root",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an operating system's error while writing at `path` into a StorageError with the fix."""
    try:
        yield
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0, f"{error.strerror or error}; choose another folder with --root")
        raise StorageError(f"cannot write {path}: {cause}") from error


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Writes a file that is there whole or not at all, also after a power cut; see `atomic_file`."""
    with atomic_file(path, durable=durable) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write to that is there whole or not at all, also after a power cut.

    A temporary file in the same folder (made when missing) is synced and renamed over `path`, then the
    folder is synced. Raises StorageError; whatever stood at `path` before is then untouched, as it is when
    what writes raises anything. Not `durable`, nothing is synced: that is then for the caller to do before
    anything relies on the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if durable:
            sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Makes what is in a file survive a power cut (fsync)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Makes renames and new names in a folder survive a power cut (fsync of the folder)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
