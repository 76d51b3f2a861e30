"""A tiny study on a tiny text, planned or done, in folders of its own."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from repetita.study.corpora import Corpora
from repetita.study.manifest import write_manifests
from repetita.study.prepare import Portion, Prepared, portion, prepare

WORDS = (
    "the of and to in is that for it was with be by on not he his but at are this have from they which one "
    "you were all her she there would their we him been has when who will more no if out so said what up its"
).split()


class Place(NamedTuple):
    """A folder with a study file, its text and a root for its runs."""

    study: Path
    root: Path

    def prepared(self, scale: str = "tiny") -> Prepared:
        return prepare([self.portion(scale)], root=self.root, corpora=Corpora(self.root))

    def portion(self, scale: str = "tiny") -> Portion:
        return portion(self.study, scale=scale)

    def edit(self, old: str, new: str) -> None:
        text = self.study.read_text()
        assert old in text
        self.study.write_text(text.replace(old, new))


def write_study(folder: Path) -> Place:
    """A study file and thirty documents of keyed words."""
    shutil.copy(Path(__file__).parent / "tiny_study.py", folder / "study.py")
    (folder / "corpus").mkdir()
    for document in range(30):
        digests = (hashlib.sha256(f"{document}/{place}".encode()).digest() for place in range(120))
        text = " ".join(WORDS[digest[0] % len(WORDS)] for digest in digests)
        (folder / "corpus" / f"{document:02d}.txt").write_text(text + ".\n")
    return Place(folder / "study.py", folder / "out")


def do(place: Place, *, scale: str = "tiny", but: tuple[str, ...] = ()) -> Prepared:
    """Does the study in this process, without the runs whose first arm is in `but`."""
    from repetita.study.work import bring_to_end

    prepared = place.prepared(scale)
    write_manifests(prepared, root=place.root)
    for job in prepared.needed():
        if not (job.arms and job.arms[0]["arm"] in but):
            bring_to_end(job, jobs=prepared.jobs, corpora=prepared.corpora, root=place.root)
    return prepared


def repetita(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "repetita", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A study of which nothing is done."""
    return write_study(tmp_path)


@pytest.fixture(scope="session")
def done_once(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = write_study(tmp_path_factory.mktemp("done"))
    do(place)
    return place


@pytest.fixture
def done(done_once: Place, tmp_path: Path) -> Place:
    """A study of which all is done; a copy, to be spoilt at will."""
    shutil.copytree(done_once.study.parent, tmp_path / "copy", copy_function=shutil.copy2)
    return Place(tmp_path / "copy" / "study.py", tmp_path / "copy" / "out")
