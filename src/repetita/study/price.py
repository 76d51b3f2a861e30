"""What a study costs before it is run: tokens, minutes, memory, disk, and what is there already."""

import heapq
import math
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from repetita.errors import UserError
from repetita.journal.folder import Status, check_run, measured, read_header, read_journal, status
from repetita.measure.budget import times_scored
from repetita.model.config import ModelConfig, any_model, count, flops_per_token, ladder
from repetita.model.pretrained_spec import PretrainedModel
from repetita.study.expand import Job

TOKENS_PER_SECOND = {"25k": 95_000, "100k": 49_000, "220k": 30_000, "400k": 20_000, "890k": 11_000}
"""Training tokens a second on one quiet core, batch 16 x 128, BPE 1,024 (measured; docs/log.md)."""

MEASURING_SPEED = 2.7
"""Tokens are scored this much faster than they are trained on (measured: 2.7 at 25k parameters, 3.1 at 100k,
2.9 at 400k). A forward pass is a third of the work, and the most likely token has to be found as well."""

PROCESS_BYTES = 350_000_000
"""A worker with torch loaded and nothing to do."""

LIKE = 4.0
"""Largest product of the ratios of FLOPs a token and tokens a step between runs whose rates are compared."""

RUNS_LOOKED_AT = 40
STEPS_LOOKED_AT = 200


