"""A journal as objects that never change: each holds the lines since the one before it."""

import hashlib
import re
from typing import NamedTuple

from repetita.errors import DamagedError
from repetita.journal.shelf import SHORT, Shelf

_NAME = re.compile(r"(\d+)-([0-9a-f]*)\.(\d+)-([0-9a-f]+)")


class Part(NamedTuple):
    """Bytes `start` to `stop` of a journal; of the prefixes that end there the hashes, shortened."""

    start: int
    before: str
    stop: int
    after: str

    def name(self, journal: str) -> str:
        """What the object is called, after the journal's file."""
        return f"{journal}/{self.start}-{self.before}.{self.stop}-{self.after}"


def parts(shelf: Shelf, *, journal: str) -> list[Part]:
    """The parts of a journal that are there, those of other attempts among them."""
    found = (_NAME.fullmatch(name.partition("/")[2]) for name in shelf.below(journal))
    named = (Part(int(one[1]), one[2], int(one[3]), one[4]) for one in found if one)
    return [part for part in named if part.start < part.stop]  # A chain of them comes to its end.


def whole(end: tuple[int, str]) -> Part:
    """The part that is a journal of this length and SHA-256."""
    return Part(0, "", end[0], end[1][:SHORT])


def chain(shelf: Shelf, *, journal: str, end: tuple[int, str]) -> list[str] | None:
    """Names of the parts that make up a journal to this length and SHA-256; None where one is missing."""
    # Of parts with the same end the longest: the one that is the whole journal outlives the others.
    by_end = {(part.stop, part.after): part for part in sorted(parts(shelf, journal=journal), reverse=True)}
    stop, after, found = end[0], end[1][:SHORT], list[str]()
    while stop:
        part = by_end.get((stop, after))
        if part is None:
            return None
        found.append(part.name(journal))
        stop, after = part.start, part.before
    return found[::-1]


def read(shelf: Shelf, *, journal: str, end: tuple[int, str]) -> bytes:
    """A journal to this length and SHA-256; FileNotFoundError where a part is missing, and DamagedError."""
    names = chain(shelf, journal=journal, end=end)
    if names is None:
        raise FileNotFoundError(journal)
    data = b"".join(shelf.get(part) for part in names)
    if len(data) != end[0] or hashlib.sha256(data).hexdigest() != end[1]:
        raise DamagedError(
            f"{shelf.storage.url}/{shelf.name}/{journal} is not as it was written; delete {shelf.name} there "
            f"and run again"
        )
    return data


def add(shelf: Shelf, data: bytes, *, journal: str, as_one: bool = False) -> None:
    """Writes a journal but for the longest prefix that is there, or all of it `as_one` part."""
    at, before, running = 0, "", hashlib.sha256()
    start, start_hash = 0, ""
    for stop, after in sorted({(part.stop, part.after) for part in parts(shelf, journal=journal)}):
        if as_one or stop > len(data):
            break
        running.update(data[at:stop])
        at, before = stop, running.hexdigest()[:SHORT]
        if before == after and chain(shelf, journal=journal, end=(stop, before)) is not None:
            start, start_hash = stop, before
    part = Part(start, start_hash, len(data), hashlib.sha256(data).hexdigest()[:SHORT])
    if part.start < part.stop:
        shelf.put(part.name(journal), data[part.start :])
