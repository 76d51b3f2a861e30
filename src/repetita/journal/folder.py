"""The folder of one run: its header, journals, items and how it ended, safe against any kill."""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from repetita.errors import RepetitaError, RunBusy, RunFolderError
from repetita.journal.disk import storage_errors, sync_file, sync_folder, write_atomic
from repetita.journal.hashed_json import HEADER, damaged, read_json, write_json
from repetita.journal.lines import JournalFile, decode, encode
from repetita.journal.records import Event, JournalPosition, Measurement, Reading, StepRecord

__all__ = [
    "HEADER",
    "JOURNALS",
    "Key",
    "RunFolder",
    "Status",
    "check_run",
    "failure",
    "final_position",
    "items_name",
    "measured",
    "prefix_matches",
    "read_header",
    "read_journal",
    "run_path",
    "status",
    "verify",
    "write_atomic",
]

Status = Literal["missing", "unfinished", "done", "failed"]

Key = tuple[str, int]
"""What names a measurement within its run: the probe's fingerprint and the step."""

JOURNALS = ("steps", "measurements", "events")


def run_path(root: Path, spec_fingerprint: str, slug: str) -> Path:
    """The folder of a run: `<root>/runs/<slug>-<first 12 hex digits of the fingerprint>`."""
    return root / "runs" / f"{slug}-{spec_fingerprint[:12]}"


def items_name(probe: str, *, step: int) -> str:
    """The file, relative to the run's folder, that holds the items of one probe at one step."""
    return f"items/{probe}-{step:08d}.safetensors"


def read_header(path: Path) -> dict[str, Any]:
    """The content of a folder's `run.json`; DamagedError where it cannot be read."""
    return read_json(path / "run.json", needs="fingerprint")


def status(path: Path) -> Status:
    """How far the run in a folder is; anything that neither ended nor failed is unfinished."""
    if (path / "done").exists():
        return "done"
    if (path / "failed").exists():
        return "failed"
    return "unfinished" if (path / "run.json").exists() else "missing"


def final_position(path: Path) -> JournalPosition | None:
    """The journal position in a finished run's `done`; None where the run is not done."""
    if not (path / "done").exists():
        return None
    files = read_json(path / "done", needs="journal")["journal"]
    return JournalPosition(files={name: (length, digest) for name, (length, digest) in files.items()})


def failure(path: Path) -> str:
    """The message of a failed run."""
    return str(read_json(path / "failed", needs="message")["message"])


def read_journal(path: Path, *, journal: str) -> Iterator[dict[str, Any]]:
    """The verified lines of one journal ("steps", "measurements", "events") of the run in `path`.

    Of a finished run exactly what `done` covers, its hash verified; of any other run all whole lines.
    Raises DamagedError with file and line.
    """
    yield from decode(_covered(path, journal=journal)[0], path=path / f"{journal}.jsonl")


def verified_lines(path: Path, *, journal: str) -> bytes:
    """What `read_journal` reads as it stands in the file, without its first line."""
    data, finished = _covered(path, journal=journal)
    if finished:
        first, _, rest = data.partition(b"\n")
        list(decode(first + b"\n", path=path / f"{journal}.jsonl"))  # Its schema; its hash covers the rest.
        return rest
    list(decode(data, path=path / f"{journal}.jsonl"))
    return data[data.find(b"\n") + 1 : data.rfind(b"\n") + 1]


def _covered(path: Path, *, journal: str) -> tuple[bytes, bool]:
    """The bytes of a journal that count, and whether its run is finished.

    DamagedError where those of a finished run are not all there.
    """
    file = path / f"{journal}.jsonl"
    position = final_position(path)  # First: measurements may be added meanwhile, the position after them.
    data = file.read_bytes() if file.exists() else b""
    if position is None:
        return data, False
    committed = position.files[file.name]
    data = data[: committed[0]]
    if not prefix_matches(data, committed):
        for _ in decode(data, path=file):  # names the line, where one line is bad
            pass
        raise damaged(file)
    return data, True


_NAMED = re.compile(rb'^\{"step":([0-9]+),"tokens":[0-9]+,"probe":"([^"\\]*)"', re.MULTILINE)


def measured(path: Path) -> frozenset[Key]:
    """(probe fingerprint, step) of every measurement in a run's journal."""
    lines = verified_lines(path, journal="measurements")
    found = _NAMED.findall(lines)
    if len(found) == lines.count(b"\n"):  # As they are written; a plan asks ten thousand runs.
        return frozenset((probe.decode(), int(step)) for step, probe in set(found))
    return frozenset((line["probe"], line["step"]) for line in read_journal(path, journal="measurements"))