class JobState(NamedTuple):
    """How far a job is."""

    status: Status
    steps_done: int
    """Steps that are not trained again: all of a finished run, else those before its newest checkpoint."""
    missing: Mapping[str, frozenset[int]]
    """By key of the measurement, the due steps that a finished run lacks."""
    replayed: int
    """Steps that have to be trained again for them, where no checkpoint was kept, or for the optimizer."""
    lacks_optimizer: bool = False
    """Whether a finished run that another one carries on ended without its optimizer being kept."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.status == "done" and not self.missing

    @property
    def ready(self) -> bool:
        """Whether others can start from its end."""
        return self.status == "done" and not self.lacks_optimizer


class Measuring(NamedTuple):
    """What a probe takes."""

    times: int
    """Measurements, each of all its sets."""
    tokens: int
    """Tokens that they send through the model."""
    seconds: float

    @classmethod
    def of_all(cls, parts: Iterable["Measuring"]) -> "Measuring":
        """All of them together."""
        listed = list(parts)
        return cls(*(sum(getattr(part, name) for part in listed) for name in cls._fields))


class Cost(NamedTuple):
    """What is still to be done for one job."""

    training_tokens: int
    probes: Mapping[str, Measuring]
    """By name of the probe."""
    seconds: float
    """Of training and measuring."""
    memory: int
    """Bytes that the process holds."""
    disk: int
    """Bytes in its folder when it is done."""

    @property
    def measuring(self) -> Measuring:
        """Of all probes."""
        return Measuring.of_all(self.probes.values())


def job_state(job: Job) -> JobState:
    """How far a job is, read from its folder."""
    how = status(job.path)
    steps = _checkpoints(job.path)
    if how != "done":
        return JobState(how, max(steps, default=0), {}, 0)
    check_run(job.path, fingerprint=job.fingerprint)
    there = measured(job.path)
    missing = {
        due.key: lacking
        for due in job.probes
        if (lacking := frozenset(step for step in due.steps if (due.key, step) not in there))
    }
    wanted = {step for lacking in missing.values() for step in lacking} - steps
    # One replay serves all: from the last checkpoint before the first wanted step to the last wanted step.
    start = max((step for step in steps if wanted and step <= min(wanted)), default=0)
    replayed = max(wanted) - start if wanted else 0
    if job.carried and job.spec.steps not in _checkpoints(job.path, file="optimizer.safetensors"):
        return JobState(how, job.spec.steps, missing, job.spec.steps, lacks_optimizer=True)
    return JobState(how, job.spec.steps, missing, replayed)


def job_cost(job: Job, *, state: JobState, tokens: Mapping[str, int], rates: "Rates") -> Cost:
    """What is left of a job. `tokens` gives, by key of the measurement, the tokens that one of them reads."""
    spec = job.spec
    per_step = spec.batch_size * spec.corpus.length
    shared = state.steps_done or job.trunk_steps
    if state.status == "done":
        training = state.replayed * per_step
        due = {key: len(steps) for key, steps in state.missing.items()}
    else:
        training = (spec.steps - shared) * per_step
        # What is due where the run goes on was measured by whoever came that far.
        due = {probe.key: sum(step > shared or not shared for step in probe.steps) for probe in job.probes}
    rate = rates.tokens_per_second(spec.model, tokens_per_step=per_step)
    probes: dict[str, list[Measuring]] = {}
    for probe in job.probes:
        if times := due.get(probe.key, 0):
            sent = times * tokens[probe.key] * times_scored(spec.model.objective)
            part = Measuring(times, sent, sent / (rate * MEASURING_SPEED))
            probes.setdefault(probe.probe.name, []).append(part)
    by_name = {name: Measuring.of_all(parts) for name, parts in probes.items()}
    seconds = training / rate + sum(part.seconds for part in by_name.values())
    return Cost(training, by_name, seconds, _memory(job), _disk(job))


class Rates:
    """Training tokens a second by model, from runs that finished here or else from a small table.

    `observed` is by FLOPs a token and tokens a step. It corrects the table for runs that are like it in both:
    a tiny run says nothing of a large one.
    """

    def __init__(self, observed: Mapping[tuple[int, int], float] | None = None) -> None:
        self._observed = dict(observed or {})

    @classmethod
    def of(cls, root: Path) -> "Rates":
        """The rates of the newest finished runs in a root folder; of those on one thread of a CPU."""
        found: dict[tuple[int, int], list[float]] = {}
        done = sorted((root / "runs").glob("*/done"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in done[:RUNS_LOOKED_AT]:
            try:
                header = read_header(file.parent)
                spec, place = header["spec"], header["device"]
                alone = (place["device"], place["threads"], place.get("world", 1)) == ("cpu", 1, 1)
                if not alone or "trainer" in spec:
                    continue  # A worker of a study computes with one thread, and by the loop of this package.
                model = any_model(spec["model"])
                lines = list(islice(read_journal(file.parent, journal="steps"), STEPS_LOOKED_AT))
                seconds = median(line["seconds"] for line in lines[1:])
            except (UserError, KeyError, ValueError, TypeError):
                continue  # A damaged run is no reason not to plan; the report names it.
            if seconds > 0:
                tokens = spec["batch_size"] * spec["corpus"]["length"]
                found.setdefault((_work(model), tokens), []).append(tokens / seconds)
        return cls({like: median(rates) for like, rates in found.items()})

    def like(self, model: ModelConfig | PretrainedModel, *, tokens_per_step: int) -> tuple[int, int] | None:
        """The most similar kind of run that was observed, None where none is similar enough."""

        def distance(kind: tuple[int, int]) -> float:
            return abs(math.log(kind[0] / _work(model))) + abs(math.log(kind[1] / tokens_per_step))

        nearest = min(self._observed, key=distance, default=None)
        return nearest if nearest is not None and distance(nearest) <= math.log(LIKE) else None

    def tokens_per_second(self, model: ModelConfig | PretrainedModel, *, tokens_per_step: int) -> float:
        """The expected rate of one process: the table's, corrected by the most similar runs made here."""
        expected = _expected(_work(model))
        like = self.like(model, tokens_per_step=tokens_per_step)
        return expected if like is None else expected * self._observed[like] / _expected(like[0])


