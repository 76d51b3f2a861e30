"""The manifest of a study: which runs it consists of, under which labels, and from which file it came."""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from repetita.corpus.sequences import CorpusSpec
from repetita.errors import DamagedError
from repetita.journal.disk import write_atomic
from repetita.spec import fingerprint
from repetita.study.expand import corpora_of, expand
from repetita.study.find import find_paper, find_study
from repetita.study.prepare import Portion, Prepared, folder_of
from repetita.study.text import Text

SCHEMA = 1


class Manifest(NamedTuple):
    """What was written down when a study was last run."""

    study: str
    scale: str
    reference: str
    """Built-in name, or the name of the file without its folder."""
    sha256: str
    """Hash of the study's file."""
    repetita: str
    """Version of the package."""
    corpora: Mapping[str, Mapping[str, Any]]
    """The card of each corpus, its fingerprint among it, by fingerprint of its spec."""
    runs: list[dict[str, Any]]
    """Fingerprint, folder and labels of each run, and the folders of its trunk and parent (None without)."""

    def corpus(self, spec: CorpusSpec) -> str:
        """The fingerprint of a corpus, empty where the study did not have it when it was run.

        A text or a root folder that was moved is found by the last part of the path.
        """
        card = self.corpora.get(fingerprint(spec))
        if card is None:
            moved = {one["fingerprint"] for one in self.corpora.values() if one["moved"] == _wherever(spec)}
            return moved.pop() if len(moved) == 1 else ""
        return str(card["fingerprint"])


def study_path(root: Path, *, folder: str) -> Path:
    """Where a study at a scale keeps its manifest, table and page."""
    return root / "studies" / folder


def write_manifests(prepared: Prepared, *, root: Path) -> None:
    """Writes the manifest of each portion; raises StorageError."""
    for part in prepared.portions:
        manifest = _manifest(part, prepared=prepared, root=root)
        text = json.dumps({"schema": SCHEMA} | manifest._asdict(), indent=1, ensure_ascii=False)
        write_atomic(study_path(root, folder=part.folder) / "manifest.json", text.encode() + b"\n")


def read_manifest(root: Path, *, folder: str) -> Manifest | None:
    """The manifest in a study's folder, None where it was never run; DamagedError where it cannot be read."""
    file = study_path(root, folder=folder) / "manifest.json"
    try:
        values = json.loads(file.read_bytes())
        del values["schema"]
        return Manifest(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedError(f"{file} is damaged; delete it and run the study again") from None


def _manifest(part: Portion, *, prepared: Prepared, root: Path) -> Manifest:
    corpora = prepared.corpora
    reference = part.found.reference
    jobs = expand(part.planned, root=root, corpora=corpora.fingerprint)
    folders = {job.fingerprint: job.path.name for job in jobs}
    return Manifest(
        study=part.found.study.name,
        scale=part.scale,
        reference=Path(reference).name if reference.endswith(".py") else reference,
        sha256=part.found.sha256,
        repetita=version("repetita"),
        corpora={
            fingerprint(spec): corpora.open(spec).card | {"moved": _wherever(spec)}
            for spec in corpora_of(part.planned)
        },
        runs=[
            {
                "fingerprint": job.fingerprint,
                "folder": job.path.name,
                "labels": [dict(arm) for arm in job.arms],
                "trunk": folders[job.trunk] if job.trunk else None,
                "parent": folders[job.parent] if job.parent else None,
            }
            for job in jobs
        ],
    )


def sole_scale(root: Path, *, study: str | Path, text: Text | None = None) -> str | None:
    """The scale at which a study was run in `root` on this text, None where it was none or several.

    Of a paper it is the one scale at which any of its studies was run.
    """
    paper = find_paper(study)
    references = [study] if paper is None else [paper.study(name) for name in paper.paper.studies]
    found = {scale for one in references for scale in _scales(root, study=one, text=text)}
    return found.pop() if len(found) == 1 else None


def _scales(root: Path, *, study: str | Path, text: Text | None) -> Iterator[str]:
    name = find_study(study).study.name
    for file in sorted((root / "studies").glob(f"{name}-*/manifest.json")):
        manifest = read_manifest(root, folder=file.parent.name)
        if manifest is None or manifest.study != name:
            continue
        if file.parent.name == folder_of(name, scale=manifest.scale, text=text):
            yield manifest.scale


def _wherever(spec: CorpusSpec) -> str:
    """What a corpus is called when only the last part of its path counts."""
    tokenizer, text = spec.tokenizer, spec.tokenizer.trained_on
    if text is not None:
        tokenizer = tokenizer.edit(trained_on=text.edit(source=Path(text.source).name))
    return fingerprint(spec.edit(source=Path(spec.source).name, tokenizer=tokenizer))
