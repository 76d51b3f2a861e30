"""What each study of several costs, alone and beside those before it: runs that are shared are paid once."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from repetita.journal.disk import write_atomic
from repetita.report.page import Table
from repetita.study.expand import Job, expand
from repetita.study.manifest import study_path
from repetita.study.prepare import Prepared, cost_tokens
from repetita.study.price import Cost, JobState, job_cost, makespan

FILE = "cost.json"
"""Beside the page of a paper: what was planned, and how long it ran."""

Unit = Literal["minutes", "GPU-hours"]

NOTHING_DONE = JobState("missing", 0, {}, 0)


class Price(NamedTuple):
    """Runs with all that is measured in them, from the first step on."""

    n_runs: int
    training_tokens: int
    measuring_tokens: int
    seconds: float
    """Expected, on one process or one GPU."""


class Line(NamedTuple):
    """One study of a plan."""

    study: str
    alone: Price
    """What it would take if it were the only one."""
    added: Price
    """What it adds to the studies before it: the sum over all studies is the whole plan."""


class Ledger(NamedTuple):
    """A plan of several studies, whatever is done of it already."""

    lines: tuple[Line, ...]
    total: Price
    processes: int
    hours: float
    """Expected wall time of all on so many processes."""
    unit: Unit = "minutes"
    """What the table shows of the seconds: those of processes or those of GPUs."""

    def as_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        lines = [
            {"study": line.study, "alone": line.alone._asdict(), "added": line.added._asdict()}
            for line in self.lines
        ]
        return self._asdict() | {"lines": lines, "total": self.total._asdict()}


class Session(NamedTuple):
    """One time that the studies were run."""

    seconds: float
    """Wall time."""
    processes: int


def ledger(
    prepared: Prepared,
    *,
    root: Path,
    processes: int,
    on_gpus: Callable[[Job, Cost], float] | None = None,
) -> Ledger:
    """The costs of all portions, in their order; `on_gpus` gives the seconds of a GPU for a cost of a job."""
    own = [
        {
            job.fingerprint: job
            for job in expand(part.planned, root=root, corpora=prepared.corpora.fingerprint)
        }
        for part in prepared.portions
    ]

    def cost(job: Job) -> Cost:
        merged = prepared.jobs.get(job.fingerprint, job)
        # What was counted for all studies holds for each.
        of = merged if {due.key for due in job.probes} <= {due.key for due in merged.probes} else job
        tokens = cost_tokens(of, corpora=prepared.corpora, known=prepared.known)
        found = job_cost(job, state=NOTHING_DONE, tokens=tokens, rates=prepared.rates)
        return found if on_gpus is None else found._replace(seconds=on_gpus(job, found))

    whole = {name: cost(job) for name, job in prepared.jobs.items()}
    parts = [list[Cost]() for _ in own]
    starts = [0 for _ in own]
    for job in prepared.jobs.values():
        first = _first(job, own=own, jobs=prepared.jobs)
        starts[first] += 1
        training = cost(job._replace(probes=()))
        parts[first].append(training)
        for due in job.probes:
            part = cost(job._replace(probes=(due,)))
            taker = _first(job, own=own, jobs=prepared.jobs, key=due.key)
            parts[taker].append(part._replace(training_tokens=0, seconds=part.seconds - training.seconds))
    seconds = makespan(
        {name: one.seconds for name, one in whole.items()},
        after={name: job.before for name, job in prepared.jobs.items()},
        processes=processes,
    )
    lines = [
        Line(
            part.found.study.name,
            alone=_price(len(jobs), [cost(job) for job in jobs.values()]),
            added=_price(n_runs, costs),
        )
        for part, jobs, n_runs, costs in zip(prepared.portions, own, starts, parts, strict=True)
    ]
    total = _price(len(whole), list(whole.values()))
    unit: Unit = "minutes" if on_gpus is None else "GPU-hours"
    return Ledger(tuple(lines), total, processes, seconds / 3600, unit)


def _first(
    job: Job, *, own: Sequence[Mapping[str, Job]], jobs: Mapping[str, Job], key: str | None = None
) -> int:
    """The first study that a job, or its measurement `key`, is there for.

    What no study has alone, a trunk of runs of several studies, serves those of its forks.
    """
    name = job.fingerprint
    found = [i for i, mine in enumerate(own) if name in mine and _measures(mine[name], key)]
    if not found:
        forks = [fork for fork in jobs.values() if fork.trunk == name and _measures(fork, key)]
        found = [_first(fork, own=own, jobs=jobs, key=key) for fork in forks]
    return min(found)


def _measures(job: Job, key: str | None) -> bool:
    return key is None or any(due.key == key for due in job.probes)


def _price(n_runs: int, costs: Sequence[Cost]) -> Price:
    return Price(
        n_runs,
        sum(cost.training_tokens for cost in costs),
        sum(cost.measuring.tokens for cost in costs),
        sum(cost.seconds for cost in costs),
    )


def write_ledger(kept: Ledger, *, root: Path, folder: str) -> None:
    """Writes the plan beside the page to come; the times of earlier sessions stay. Raises StorageError."""
    _write(root, folder, kept.as_json(), read_sessions(root, folder=folder))


def add_session(session: Session, *, root: Path, folder: str) -> None:
    """Adds how long the studies ran this time. Raises StorageError."""
    kept = read_ledger(root, folder=folder)
    if kept is not None:
        _write(root, folder, kept.as_json(), (*read_sessions(root, folder=folder), session))


def read_ledger(root: Path, *, folder: str) -> Ledger | None:
    """What was planned when the paper was last run; None where it never was."""
    values = _read(root, folder)
    if not values:
        return None
    kept = values["plan"]
    lines = tuple(
        Line(line["study"], Price(**line["alone"]), Price(**line["added"])) for line in kept["lines"]
    )
    return Ledger(lines, Price(**kept["total"]), kept["processes"], kept["hours"], kept["unit"])


def read_sessions(root: Path, *, folder: str) -> tuple[Session, ...]:
    """How long the paper's studies ran, session by session."""
    return tuple(Session(**one) for one in _read(root, folder).get("sessions", ()))


