"""The objects of one run in a storage: what is there, what they say, and which attempt may write them."""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from repetita.errors import RunFolderError
from repetita.journal.hashed_json import damaged
from repetita.journal.storage import Storage

SHORT = 16
"""Hex digits of a hash in a name: 64 bits tell the few contents of one name apart, and what is read is
compared with the whole hash."""
_ATTEMPT = re.compile(r"(\d+)\.json")


def hashed(name: str, digest: str) -> str:
    """The name of a content that never changes: that of its file and its hash."""
    return f"{name}.{digest[:SHORT]}"


class Claim:
    """The right to write what is below a name: that of the newest attempt."""

    def __init__(self, storage: Storage, *, name: str) -> None:
        self._storage, self._name = storage, name
        self._held: tuple[int, bytes] | None = None

    def take(self) -> bool:
        """Takes the next attempt number, by exclusive create; False where that was done before."""
        if self._held is not None:
            return False
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        # Where the store cannot create exclusively, the later of two writers of one number has it.
        said = json.dumps({"started": started, "token": secrets.token_hex(8)}).encode() + b"\n"
        number = self._newest() + 1
        while not self._storage.put(_attempt(self._name, number), said, new=True):
            number += 1
        self._held = (number, said)
        return True

    def check(self, *, raises: type[RunFolderError] = RunFolderError) -> None:
        """Raises RunFolderError, or a kind of it, where another attempt has taken over from this one."""
        if self._held is None:
            return
        number, said = self._held
        newest, what = self._newest(), f"{self._storage.url}/{self._name}"
        if newest != number or self._storage.get(_attempt(self._name, number)) != said:
            raise raises(f"{what}: attempt {newest} has taken over and goes on; this one stops")

    def _newest(self) -> int:
        found = map(_ATTEMPT.fullmatch, self._storage.names(f"{self._name}/attempts"))
        return max((int(name[1]) for name in found if name), default=0)


class Shelf:
    """Objects below one name. They are listed once: whoever has taken them is the only writer.

    The first write takes them.
    """

    def __init__(self, storage: Storage, *, name: str) -> None:
        self.storage, self.name = storage, name
        self._there: dict[str, int] | None = None
        self._known: dict[str, bytes] = {}
        self.claim = Claim(storage, name=name)

    @property
    def there(self) -> dict[str, int]:
        """Names and bytes of the objects."""
        if self._there is None:
            self._there = self.storage.names(self.name)
        return self._there

    def look_again(self) -> None:
        """Forgets what was listed."""
        self._there = None
        self._known.clear()

    def below(self, folder: str) -> list[str]:
        """Names of the objects in a folder of it."""
        return [name for name in self.there if name.startswith(f"{folder}/")]

    def get(self, name: str) -> bytes:
        """The content of an object; FileNotFoundError."""
        return self.storage.get(f"{self.name}/{name}")

    def says(self, name: str, data: bytes) -> bool:
        """Whether an object has this content."""
        if name in self.there and name not in self._known:
            self._known[name] = self.get(name)
        return self._known.get(name) == data

    def say(self, name: str, data: bytes) -> bool:
        """Writes a small object that may be replaced; False where it says that already."""
        if self.says(name, data):
            return False
        self.take()
        self.storage.put(f"{self.name}/{name}", data)
        self.there[name], self._known[name] = len(data), data
        return True

    def put(self, name: str, data: bytes) -> None:
        """Writes an object that never changes, unless it is there."""
        if self.there.get(name) != len(data):
            self.take()
            self.storage.put(f"{self.name}/{name}", data)
            self.there[name] = len(data)

    def upload(self, file: Path, *, name: str, digest: str) -> None:
        """Writes the content of a file unless it is there; DamagedError where it has not this SHA-256."""
        if not file.exists():
            raise damaged(file)
        name, size = hashed(name, digest), file.stat().st_size
        if self.there.get(name) != size:
            # What stands under a hash's name is taken by every later writer for what has that hash.
            with file.open("rb") as read:
                if hashlib.file_digest(read, "sha256").hexdigest() != digest:
                    raise damaged(file)
            self.take()
            self.storage.upload(file, name=f"{self.name}/{name}")
            self.there[name] = size

    def download(self, name: str, *, to: Path, digest: str) -> None:
        """Reads what `upload` wrote; FileNotFoundError, DamagedError."""
        self.storage.download(f"{self.name}/{hashed(name, digest)}", to=to, sha256=digest)

    def remove(self, names: Iterable[str]) -> None:
        """Takes objects away, in this order."""
        for name in list(names):
            self.take()
            self.storage.remove([f"{self.name}/{name}"])
            self.there.pop(name, None)
            self._known.pop(name, None)

    def take(self) -> None:
        """Takes the objects from whoever writes them, once."""
        if self.claim.take():
            self.look_again()  # What another attempt wrote until now.


def _attempt(name: str, number: int) -> str:
    return f"{name}/attempts/{number:04d}.json"
