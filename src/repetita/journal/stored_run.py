"""A run's folder as it is kept in a storage: pushed at its checkpoints, and whole there at every moment."""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from repetita.errors import DamagedError, RunBusy, StorageError, UserError
from repetita.journal import stored_journal
from repetita.journal.disk import storage_errors, sync_folder, write_atomic
from repetita.journal.folder import check_run, final_position, prefix_matches
from repetita.journal.hashed_json import damaged, parse_json
from repetita.journal.shelf import Shelf, hashed
from repetita.journal.storage import Storage
from repetita.journal.stored_rows import bring_rows
from repetita.spec import fingerprint

POSITION, OPTIMIZER = "position.json", "optimizer.safetensors"
"""Files of a checkpoint, as in `model.checkpoint`."""
RUNS = "runs"
ENDS = ("done", "failed")
BESIDE = ("probes.json", "pretrained/*")
_BESIDE = re.compile(r"probes\.json|pretrained/\w[\w.-]*")
"""What else a run needs elsewhere; small, and replaced where it has changed."""
_POSITION = re.compile(r"checkpoints/(\d{8,})/position\.json")
_OPTIMIZER = re.compile(r"checkpoints/(\d{8,})/optimizer\.safetensors\.\w+")
_FILE = re.compile(r"(items/)?\w[\w.-]*")
READS = 3
"""How often a run is read whose writer replaces it meanwhile."""
PAUSES = 9.0
"""How much longer a run goes on before it asks a storage again than it waited for it in vain."""

_Answer = TypeVar("_Answer")

Covered = Mapping[str, tuple[int, str]]
"""Length and SHA-256 of journals and items, as a `JournalPosition` has them."""


class _State(NamedTuple):
    """How far a run is, here or in the storage."""

    rank: tuple[int, int, int]
    """2: done; 1: newest checkpoint to resume from, whether it failed there."""
    covered: Covered
    end: tuple[str, bytes] | None = None
    """The file that says how it ended."""


NOWHERE = _State((0, 0, 0), {})
DONE = (2, 0, 0)


class StoredRun:
    """A run's folder here, and its objects below `runs/<folder>/` in a storage.

    Files of checkpoints, items and parts of journals have names that hold their hash, so that no writer can
    change what another's `position.json` or `done` speaks of. These two are written after all that they
    cover, in one put each: whoever reads sees the checkpoint before or this one, whole. Nothing can be
    appended to an object: each push adds the journals' new lines as objects of their own, and the end of a
    run writes each journal as one.

    There are no locks. Whoever goes on with a run takes the next attempt number, and the attempt before it
    stops at its next push with RunFolderError. Until then both compute, and neither harms the other. What
    several machines measure of a run that is done is brought together, here and there.
    """

    def __init__(self, storage: Storage, *, path: Path) -> None:
        self.path = path
        self._shelf = Shelf(storage, name=f"{RUNS}/{path.name}")
        self._silent_until = 0.0

    def take(self) -> None:
        """Takes a run that was begun and is not done from whoever writes it."""
        there = self._shelf.there
        if "run.json" in there and "done" not in there:
            self._shelf.take()

    def pull(self, *, checkpoints: bool = True) -> bool:
        """Brings the folder to the state in the storage where that is farther, every byte verified.

        Without `checkpoints` only what tables and pages read. True where the run is done here, and the
        storage lacks that or a measurement. Raises RunFolderError where another process writes the folder or
        it holds another run, StorageError, and DamagedError.
        """
        return self._steadily(
            lambda: _pull(self._shelf, path=self.path, checkpoints=checkpoints), raises=DamagedError
        )

    def push(self) -> None:
        """Writes what the storage lacks of the folder's checkpoints and end; removes what was pruned here.

        Raises RunFolderError where a later attempt has taken the run, StorageError where the storage refuses;
        what was written by then stays, and the next push goes on from there. A run that goes on does not
        wait each time for a storage that is long in refusing: it is then not asked for some while.
        """
        began = time.monotonic()
        ended = any((self.path / how).exists() for how in ENDS)
        if not ended and began < self._silent_until:
            raise StorageError(
                f"{self._shelf.storage.url} did not answer a while ago; it is asked again later"
            )
        try:
            self._steadily(self._push, raises=StorageError)
        except StorageError:
            now = time.monotonic()
            self._silent_until = now + PAUSES * (now - began)
            raise

    def _steadily(self, call: Callable[[], _Answer], *, raises: type[UserError]) -> _Answer:
        """What a call answers, made again where the run's other writer replaces what it reads."""
        lacking = FileNotFoundError()
        for _ in range(READS):
            try:
                return call()
            except FileNotFoundError as error:
                self._shelf.look_again()
                lacking = error
        raise raises(
            f"{self._shelf.storage.url}: {self.path.name} lacks {lacking}, or changes while it is read; run "
            f"the same command again"
        )

    def _push(self) -> None:
        shelf, path = self._shelf, self.path
        shelf.claim.check()
        if "run.json" not in shelf.there:
            shelf.say("run.json", (path / "run.json").read_bytes())
        for file in (file for pattern in BESIDE for file in sorted(path.glob(pattern))):
            shelf.say(file.relative_to(path).as_posix(), file.read_bytes())
        steps = [step for step in _steps_here(path) if _push_checkpoint(shelf, path=path, step=step)]
        for how in ENDS:
            if (path / how).exists():
                _push_end(shelf, path=path, how=how)
            elif how == "failed" and how in shelf.there and steps:
                shelf.remove([how])  # It is tried again.
        _prune(shelf, here=steps)