def verify(path: Path) -> None:
    """Checks header, journals and items of a finished run; DamagedError names the first bad file."""
    read_header(path)
    for journal in JOURNALS:
        for _ in read_journal(path, journal=journal):
            pass
    position = final_position(path)
    for name, committed in (position.files if position else {}).items():
        if not _file_matches(path / name, committed):
            raise damaged(path / name)


class RunFolder:
    """A run's folder, open for writing by this process alone.

    Lines are buffered; only `commit` makes them durable, and what a `JournalPosition` covers survives
    whatever happens later. Every writing method raises StorageError when the disk refuses; the run is
    then plainly unfinished and continues from its newest checkpoint.
    """

    def __init__(self, path: Path, *, attempt: int, lock: int) -> None:
        self.path = path
        self.attempt = attempt
        self._lock = lock
        self._journals = {name: JournalFile(path / f"{name}.jsonl") for name in JOURNALS}
        self._items: dict[str, tuple[int, str]] = {}
        self._unsynced: set[str] = set()

    @classmethod
    def open(cls, path: Path, *, header: Mapping[str, Any]) -> Self:
        """Opens the folder, makes it when missing, and locks it against other processes.

        `header` becomes `run.json` (keys of `HEADER` only; `fingerprint` is required). Raises
        RunFolderError where the folder belongs to another fingerprint or another process writes it.
        The journals then end wherever the last process left them: call `truncate` before writing.
        """
        strangers = set(header) - HEADER
        if strangers or "fingerprint" not in header:
            raise ValueError(f"run.json: fingerprint is required and {sorted(strangers)} not allowed")
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(lock, path=path)
            if (path / "run.json").exists():
                check_run(path, fingerprint=header["fingerprint"])
            else:
                write_json(path / "run.json", dict(header))
            return cls(path, attempt=_new_attempt(path), lock=lock)
        except BaseException:
            os.close(lock)
            raise

    def write_step(self, record: StepRecord) -> None:
        """Appends a line to `steps.jsonl`."""
        values = record._asdict()
        if not record.corruption:
            del values["corruption"]
        self._journals["steps"].append(encode(_known(values)))

    def write_measurements(
        self,
        readings: Iterable[Reading],
        *,
        step: int,
        tokens: int,
        probe: str,
        tokens_total: int | None = None,
    ) -> None:
        """Appends the readings of one probe (its fingerprint) at one step, all or none of them.

        Items of all readings go into one file, each array under `<on>/<name>`. Raises ValueError where
        a value is not finite or two arrays have one name.
        """
        lines, arrays = bytearray(), dict[str, NDArray[Any]]()
        for reading in readings:
            value = None if reading.value is None else float(reading.value)
            line = Measurement(
                step,
                tokens,
                probe,
                reading.metric,
                reading.on,
                value,
                int(reading.n),
                reading.detail,
                tokens_total,
            )
            lines += encode(_known(line._asdict()))
            for name, array in (reading.items or {}).items():
                if f"{reading.on}/{name}" in arrays:
                    raise ValueError(f"two items of one probe are named {reading.on}/{name}")
                arrays[f"{reading.on}/{name}"] = array
        if arrays:
            name = items_name(probe, step=step)
            self._items[name] = _write_items(self.path / name, arrays)
            self._unsynced.add(name)
        self._journals["measurements"].append(bytes(lines))

    def write_event(self, event: Event) -> None:
        """Appends a line to `events.jsonl`."""
        self._journals["events"].append(encode(event._asdict()))

    def adopt(
        self, source: Path, *, position: JournalPosition, measured: Collection[Key], steps: bool
    ) -> None:
        """Takes over from another run's folder what its journals hold up to `position`.

        That is the measurements in `measured` with their items and, with `steps`, the lines of
        `steps.jsonl`. Raises DamagedError where the source is not as it was committed.
        """
        for name, committed in position.files.items():
            if not _file_matches(source / name, committed):
                raise damaged(source / name)
        for journal in ("steps", "measurements") if steps else ("measurements",):
            file = source / f"{journal}.jsonl"
            data = file.read_bytes()[: position.files[file.name][0]]
            for line in decode(data, path=file):
                if journal == "steps" or (line["probe"], line["step"]) in measured:
                    self._journals[journal].append(encode(line))
        for probe, step in measured:
            name = items_name(probe, step=step)
            if name in position.files:
                write_atomic(self.path / name, (source / name).read_bytes(), durable=False)
                self._items[name] = position.files[name]
                self._unsynced.add(name)

    def commit(self) -> JournalPosition:
        """Makes all that was written durable and says how far the journals reach.

        Raises RunFolderError where a later attempt has taken the folder over (a lock can fail on a
        network file system); this one then must stop.
        """
        with storage_errors(self.path):
            newest = max(_attempts(self.path), default=self.attempt)
        if newest != self.attempt:
            raise RunFolderError(
                f"{self.path}: attempt {newest} has taken over; attempt {self.attempt} stops"
            )
        with suppress(OSError):
            os.utime(self.path / "attempts" / f"{self.attempt:04d}.json")
        files = {f"{name}.jsonl": journal.commit() for name, journal in self._journals.items()}
        with storage_errors(self.path):
            for name in sorted(self._unsynced):
                sync_file(self.path / name)
            if self._unsynced:
                sync_folder(self.path / "items")
            sync_folder(self.path)
        self._unsynced.clear()
        return JournalPosition(files=files | dict(sorted(self._items.items())))

    def truncate(self, position: JournalPosition | None) -> None:
        """Takes journals and items back to `position`, or to nothing (None).

        Raises DamagedError, and changes nothing, where a part to keep is not as it was committed.
        """
        files = position.files if position else {}
        for name, committed in files.items():
            if not _file_matches(self.path / name, committed):
                raise damaged(self.path / name)
        for name, journal in self._journals.items():
            journal.cut(files.get(f"{name}.jsonl", (0, ""))[0])
        self._items = {name: at for name, at in files.items() if name.startswith("items/")}
        self._unsynced.clear()  # What the position covers was synced before it was given out.
        for stale in (self.path / "items").glob("*"):
            if f"items/{stale.name}" not in self._items:
                with storage_errors(stale):
                    stale.unlink()

    def finish(self, how: Literal["done", "failed"], *, message: str = "") -> None:
        """Commits and writes the file that says how the run ended; the last write of a run."""
        write_json(self.path / how, {"message": message, "journal": self.commit().files})

    def close(self) -> None:
        """Gives the folder free; what was not committed may be lost."""
        for journal in self._journals.values():
            with suppress(RepetitaError):
                journal.flush()
            os.close(journal.descriptor)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """A line without `tokens_total` in a run that starts from no other."""
    if values["tokens_total"] is None:
        del values["tokens_total"]
    return values


