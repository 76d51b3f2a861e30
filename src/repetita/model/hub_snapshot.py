"""A model of the Hugging Face hub at one commit, as a folder on this machine; nothing of it is run."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from repetita.errors import SpecError, first_line, nearest

HUB = "hf:"
"""What a model of the hub starts with: hf:NAME, hf:OWNER/NAME@REVISION."""

SECONDS = 10.0
"""Time that the hub has to say which commit a revision is."""

TEXT_FILES = (
    *("config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "*.model"),
    *("special_tokens_map.json", "added_tokens.json", "*.tiktoken", "tekken.json", "adapter_config.json"),
)
SAFE = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")


class Snapshot(NamedTuple):
    """Files of a model as they were at one commit."""

    folder: Path
    commit: str


class Named(NamedTuple):
    """What `hf:NAME@REVISION` says."""

    name: str
    revision: str


def parsed(source: str, /) -> Named:
    """The name and the revision (default: main) of a source on the hub; SpecError for anything else."""
    name, at, revision = source.removeprefix(HUB).partition("@")
    plain = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name)
    if not source.startswith(HUB) or not plain or (at and not revision.strip()):
        raise SpecError(
            f"'{source}' names no model of the hub; write {HUB}NAME, {HUB}OWNER/NAME or {HUB}NAME@REVISION"
        )
    return Named(name, revision or "main")


def snapshot(source: str, /, *, allow_pickle: bool = False) -> Snapshot:
    """The files of a model that are needed to measure it, fetched unless they are here.

    Weights as safetensors; as a pickle only where there are none and `allow_pickle`. Without a network, or
    with HF_HUB_OFFLINE, what is in the hub's cache. Raises SpecError for an unknown name or revision (with
    the nearest) and for a hub that cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    name, revision = parsed(source)
    try:
        info = HfApi().model_info(name, revision=revision, timeout=SECONDS)
    except hub.RevisionNotFoundError:
        raise _unknown(name, revision, revisions(name)) from None
    except hub.GatedRepoError:
        raise SpecError(
            f"the model '{HUB}{name}' is gated; ask for access on its page and log in with: hf auth login"
        ) from None
    except hub.RepositoryNotFoundError:
        raise SpecError(
            f"the hub has no model '{name}', or not for you; see how it is spelt, or log in (hf auth login)"
        ) from None
    except Exception as error:  # noqa: BLE001 - each version has other errors for a network that is not there.
        return _cached(name, revision, error)
    files = [one.rfilename for one in info.siblings or []]
    safe = any(file in SAFE for file in files)
    wanted = [*TEXT_FILES, *(PICKLED if allow_pickle and not safe else SAFE)]
    commit = info.sha or revision
    try:
        return Snapshot(Path(snapshot_download(name, revision=commit, allow_patterns=wanted)), commit)
    except (hub.HfHubHTTPError, OSError) as error:
        raise SpecError(
            f"{source} cannot be fetched ({first_line(error)}); try again, what has arrived is kept"
        ) from None


def revisions(name: str, /) -> list[str]:
    """Branches and tags of a model, by the hub or, where it is not reached, those of its cache."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().list_repo_refs(name)
    except Exception:  # noqa: BLE001 - as above.
        return sorted(_cached_refs(name))
    return sorted({one.name for one in [*found.branches, *found.tags]})


def nearest_revision(revision: str, /, known: Iterable[str]) -> str:
    """As `errors.nearest`; of revisions that count (step1000) the one whose number is closest."""
    counted = re.fullmatch(r"(.*?)(\d+)", revision)
    if counted:
        stem, number = counted[1], int(counted[2])
        found = [re.fullmatch(rf"{re.escape(stem)}(\d+)", one) for one in known]
        numbers = [int(match[1]) for match in found if match]
        if numbers:
            return f"did you mean '{stem}{min(numbers, key=lambda one: (abs(one - number), one))}'?"
    return nearest(revision, known)


def _cached(name: str, revision: str, trouble: Exception) -> Snapshot:
    """What of a model is in the hub's cache, since the hub does not answer."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        if known := _cached_refs(name):
            raise _unknown(
                name, revision, known, where=" on this machine, and the hub is not reached"
            ) from None
        raise SpecError(
            f"the model '{HUB}{name}' is not on this machine and the hub cannot be reached "
            f"({first_line(trouble)}); go online once, or give a folder that it was saved to"
        ) from None
    return Snapshot(folder, folder.name)


def _cached_refs(name: str) -> list[str]:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    refs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "refs"
    return [str(file.relative_to(refs)) for file in refs.rglob("*") if file.is_file()]


def _unknown(name: str, revision: str, known: Iterable[str], *, where: str = "") -> SpecError:
    hint = nearest_revision(revision, known)
    return SpecError(f"the model '{HUB}{name}' has no revision '{revision}'{where}; {hint}")