def _push_checkpoint(shelf: Shelf, *, path: Path, step: int) -> bool:
    """Writes a checkpoint, its position last; False where it, or what it covers, is not whole here."""
    name = _checkpoint(step)
    said = (path / name / POSITION).read_bytes()
    position = _parsed(said)
    if position is None:
        return False
    if not shelf.says(f"{name}/{POSITION}", said):
        try:
            for file, digest in position["files"].items():
                shelf.upload(path / name / file, name=f"{name}/{file}", digest=digest)
            # Nothing goes on from weights alone: their journal may be that of the run they were taken from.
            if OPTIMIZER in position["files"]:
                _push_covered(shelf, position["journal"], path=path)
        except DamagedError:  # Of journals that another attempt's have replaced, for one.
            return False
        shelf.say(f"{name}/{POSITION}", said)
    kept = {hashed(f"{name}/{file}", digest) for file, digest in position["files"].items()}
    kept.add(f"{name}/{POSITION}")
    shelf.remove(old for old in shelf.below(name) if old not in kept)
    return True


def _push_end(shelf: Shelf, *, path: Path, how: str) -> None:
    """Writes how a run ended; of one that is done each journal as one object, in place of its parts."""
    said = (path / how).read_bytes()
    added = how == "done" and how in shelf.there and not shelf.says(how, said)
    if added:
        if not _lacks(shelf, path=path):
            return
        said = (path / how).read_bytes()
    covered: Covered = json.loads(said)["journal"]
    if not shelf.says(how, said):
        _push_covered(shelf, covered, path=path, as_one=how == "done")
        if added:
            shelf.claim.check(raises=RunBusy)
        shelf.say(how, said)
        if added:
            shelf.claim.check(raises=RunBusy)
    for journal in (name for name in covered if how == "done" and not name.startswith("items/")):
        whole = stored_journal.whole(covered[journal]).name(journal)
        shelf.remove(name for name in shelf.below(journal) if name != whole)


def _lacks(shelf: Shelf, *, path: Path) -> bool:
    """Whether a measurement of a run that is done is here alone; brings what is new, takes it then."""
    with _alone(path):
        while bring_rows(shelf, _covered(shelf, "done", said=shelf.get("done")), path=path):
            if not shelf.claim.take():
                return True
            shelf.look_again()  # What was added until now.
        return False


