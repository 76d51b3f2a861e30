"""A plan in numbers: what each group of runs costs, what is there already, how long the rest takes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from repetita.model.config import count
from repetita.study.expand import Job
from repetita.study.plan import Label
from repetita.study.prepare import Prepared
from repetita.study.price import Cost, Measuring

GROUPED_BY = ("objective", "arm", "size")
"""Labels whose values make the lines of a plan; a study without them is grouped by treatment and size."""


class Group(NamedTuple):
    """Runs of a plan that share objective, arm and size."""

    name: str
    n_runs: int
    n_present: int
    """Complete already."""
    training_tokens: int
    measuring_tokens: int
    measuring_share: float | None
    """Of the seconds; None where nothing is left."""
    seconds: float
    """Of one process for all that is left."""


class ProbeCost(NamedTuple):
    """What is left to be measured by the probes of one name."""

    name: str
    times: int
    """Measurements, each of all sets of the probe."""
    tokens: int
    """Tokens that they send through the models."""
    share: float
    """Of the seconds of one process for all that is left of the study."""


class Summary(NamedTuple):
    """What is left to be done for a plan, and what it takes."""

    groups: tuple[Group, ...]
    probes: tuple[ProbeCost, ...]
    """The dearest first."""
    n_runs: int
    n_trunks: int
    """Of them, runs that only serve as the shared beginning of others."""
    n_parents: int
    """Of them, runs that only give others their first weights."""
    n_present: int
    training_tokens: int
    measuring_tokens: int
    """Of all probes."""
    measuring_share: float | None
    """Of the time of all that is left; None where nothing is left."""
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
        return self._asdict() | {
            "groups": [group._asdict() for group in self.groups],
            "probes": [probe._asdict() for probe in self.probes],
        }


def summarise(prepared: Prepared, *, processes: int) -> Summary:
    """The numbers of a plan on this many processes."""
    needed = {job.fingerprint for job in prepared.needed()}
    members: dict[str, list[Job]] = {}
    for job in prepared.jobs.values():
        members.setdefault(group_of(job), []).append(job)
    groups = tuple(_grouped(prepared, name, jobs, needed=needed) for name, jobs in members.items())
    left = [prepared.costs[name] for name in needed]
    costs = prepared.costs.values()
    workers = min(processes, max(1, len(needed)))
    return Summary(
        groups=groups,
        probes=_probes(left),
        n_runs=len(prepared.jobs),
        n_trunks=sum(job.role == "trunk" for job in prepared.jobs.values()),
        n_parents=sum(job.role == "parent" for job in prepared.jobs.values()),
        n_present=sum(group.n_present for group in groups),
        training_tokens=sum(group.training_tokens for group in groups),
        measuring_tokens=sum(group.measuring_tokens for group in groups),
        measuring_share=_share(left),
        replayed_steps=sum(prepared.states[name].replayed for name in needed),
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


def _grouped(prepared: Prepared, name: str, jobs: Sequence[Job], *, needed: set[str]) -> Group:
    left = [prepared.costs[job.fingerprint] for job in jobs if job.fingerprint in needed]
    return Group(
        name=name,
        n_runs=len(jobs),
        n_present=sum(prepared.states[job.fingerprint].complete for job in jobs),
        training_tokens=sum(cost.training_tokens for cost in left),
        measuring_tokens=sum(cost.measuring.tokens for cost in left),
        measuring_share=_share(left),
        seconds=sum(cost.seconds for cost in left),
    )


def _probes(left: Sequence[Cost]) -> tuple[ProbeCost, ...]:
    seconds, parts = sum(cost.seconds for cost in left), dict[str, list[Measuring]]()
    for cost in left:
        for name, part in cost.probes.items():
            parts.setdefault(name, []).append(part)
    all_of = {name: Measuring.of_all(listed) for name, listed in parts.items()}
    dearest = sorted(all_of, key=lambda name: -all_of[name].seconds)
    return tuple(
        ProbeCost(name, all_of[name].times, all_of[name].tokens, all_of[name].seconds / seconds)
        for name in dearest
    )


def _share(left: Sequence[Cost]) -> float | None:
    seconds = sum(cost.seconds for cost in left)
    return sum(cost.measuring.seconds for cost in left) / seconds if seconds else None


def group_of(job: Job) -> str:
    """The line of a plan that a job belongs to."""
    if not job.arms:
        return "shared trunks" if job.role == "trunk" else "parents"
    found: list[Label] = [job.arms[0][label] for label in GROUPED_BY if label in job.arms[0]]
    if found:
        return " ".join(str(value) for value in found)
    return f"{job.spec.treatment.kind} {count(job.spec.model).non_embedding}"