def _write_items(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[int, str]:
    """Writes arrays as safetensors, to be synced with the next commit; length and SHA-256 of the file."""
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_atomic(path, data, durable=False)
    return len(data), hashlib.sha256(data).hexdigest()


def _take(lock: int, *, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunBusy(f"{path}: another process is writing this run; wait until it ends or stop it") from None
    except OSError:  # a file system without locks: attempt numbers still keep two writers apart
        return


def check_run(path: Path, *, fingerprint: str) -> None:
    """Raises RunFolderError where the folder holds another run, and DamagedError for a bad header."""
    found = read_header(path)["fingerprint"]
    if found != fingerprint:
        raise RunFolderError(
            f"{path}: the folder holds run {found[:12]}, not {fingerprint[:12]}; move it away or choose "
            f"another --root"
        )


def _attempts(path: Path) -> list[int]:
    return [int(file.stem) for file in (path / "attempts").glob("*.json") if file.stem.isdecimal()]


def _new_attempt(path: Path) -> int:
    """The next attempt's number, taken by creating its file, which nobody else then can."""
    with storage_errors(path):
        (path / "attempts").mkdir(exist_ok=True)
        attempt = max(_attempts(path), default=0)
    while True:
        attempt += 1
        name = path / "attempts" / f"{attempt:04d}.json"
        with storage_errors(path), suppress(FileExistsError), name.open("x") as file:
            file.write(time.strftime('{"started": "%Y-%m-%dT%H:%M:%SZ"}\n', time.gmtime()))
            return attempt


def prefix_matches(data: bytes, committed: tuple[int, str]) -> bool:
    """Whether `data` begins with what was committed (its length and SHA-256)."""
    length, digest = committed
    return len(data) >= length and hashlib.sha256(data[:length]).hexdigest() == digest


def _file_matches(path: Path, committed: tuple[int, str]) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return prefix_matches(file.read(committed[0]), committed)