def _push_covered(shelf: Shelf, covered: Covered, *, path: Path, as_one: bool = False) -> None:
    """Writes journals and items as far as a position covers them; DamagedError where they are others."""
    for name, (length, digest) in covered.items():
        if name.startswith("items/"):
            shelf.upload(path / name, name=name, digest=digest)
        else:
            data = (path / name).read_bytes()[:length]
            if not prefix_matches(data, (length, digest)):
                raise damaged(path / name)
            stored_journal.add(shelf, data, journal=name, as_one=as_one)


def _prune(shelf: Shelf, *, here: Iterable[int]) -> None:
    """Removes older checkpoints to resume from that are gone here; positions first."""
    newest = max(here, default=0)
    for step in sorted(_resumable(shelf) - set(here)):
        if step < newest:
            names = shelf.below(_checkpoint(step))
            shelf.remove(sorted(names, key=lambda name: not name.endswith(POSITION)))


def _pull(shelf: Shelf, *, path: Path, checkpoints: bool) -> bool:
    there = dict(shelf.there)
    if "run.json" not in there:
        return (path / "done").exists()
    header = shelf.get("run.json")
    name = _read(shelf, "run.json", said=header, needs="fingerprint")["fingerprint"]
    with _alone(path):
        if not (path / "run.json").exists():
            write_atomic(path / "run.json", header)
        check_run(path, fingerprint=name)
        stored, here = _state(shelf, resumable=checkpoints), _state_here(path)
        farther, lags = stored.rank > here.rank, stored.rank < here.rank == DONE
        if farther:
            _pull_covered(shelf, stored.covered, path=path)
        elif stored.end and stored.rank == DONE and stored.end[1] != (path / "done").read_bytes():
            lags = bring_rows(shelf, stored.covered, path=path)
        if checkpoints and stored.rank >= here.rank:
            for left in path.glob("checkpoints/.*.tmp"):  # By a process that was killed.
                shutil.rmtree(left, ignore_errors=True)
            for step in _useful(shelf):
                _pull_checkpoint(shelf, f"{_checkpoint(step)}/{POSITION}", path=path, replace=farther)
        for name in there:
            if _BESIDE.fullmatch(name) and not (path / name).exists():
                write_atomic(path / name, shelf.get(name))
        if farther:
            (path / "failed").unlink(missing_ok=True)
            if stored.end:
                write_atomic(path / stored.end[0], stored.end[1])
    return lags


def _state(shelf: Shelf, *, resumable: bool) -> _State:
    """The farthest state that is whole in the storage; `resumable`: also of a run that did not end."""
    steps = sorted(_resumable(shelf))
    for how in ENDS:
        if how in shelf.there:
            said = shelf.get(how)
            covered = _covered(shelf, how, said=said)
            rank = DONE if how == "done" else (1, max(steps, default=0), 1)
            return _State(rank, covered, (how, said))
    for step in reversed(steps if resumable else ()):
        position = _parsed(shelf.get(f"{_checkpoint(step)}/{POSITION}"))
        if position and all(_is_there(shelf, name, end) for name, end in position["journal"].items()):
            return _State((1, step, 0), position["journal"])
    return NOWHERE


def _covered(shelf: Shelf, how: str, *, said: bytes) -> Covered:
    """What the object that says how a run ended covers."""
    covered: Covered = _read(shelf, how, said=said, needs="journal")["journal"]
    if not all(map(_FILE.fullmatch, covered)):
        raise _damaged(shelf, how)
    return covered


def _read(shelf: Shelf, name: str, *, said: bytes, needs: str) -> dict[str, Any]:
    """What an object says that a run's folder has as a file with a hash of its own."""
    values = parse_json(said, where=f"{shelf.storage.url}/{shelf.name}/{name}", needs=needs)
    if values is None:
        raise _damaged(shelf, name)
    return values


def _damaged(shelf: Shelf, name: str) -> DamagedError:
    return DamagedError(f"{shelf.storage.url}/{shelf.name}/{name} is damaged; delete it and run again")


