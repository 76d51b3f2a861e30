"""What several machines measured of one finished run, brought together: each measurement once."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from repetita.journal import stored_journal
from repetita.journal.disk import write_atomic
from repetita.journal.folder import Key, final_position, prefix_matches
from repetita.journal.hashed_json import damaged, read_json, write_json
from repetita.journal.lines import parse
from repetita.journal.names import FILE, write_names
from repetita.journal.shelf import Shelf

MEASUREMENTS = "measurements.jsonl"


def bring_rows(shelf: Shelf, covered: Mapping[str, tuple[int, str]], *, path: Path) -> bool:
    """Adds to a run that is done here the measurements that the storage has of it and covers.

    They are appended with their items, and `done` is renewed last: whoever reads meanwhile reads what it was
    before. True where the storage lacks some of those that are here. Raises DamagedError, and
    FileNotFoundError where the run is replaced there meanwhile.
    """
    here = final_position(path)
    assert here is not None
    data = (path / MEASUREMENTS).read_bytes()[: here.files[MEASUREMENTS][0]]
    if not prefix_matches(data, here.files[MEASUREMENTS]):
        raise damaged(path / MEASUREMENTS)
    ours = _rows(data)
    theirs = _rows(stored_journal.read(shelf, journal=MEASUREMENTS, end=covered[MEASUREMENTS]))
    added = b"".join(lines for key, lines in theirs.items() if key not in ours)
    if added:
        items = {
            name: end for name, end in covered.items() if name.startswith("items/") and name not in here.files
        }
        for name, (_, digest) in items.items():
            shelf.download(name, to=path / name, digest=digest)
        data += added
        write_atomic(path / MEASUREMENTS, data)
        if FILE in shelf.there:
            with suppress(ValueError, AttributeError):  # Names are for people alone.
                write_names(path, names=dict(json.loads(shelf.get(FILE)).items()))
        said = read_json(path / "done", needs="journal")
        end = (len(data), hashlib.sha256(data).hexdigest())
        write_json(
            path / "done",
            {"message": said["message"], "journal": {**here.files, MEASUREMENTS: end, **items}},
        )
    return bool(ours.keys() - theirs.keys())


def _rows(data: bytes) -> dict[Key, bytes]:
    """The lines of measurements whose hash was compared, by probe and step."""
    found: dict[Key, bytes] = {}
    for line in data.split(b"\n")[1:-1]:
        values = parse(line) or {}
        key = (str(values["probe"]), int(values["step"]))
        found[key] = found.get(key, b"") + line + b"\n"
    return found
