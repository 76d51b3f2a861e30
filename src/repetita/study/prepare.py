"""What a study comes to in a root folder: its jobs, how far each is, and what is left to pay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from repetita.errors import SpecError, nearest
from repetita.measure.probe import EvalSet
from repetita.study.corpora import Corpora
from repetita.study.expand import Job, expand
from repetita.study.find import Found, find_study
from repetita.study.plan import PlannedRun
from repetita.study.price import Cost, JobState, Rates, job_cost, job_state, makespan

DEFAULT_SCALE = "laptop"


class Portion(NamedTuple):
    """One study at one scale."""

    found: Found
    scale: str
    planned: tuple[PlannedRun, ...]

    @property
    def folder(self) -> str:
        """The folder of this portion below `studies/`."""
        return f"{self.found.study.name}-{self.scale}"


class Prepared(NamedTuple):
    """Everything that is known before the first step is made."""

    portions: tuple[Portion, ...]
    jobs: Mapping[str, Job]
    """By fingerprint, trunks before their forks."""
    states: Mapping[str, JobState]
    costs: Mapping[str, Cost]
    corpora: Corpora
    rates: Rates

    def needed(self) -> tuple[Job, ...]:
        """Jobs with something left to do; of mere trunks those that a fork still has to start from."""
        needed: dict[str, Job] = {}
        starting = set[str]()
        for name, job in reversed(list(self.jobs.items())):  # Forks before trunks: these are needed by those.
            state = self.states[name]
            if (job.arms and not state.complete) or (name in starting and state.status != "done"):
                needed[name] = job
                if job.trunk is not None and state.status != "done" and not state.steps_done:
                    starting.add(job.trunk)
        return tuple(job for name, job in self.jobs.items() if name in needed)

    def after(self) -> dict[str, str | None]:
        """The trunk that each job has to wait for, None where it has none or is beyond it already."""
        return {name: None if self.states[name].steps_done else job.trunk for name, job in self.jobs.items()}

    def seconds(self, *, processes: int) -> float:
        """Expected wall time of what is needed on this many processes."""
        needed = self.needed()
        return makespan(
            {job.fingerprint: self.costs[job.fingerprint].seconds for job in needed},
            after=self.after(),
            processes=processes,
        )


def portion(reference: str | Path, *, scale: str | None) -> Portion:
    """A study at a scale (None: laptop, or else its first); SpecError for an unknown study or scale."""
    found = find_study(reference)
    if scale is None:
        scales = found.study.scales
        scale = DEFAULT_SCALE if DEFAULT_SCALE in scales else next(iter(scales), "")
    planned = found.study.runs(scale)
    if not planned:
        raise SpecError(f"study {found.study.name} plans no runs at scale '{scale}'; choose another scale")
    return Portion(found, scale, planned)


def prepare(portions: Sequence[Portion], *, root: Path, corpora: Corpora) -> Prepared:
    """Jobs, states and costs of portions of work that share a root folder.

    Builds corpora that are missing (a run's fingerprint holds its corpus's). Raises, before anything is
    trained, SpecError for a probe whose set a run lacks and CorpusError for a schedule that a set is too
    small for.
    """
    planned = [run for part in portions for run in part.planned]
    jobs = {job.fingerprint: job for job in expand(planned, root=root, corpora=corpora.fingerprint)}
    states = {name: job_state(job) for name, job in jobs.items()}
    rates = Rates.of(root)
    costs, known = {}, dict[tuple[str, int], int]()
    for name, job in jobs.items():
        tokens = {}
        for key, sets in read_by(job, corpora=corpora).items():
            probe = next(due.probe for due in job.probes if due.key == key)
            if (key, id(sets)) not in known:
                known[key, id(sets)] = probe.cost_tokens(sets)
            tokens[key] = known[key, id(sets)]
        costs[name] = job_cost(job, state=states[name], tokens=tokens, rates=rates)
    return Prepared(tuple(portions), jobs, states, costs, corpora, rates)


def read_by(job: Job, *, corpora: Corpora) -> dict[str, Mapping[str, EvalSet]]:
    """By key of the measurement, the sets that a job's probes read; SpecError where the run lacks one."""
    by_spec = {spec: corpora.sets(spec) for spec in {due.sets_of for due in job.probes}}
    if job.spec not in by_spec:
        corpora.schedule(job.spec)  # Raises what the run would raise.
    for due in job.probes:
        for name in due.probe.on:
            if name not in by_spec[due.sets_of]:
                raise SpecError(
                    f"{job.slug}: probe '{due.probe.name}' reads the set '{name}', which this run lacks; "
                    f"{nearest(name, by_spec[due.sets_of])}"
                )
    return {due.key: by_spec[due.sets_of] for due in job.probes}