def _is_there(shelf: Shelf, name: str, end: tuple[int, str]) -> bool:
    if name.startswith("items/"):
        return hashed(name, end[1]) in shelf.there
    return stored_journal.chain(shelf, journal=name, end=end) is not None


def _state_here(path: Path) -> _State:
    done = final_position(path)
    if done is not None:
        return _State(DONE, done.files)
    steps = [step for step in _steps_here(path) if (path / _checkpoint(step) / OPTIMIZER).exists()]
    return _State((1, max(steps), int((path / "failed").exists())), {}) if steps else NOWHERE


def _pull_covered(shelf: Shelf, covered: Covered, *, path: Path) -> None:
    for name, (length, digest) in covered.items():
        if name.startswith("items/"):
            if not _matches(path / name, (length, digest)):
                shelf.download(name, to=path / name, digest=digest)
            continue
        if _matches(path / name, (length, digest)) and (path / name).stat().st_size == length:
            continue
        write_atomic(path / name, stored_journal.read(shelf, journal=name, end=(length, digest)))


def _pull_checkpoint(shelf: Shelf, name: str, *, path: Path, replace: bool) -> None:
    """Brings a checkpoint here, unless one of its step is here; one that is not whole is left where it is."""
    folder = (path / name).parent
    here = folder / POSITION
    # Pruned meanwhile, or damaged: what a run resumes from is looked for among those that are here.
    with suppress(FileNotFoundError, DamagedError):
        said = shelf.get(name)
        position = _parsed(said)
        if position is None or (here.exists() and (not replace or here.read_bytes() == said)):
            return
        hidden = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            for file, digest in position["files"].items():
                shelf.download(f"{Path(name).parent.as_posix()}/{file}", to=hidden / file, digest=digest)
            write_atomic(hidden / POSITION, said)
            with storage_errors(folder):
                if folder.exists():  # At once, by renaming: half a checkpoint would be taken for one.
                    folder.rename(hidden.with_suffix(".old.tmp"))
                hidden.rename(folder)
                sync_folder(folder.parent)
        finally:
            for left in (hidden, hidden.with_suffix(".old.tmp")):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a run's folder, after others that pull it; RunFolderError where another process writes it."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        reading, lock = (path / ".pull.lock").open("a"), (path / ".lock").open("a")
    with reading, lock:
        with suppress(OSError):
            fcntl.flock(reading, fcntl.LOCK_EX)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunBusy(
                f"{path}: another process is writing this run; wait until it ends or stop it"
            ) from None
        except OSError:  # A file system without locks.
            pass
        yield


def _parsed(said: bytes) -> dict[str, Any] | None:
    """What a `position.json` says; None where it is not as it was written."""
    try:
        position: dict[str, Any] = json.loads(said)
        if position.pop("sha256") != fingerprint(position):
            return None
        return position if all(map(_FILE.fullmatch, [*position["files"], *position["journal"]])) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _matches(file: Path, committed: tuple[int, str]) -> bool:
    return file.exists() and prefix_matches(file.read_bytes(), committed)


def _checkpoint(step: int) -> str:
    return f"checkpoints/{step:08d}"


def _steps_here(path: Path) -> list[int]:
    """Steps of the checkpoints in a run's folder, ascending."""
    folders = (file.parent.name for file in path.glob(f"checkpoints/*/{POSITION}"))
    return sorted(int(name) for name in folders if name.isdigit())


def _useful(shelf: Shelf) -> list[int]:
    """Steps of the checkpoints in the storage; of a run that is done without what it was resumed from."""
    found = map(_POSITION.fullmatch, shelf.there)
    steps = {int(name[1]) for name in found if name}
    stale = _resumable(shelf) - {max(steps, default=0)} if "done" in shelf.there else set()
    return sorted(steps - stale)


def _resumable(shelf: Shelf) -> set[int]:
    """Steps whose checkpoints in the storage have a position and an optimizer's state."""
    found = map(_OPTIMIZER.fullmatch, shelf.there)
    steps = {int(name[1]) for name in found if name}
    return {step for step in steps if f"{_checkpoint(step)}/{POSITION}" in shelf.there}