def makespan(seconds: Mapping[str, float], *, after: Mapping[str, str | None], processes: int) -> float:
    """Seconds until all jobs are done on this many processes, longest first, a trunk before its forks."""
    forks: dict[str | None, list[str]] = {}
    for name in seconds:
        trunk = after.get(name)
        forks.setdefault(trunk if trunk in seconds else None, []).append(name)
    urgency = chains(seconds, after=after)
    order = {name: at for at, name in enumerate(seconds)}
    ready = [(-urgency[name], order[name], name) for name in forks.get(None, ())]
    heapq.heapify(ready)
    free, now = max(1, processes), 0.0
    running: list[tuple[float, str]] = []
    while ready or running:
        while ready and free:
            name = heapq.heappop(ready)[-1]
            heapq.heappush(running, (now + seconds[name], name))
            free -= 1
        now, name = heapq.heappop(running)
        free += 1
        for fork in forks.get(name, ()):
            heapq.heappush(ready, (-urgency[fork], order[fork], fork))
    return now


def chains(seconds: Mapping[str, float], *, after: Mapping[str, str | None]) -> dict[str, float]:
    """For each job its own seconds and those of the longest chain of jobs that wait for it."""
    forks: dict[str, list[str]] = {}
    for name, trunk in after.items():
        if trunk is not None and name in seconds:
            forks.setdefault(trunk, []).append(name)

    def chain(name: str) -> float:
        return seconds[name] + max((chain(fork) for fork in forks.get(name, ())), default=0.0)

    return {name: chain(name) for name in seconds}


def _checkpoints(path: Path, *, file: str = "position.json") -> set[int]:
    """Steps of the checkpoints that were finished, or that have this file."""
    folders = (path / "checkpoints").glob(f"*/{file}")
    return {int(file.parent.name) for file in folders if file.parent.name.isdigit()}


def _work(model: ModelConfig | PretrainedModel) -> int:
    return flops_per_token(model).matmul


@cache
def _table() -> tuple[tuple[float, float], ...]:
    sizes = ladder("laptop", vocab_size=1024, context=128)
    return tuple((math.log(_work(sizes[name])), math.log(rate)) for name, rate in TOKENS_PER_SECOND.items())


def _expected(work: float) -> float:
    """The table's rate, on straight lines between its logarithms and beyond its ends."""
    points, x = _table(), math.log(work)
    pairs = list(pairwise(points))
    (x0, y0), (x1, y1) = next((pair for pair in pairs if x <= pair[1][0]), pairs[-1])
    # Below the smallest size the fixed cost of a step rules, so that a smaller model is hardly quicker.
    slope = (y1 - y0) / (x1 - x0) if x >= points[0][0] else 0.25 * (y1 - y0) / (x1 - x0)
    return math.exp(y0 + slope * (x - x0))


def _memory(job: Job) -> int:
    """Weights, gradients and two moments, and what a batch keeps for its backward pass, in 4-byte numbers."""
    model, tokens = job.spec.model, job.spec.batch_size * job.spec.corpus.length
    activations = tokens * model.n_layer * (14 * model.d_model + 3 * model.mlp_width)
    logits = 3 * 512 * model.vocab_size
    return PROCESS_BYTES + 4 * (4 * count(model).total + activations + logits)


def _disk(job: Job) -> int:
    """Kept weights, one resume checkpoint with its moments, and about 250 bytes a line of the journals."""
    weights = 4 * count(job.spec.model).total
    kept = len(job.keep | {job.spec.steps})
    lines = job.spec.steps + sum(len(due.steps) * 3 * len(due.probe.on) for due in job.probes)
    return weights * (kept + 3) + 250 * lines


def size_text(n_bytes: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def share_text(share: float | None) -> str:
    """A share as a percentage for people; a dash for none."""
    return "-" if share is None else f"{100 * share:.2g}%"


def time_text(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count_text(n: float) -> str:
    """A large number for people."""
    for unit in ("", "k", "M", "G"):
        if abs(n) < 1000:
            return f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:.3g}T"
