"""From planned runs to jobs: equal runs once, shared starts as trunks, trunks and parents before others."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from repetita.cadence import Cadence
from repetita.corpus.document_ids import split_form
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import Insertions, Passes, RepeatedSubset, SpecialBatch, steps_per_pass
from repetita.errors import SpecError
from repetita.journal.folder import run_path
from repetita.measure.budget import BudgetedProbe
from repetita.measure.probe import PARENT, Probe
from repetita.model.config import count
from repetita.spec import Spec, fingerprint, plain
from repetita.study.plan import Label, PlannedRun
from repetita.train.recipe import RunSpec, ancestry, fingerprint_among, run_slug

BY_BATCH = ("special", "twin", "placebo")
"""Sets that a run with special batches sees batch by batch, as special/0, special/1, twin/0 ..."""

Role = Literal["planned", "trunk", "parent"]
"""What a job is there for: a planned run, or only the shared beginning or the first weights of others."""


class ProbeSteps(NamedTuple):
    """When one probe measures in one job."""

    probe: Probe
    key: str
    """Names the probe and the sets that it is given, 12 hex digits; a measurement is (run, key, step)."""
    steps: frozenset[int]
    sets_of: RunSpec
    """The run whose treatment says what `special` and the like are; for a trunk, that of its fork."""


class Job(NamedTuple):
    """One run to be there in the end, however many planned runs share it."""

    fingerprint: str
    slug: str
    path: Path
    spec: RunSpec
    corpus: str
    """Fingerprint of its corpus."""
    arms: tuple[Mapping[str, Label], ...]
    """Labels of each planned run that it serves; none for a run that is only a trunk or a parent."""
    probes: tuple[ProbeSteps, ...]
    keep: frozenset[int]
    trunk: str | None
    """Fingerprint of the job whose last state this one starts from."""
    trunk_steps: int = 0
    """Steps that the trunk has made."""
    parent: str | None = None
    """Fingerprint of the job whose last weights are the first ones of this one (`RunSpec.start`)."""
    carried: bool = False
    """Whether a job carries the optimizer of this one's end on, which is kept for it."""
    role: Role = "planned"

    @property
    def before(self) -> str | None:
        """Fingerprint of the job that has to be done before this one begins."""
        return self.trunk or self.parent


class _Draft:
    """A job while planned runs are added to it."""

    def __init__(self, spec: RunSpec, *, corpora: Callable[[CorpusSpec], str]) -> None:
        self.spec, self._corpora = spec, corpora
        self.arms: list[Mapping[str, Label]] = []
        self.probes: dict[str, ProbeSteps] = {}
        self.keep: set[int] = set()
        self.trunk: str | None = None
        self.parent: str | None = None
        self.carried = False

    def measure(self, probe: Probe, *, steps: frozenset[int], sets_of: RunSpec) -> None:
        key = measurement_key(probe, spec=sets_of, corpora=self._corpora)
        due = self.probes.setdefault(key, ProbeSteps(probe, key, frozenset(), sets_of))
        self.probes[key] = due._replace(steps=due.steps | steps)


def measurement_key(
    probe: Probe, *, spec: RunSpec, corpora: Callable[[CorpusSpec], str] | None = None
) -> str:
    """What a measurement is kept under in a run's journal: the probe, and what its sets are in `spec`.

    A trunk is measured on sets of forks that it knows nothing of, and these may differ between forks; so what
    a set depends on beyond seed, corpus and the shared start is part of the key. So is that of sets that are
    read besides, where they depend on anything. Sets of another corpus depend on that alone; `corpora` gives
    its fingerprint.
    """
    other = other_corpus(probe)
    if other is not None:
        assert corpora is not None
        return fingerprint([probe.fingerprint, corpora(other)])[:12]
    told = [_depends(name, spec=spec) for name in probe.on]
    more = [_depends(name, spec=spec) for name in read_besides(probe)]
    return fingerprint([probe.fingerprint, told, *([more] if any(more) else [])])[:12]


def other_corpus(probe: Probe, /) -> CorpusSpec | None:
    """The corpus that a probe reads instead of the run's own."""
    corpus: CorpusSpec | None = getattr(probe, "corpus", None)
    return corpus


def corpora_of(planned: Iterable[PlannedRun], /) -> tuple[CorpusSpec, ...]:
    """The corpora that runs and their parents train on and that their probes read, each once."""
    found: dict[CorpusSpec, None] = {}
    for run in planned:
        own = [spec.corpus for spec in ancestry(run.spec)]
        found |= dict.fromkeys([*own, *filter(None, map(other_corpus, run.probes))])
    return tuple(found)


def read_besides(probe: Probe, /) -> tuple[str, ...]:
    """Sets that a probe reads and does not measure, such as those in which it counts tokens."""
    besides: tuple[str, ...] = getattr(probe, "besides", ())
    return besides


