"""Where a study's files are kept for machines that share no disk: an object store or folder by its URL."""

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from repetita.errors import DamagedError, SpecError, StorageError, first_line, nearest
from repetita.journal.disk import atomic_file, storage_errors

SCHEMA = 1
MARKER = "repetita.json"
"""Says below a URL that files of this package are kept there; written by whoever opens it to write."""
WAITS = (1.0, 4.0)
"""Seconds before each further try of what the store did not answer; its own library has tried before."""
BLOCK = 1 << 20
PATIENCE = 60.0
"""After so many seconds it is not tried again: a network that is gone without a word is long in saying so."""
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ODD = (errno.EINVAL, errno.ENOSYS)
"""What a store says that does not know how to create exclusively, or has its own way to say that one was."""

_Answer = TypeVar("_Answer")


class Storage:
    """Objects below a URL that fsspec knows (s3://, gs://, memory://, file:// ...), by names with slashes.

    An object is there whole or not at all: the stores see to that, and for file:// a rename does. Credentials
    and endpoints come from the environment alone. Every method raises StorageError, one sentence with the URL
    and the fix, where the store refuses or, tried three times, does not answer; what is not there is
    FileNotFoundError.
    """

    def __init__(self, url: str, *, files: Any, base: str) -> None:
        self.url = url
        self._files, self._base = files, base.rstrip("/")
        self._is_folder = isinstance(files.protocol, tuple) and "file" in files.protocol

    @classmethod
    def open(cls, url: str, *, new: bool = True) -> Self:
        """The storage at a URL, looked at once: written to, or (not `new`) found to be one.

        Raises SpecError for what is no URL or a protocol that nobody knows, StorageError for another schema.
        """
        files, base = _file_system(url)
        storage = cls(url.rstrip("/"), files=files, base=base)
        try:
            schema = json.loads(storage.get(MARKER))["schema"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            if not new:
                raise StorageError(
                    f"nothing was kept at {url} by this package; look at the URL, or run a study with it "
                    f"first"
                ) from None
            schema = SCHEMA
        if schema != SCHEMA:
            raise StorageError(f"{url} has schema {schema}, this version reads {SCHEMA}; update repetita")
        if new:
            storage.put(MARKER, json.dumps({"schema": SCHEMA}).encode())
        return storage

    @property
    def shared(self) -> bool:
        """Whether other processes see it."""
        return not self.url.startswith("memory:")

    def names(self, below: str) -> dict[str, int]:
        """The objects below a name, relative to it, with their bytes."""
        where = f"{self._base}/{below}"

        def find() -> dict[str, Any]:
            self._files.invalidate_cache()
            # Otherwise a folder that cannot be read is an empty one.
            strict = {"on_error": _unless_gone} if self._is_folder else {}
            found: dict[str, Any] = self._files.find(where, detail=True, **strict)
            return found

        prefix = f"{where}/"
        try:
            listed = self._tried(find).items()
        except FileNotFoundError as error:
            raise self._refused(_lacking(error)) from None
        return {
            name.removeprefix(prefix): int(entry["size"]) for name, entry in listed if name.startswith(prefix)
        }

    def get(self, name: str) -> bytes:
        """The content of an object; FileNotFoundError."""
        data: bytes = self._tried(lambda: self._files.cat_file(self._at(name)))
        return data

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Writes an object in place of one that is there.

        With `new`, False and nothing written where one is there; two writers may both succeed only where the
        store cannot create exclusively.
        """
        where = self._at(name)
        if self._is_folder and not new:
            self._tried(lambda: _write(Path(where), [data]))
            return True
        try:
            self._tried(lambda: _pipe(self._files, where, data=data, new=new), writes=True)
        except FileExistsError:
            return False
        return True

    def upload(self, file: Path, *, name: str) -> None:
        """Writes a file's content as an object, in parts where it is large."""
        where = self._at(name)
        if self._is_folder:
            self._tried(lambda: _write(Path(where), _blocks(file)))
            return
        self._tried(lambda: self._files.put_file(str(file), where), writes=True)

    def download(self, name: str, *, to: Path, sha256: str) -> None:
        """Writes an object to a file, whole or not at all; DamagedError where it has another hash."""
        temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
        with storage_errors(to):
            to.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._tried(lambda: self._files.get_file(self._at(name), str(temporary)))
            with storage_errors(to):
                with temporary.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    os.fsync(file.fileno())
                if digest == sha256:
                    temporary.replace(to)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if digest != sha256:
            raise DamagedError(f"{self.url}/{name} does not match its recorded hash; delete it there")

    def remove(self, names: Iterable[str]) -> None:
        """Takes objects away in this order; some may be gone already."""
        for name in names:
            try:
                self._tried(lambda name=name: self._files.rm_file(self._at(name)))  # type: ignore[misc]
            except FileNotFoundError:
                continue

    def _at(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _tried(self, call: Callable[[], _Answer], *, writes: bool = False) -> _Answer:
        """What the store answers, asked again a few times where it does not."""
        began = time.monotonic()
        for tries, wait in enumerate((*WAITS, None), start=1):
            try:
                return call()
            except FileExistsError:
                raise
            except FileNotFoundError as error:
                if not writes:
                    raise
                raise self._refused(_lacking(error)) from None
            except PermissionError as error:
                raise self._refused(
                    f"access is not permitted ({first_line(error)}); set credentials in the environment that "
                    f"may {'write' if writes else 'read'} there"
                ) from None
            except StorageError as error:  # Of a folder, which a disk may refuse.
                why = getattr(error.__cause__, "strerror", None) or error
                raise self._refused(f"{why}; give another folder") from None
            except Exception as error:  # noqa: BLE001 - Each store has its own exceptions.
                if getattr(error, "errno", None) in _FULL:
                    raise self._refused(f"{first_line(error)} on this machine; free space there") from None
                if "Credentials" in type(error).__name__ or "Profile" in type(error).__name__:
                    raise self._refused(
                        f"no credentials were found ({first_line(error)}); set those of the store in the "
                        f"environment (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
                    ) from None
                if isinstance(error, NotImplementedError):
                    raise self._refused("it cannot be written to; give an object store or a folder") from None
                if wait is None or time.monotonic() - began > PATIENCE:
                    raise self._refused(
                        f"no answer in {tries} tries ({first_line(error)}); look at the network, the "
                        f"endpoint and the region, and run the same command again"
                    ) from None
                time.sleep(wait)
        raise AssertionError

    def _refused(self, why: str) -> StorageError:
        return StorageError(f"cannot use {self.url}: {why}")


def _file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system behind a URL and the path in it; SpecError or StorageError in one sentence."""
    protocol, mark, rest = url.partition("://")
    if "@" in url or "?" in url:
        shown = f"{protocol}://..." if mark and "@" not in protocol else "..."
        raise SpecError(
            f"--storage {shown}: leave credentials and options out of the URL, which is written "
            f"down; set them in the environment"
        )
    if not mark or not protocol or not rest.strip("/") or "::" in url:
        raise SpecError(f"--storage {url} is no URL; write one such as s3://BUCKET/FOLDER or file:///FOLDER")
    if protocol in ("file", "local") and not rest.startswith("/"):
        raise SpecError(
            f"--storage {url}: each process would look below its own folder; write file:///FOLDER"
        )
    if protocol in BUCKETS and rest.startswith("/"):
        raise SpecError(f"--storage {url} names no bucket; write {protocol}://BUCKET/FOLDER")
    # In a listing two slashes can be another place than in a name.
    url = f"{protocol}://{re.sub('/+', '/', rest)}"
    import fsspec
    from fsspec.registry import known_implementations as known

    if protocol not in {*known, *fsspec.available_protocols()}:
        common = ("s3", "gs", "az", "abfs", "file")
        raise SpecError(f"--storage {url}: no protocol is named '{protocol}'; {nearest(protocol, common)}")
    options = {"auto_mkdir": True} if protocol in ("file", "local") else {}
    try:
        files, base = fsspec.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError:
        extra = "'repetita[storage]'" if protocol in ("s3", "s3a") else _package(known[protocol]["class"])
        raise StorageError(
            f"--storage {url} needs a package that is not installed; run: pip install {extra}"
        ) from None
    except Exception as error:  # noqa: BLE001 - Whatever a file system says of options and credentials.
        raise StorageError(f"cannot use {url}: {first_line(error)}; set the store's environment") from None
    if protocol in ("s3", "s3a"):  # Where nothing answers it waits seven minutes otherwise, and three times.
        files.retries = 2
    return files, base


def _pipe(files: Any, where: str, *, data: bytes, new: bool) -> None:
    """Writes an object, where it is to be `new` by exclusive create if the store has that."""
    try:
        files.pipe_file(where, data, **({"mode": "create"} if new else {}))
    except (TypeError, NotImplementedError, OSError) as error:
        if not new or (isinstance(error, OSError) and error.errno not in _ODD):
            raise
        if files.exists(where):
            raise FileExistsError(where) from None
        files.pipe_file(where, data)


def _lacking(error: FileNotFoundError) -> str:
    return f"there is no such bucket or folder ({first_line(error)}); make it"


def _unless_gone(error: OSError) -> None:
    """What is gone since it was listed is no error."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _package(implementation: str) -> str:
    """The package of an implementation of fsspec's, such as gcsfs."""
    top = implementation.partition(".")[0]
    return "'fsspec[full]'" if top == "fsspec" else top


def _blocks(file: Path) -> Iterable[bytes]:
    with file.open("rb") as source:
        while block := source.read(BLOCK):
            yield block


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    with atomic_file(path) as file:
        for block in blocks:
            file.write(block)
