"""Where a model lies that somebody else trained: a folder, a GGUF file or a snapshot of the hub."""

import hashlib
import json
from pathlib import Path
from typing import Literal, NamedTuple

from repetita.errors import DamagedError, SpecError
from repetita.model.hub_snapshot import HUB, snapshot

Format = Literal["safetensors", "pickle", "gguf"]

CONFIG = "config.json"
ADAPTER = "adapter_config.json"


class PretrainedFiles(NamedTuple):
    """The files of a model in transformers' layout."""

    name: str
    """As others may read it: hf:NAME, or of a path its last part only."""
    folder: Path
    weights: tuple[Path, ...]
    format: Format
    commit: str | None = None
    """The commit of a model of the hub."""

    @property
    def gguf(self) -> str | None:
        """The path of a GGUF file, whole: a name alone transformers would look for where it runs, too."""
        return str(self.weights[0].resolve()) if self.format == "gguf" else None

    def sha256(self) -> str:
        """Identity of the content: hash over the config and every file of the weights, all of them read."""
        files = [self.folder / CONFIG] if self.format != "gguf" else []
        whole = hashlib.sha256()
        for file in [*files, *self.weights]:
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, "sha256").digest())
        return whole.hexdigest()


def find_pretrained(source: str | Path, /, *, allow_pickle: bool = False) -> PretrainedFiles:
    """The files of `hf:NAME@REVISION`, of a folder in transformers' layout, or of a GGUF file.

    Weights are safetensors; a pickle (pytorch_model.bin) is taken only where there are none and with
    `allow_pickle`. Raises SpecError where there is no such model or its weights are none of these, and
    DamagedError where a file of the weights is missing.
    """
    if str(source).startswith(HUB):
        there = snapshot(str(source), allow_pickle=allow_pickle)
        found = _in_folder(there.folder, str(source), allow_pickle=allow_pickle)
        return found._replace(name=str(source).partition("@")[0], commit=there.commit)
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path, str(source), allow_pickle=allow_pickle)._replace(name=path.resolve().name)
    if path.is_file() and path.suffix.lower() == ".gguf":
        return PretrainedFiles(path.name, path.parent, (path,), "gguf")
    if path.is_file():
        raise SpecError(f"{source} is no model; give its folder, a .gguf file, or {HUB}NAME@REVISION")
    raise SpecError(
        f"there is no model '{source}'; give a folder in transformers' layout, a .gguf file, or "
        f"{HUB}NAME@REVISION for one on the hub"
    )


def _in_folder(folder: Path, source: str, *, allow_pickle: bool) -> PretrainedFiles:
    if (folder / ADAPTER).is_file():
        # Where the library that reads them is there, transformers would fetch the model that it names.
        raise SpecError(
            f"{source} holds an adapter ({ADAPTER}) to another model; merge the two (merge_and_unload) and "
            f"give the folder that this is saved to"
        )
    if not (folder / CONFIG).is_file():
        if (folder / "run.json").is_file():
            raise SpecError(f"{source} is a run of repetita; measure it as run:{source}")
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"; give one of its files, such as {ggufs[0].name}" if ggufs else ""
        raise SpecError(
            f"{source} has no {CONFIG}, so it is no model in transformers' layout"
            + (hint or "; give the folder that save_pretrained wrote")
        )
    safe = _parts(folder, "model.safetensors", source)
    if safe:
        return PretrainedFiles(folder.name, folder, safe, "safetensors")
    pickled = _parts(folder, "pytorch_model.bin", source)
    if pickled and allow_pickle:
        return PretrainedFiles(folder.name, folder, pickled, "pickle")
    if pickled or source.startswith(HUB):
        raise SpecError(
            f"{source} has no weights as safetensors; if it has them as a pickle and you trust whoever made "
            f"it, allow that with --allow-pickle (allow_pickle=True)"
        )
    raise SpecError(f"{source} has a {CONFIG} and no weights; give a folder with model.safetensors")


def _parts(folder: Path, whole: str, source: str) -> tuple[Path, ...]:
    """The file `whole`, or those that its index lists; none where there is neither."""
    if (folder / whole).is_file():
        return (folder / whole,)
    index = folder / f"{whole}.index.json"
    if not index.is_file():
        return ()
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedError(f"{source}: {index.name} is no index of weights; copy it again") from None
    for name in names:
        if Path(name).name != name:
            raise DamagedError(f"{source}: {index.name} points out of its folder ('{name}'); do not use it")
        if not (folder / name).is_file():
            raise DamagedError(f"{source}: {name} is missing, which {index.name} lists; copy it again")
    return tuple(folder / name for name in names)