def _depends(name: str, *, spec: RunSpec) -> object:
    if spec.start is not None and (theirs := of_parent(name)) is not None:
        return _depends(theirs, spec=spec.start.run)
    treatment = spec.treatment
    name, form = split_form(name)
    step = batch_step(name)
    if spec.document_ids is not None and form == "drawn" and not isinstance(treatment, Passes):
        # Drawn of all the IDs of the run, and how many these are is known at its end.
        return [spec.steps, plain(treatment)]
    if step is not None:
        # What follows the update does not decide what it reads: runs with one start agree about its batch.
        return [plain(treatment.until(step + 1)), spec.batch_size]
    if spec.document_ids is not None and form != "plain" and isinstance(treatment, SpecialBatch | Insertions):
        # IDs are numbered as the run reads: where it reads something else first, a set has others.
        return [spec.steps, plain(treatment)]
    if isinstance(treatment, SpecialBatch) and "/" in name:
        return treatment.size
    base = treatment.base if isinstance(treatment, SpecialBatch | Insertions) else treatment
    if (name == "train" and not isinstance(base, Passes)) or name in ("inserted", "novel"):
        return [spec.steps, plain(treatment)]
    if name == "repeated" and isinstance(base, RepeatedSubset) and base.begins:
        # Its trunk is the control, which has no subset: forks of other windows and sizes have another one.
        return plain(base)
    return None


def batch_step(name: str, /) -> int | None:
    """1200 for `batch/1200`, the set of what that update reads; None for other names."""
    kind, _, step = name.partition("/")
    return int(step) if kind == "batch" and step.isdecimal() and step == str(int(step)) else None


def of_parent(name: str, /) -> str | None:
    """`repeated` for `parent/repeated`, that set of the run that a run starts from; None for other names."""
    return name.removeprefix(PARENT) if name.startswith(PARENT) else None


def in_run(probe: Probe, *, spec: RunSpec) -> Probe:
    """The probe as this run takes it.

    `special`, `twin` and `placebo` become one set a special batch (twin and placebo batches have the size of
    the special batch with the same number), and a budget becomes a number of sequences. The sets of another
    corpus are whole ones.
    """
    other = other_corpus(probe)
    taken = probe if other else _by_batch(probe, spec=spec)
    if not isinstance(taken, BudgetedProbe) or taken.budget is None:
        return taken
    return taken.within(
        training_tokens=spec.steps * spec.batch_size * spec.corpus.length,
        measurements=len(_due_steps(taken.cadence, spec=spec)),
        length=(other or spec.corpus).length,
        objective=spec.model.objective,
    )


def _due_steps(cadence: Cadence, *, spec: RunSpec) -> tuple[int, ...]:
    treatment = spec.treatment
    base = treatment.base if isinstance(treatment, SpecialBatch | Insertions) else treatment
    length = steps_per_pass(treatment, batch_size=spec.batch_size)
    if isinstance(base, RepeatedSubset) and base.begins:
        length = None  # A cadence in passes would count from the start of the run.
    return cadence.steps(spec.steps, steps_per_pass=length)


def _by_batch(probe: Probe, *, spec: RunSpec) -> Probe:
    treatment = spec.treatment
    forms = [split_form(name) for name in probe.on]
    if not isinstance(treatment, SpecialBatch) or not any(text in BY_BATCH for text, _ in forms):
        return probe
    if not isinstance(probe, Spec):
        raise SpecError(
            f"probe '{probe.name}' reads special batches and is no Spec; derive its class from Spec"
        )
    on: list[str] = []
    for text, form in forms:
        names = [f"{text}/{batch}" for batch in range(treatment.n_batches)] if text in BY_BATCH else [text]
        on += [f"{name}/{form}" if form else name for name in names]
    changed: Probe = probe.edit(on=tuple(on))
    return changed


def expand(
    planned: Sequence[PlannedRun], *, root: Path, corpora: Callable[[CorpusSpec], str]
) -> tuple[Job, ...]:
    """The jobs behind `planned`, trunks and parents before what needs them, else in the order of the study.

    `corpora` gives the fingerprint of a corpus. Equal specs are one job with the probes of all. A trunk that
    a single run would start from is not worth its own folder, so that run is run straight. A parent is
    trained as far as it is needed: where a longer run with the same beginning is planned, it is its trunk.
    """
    drafts: dict[str, _Draft] = {}

    def key_of(spec: RunSpec) -> str:
        return fingerprint_among(spec, corpora=corpora)

    trunks: dict[str, dict[str, PlannedRun]] = {}
    for run in planned:
        name = key_of(run.spec)
        draft = drafts.setdefault(name, _Draft(run.spec, corpora=corpora))
        draft.arms.append(labels_of(run))
        _due(draft, run, until=run.spec.steps)
        trunk = _trunk_spec(run)
        if trunk is not None:
            trunks.setdefault(key_of(trunk), {})[name] = run

    _add_parents(drafts, corpora=corpora)
    for trunk_name, forks in trunks.items():
        if len(forks) < 2 and trunk_name not in drafts:
            continue
        example = next(iter(forks.values()))
        spec = _trunk_spec(example)
        assert spec is not None
        draft = drafts.setdefault(trunk_name, _Draft(spec, corpora=corpora))
        for name, fork in forks.items():
            _due(draft, fork, until=spec.steps)
            drafts[name].trunk = trunk_name
    parents = _add_parents(drafts, corpora=corpora)
    _chain(drafts, parents=parents, key_of=key_of)
    used = {draft.trunk for draft in drafts.values()}

    def job(name: str, draft: _Draft) -> Job:
        corpus = corpora(draft.spec.corpus)
        return Job(
            fingerprint=name,
            slug=run_slug(draft.spec),
            path=run_path(root, name, run_slug(draft.spec)),
            spec=draft.spec,
            corpus=corpus,
            arms=tuple(draft.arms),
            probes=tuple(draft.probes.values()),
            keep=frozenset(draft.keep),
            trunk=draft.trunk,
            trunk_steps=drafts[draft.trunk].spec.steps if draft.trunk else 0,
            parent=draft.parent,
            carried=draft.carried,
            role="planned" if draft.arms else "trunk" if name in used else "parent",
        )

    return _in_order({name: job(name, draft) for name, draft in drafts.items()})


