"""A plan in numbers: what each group of runs costs, what is there already, how long the rest takes."""

from typing import Any, NamedTuple

from repetita.model.config import count
from repetita.study.expand import Job
from repetita.study.plan import Label
from repetita.study.prepare import Prepared
from repetita.study.price import Cost

GROUPED_BY = ("arm", "size")
"""Labels whose values make the lines of a plan; a study without them is grouped by treatment and size."""


class Group(NamedTuple):
    """Runs of a plan that share arm and size."""

    name: str
    n_runs: int
    n_present: int
    """Complete already."""
    training_tokens: int
    measuring_tokens: int
    seconds: float
    """Of one process for all that is left."""


class Summary(NamedTuple):
    """What is left to be done for a plan, and what it takes."""

    groups: tuple[Group, ...]
    n_runs: int
    n_trunks: int
    """Of them, runs that only serve as the shared beginning of others."""
    n_present: int
    training_tokens: int
    measuring_tokens: int
    replayed_steps: int
    """Steps that are trained again only to measure what a finished run lacks."""
    seconds: float
    """Wall time on that many processes."""
    processes: int
    memory: int
    """Bytes of all processes at the largest run."""
    disk: int
    """Bytes of all runs when they are done."""
    rates: str
    """Where the tokens a second come from."""

    def as_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return self._asdict() | {"groups": [group._asdict() for group in self.groups]}


def summarise(prepared: Prepared, *, processes: int) -> Summary:
    """The numbers of a plan on this many processes."""
    needed = {job.fingerprint for job in prepared.needed()}
    members: dict[str, list[Job]] = {}
    for job in prepared.jobs.values():
        members.setdefault(_group(job), []).append(job)
    groups = tuple(
        Group(
            name=name,
            n_runs=len(jobs),
            n_present=sum(prepared.states[job.fingerprint].complete for job in jobs),
            training_tokens=sum(_cost(prepared, job, needed=needed).training_tokens for job in jobs),
            measuring_tokens=sum(_cost(prepared, job, needed=needed).measuring_tokens for job in jobs),
            seconds=sum(_cost(prepared, job, needed=needed).seconds for job in jobs),
        )
        for name, jobs in members.items()
    )
    costs = prepared.costs.values()
    workers = min(processes, max(1, len(needed)))
    return Summary(
        groups=groups,
        n_runs=len(prepared.jobs),
        n_trunks=sum(not job.arms for job in prepared.jobs.values()),
        n_present=sum(group.n_present for group in groups),
        training_tokens=sum(group.training_tokens for group in groups),
        measuring_tokens=sum(group.measuring_tokens for group in groups),
        replayed_steps=sum(state.replayed for state in prepared.states.values()),
        seconds=prepared.seconds(processes=processes),
        processes=processes,
        memory=sum(sorted((cost.memory for cost in costs), reverse=True)[:workers]),
        disk=sum(cost.disk for cost in costs),
        rates=_rates(prepared),
    )


def _rates(prepared: Prepared) -> str:
    specs = [job.spec for job in prepared.jobs.values()]
    observed = [
        prepared.rates.like(spec.model, tokens_per_step=spec.batch_size * spec.corpus.length) is not None
        for spec in specs
    ]
    if all(observed):
        return "runs that finished here"
    table = "a table measured on one core"
    return f"runs that finished here, and for other sizes {table}" if any(observed) else table


_NOTHING = Cost(0, 0, 0.0, 0, 0)


def _cost(prepared: Prepared, job: Job, *, needed: set[str]) -> Cost:
    return prepared.costs[job.fingerprint] if job.fingerprint in needed else _NOTHING


def _group(job: Job) -> str:
    if not job.arms:
        return "shared trunks"
    found: list[Label] = [job.arms[0][label] for label in GROUPED_BY if label in job.arms[0]]
    if found:
        return " ".join(str(value) for value in found)
    return f"{job.spec.treatment.kind} {count(job.spec.model).non_embedding}"
