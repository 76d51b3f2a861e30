"""A study in a storage: corpora by their hashes, manifests and runs, for machines that share no disk."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from repetita.corpus.building import locked
from repetita.corpus.documents import find_source, is_named
from repetita.corpus.sequences import CorpusSpec
from repetita.errors import CorpusError, DamagedError, RunFolderError, SpecError, StorageError, first_line
from repetita.journal.disk import storage_errors, sync_folder, write_atomic
from repetita.journal.storage import Storage
from repetita.journal.stored_run import StoredRun
from repetita.spec import fingerprint
from repetita.study.corpora import Corpora
from repetita.study.manifest import read_manifest

log = logging.getLogger(__name__)

SHARDS, CORPORA, STUDIES = "shards", "corpora", "studies"
AT_ONCE = 16
"""Runs that are read at the same time: what is waited for is the network."""

_PLAN = re.compile(r"\w[\w.+-]*/\w+\.json")
_NAME = re.compile(r"\w[\w.+-]*")
"""Names that lead nowhere else: what is read from afar is not to decide where it is written."""

Files = dict[str, tuple[int, str]]
"""Bytes and SHA-256 by name."""


class StoredCorpus(NamedTuple):
    """What a storage says of a corpus: what is in its folder, and in that of its tags, by hash."""

    corpus: str
    """Its fingerprint."""
    folders: dict[str, Files]


def open_shared(url: str | None) -> Storage | None:
    """The storage at a URL, for runs in other processes; SpecError where these could not see it."""
    if url is None:
        return None
    if url.startswith("memory:"):
        raise SpecError(
            f"--storage {url} lies in the memory of one process, and runs are computed in others; give a URL "
            f"that all of them see, such as s3://BUCKET/FOLDER"
        )
    return Storage.open(url)


def push_corpora(storage: Storage, specs: Iterable[CorpusSpec], /, *, corpora: Corpora) -> None:
    """Writes the corpora that are not there, each file once by its hash, and what each spec stands for."""
    there = storage.names(SHARDS)
    for spec in specs:
        corpus = corpora.open(spec)
        folders = [corpus.path, *_tags(corpus.path)]
        name = f"{CORPORA}/{fingerprint(spec)}.json"
        stored = _said(storage, name)
        names = {folder.name for folder in folders}
        if stored and stored.corpus == corpus.fingerprint and names <= set(stored.folders):
            kept = [file for files in stored.folders.values() for file in files.values()]
            if all(there.get(digest) == size for size, digest in kept):
                continue
        listed = {folder.name: _files(folder) for folder in folders}
        for folder in folders:
            for file, (size, digest) in listed[folder.name].items():
                if there.get(digest) != size:
                    storage.upload(folder / file, name=f"{SHARDS}/{digest}")
                    there[digest] = size
        storage.put(name, json.dumps(StoredCorpus(corpus.fingerprint, listed)._asdict(), indent=1).encode())


def pull_corpora(
    storage: Storage, specs: Iterable[CorpusSpec], /, *, corpora: Corpora, root: Path, decided: bool
) -> None:
    """Brings the corpora of specs into `root`, every byte verified, where the storage has them.

    Where it is not `decided` which they are, as for the driver of a study, a text that lies here as a file
    comes before what was kept of one.
    """
    for spec in specs:
        if not decided and _lies_here(spec):
            continue
        stored = _said(storage, f"{CORPORA}/{fingerprint(spec)}.json")
        if stored is None:
            continue
        for name, files in stored.folders.items():
            _pull_folder(storage, root / "corpora" / name, files=files)
        corpora.find(spec, fingerprint=stored.corpus)


def push_studies(storage: Storage, folders: Iterable[str], /, *, root: Path) -> None:
    """Writes what was planned of studies: the manifests and plans in these folders of `studies/`."""
    for folder in folders:
        for file in sorted((root / STUDIES / folder).glob("*.json")):
            storage.put(f"{STUDIES}/{folder}/{file.name}", file.read_bytes())


def pull_studies(url: str, /, *, root: Path) -> None:
    """Brings what was planned of all studies in the storage at a URL."""
    storage = Storage.open(url, new=False)
    for name in filter(_PLAN.fullmatch, storage.names(STUDIES)):
        write_atomic(root / STUDIES / name, storage.get(f"{STUDIES}/{name}"))


def pull_runs(storage: Storage, paths: Iterable[Path], /, *, push: bool = False) -> None:
    """Brings journals and items of the runs that came to an end to their folders here, but no checkpoints.

    With `push` those are written that are done here, and not there. One that is damaged is told of, and the
    others are brought all the same.
    """

    def pull(path: Path) -> None:
        stored = StoredRun(storage, path=path)
        try:
            if stored.pull(checkpoints=False) and push:
                stored.push()
        except RunFolderError:  # Written here, and so no older than what is there.
            pass
        except DamagedError as error:
            log.warning("%s is left out: %s", path.name, error)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(pull, paths))


class Kept:
    """What the driver of a study keeps in a storage and brings from there; without one nothing."""

    def __init__(self, storage: Storage | None, *, root: Path) -> None:
        self.storage, self._root = storage, root

    def bring(self, specs: Iterable[CorpusSpec], /, *, corpora: Corpora) -> None:
        """Brings the texts that do not lie here, before anything is built."""
        if self.storage:
            pull_corpora(self.storage, specs, corpora=corpora, root=self._root, decided=False)

    def fetch(self, paths: Iterable[Path], /) -> None:
        """Brings the runs in these folders that came to an end, or keeps them if they did so here alone."""
        if self.storage:
            pull_runs(self.storage, paths, push=True)

    def keep(self, specs: Iterable[CorpusSpec], /, *, corpora: Corpora, folders: Iterable[str] = ()) -> None:
        """Writes what workers need, and what was planned in these folders of `studies/`."""
        if self.storage:
            push_corpora(self.storage, specs, corpora=corpora)
            push_studies(self.storage, filter(None, folders), root=self._root)


def pull_reported(url: str, /, *, root: Path, folders: Iterable[str]) -> None:
    """Brings what the pages of the studies in these folders are made of: their runs, but no checkpoints."""
    storage = Storage.open(url, new=False)
    manifests = [manifest for folder in folders if (manifest := read_manifest(root, folder=folder))]
    names = dict.fromkeys(str(run["folder"]) for one in manifests for run in one.runs)
    for name in names:
        if not _NAME.fullmatch(name):
            raise DamagedError(f"a manifest in {storage.url} names the folder {name!r} of no run; delete it")
    pull_runs(storage, (root / "runs" / name for name in names))


def _lies_here(spec: CorpusSpec) -> bool:
    """Whether the text is files of this machine."""
    if is_named(spec.source):
        return False
    try:
        find_source(spec.source, text_field=spec.text_field, subset=spec.subset, split=spec.split)
    except CorpusError:
        return False
    return True


def _said(storage: Storage, name: str) -> StoredCorpus | None:
    try:
        values = json.loads(storage.get(name))
        folders = {
            str(folder): {str(file): (int(size), str(digest)) for file, (size, digest) in files.items()}
            for folder, files in values["folders"].items()
        }
        stored = StoredCorpus(str(values["corpus"]), folders)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"{storage.url}/{name} is damaged; delete it and run the study again") from None
    if not all(_NAME.fullmatch(part) for one in folders for part in (one, *folders[one])):
        raise DamagedError(f"{storage.url}/{name} names files outside a corpus; delete it")
    return stored


def _pull_folder(storage: Storage, folder: Path, *, files: Files) -> None:
    """Brings a folder here, unless it is."""
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock"):
            if folder.exists():
                return
            hidden = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
            for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # By a process that was killed.
                shutil.rmtree(left, ignore_errors=True)
            try:
                for name, (_, digest) in files.items():
                    storage.download(f"{SHARDS}/{digest}", to=hidden / name, sha256=digest)
                hidden.rename(folder)
            except FileNotFoundError as error:
                raise StorageError(
                    f"{storage.url} lacks a file of the corpus {folder.name} ({first_line(error)}); run the "
                    f"study again where its text lies"
                ) from None
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
            sync_folder(folder.parent)


def _tags(folder: Path) -> list[Path]:
    """The folders of parts of speech of a corpus's text."""
    text = json.loads((folder / "manifest.json").read_bytes())["text_sha256"]
    return [
        file.parent
        for file in sorted(folder.parent.glob("tags-*/manifest.json"))
        if json.loads(file.read_bytes()).get("text_sha256") == text
    ]


def _files(folder: Path) -> Files:
    found = {}
    for path in sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != "."):
        with path.open("rb") as file:
            found[path.name] = (path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    return found
