"""How far the journals of a run reached at a step, for a trainer that goes on from there."""

import hashlib
from pathlib import Path

from repetita.errors import DamagedError, RunFolderError
from repetita.journal.folder import JOURNALS, items_name
from repetita.journal.lines import check_first, parse
from repetita.journal.records import JournalPosition


def position_at(path: Path, *, step: int) -> JournalPosition:
    """What the journals of the unfinished run in `path` hold of the state after `step` updates.

    That is the lines of updates before it, and of measurements and events up to it, with their items. Raises
    RunFolderError where the journal ends before, and DamagedError with file and line.
    """
    files: dict[str, tuple[int, str]] = {}
    for journal in JOURNALS:
        file = path / f"{journal}.jsonl"
        length, n_steps = 0, 0
        data = file.read_bytes() if file.exists() else b""
        lines = data.split(b"\n")[:-1]
        for number, line in enumerate(lines, start=1):
            values = parse(line)
            if values is None:
                raise DamagedError(
                    f"{file}: line {number} is damaged (its checksum does not match); restore it"
                )
            if number == 1:
                check_first(values, path=file)
            elif values["step"] >= step + (journal != "steps"):
                break
            elif journal == "steps":
                n_steps += 1
            elif journal == "measurements":
                name = items_name(values["probe"], step=values["step"])
                if (path / name).exists():
                    files[name] = _digest((path / name).read_bytes())
            length += len(line) + 1
        if journal == "steps" and n_steps < step:
            raise RunFolderError(
                f"{path}: its journal ends after {n_steps} steps and the trainer goes on from step {step}; "
                f"let it go on from an earlier checkpoint, or delete the folder and begin again"
            )
        files[file.name] = _digest(data[:length])
    return JournalPosition(files)


def _digest(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()
