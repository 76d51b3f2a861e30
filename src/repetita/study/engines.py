"""Where runs are computed: what every engine answers, and the strings that it passes to its workers."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from repetita.errors import SpecError
from repetita.spec import canonical_json
from repetita.study.prepare import Portion, portion
from repetita.study.progress import Sight
from repetita.study.text import Text


class Given(NamedTuple):
    """A portion of work as a worker is told of it: strings only."""

    reference: str
    scale: str
    sha256: str
    """Hash of the study's file when the work was planned."""
    text: str = ""
    """A `Text` as JSON, empty for the study's own."""

    def planned(self) -> Portion:
        """The portion behind the strings; SpecError where its file is not the one that was planned with."""
        text = Text.from_json(self.text) if self.text else None
        part = portion(self.reference, scale=self.scale, text=text)
        if part.found.sha256 != self.sha256:
            raise SpecError(f"{self.reference} was changed while the study ran; run the study again")
        return part


class Errand(NamedTuple):
    """What every worker of a study is told beside the fingerprints of its runs."""

    given: tuple[Given, ...]
    root: str
    """The folder of corpora, runs and studies, as an absolute path."""
    device: str = "cpu"
    """What runs are computed on: cpu, cuda, or one of several, such as cuda:1."""
    storage: str = ""
    """URL of what machines share that share no disk, empty where the root is all there is."""

    @classmethod
    def of(cls, portions: Sequence[Portion], *, root: Path, storage: str | None = None) -> "Errand":
        """The errand that portions of work in a root folder come to."""
        given = (
            Given(
                part.found.reference,
                part.scale,
                part.found.sha256,
                canonical_json(part.text) if part.text else "",
            )
            for part in portions
        )
        return cls(tuple(given), str(root.resolve()), storage=storage or "")

    def command(self) -> list[str]:
        """The command of a worker process; orders come from its stdin, or by `--fingerprint`."""
        command = [sys.executable, "-m", "repetita", "work", "--root", self.root]
        for part in self.given:
            command += ["--study", part.reference, "--scale", part.scale, "--sha256", part.sha256]
            command += ["--text", part.text]
        command += ["--storage", self.storage] if self.storage else []
        return command if self.device == "cpu" else [*command, "--device", self.device]

    def as_json(self) -> str:
        """The errand as one string, for engines that start no command."""
        return json.dumps([[list(part) for part in self.given], self.root, self.device, self.storage])

    @classmethod
    def from_json(cls, text: str) -> "Errand":
        """What `as_json` wrote."""
        given, *rest = json.loads(text)
        return cls(tuple(Given(*part) for part in given), *rest)


class Needs(NamedTuple):
    """What a run takes of the machine that computes it."""

    memory: int
    """Bytes that its process holds."""
    seconds: float
    """Expected, on one process."""
    cpus: int = 1
    gpu_memory: int = 0
    """Bytes that it holds on a GPU when it is computed on one."""
    gpu_whole: int = 0
    """Bytes of these that each GPU holds, however many share the run."""
    world: int = 1
    """Processes of one machine that compute it together, with a GPU each where it is computed on GPUs."""
    most: int = 1
    """Processes that could share it."""


class Ended(NamedTuple):
    """A run that was given out came back."""

    run: str
    state: str
    """done, failed, busy, died (the process is gone without a word), or lost (so is its machine)."""
    message: str
    log: Path
    """Where its worker wrote what it had to say."""
    seconds: float = 0.0
    """From the begin of the order to its end or to the last sign of it; waiting in a queue does not count."""


class Engine(Protocol):
    """What takes runs to where they are computed, and says what became of them.

    The driver asks `takes`, sends, and polls, a few times a second, in one thread. Nothing but strings and
    numbers is passed, and a run may be sent again after it came back.
    """

    @property
    def width(self) -> int:
        """Runs that can be computed at the same time now; at least 1."""
        ...

    def takes(self, needs: Needs) -> bool:
        """Whether a run with these needs would be begun, or queued, if it were sent now."""
        ...

    def send(self, run: str, *, needs: Needs) -> None:
        """Gives out a run by its fingerprint."""
        ...

    def running(self) -> Mapping[str, Sight]:
        """By fingerprint the runs that are given out, each with the last that was heard of it."""
        ...

    def poll(self) -> list[Ended]:
        """The runs that came back since the last call."""
        ...

    def stop(self) -> None:
        """Asks all workers to write their checkpoints and end, and waits for them."""
        ...

    def close(self) -> None:
        """Lets idle workers end."""
        ...

    def kill(self) -> None:
        """Ends at once what is still there; called last, whatever happened."""
        ...
