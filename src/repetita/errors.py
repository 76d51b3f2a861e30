"""Every error that this package raises on purpose, and the exit code that each one means.

RepetitaError
├── UserError              exit code 2: one sentence that names the offending thing and the fix
│   ├── SpecError          a value that contradicts itself, an unknown key, an unknown name
│   ├── CorpusError        a corpus that is missing, empty, not UTF-8 or too short
│   ├── DamagedError       a file whose content does not match its recorded hash
│   ├── RunFolderError     a run folder of another spec, or one that another process is writing
│   ├── StorageError       a disk that is full, a folder that cannot be written
│   └── EngineError        machines that runs cannot be computed on: no cluster answers, no node has room
├── NotApplicable          exit code 1: a question that has no answer for this model; a probe writes down why
├── RunStopped             exit code 143: a SIGTERM was honoured; the run can be continued
└── TrainingDiverged       exit code 1: a loss or gradient that is not finite
"""

import difflib
from collections.abc import Iterable


class RepetitaError(Exception):
    """Anything that this package raises on purpose."""

    exit_code = 1


class UserError(RepetitaError):
    """Something the user can mend; the message is one sentence that says how."""

    exit_code = 2


class SpecError(UserError):
    """A value that contradicts itself, an unknown key, an unknown name."""


class CorpusError(UserError):
    """A corpus that is missing, empty, not UTF-8 or too short for its schedule."""


class DamagedError(UserError):
    """A file whose content does not match the hash that was recorded for it."""


class RunFolderError(UserError):
    """A run folder that belongs to another spec or that another process is writing."""


class RunBusy(RunFolderError):
    """A run folder that another process is writing: it can be had later."""


class StorageError(UserError):
    """A disk that is full or a folder that cannot be written."""


class EngineError(UserError):
    """Machines that runs cannot be computed on: no cluster answers, a node lacks the root, none has room."""


class NotApplicable(RepetitaError):
    """A question that has no answer for this model, such as the circuits of one that is not ours."""


class RunStopped(RepetitaError):
    """A stop that was asked for (SIGTERM, SIGINT); the checkpoint is written."""

    exit_code = 143


class TrainingDiverged(RepetitaError):
    """A loss or a gradient that is not finite: the only thing that ends a run."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A clause that names the valid name closest to `name`: `did you mean 'x'?`, else lists all."""
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"valid: {', '.join(options)}" if options else "none is valid here"


def first_line(error: BaseException, /) -> str:
    """What another library says of its error, as a clause: its kind and the beginning of it."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    told = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {told.rstrip('.;')}"