def ledger_table(kept: Ledger, *, sessions: Sequence[Session] = ()) -> Table:
    """The table that plan and page show."""
    rows = [
        [line.study, *_cells(line.alone, kept.unit), *_cells(line.added, kept.unit)]
        for line in (*kept.lines, Line("all", kept.total, kept.total))
    ]
    took = ""
    if sessions:
        minutes = sum(session.seconds for session in sessions) / 60
        on = " or ".join(str(n) for n in sorted({session.processes for session in sessions}))
        took = f" They ran for {minutes:.0f} minutes on {on} processes (sessions: {len(sessions)})."
    time = (
        f"Minutes are expected, of one process; all take {60 * kept.hours:.0f} minutes on {kept.processes}."
        if kept.unit == "minutes"
        else "GPU-hours are of training and measuring, at the stated share of the GPU's peak."
    )
    columns = ("runs", "tokens trained", "tokens measured", kept.unit)
    return Table(
        name="cost",
        title="What each study takes",
        caption="Alone: if a study were the only one. Added: what it adds to those above it, as equal runs "
        f"are made once and equal beginnings are shared. {time}{took}",
        n=f"{kept.total.n_runs} runs",
        columns=["study", *(f"{name}, alone" for name in columns), *(f"{name}, added" for name in columns)],
        rows=rows,
    )


def _cells(price: Price, unit: Unit) -> list[int | float]:
    time = round(price.seconds / (60 if unit == "minutes" else 3600), 1)
    return [price.n_runs, price.training_tokens, price.measuring_tokens, time]


def _read(root: Path, folder: str) -> dict[str, Any]:
    file = study_path(root, folder=folder) / FILE
    with suppress(FileNotFoundError):
        values: dict[str, Any] = json.loads(file.read_bytes())
        return values
    return {}


def _write(root: Path, folder: str, plan: dict[str, Any], sessions: Sequence[Session]) -> None:
    values = {"schema": 1, "plan": plan, "sessions": [session._asdict() for session in sessions]}
    file = study_path(root, folder=folder) / FILE
    write_atomic(file, json.dumps(values, indent=1).encode() + b"\n")
