"""What the probes of a run are called: names for people beside the fingerprints that its journal holds."""

import json
from collections.abc import Mapping
from pathlib import Path

from repetita.journal.disk import write_atomic

FILE = "probes.json"


def write_names(path: Path, *, names: Mapping[str, str]) -> None:
    """Adds names by fingerprint to those in the run's folder; raises StorageError."""
    there = read_names(path)
    if names.items() - there.items():
        text = json.dumps(there | dict(names), indent=1, ensure_ascii=False)
        write_atomic(path / FILE, text.encode() + b"\n")


def read_names(path: Path) -> dict[str, str]:
    """Names by fingerprint of the probe, oldest first; {} where the folder holds none that can be read."""
    try:
        values = json.loads((path / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(key): str(name) for key, name in values.items()} if isinstance(values, dict) else {}
