"""A tiny text, run and root folder, ways to harm them, and what every refusal has to be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.study.places import write_study

BROKEN_AT = 9
"""Step at which the run of `stopped` died; it has resume checkpoints at this step and the one before."""


class Said(NamedTuple):
    code: int
    stdout: str
    stderr: str


Say = Callable[..., Said]


def refused(said: Said, *parts: str) -> None:
    """Exit code 2, and one sentence on stderr that has these parts."""
    assert said.code == 2, said
    (sentence,) = said.stderr.splitlines()
    assert sentence.startswith("repetita: ")
    assert "; " in sentence, f"{sentence} names no fix"
    for part in parts:
        assert part in sentence


class World(NamedTuple):
    """A text, the spec of a run over it, and a root folder."""

    text: Path
    root: Path
    spec: dict[str, Any]

    def write(self, changes: dict[str, Any] | None = None) -> Path:
        """The spec as a file, changed at places such as `treatment.fraction`; None removes."""
        spec = json.loads(json.dumps(self.spec))
        for place, value in (changes or {}).items():
            *parents, last = place.split(".")
            at = spec
            for name in parents:
                at = at[name]
            at[last] = value
            if value is None:
                del at[last]
        file = self.root.parent / "spec.json"
        file.write_text(json.dumps(spec))
        return file

    @property
    def run(self) -> Path:
        (path,) = (self.root / "runs").iterdir()
        return path

    @property
    def corpus(self) -> Path:
        return next(file.parent for file in self.root.glob("corpora/*/manifest.json"))

    def kept(self) -> dict[str, bytes]:
        """All that is of worth below the root."""
        files = (file for file in sorted(self.root.rglob("*")) if file.is_file())
        return {str(file): file.read_bytes() for file in files if not {"attempts"} & set(file.parts)}


def new_world(folder: Path) -> World:
    text = write_study(folder).study.parent / "corpus"
    shares = {"test": "0.1", "special": "0.1", "placebo": "0.1"}
    spec = {
        "corpus": {
            "source": str(text),
            "tokenizer": {"kind": "bytes"},
            "length": 16,
            "splits": shares,
        },
        "model": {"n_layer": 1, "d_model": 8, "n_head": 1, "vocab_size": 257, "context": 16},
        "treatment": {"kind": "repeated_subset", "fraction": 0.5, "passes": 2},
        "recipe": {"learning_rate": 0.01, "warmup_steps": 2},
        "steps": 12,
        "batch_size": 4,
    }
    return World(text, folder / "out", spec)


def flip(file: Path, at: float = 0.5) -> None:
    data = bytearray(file.read_bytes())
    data[int(len(data) * at)] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


HARM: dict[str, Callable[[Path], None]] = {"flipped": flip, "cut": cut, "gone": Path.unlink}
