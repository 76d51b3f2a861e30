"""The JSON files of a run's folder: schema, known keys and a hash of their own."""

import json
from pathlib import Path
from typing import Any

from repetita.errors import DamagedError
from repetita.journal.disk import write_atomic
from repetita.journal.records import SCHEMA
from repetita.spec import fingerprint

HEADER = frozenset(
    {"fingerprint", "slug", "spec", "corpus", "parent", "semantics"}
    | {"versions", "git", "device", "exposure", "trunk"}
)
"""The only keys of `run.json` beside `schema` and `sha256`: no environment, command, host, user or path."""

_KEYS = HEADER | {"schema", "sha256", "message", "journal"}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a file of a run with its schema and hash, whole or not at all, durably."""
    values = {"schema": SCHEMA} | values
    values |= {"sha256": fingerprint(values)}
    text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomic(path, text.encode() + b"\n")


def read_json(path: Path, *, needs: str) -> dict[str, Any]:
    """What `write_json` wrote, without the hash; a file that never had one is taken as it is."""
    try:
        values = parse_json(path.read_bytes(), where=str(path), needs=needs)
    except OSError:
        values = None
    if values is None:
        raise damaged(path)
    return values


def parse_json(data: bytes, *, where: str, needs: str) -> dict[str, Any] | None:
    """`read_json` of what was read at a place already; None where it is not as it was written."""
    try:
        values = json.loads(data)
    except ValueError:
        return None
    known = isinstance(values, dict) and {"schema", needs} <= set(values) <= _KEYS
    if not known or values.pop("sha256", None) not in (None, fingerprint(values)):
        return None
    if values["schema"] != SCHEMA:
        raise DamagedError(
            f"{where} has schema {values['schema']}, this version of repetita reads {SCHEMA}; update repetita"
        )
    return dict(values)


def damaged(path: Path) -> DamagedError:
    """What is raised for a file that is not as it was written."""
    return DamagedError(
        f"{path} is damaged (not as it was written); restore it, or delete the run's folder and run again"
    )
