"""A run's journals while they grow: whole lines, each handed on once, also where a resume writes it again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from repetita.errors import DamagedError
from repetita.journal.folder import JOURNALS
from repetita.journal.lines import check_first, parse

MARK = 21
"""Bytes at the end of every line that hold its checksum: `,"check":"01234567"}` and the newline."""


class Line(NamedTuple):
    """A line of a journal: which one (steps, measurements, events), and its values."""

    journal: str
    values: dict[str, Any]


class Tail:
    """One journal file: how far it was read, and how the last line read ended."""

    def __init__(self, path: Path, *, offset: int = 0, mark: str = "") -> None:
        self.path = path
        self.offset, self.mark = offset, mark

    def poll(self) -> Iterator[dict[str, Any]]:
        """The whole lines that came since the last time; a half-written last line waits for the next.

        Where the file no longer holds what was read (a resume cuts a journal back to its checkpoint and
        writes on), it is read from the beginning. Raises DamagedError for a whole line that is not as it
        was written, after those before it were handed on.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.offset - MARK))
                if file.read(min(MARK, self.offset)) != self.mark.encode():
                    self.offset, self.mark = 0, ""
                    file.seek(0)
                data = file.read()
        except FileNotFoundError:
            self.offset, self.mark = 0, ""
            return
        at = 0
        while (end := data.find(b"\n", at) + 1) > 0:
            values = parse(data[at : end - 1])
            if values is None:
                raise DamagedError(
                    f"{self.path}: the line at byte {self.offset} is damaged (its checksum does not match); "
                    f"restore the file, or delete the run's folder and run again"
                )
            first = self.offset == 0
            self.offset, self.mark = self.offset + end - at, data[max(0, end - MARK) : end].decode()
            at = end
            if first:
                check_first(values, path=self.path)
            else:
                yield values


class Follower:
    """The journals of the run in `path`, read only; `state` goes on where another follower stopped.

    A line is known by what it is about (the step; probe, metric and set at a step; the event), so that lines
    that a resumed run writes a second time are not handed on a second time.
    """

    def __init__(self, path: Path, *, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.path = path
        self._newest = int(state.get("newest_step", -1))
        self._seen: set[str] = set(state.get("seen", ()))
        self._held: list[Line] = []
        places = state.get("places", {})
        self._tails = {
            name: Tail(path / f"{name}.jsonl", **places.get(name, {})) for name in reversed(JOURNALS)
        }

    def poll(self) -> list[Line]:
        """The new lines of all journals, in the order of their steps; raises DamagedError (see `Tail.poll`).

        Lines that were read before a damaged one are not lost: the next call returns them.
        """
        for name, tail in self._tails.items():
            for values in tail.poll():
                if self._is_new(name, values):
                    self._held.append(Line(name, values))
        lines, self._held = self._held, []
        return sorted(lines, key=lambda line: int(line.values["step"]))

    def state(self) -> dict[str, Any]:
        """What was handed on, as JSON types."""
        return {
            "newest_step": self._newest,
            "seen": sorted(self._seen),
            "places": {
                name: {"offset": tail.offset, "mark": tail.mark} for name, tail in self._tails.items()
            },
        }

    def _is_new(self, journal: str, values: Mapping[str, Any]) -> bool:
        if journal == "steps":
            if values["step"] <= self._newest:
                return False
            self._newest = values["step"]
            return True
        names = ("probe", "metric", "on") if journal == "measurements" else ("kind", "message")
        key = " ".join([journal[0], str(values["step"]), *(str(values[name]) for name in names)])
        if key in self._seen:
            return False
        self._seen.add(key)
        return True
