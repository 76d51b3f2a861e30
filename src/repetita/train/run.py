"""A run under way: its folder, model, optimizer and place, started afresh, resumed or forked."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from repetita.corpus.document_ids import RunIds
from repetita.corpus.schedule import Schedule
from repetita.corpus.sequences import Corpus
from repetita.errors import DamagedError, EngineError, RunFolderError, SpecError, StorageError
from repetita.journal.folder import Key, RunFolder, check_run, measured, read_header, read_journal
from repetita.journal.records import Event, Reading, StepRecord
from repetita.model import checkpoint, device
from repetita.model.adopted import Adopted, keep_files
from repetita.model.pretrained_spec import PretrainedModel
from repetita.spec import canonical_json
from repetita.subject import Subject
from repetita.train.header import changed_place, header
from repetita.train.options import Options
from repetita.train.parallel import choose, opened_updater
from repetita.train.recipe import (
    RunSpec,
    open_ids,
    open_schedule,
    other_tokenizer,
    run_identity,
    same_start,
)
from repetita.train.shared import SharedUpdater
from repetita.train.spikes import Spikes
from repetita.train.update import Updater, check_micro_batch, first_model
from repetita.train.utilisation import utilisation

log = logging.getLogger(__name__)


class Due(NamedTuple):
    """A probe as the loop sees it: anything that turns a subject into readings, at certain steps."""

    fingerprint: str
    """12 hex digits; with the step it names a measurement of the run."""
    name: str
    """For people, in events."""
    steps: frozenset[int]
    measure: Callable[[Subject], Iterable[Reading]]


class Parent(NamedTuple):
    """The run that another one starts from."""

    fingerprint: str
    """The whole one."""
    path: Path
    """Its folder."""


@dataclass(kw_only=True)
class Run:
    """Everything that changes while a run is trained, and what it is made of."""

    spec: RunSpec
    corpus: Corpus
    schedule: Schedule
    ids: RunIds | None
    folder: RunFolder
    updater: Updater | SharedUpdater
    options: Options
    place_now: dict[str, Any]
    """What `run.json` would say of its device if it began now."""
    parent: Parent | None = None
    step: int = 0
    tokens: int = 0
    tokens_before: int = 0
    """Tokens that its first weights were trained on, in all runs before it."""
    measured: set[Key] = field(default_factory=set)
    failed: set[Key] = field(default_factory=set)
    spikes: Spikes = field(default_factory=Spikes)
    seconds: list[float] = field(default_factory=list)
    """What each step took that this process trained."""
    loss: float | None = None
    """Mean loss of the newest batch, in nats a token."""

    @classmethod
    def open(
        cls, path: Path, *, spec: RunSpec, corpus: Corpus, options: Options, parent: Parent | None = None
    ) -> Self:
        """The run in `path` with the weights of a fresh one; the folder's journals are not yet at any place.

        Raises SpecError, CorpusError, RunFolderError, StorageError, and DamagedError for a corpus that is not
        as it was built (every byte of it is compared), before anything is computed.
        """
        check_micro_batch(options.micro_batch, spec=spec)
        _check_sizes(spec, corpus)
        schedule = open_schedule(spec, corpus=corpus)
        ids = open_ids(spec, corpus=corpus, schedule=schedule)
        corpus.verify()
        kind = choose(spec, options=options)
        place = device.setup(options.device, threads=options.threads)
        model = first_model(spec, place=place, options=options, whole=kind != "fsdp2")
        name = parent.fingerprint if parent else None
        head = header(spec, corpus=corpus, schedule=schedule, place=place, parent=name)
        head["device"] |= options.described() | ({"parallel": kind} if kind else {})
        opened = RunFolder.open(path, header=head)
        if isinstance(model, Adopted):
            keep_files(model.files, run=path)
        return cls(
            spec=spec,
            corpus=corpus,
            schedule=schedule,
            ids=ids,
            folder=opened,
            updater=opened_updater(model, spec=spec, corpus=corpus, place=place, options=options, kind=kind),
            parent=parent,
            options=options,
            place_now=head["device"],
        )

    @property
    def tokens_total(self) -> int | None:
        """Tokens that its weights were trained on, parents included; None for a run without a parent."""
        return None if self.parent is None else self.tokens_before + self.tokens

    def begin(self) -> None:
        """Takes what a run at step 0 has from its parent, where it starts from one.

        Raises RunFolderError where the parent has not come to its end or lacks the optimizer that is to be
        carried on, DamagedError where its last checkpoint is not as it was written.
        """
        start = self.spec.start
        if start is None or self.parent is None:
            return
        path, step = self.parent.path, start.run.steps
        if step not in checkpoint.steps_on_disk(path):
            raise RunFolderError(
                f"{path}: the run that is started from has no checkpoint at step {step}; train it first"
            )
        check_run(path, fingerprint=self.parent.fingerprint)
        found = self.stored(path, step=step)
        if start.optimizer == "carried" and found.optimizer is None:
            raise RunFolderError(
                f"{path}: the optimizer of step {step} was not kept, so it cannot be carried on; train "
                f"that run with needs_optimizer, or start with optimizer = 'fresh'"
            )
        carried = found.optimizer if start.optimizer == "carried" else None
        self.updater.load(found.model, optimizer=carried)
        self.tokens_before = found.tokens_before + found.tokens
        message = f"from {path.name} after {step} steps, optimizer {start.optimizer}"
        self.folder.write_event(Event(0, "started", message))

    def record(self, record: StepRecord) -> None:
        """Writes what an update was and counts it."""
        record = record._replace(tokens_total=self.tokens_total)
        self.folder.write_step(record)
        self.seconds.append(record.seconds)
        for message in self.spikes.see(record):
            self.folder.write_event(Event(record.step, "spike", message))
        n = sum(int(lane[2]) for lane in record.sets.values())
        if n:
            self.loss = sum(lane[0] for lane in record.sets.values()) / n
        self.tokens += n
        self.step = record.step + 1

    def measure(self, probe: Due) -> None:
        """Lets a probe measure the weights of this step, unless the journal has that already.

        A probe that fails becomes an event: a mistake in one must not cost the run.
        """
        name = (probe.fingerprint, self.step)
        if name in self.measured:
            return
        subject = self.updater.subject()
        at = (self.step, self.tokens, self.tokens_total)
        done = write_what_it_says(probe, subject, folder=self.folder, at=at)
        (self.measured if done else self.failed).add(name)

    def note_use(self) -> None:
        """Writes down what share of its devices' peak training has used, where that is known."""
        team = self.options.team
        use = utilisation(
            self.spec, seconds=self.seconds, device=self.updater.device, world=team.world if team else 1
        )
        if use is not None:
            self.folder.write_event(Event(self.step, "utilisation", use))

    def save(self, *, optimizer: bool) -> None:
        """Commits the journal and keeps the state after `step` updates as a checkpoint."""
        model = self.spec.model
        checkpoint.save(
            self.folder.path,
            step=self.step,
            tokens=self.tokens,
            tokens_before=self.tokens_before,
            config=model.public if isinstance(model, PretrainedModel) else model,
            journal=self.folder.commit(),
            model=self.updater.weights(),
            optimizer=self.updater.optimizer_state() if optimizer else None,
        )

    def stored(self, run: Path, *, step: int) -> checkpoint.Checkpoint:
        """A run's checkpoint, verified; one that several processes take up is not held whole."""
        return checkpoint.load(checkpoint.checkpoint_path(run, step=step), whole=self.options.team is None)

    def resume(self) -> bool:
        """Goes to the newest checkpoint that verifies, journal and all; False where there is none.

        One that does not verify, or whose part of the journal does not, becomes an event.
        """
        damaged: dict[str, None] = {}  # Two checkpoints can lack the same part of a journal.
        for step in reversed(checkpoint.steps_on_disk(self.folder.path, kind="resume")):
            try:
                found = self.stored(self.folder.path, step=step)
                if found.optimizer is None:
                    continue
                self.folder.truncate(found.journal)
            except DamagedError as error:
                damaged[str(error).partition(";")[0]] = None
                continue
            self._take(found)
            break
        else:
            found = None
            self.folder.truncate(None)
        for message in damaged:
            go_on = f"the run goes on from step {self.step}"
            log.warning("%s; %s", message, go_on)
            inside = message.replace(f"{self.folder.path}/", "")
            self.folder.write_event(Event(self.step, "damaged", f"{inside}; {go_on}"))
        if found:
            self.folder.write_event(Event(self.step, "resumed", f"attempt {self.folder.attempt}"))
            moved = changed_place(read_header(self.folder.path)["device"], now=self.place_now)
            if moved:
                self.folder.write_event(Event(self.step, "moved", moved))
        return found is not None

    def fork(self, trunk: Path, *, probes: Sequence[Due], keep: Collection[int]) -> bool:
        """Goes to the newest checkpoint of another run that this run shares; False where there is none.

        Takes the trunk's steps, those of its measurements that are due here, and the weights of the
        steps in `keep`, which all must be there.
        """
        if not (trunk / "run.json").exists():
            return False
        identity = read_header(trunk)
        parent = self.parent.fingerprint if self.parent else None
        ours = run_identity(self.spec, corpus_fingerprint=self.corpus.fingerprint, parent=parent)
        if any(identity.get(name) != ours.get(name) for name in ("corpus", "semantics", "parent")):
            return False
        other = RunSpec.from_json(canonical_json(identity["spec"]))
        on_disk = set(checkpoint.steps_on_disk(trunk))
        for step in reversed(checkpoint.steps_on_disk(trunk, kind="resume")):
            kept = {at for at in keep if at < step}
            if not same_start(self.spec, other=other, step=step) or not kept <= on_disk:
                continue
            due = {(probe.fingerprint, at) for probe in probes for at in probe.steps if at <= step}
            try:
                found = self.stored(trunk, step=step)
                self.folder.adopt(trunk, position=found.journal, measured=due, steps=True)
                for at in kept:
                    weights = self.stored(trunk, step=at)
                    checkpoint.save(self.folder.path, **weights._replace(optimizer=None)._asdict())
            except DamagedError as error:
                self.folder.truncate(None)
                self.folder.write_event(Event(0, "damaged", str(error).partition(";")[0]))
                continue
            self._take(found)
            self.folder.write_event(
                Event(step, "forked", f"from {identity['slug']}-{identity['fingerprint'][:12]}")
            )
            return True
        return False

    def place(self, found: checkpoint.Checkpoint) -> None:
        """Counts steps and tokens as of a checkpoint."""
        self.step, self.tokens, self.tokens_before = found.step, found.tokens, found.tokens_before

    def _take(self, found: checkpoint.Checkpoint) -> None:
        """Takes weights, optimizer and place of a checkpoint; the journal is there already."""
        assert found.optimizer is not None
        self.folder.commit()
        self.updater.load(found.model, optimizer=found.optimizer)
        self.place(found)
        self.measured = set(measured(self.folder.path))
        lines = read_journal(self.folder.path, journal="steps")
        self.spikes.recall([StepRecord(**line) for line in lines])