def labels_of(run: PlannedRun) -> dict[str, Label]:
    """Labels of a planned run, completed by what its spec says."""
    spec = run.spec
    given = dict(run.labels)
    for name in given:
        if name in RESERVED:
            raise SpecError(
                f"a planned run is labelled '{name}', which is a column of its own; choose another name"
            )
    said: dict[str, Label] = {
        "seed": spec.seed,
        "n_params": count(spec.model).non_embedding,
        "steps": spec.steps,
        "batch_size": spec.batch_size,
    }
    return given | {name: value for name, value in said.items() if name not in given}


RESERVED = frozenset(
    {
        "run",
        "path",
        "step",
        "tokens",
        "tokens_total",
        "probe",
        "metric",
        "on",
        "set",
        "batch",
        "value",
        "n",
        "detail",
        "state",
    }
)
"""Columns of the table that no label may be called."""


def _trunk_spec(run: PlannedRun) -> RunSpec | None:
    """The run of the shared steps, None where there is nothing to share or the start cannot be cut there."""
    if run.fork_at is None or not 0 < run.fork_at < run.spec.steps:
        return None
    try:
        return run.spec.until(run.fork_at)
    except SpecError:
        return None


def _due(draft: _Draft, run: PlannedRun, *, until: int) -> None:
    """Adds what `run` wants measured and kept in its first `until` steps."""
    for probe in run.probes:
        due = frozenset(step for step in _due_steps(probe.cadence, spec=run.spec) if step <= until)
        draft.measure(in_run(probe, spec=run.spec), steps=due, sets_of=run.spec)
    if run.keep is not None:
        draft.keep.update(step for step in _due_steps(run.keep, spec=run.spec) if step <= until)


def _add_parents(drafts: dict[str, _Draft], *, corpora: Callable[[CorpusSpec], str]) -> set[str]:
    """Adds the runs that others start from, and those that these start from; the names of all of them."""
    parents = set[str]()
    waiting = list(drafts.values())
    while waiting:
        draft = waiting.pop()
        start = draft.spec.start
        if start is None:
            continue
        draft.parent = fingerprint_among(start.run, corpora=corpora)
        if draft.parent not in drafts:
            drafts[draft.parent] = _Draft(start.run, corpora=corpora)
            waiting.append(drafts[draft.parent])
        drafts[draft.parent].carried |= start.optimizer == "carried"
        parents.add(draft.parent)
    return parents


def _chain(drafts: dict[str, _Draft], *, parents: set[str], key_of: Callable[[RunSpec], str]) -> None:
    """Lets a trunk start from a shorter trunk of the same run, and any run from a parent that it goes on."""
    used = {draft.trunk for draft in drafts.values() if draft.trunk} | parents
    for name, longer in list(drafts.items()):
        if longer.trunk is not None:
            continue
        among: Iterable[str] = used if name in used else parents
        shorter = [other for other in among if drafts[other].spec.steps < longer.spec.steps]
        for other in sorted(shorter, key=lambda other: -drafts[other].spec.steps):
            try:
                start = longer.spec.until(drafts[other].spec.steps)
            except SpecError:
                continue
            if key_of(start) == other:
                longer.trunk = other
                for probes in longer.probes.values():
                    steps = frozenset(step for step in probes.steps if step <= start.steps)
                    drafts[other].measure(probes.probe, steps=steps, sets_of=probes.sets_of)
                drafts[other].keep.update(step for step in longer.keep if step <= start.steps)
                break


def _in_order(jobs: dict[str, Job]) -> tuple[Job, ...]:
    """Trunks and parents before the jobs that need them."""
    ordered: dict[str, Job] = {}

    def place(job: Job) -> None:
        for before in (job.parent, job.trunk):
            if before is not None and before not in ordered:
                place(jobs[before])
        ordered.setdefault(job.fingerprint, job)

    for job in jobs.values():
        place(job)
    return tuple(ordered.values())
