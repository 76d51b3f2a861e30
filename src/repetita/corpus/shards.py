"""Token ids of a corpus on disk: memory-mapped, written once, every file with its hash."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.catalogue import RECORDS, STRINGS, Catalogue, catalogue_of_lists, mapped, open_catalogue
from repetita.corpus.tokenizer import Tokenizer, load_tokenizer
from repetita.errors import CorpusError, DamagedError
from repetita.spec import fingerprint

SCHEMA = 2
SCHEMAS = (1, 2)
"""Those that can be read; schema 1 had lists of the documents in documents.json."""

FILES = (RECORDS, STRINGS, "lengths.bin", "tokens.bin", "sentences.bin", "paragraphs.bin", "tokenizer.json")


class Shards:
    """A built corpus: token ids with one separator (id 0) after each document, and what is known of each.

    Opening checks the manifest and the size of every file, and the content of all but the tokens; `verify`
    reads these, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = _read_manifest(path)
        files = self.manifest["files"]
        for name, entry in files.items():
            size = (path / name).stat().st_size if (path / name).exists() else None
            if size != entry["bytes"]:
                what = "is missing" if size is None else f"has {size} bytes, not {entry['bytes']}"
                raise _damaged(path, name, what)
        if self.manifest["schema"] == 1:
            documents = self._checked("documents.json")
            self.documents: Catalogue = catalogue_of_lists(documents)
            self.n_tokens: NDArray[np.int64] = np.array(json.loads(documents)["tokens"], dtype=np.int64)
        else:
            for name in (RECORDS, STRINGS):
                self._check(name)
            self.documents = open_catalogue(path)
            self.n_tokens = np.frombuffer(self._checked("lengths.bin"), "<i8")
        self.offsets: NDArray[np.int64] = np.cumsum(self.n_tokens + 1) - self.n_tokens - 1
        """Position of each document's first token in `tokens`."""
        self.tokenizer: Tokenizer = load_tokenizer(
            self._checked("tokenizer.json").decode(), lossless=self.manifest.get("lossless", True)
        )
        self.tokens: NDArray[np.unsignedinteger[Any]] = mapped(
            path / "tokens.bin", np.dtype(self.manifest["dtype"])
        )

    @property
    def sentence_ends(self) -> NDArray[np.int64]:
        """Positions in `tokens` just behind the last token of each sentence, rising."""
        return np.frombuffer(self._checked("sentences.bin"), "<i8")

    @property
    def paragraph_ends(self) -> NDArray[np.int64]:
        """Positions in `tokens` just behind the last token of each paragraph, rising."""
        return np.frombuffer(self._checked("paragraphs.bin"), "<i8")

    def verify(self) -> None:
        """Compare every file with its recorded hash; DamagedError names the first that differs."""
        for name in self.manifest["files"]:
            self._check(name)

    def _check(self, name: str) -> None:
        with (self.path / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.manifest["files"][name]["sha256"]:
                raise _damaged(self.path, name, "does not match its recorded hash")

    def _checked(self, name: str) -> bytes:
        data = (self.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][name]["sha256"]:
            raise _damaged(self.path, name, "does not match its recorded hash")
        return data


def open_shards(path: Path, *, verify: bool = False) -> Shards:
    """Open a built corpus; `verify` also reads it all. DamagedError names the file and the fix."""
    shards = Shards(path)
    if verify:
        shards.verify()
    return shards


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_bytes())
        recorded = manifest.pop("sha256")
        sound = recorded == fingerprint(manifest)
    except FileNotFoundError:
        raise _damaged(path, "manifest.json", "is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise _damaged(path, "manifest.json", "does not match its recorded hash")
    if manifest["schema"] not in SCHEMAS:
        raise CorpusError(
            f"{path} was built by another version (schema {manifest['schema']}, here {SCHEMA}); delete it "
            f"and build again"
        )
    return manifest


def _damaged(path: Path, name: str, what: str) -> DamagedError:
    return DamagedError(f"{path / name} {what}; delete the folder {path} and build the corpus again")
