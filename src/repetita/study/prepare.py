"""What a study comes to in a root folder: its jobs, how far each is, and what is left to pay."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from repetita.errors import CorpusError, SpecError, nearest
from repetita.measure.probe import EvalSet
from repetita.study.corpora import Corpora
from repetita.study.expand import Job, expand, other_corpus, read_besides
from repetita.study.find import Found, FoundPaper, find_paper, find_study
from repetita.study.plan import PlannedRun
from repetita.study.price import Cost, JobState, Rates, job_cost, job_state, makespan
from repetita.study.text import Text, shows_passages, with_text
from repetita.train.recipe import RunSpec

DEFAULT_SCALE = "laptop"

Fetch = Callable[[Sequence[Path]], None]


class Portion(NamedTuple):
    """One study at one scale."""

    found: Found
    scale: str
    planned: tuple[PlannedRun, ...]
    text: Text | None = None
    """What is read instead of the study's own text, or shown beside its own passages."""
    own: str = ""
    """Source of the study's own text, where another is read."""

    @property
    def folder(self) -> str:
        """The folder of this portion below `studies/`."""
        return folder_of(self.found.study.name, scale=self.scale, text=self.text)


class Bundle(NamedTuple):
    """What a name stands for at one scale: a study, or a paper with all of its studies."""

    portions: tuple[Portion, ...]
    scale: str
    text: Text | None = None
    paper: FoundPaper | None = None

    @property
    def folder(self) -> str:
        """The folder of its page below `studies/`."""
        if self.paper is None:
            return self.portions[0].folder
        return folder_of(self.paper.paper.name, scale=self.scale, text=self.text)


Counted = dict[Hashable, dict[str, int]]
"""By kind of job, what `cost_tokens` counted."""


class Prepared(NamedTuple):
    """Everything that is known before the first step is made."""

    portions: tuple[Portion, ...]
    jobs: Mapping[str, Job]
    """By fingerprint, trunks and parents before the jobs that need them."""
    states: Mapping[str, JobState]
    costs: Mapping[str, Cost]
    corpora: Corpora
    rates: Rates
    known: Counted
    """What `cost_tokens` counted before."""

    def needed(self) -> tuple[Job, ...]:
        """See `needed`."""
        return needed(self.jobs, states=self.states)

    def after(self) -> dict[str, str | None]:
        """The trunk or parent that each job waits for, None where it has none or is beyond it already."""
        return {name: _waits_for(job, self.states[name]) for name, job in self.jobs.items()}

    def seconds(self, *, processes: int) -> float:
        """Expected wall time of what is needed on this many processes."""
        needed = self.needed()
        return makespan(
            {job.fingerprint: self.costs[job.fingerprint].seconds for job in needed},
            after=self.after(),
            processes=processes,
        )


def needed(jobs: Mapping[str, Job], *, states: Mapping[str, JobState]) -> tuple[Job, ...]:
    """Jobs with something left to do; of mere trunks and parents those that one still starts from."""
    found, starting = set[str](), set[str | None]()
    for name, job in reversed(list(jobs.items())):  # Forks before trunks: these are needed by those.
        state = states[name]
        if (job.arms and not state.complete) or (name in starting and not state.ready):
            found.add(name)
            starting.add(_waits_for(job, state))
    return tuple(job for name, job in jobs.items() if name in found)


def _waits_for(job: Job, state: JobState) -> str | None:
    if state.replayed:
        return job.parent  # It is trained again from its first weights.
    return None if state.steps_done else job.before


def folder_of(name: str, *, scale: str, text: Text | None) -> str:
    """The folder of a study or paper below `studies/`."""
    return f"{name}-{scale}" + (f"-{text.slug}" if text else "")


def portion(reference: str | Path, *, scale: str | None, text: Text | None = None) -> Portion:
    """A study at a scale (None: laptop, or else its first); SpecError for an unknown study or scale."""
    found = find_study(reference)
    scale = scale or default_scale(found.study.scales)
    planned = found.study.runs(scale)
    if not planned:
        raise SpecError(f"study {found.study.name} plans no runs at scale '{scale}'; choose another scale")
    own = planned[0].spec.corpus.source if text and text.source else ""
    return Portion(found, scale, with_text(planned, text), text, own)


