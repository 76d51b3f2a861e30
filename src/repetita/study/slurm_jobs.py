"""What a driver gave out to Slurm, written down for the driver that comes after it."""

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from repetita.errors import EngineError
from repetita.journal.disk import storage_errors, sync_folder, write_atomic
from repetita.study.progress import read_sight
from repetita.study.slurm_task import progress_path

FILE, LOCK = "jobs.jsonl", ".lock"


class Job(NamedTuple):
    """A job that was submitted."""

    id: str
    """As Slurm has it, 12 or 12_3."""
    errand: str
    """SHA-256 of what it was told beside its runs."""
    orders: dict[str, int]
    """Number of the order by fingerprint of the run."""


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """While entered, this is the only driver that submits from a folder; EngineError where one does."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(
                f"another driver computes this study on Slurm and holds {folder / LOCK}; wait for it or "
                "stop it, and run this again"
            ) from None
        except OSError:  # A file system without locks.
            pass
        yield


def note(folder: Path, *, jobs: Collection[Job]) -> None:
    """Adds jobs to what is remembered; raises StorageError."""
    file = folder / FILE
    with storage_errors(file):
        with file.open("a") as lines:
            lines.writelines(json.dumps(job._asdict()) + "\n" for job in jobs)
            lines.flush()
            os.fsync(lines.fileno())
        sync_folder(folder)


def remembered(folder: Path) -> list[Job]:
    """The jobs that drivers before this one submitted; a line that was not finished counts for nothing."""
    try:
        lines = (folder / FILE).read_text().splitlines()
    except FileNotFoundError:
        return []
    jobs = []
    for line in lines:
        try:
            jobs.append(Job(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return jobs


def take_up(folder: Path, *, present: Collection[str], errand: str) -> dict[str, tuple[int, str]]:
    """By run the order and job of an earlier driver that is still to do it; what is over is forgotten."""
    there = [job for job in remembered(folder) if job.id in present]
    tidy(folder, keep=there)
    found = {}
    for job in there:
        for run, number in job.orders.items():
            sight = read_sight(progress_path(folder, run=run, number=number))
            over = sight is not None and sight.ended
            if job.errand == errand and not over:
                found[run] = (number, job.id)
    return found


def tidy(folder: Path, *, keep: Collection[Job]) -> None:
    """Forgets all jobs but these, and removes what was written for them."""
    write_atomic(folder / FILE, "".join(json.dumps(job._asdict()) + "\n" for job in keep).encode())
    ids = {part for job in keep for part in (job.id, job.id.partition("_")[0])}
    told = {progress_path(folder, run=run, number=at) for job in keep for run, at in job.orders.items()}
    for file in folder.iterdir():
        # submitit's files are called <job>_submitted.pkl, <job>_0_log.err, <array>_submission.sh, ...
        of_job = any(file.name.startswith(f"{one}_") for one in ids)
        if file.name in (FILE, LOCK) or of_job or file in told:
            continue
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)
