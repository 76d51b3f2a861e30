"""Where runs are computed: what every engine answers, and the strings that it passes to its workers."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from repetita.spec import canonical_json
from repetita.study.prepare import Portion
from repetita.study.progress import Sight


class Given(NamedTuple):
    """A portion of work as a worker is told of it: strings only."""

    reference: str
    scale: str
    sha256: str
    """Hash of the study's file when the work was planned."""
    text: str = ""
    """A `Text` as JSON, empty for the study's own."""


class Errand(NamedTuple):
    """What every worker of a study is told beside the fingerprints of its runs."""

    given: tuple[Given, ...]
    root: str
    """The folder of corpora, runs and studies, as an absolute path."""

    @classmethod
    def of(cls, portions: Sequence[Portion], *, root: Path) -> "Errand":
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
        return cls(tuple(given), str(root.resolve()))

    def command(self) -> list[str]:
        """The command of a worker process; orders come from its stdin, or by `--run`."""
        command = [sys.executable, "-m", "repetita", "work", "--root", self.root]
        for part in self.given:
            command += ["--study", part.reference, "--scale", part.scale, "--sha256", part.sha256]
            command += ["--text", part.text]
        return command


class Needs(NamedTuple):
    """What a run takes of the machine that computes it."""

    memory: int
    """Bytes that its process holds."""
    seconds: float
    """Expected, on one process."""


class Ended(NamedTuple):
    """A run that was given out came back."""

    run: str
    state: str
    """done, failed, busy, or died: the process is gone without a word."""
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