def write_what_it_says(
    probe: Due, subject: Subject, *, folder: RunFolder, at: tuple[int, int, int | None]
) -> bool:
    """Lets a probe measure a subject and writes it down, at a step, its tokens and `tokens_total`.

    False where it failed, which becomes an event.
    """
    step, tokens, tokens_total = at
    try:
        readings = list(probe.measure(subject))
        if not readings:
            raise ValueError("it yielded no reading; yield one with value None where none is defined")
        folder.write_measurements(
            readings, step=step, tokens=tokens, tokens_total=tokens_total, probe=probe.fingerprint
        )
    except (StorageError, EngineError):  # The disk, or the processes of the run, and not the probe.
        raise
    except Exception as error:  # noqa: BLE001
        message = f"{probe.name} ({probe.fingerprint}): {type(error).__name__}: {error}"
        folder.write_event(Event(step, "probe_failed", message))
        return False
    return True


def _check_sizes(spec: RunSpec, corpus: Corpus) -> None:
    """The model can read the corpus: vocabulary and length fit, and of somebody else's model every id."""
    model, written = spec.model, corpus.tokenizer.to_json()
    if isinstance(model, PretrainedModel) and hashlib.sha256(written.encode()).hexdigest() != model.tokenizer:
        raise SpecError(other_tokenizer(spec))
    if corpus.tokenizer.vocab_size > spec.model.vocab_size:
        raise SpecError(
            f"ModelConfig: vocab_size = {spec.model.vocab_size} is below the tokenizer's "
            f"{corpus.tokenizer.vocab_size}; set it to that"
        )
    if spec.corpus.length > spec.model.context:
        raise SpecError(
            f"ModelConfig: context = {spec.model.context} is shorter than the corpus's sequences of "
            f"{spec.corpus.length} tokens; raise it"
        )
