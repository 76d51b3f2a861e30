"""What `run.json` says of a run: its identity, versions, device, and what its schedule comes to."""

import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import repetita
from repetita.corpus.places import public_corpus
from repetita.corpus.schedule import Schedule
from repetita.corpus.sequences import Corpus
from repetita.model import device
from repetita.model.pretrained_spec import PretrainedModel
from repetita.spec import fingerprint
from repetita.train.recipe import RunSpec, run_identity, run_slug, with_corpora

LIBRARIES = ("repetita", "torch", "numpy", "tokenizers", "safetensors")


def header(
    spec: RunSpec, *, corpus: Corpus, schedule: Schedule, place: device.Device, parent: str | None = None
) -> dict[str, Any]:
    """What `run.json` says; of a corpus or a tokenizer that is a path, the last part only.

    `exposure` is what the schedule comes to: realised f and E, slots by lane, and how many sequences of the
    training pool are seen how many times (experiment design, rule 3).
    """
    identity = run_identity(spec, corpus_fingerprint=corpus.fingerprint, parent=parent)
    return {
        "fingerprint": fingerprint(identity),
        "slug": run_slug(spec),
        **identity,
        "spec": with_corpora(spec, shown=public_corpus),
        "versions": versions(*(["transformers"] if isinstance(spec.model, PretrainedModel) else [])),
        "git": git_state(),
        "device": device.describe(place),
        "exposure": schedule.realised()
        | {"times_seen": {str(times): n for times, n in schedule.histogram(spec.steps).items()}},
    }


@cache
def versions(*others: str) -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in (*LIBRARIES, *others)}


@cache
def git_state() -> str | None:
    """Commit of this package's checkout, `+changes` where files differ; None where it is no checkout."""
    checkout = Path(repetita.__file__).parents[2]
    if not (checkout / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def changed_place(began: Mapping[str, Any], *, now: Mapping[str, Any]) -> str:
    """What of the device is another now than where a run began, as a clause; empty where nothing is."""
    names = [name for name in {**began, **now} if began.get(name) != now.get(name)]
    return ", ".join(f"{name} {began.get(name, 'none')} -> {now.get(name, 'none')}" for name in names)