def bundle(reference: str | Path, *, scale: str | None, text: Text | None = None) -> Bundle:
    """The portions behind a name: that of a study, or of a paper those of all its studies.

    Raises SpecError for an unknown name, for a scale that the study, or one of the paper's, does not have,
    and for a passage where models are shown none.
    """
    paper = find_paper(reference)
    if paper is None:
        parts: tuple[Portion, ...] = (portion(reference, scale=scale, text=text),)
        scale = parts[0].scale
    else:
        scale = scale or DEFAULT_SCALE
        parts = tuple(portion(paper.study(name), scale=scale, text=text) for name in paper.paper.studies)
    if text and text.passage and not any(shows_passages(part.planned) for part in parts):
        raise SpecError(f"--text has no effect on {reference}, which shows models no passage; leave it out")
    return Bundle(parts, scale, text, paper)


def default_scale(scales: Iterable[str]) -> str:
    """The scale that is meant where none is named: laptop, or else the first."""
    listed = list(scales)
    return DEFAULT_SCALE if DEFAULT_SCALE in listed else next(iter(listed), "")


def prepare(
    portions: Sequence[Portion], *, root: Path, corpora: Corpora, fetch: Fetch | None = None
) -> Prepared:
    """Jobs, states and costs of portions of work that share a root folder.

    `fetch` is told the folders of all runs before they are looked at, to bring there what is kept elsewhere.

    Builds corpora that are missing (a run's fingerprint holds its corpus's). Raises, before anything is
    trained, SpecError for a probe whose set a run lacks and CorpusError for a schedule that a set is too
    small for.
    """
    try:
        return _prepare(portions, root=root, corpora=corpora, fetch=fetch)
    except CorpusError as error:
        text = next((part.text for part in portions if part.text and part.text.source), None)
        if text is None:
            raise
        raise CorpusError(f"the text {text.name} does not suit this plan: {error}") from None


def _prepare(portions: Sequence[Portion], *, root: Path, corpora: Corpora, fetch: Fetch | None) -> Prepared:
    planned = [run for part in portions for run in part.planned]
    jobs = {job.fingerprint: job for job in expand(planned, root=root, corpora=corpora.fingerprint)}
    if fetch is not None:
        fetch([job.path for job in jobs.values()])
    states = {name: job_state(job) for name, job in jobs.items()}
    rates = Rates.of(root)
    costs, known = {}, Counted()
    for name, job in jobs.items():
        tokens = cost_tokens(job, corpora=corpora, known=known)
        costs[name] = job_cost(job, state=states[name], tokens=tokens, rates=rates)
    return Prepared(tuple(portions), jobs, states, costs, corpora, rates, known)


def cost_tokens(job: Job, *, corpora: Corpora, known: Counted) -> Mapping[str, int]:
    """By key of the measurement, the tokens that one of them reads; `known` keeps what was counted before."""
    like = (_kind(job.spec), *((due.key, _kind(due.sets_of)) for due in job.probes))
    if like not in known:
        read = read_by(job, corpora=corpora)
        known[like] = {due.key: due.probe.cost_tokens(read[due.key]) for due in job.probes}
    return known[like]


def _kind(spec: RunSpec) -> Hashable:
    """What decides how much each set of a run holds; of ten thousand runs most are of a few kinds.

    The seed decides only which sequences these are, but where IDs are numbered as a run reads.
    """
    ids = spec.document_ids and (spec.document_ids, spec.seed, spec.model)
    return (spec.corpus, spec.treatment, spec.steps, spec.batch_size, spec.start, spec.model.context, ids)


def tag_corpora(prepared: Prepared) -> None:
    """Has the corpora tagged whose parts of speech a probe of a needed run reads, where they are not."""
    for job in prepared.needed():
        for due in job.probes:
            if getattr(due.probe, "needs_tags", False):
                prepared.corpora.tag(other_corpus(due.probe) or job.spec.corpus)


def read_by(job: Job, *, corpora: Corpora) -> dict[str, Mapping[str, EvalSet]]:
    """By key of the measurement, the sets that a job's probes read; SpecError where the run lacks one."""
    if all(due.sets_of != job.spec or other_corpus(due.probe) for due in job.probes):
        corpora.schedule(job.spec)  # Raises what the run would raise.
    corpora.check_start(job.spec)
    read: dict[str, Mapping[str, EvalSet]] = {}
    for due in job.probes:
        other = other_corpus(due.probe)
        sets = corpora.other_sets(other, read_by=job.spec) if other else corpora.sets(due.sets_of)
        for name in (*due.probe.on, *read_besides(due.probe)):
            if name not in sets:
                lacking = f"which {'the corpus that it names' if other else 'this run'} lacks"
                raise SpecError(
                    f"{job.slug}: probe '{due.probe.name}' reads the set '{name}', {lacking}; "
                    f"{nearest(name, sets)}"
                )
        read[due.key] = sets
    return read
