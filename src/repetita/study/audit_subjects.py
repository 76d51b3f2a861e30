"""A model by its name on the command line, opened and identified: a run of ours or one of somebody else."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repetita.corpus.reading_rule import OfCorpus, Tokenizing
from repetita.errors import RunFolderError, SpecError, nearest
from repetita.journal.folder import read_header
from repetita.spec import fingerprint
from repetita.study.series import HUB, RUN, find_series
from repetita.subject import Subject

if TYPE_CHECKING:
    from repetita.model.live import RunSubject
    from repetita.model.pretrained_loading import DTypeName


class Named(NamedTuple):
    """One subject as an audit names it."""

    source: str
    """What opens it."""
    name: str
    """Of its series, or its own."""
    revision: str | None
    """Which of its series it is: a revision, a folder, a step."""
    step: int | None
    """Updates that it was trained for, where its name says so."""

    @property
    def label(self) -> str:
        """Its name with its revision."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


class Opening(NamedTuple):
    """How subjects are opened; see `study.audit.Audit`."""

    root: Path
    device: str = "auto"
    dtype: "DTypeName" = "auto"
    batch_tokens: int | None = None
    allow_pickle: bool = False


class Opened(NamedTuple):
    """A subject in memory, and what says which one it is."""

    name: str
    """As others may read it: no path."""
    subject: Subject
    tokenizing: Tokenizing
    context: int | None
    identity: dict[str, Any]
    """What changes its answers: weights (by their hash), revision, numbers. No device and no batch."""
    record: Callable[[], dict[str, Any]]
    """All that can change an answer by rounding, too, with the batches that did not fit up to now."""
    exact: Callable[[], Subject]
    """The same model in float32, a row at a time."""

    @property
    def id(self) -> str:
        """12 hex digits of its identity."""
        return fingerprint(self.identity)[:12]


def find_subjects(source: str, /, *, root: Path) -> list[Named]:
    """What a subject of an audit names: itself, or the checkpoints of a series (see `study.series`)."""
    series = find_series(source, root=root)
    single = len(series.members) == 1 and not series.name.startswith((HUB, RUN))
    return [Named(one.source, series.name, None if single else one.name, one.step) for one in series.members]


def open_subject(source: str, /, *, opening: Opening) -> Opened:
    """The subject of `run:FOLDER@STEP` (a folder, or a name below ROOT/runs; default: the last checkpoint), a
    run's plain folder, `hf:NAME@REVISION`, a folder in transformers' layout, or a GGUF file.

    Raises what `model.pretrained.open_pretrained` and `study.single.open_run` raise.
    """
    if source.startswith(RUN) or (is_run(source, root=opening.root) and not source.startswith(HUB)):
        return _open_run(source.removeprefix(RUN), opening)
    return _open_pretrained(source, opening)


def is_run(source: str, /, *, root: Path) -> bool:
    """Whether a source is the folder of a run, or the name of one below `root`; `@STEP` may follow."""
    name = source.removeprefix(RUN)
    names = (name, name.rpartition("@")[0] or name)
    return any((run_folder(one, root=root) / "run.json").exists() for one in names)


def run_folder(name: str, /, *, root: Path) -> Path:
    """The folder of a run: a path, or a name below `root`."""
    path = Path(name).expanduser()
    return path if path.is_dir() else root / "runs" / name


def _open_run(source: str, opening: Opening) -> Opened:
    from repetita.model.checkpoint import MODEL, checkpoint_path, steps_on_disk
    from repetita.model.device import present
    from repetita.model.live import checkpoint_subject, subject_of
    from repetita.model.memory import Batches
    from repetita.study.corpora import Corpora
    from repetita.study.single import open_run

    folder, asked = run_folder(source, root=opening.root), ""
    if not folder.is_dir() and "@" in source:
        name, _, asked = source.rpartition("@")
        folder = run_folder(name, root=opening.root)
    if asked and not asked.isdecimal():
        raise SpecError(f"run:{source}: '{asked}' is no step; write run:FOLDER@STEP, such as @1000")
    if opening.dtype not in ("auto", "float32"):
        raise SpecError(
            f"run:{source}: dtype = '{opening.dtype}' has no effect, a run is asked in float32; leave it out"
        )
    corpora = Corpora(opening.root)
    spec = open_run(folder, corpora=corpora, source=None)
    steps = steps_on_disk(folder)
    if not steps:
        raise RunFolderError(f"{folder} has no checkpoint; train it to its end")
    step = int(asked) if asked else max(steps)
    import torch

    found = "cuda" if torch.cuda.is_available() else "cpu"
    place = present(found if opening.device == "auto" else opening.device)
    subject = checkpoint_subject(folder, step=step, device=place)
    if opening.batch_tokens is not None:
        subject.batches = Batches(place, tokens=opening.batch_tokens)
    run = str(read_header(folder)["fingerprint"])
    weights = hashlib.sha256((checkpoint_path(folder, step=step) / MODEL).read_bytes()).hexdigest()
    identity = {"run": run, "step": step, "sha256": weights, "dtype": "float32"}
    return Opened(
        f"run:{folder.name}",
        subject,
        OfCorpus(corpora.open(spec.corpus).tokenizer, mask_id=subject.mask_id),
        subject.readout.context,
        identity,
        lambda: _run_record(subject, {"name": f"run:{folder.name}", **identity}),
        lambda: subject_of(subject.model, device=place, batch_rows=1),
    )


def _run_record(subject: "RunSubject", identity: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {
        **identity,
        "class": subject.architecture,
        "objective": "causal" if subject.mask_id is None else "masked",
        "context": subject.readout.context,
        "device": str(subject.device),
        "batch_tokens": subject.batches.tokens,
        "halvings": list(subject.batches.halvings),
        "torch": str(torch.__version__),
    }


def _open_pretrained(source: str, opening: Opening) -> Opened:
    try:
        from repetita.model.pretrained import PretrainedSubject, open_pretrained
    except ImportError as error:
        raise SpecError(
            f"models of others need {error.name}, which is not installed; run: pip install 'repetita[hf]'"
        ) from None
    if not source.startswith(HUB) and not Path(source).expanduser().exists():
        beside = [str(one) for one in Path(source).expanduser().parent.glob("[!.]*")]
        runs = [f"{RUN}{file.parent.name}" for file in opening.root.glob("runs/*/run.json")]
        hint = nearest(source, [*beside, *runs])
        if not hint.startswith("did"):
            hint = "give run:FOLDER@STEP, hf:NAME@REVISION, a folder in transformers' layout, or a .gguf file"
        raise SpecError(f"there is no model or run '{source}'; {hint}")
    subject = open_pretrained(
        source,
        device=opening.device,
        dtype=opening.dtype,
        batch_tokens=opening.batch_tokens,
        allow_pickle=opening.allow_pickle,
    )
    revision = (source.partition("@")[2] or "main") if source.startswith(HUB) else None
    record = subject.record()
    tokenizing = subject.tokenizing
    identity = {
        "name": subject.files.name,
        "revision": revision,
        "commit": subject.files.commit,
        "sha256": subject.sha256,
        "tokenizer": tokenizing.identity,
        "dtype": record["dtype"],
    }

    def exact() -> Subject:
        if record["dtype"] == "float32":
            return PretrainedSubject(subject.loaded, files=subject.files, batch_tokens=1)
        return open_pretrained(
            source, device=opening.device, dtype="float32", batch_tokens=1, allow_pickle=opening.allow_pickle
        )

    return Opened(
        subject.files.name,
        subject,
        tokenizing,
        subject.context,
        identity,
        subject.record,
        exact,
    )
