"""Checkpoints of a run: safetensors, then position.json with their hashes; whole or not there at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from repetita.errors import DamagedError
from repetita.journal.disk import storage_errors, sync_folder, write_atomic
from repetita.journal.records import JournalPosition
from repetita.model.config import ModelConfig, any_model
from repetita.model.pretrained_spec import PretrainedModel
from repetita.model.tensor_file import Later, stored_tensors, write_tensors
from repetita.spec import canonical_json, plain

SCHEMA = 1
"""Number in `position.json`; raised when a reader must know."""

MODEL, OPTIMIZER, POSITION = "model.safetensors", "optimizer.safetensors", "position.json"

Kind = Literal["any", "resume"]
"""`resume` checkpoints hold the optimizer's state and can be continued; science checkpoints cannot."""


class Checkpoint(NamedTuple):
    """A run after `step` updates: all that is needed to continue it, or (without optimizer) to ask it.

    `tokens` counts the scored tokens that it was trained on; `journal` says how far the journals
    reached. Tensors are on the CPU.
    """

    step: int
    tokens: int
    config: ModelConfig | PretrainedModel
    journal: JournalPosition
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor] | None
    tokens_before: int = 0
    """Scored tokens that the weights of its step 0 were trained on in other runs."""


def checkpoint_path(run: Path, *, step: int) -> Path:
    """The folder of one checkpoint within a run's folder."""
    return run / "checkpoints" / f"{step:08d}"


def save(
    run: Path,
    *,
    step: int,
    tokens: int,
    config: ModelConfig | PretrainedModel,
    journal: JournalPosition,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor] | None,
    tokens_before: int = 0,
) -> Path:
    """Writes the checkpoint of `step`, in place of one that is there, and returns its folder.

    All is written into a hidden folder, `position.json` last, every file and folder synced, and then
    renamed: a kill at any moment leaves a whole checkpoint or none. Tensors are asked for one at a time.
    Raises StorageError.
    """
    folder = checkpoint_path(run, step=step)
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(".*.tmp"):
            shutil.rmtree(leftover)
    files = {MODEL: model} | ({} if optimizer is None else {OPTIMIZER: optimizer})
    hashes = {name: write_tensors(hidden / name, tensors) for name, tensors in files.items()}
    _write_position(
        hidden,
        {
            "schema": SCHEMA,
            "step": step,
            "tokens": tokens,
            **({"tokens_before": tokens_before} if tokens_before else {}),
            "config": plain(config),
            "journal": journal.files,
            "files": hashes,
        },
    )
    with storage_errors(folder):
        if folder.exists():
            _remove(folder)
        hidden.rename(folder)
        sync_folder(folder.parent)
        sync_folder(run)
    return folder


def load(folder: Path, *, whole: bool = True) -> Checkpoint:
    """Reads a checkpoint and verifies every byte; DamagedError names the file that is not as written.

    Where not the `whole` of it is to be held, each tensor is read anew from its file when it is asked for.
    """
    position = _read_position(folder)
    tensors: dict[str, Mapping[str, Tensor]] = {}
    for name, digest in position["files"].items():
        stored = _stored(folder / name, digest)
        tensors[name] = dict(stored) if whole else stored
    return Checkpoint(
        step=position["step"],
        tokens=position["tokens"],
        config=any_model(position["config"]),
        journal=JournalPosition(
            files={name: (length, digest) for name, (length, digest) in position["journal"].items()}
        ),
        model=tensors[MODEL],
        optimizer=tensors.get(OPTIMIZER),
        tokens_before=position.get("tokens_before", 0),
    )


def steps_on_disk(run: Path, *, kind: Kind = "any") -> tuple[int, ...]:
    """Steps that have a checkpoint, ascending; their content is not verified here."""
    last = POSITION if kind == "any" else OPTIMIZER
    return tuple(
        sorted(
            int(file.parent.name) for file in run.glob(f"checkpoints/*/{last}") if file.parent.name.isdigit()
        )
    )


def prune(run: Path, *, newest: int = 2, whole: Collection[int] = (), weights: Collection[int] = ()) -> None:
    """Removes resume checkpoints but for the `newest` ones and those at the steps in `whole`.

    Of those at the steps in `weights` only the optimizer's state goes, which makes them science
    checkpoints. Science checkpoints always stay. Raises StorageError.
    """
    resume = steps_on_disk(run, kind="resume")
    for step in resume[: max(0, len(resume) - newest)]:
        folder = checkpoint_path(run, step=step)
        if step in whole:
            continue
        if step not in weights:
            with storage_errors(folder):
                _remove(folder)
            continue
        try:
            position = _read_position(folder)
        except DamagedError:
            continue  # whoever loads it is told; a run in progress needs it no more
        # The position first: what it does not list is no part of the checkpoint.
        if position["files"].pop(OPTIMIZER, None):
            _write_position(folder, position)
        with storage_errors(folder):
            (folder / OPTIMIZER).unlink()


def _remove(folder: Path) -> None:
    """Takes a checkpoint away at once, by renaming, and then its files."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.old.tmp")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _stored(path: Path, digest: str) -> Later:
    """The tensors of a file whose content has this SHA-256."""
    with _reading(path):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise _damaged(path, "does not match its recorded hash")
        stored = stored_tensors(path)

    def read(name: str) -> Tensor:
        with _reading(path):
            return stored[name]

    return Later(stored.like, make=read)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _damaged(path, error.strerror or "cannot be read") from None


def _write_position(folder: Path, position: Mapping[str, Any]) -> None:
    """Writes `position.json`, its own SHA-256 (of everything else in it) included."""
    text = json.dumps({**position, "sha256": _digest(position)}, indent=1, allow_nan=False)
    write_atomic(folder / POSITION, text.encode())


def _read_position(folder: Path) -> dict[str, Any]:
    """What `_write_position` wrote, without the hash."""
    path = folder / POSITION
    try:
        with _reading(path):
            position = json.loads(path.read_bytes())
        digest = position.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path, "is not what was written") from None
    if digest != _digest(position):
        raise _damaged(path, "does not match its recorded hash")
    if position["schema"] != SCHEMA:
        raise DamagedError(f"{path}: schema {position['schema']} is not known; use a newer repetita")
    return dict(position)


def _digest(position: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(position).encode()).hexdigest()


def _damaged(path: Path, what: str) -> DamagedError:
    return DamagedError(
        f"{path}: {what}; ask for another step, or delete the folder {path.parents[2]} and train it again"
    )
