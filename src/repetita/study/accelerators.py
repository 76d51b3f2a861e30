"""What a plan costs on accelerators: GPU-hours at a stated utilisation, GPUs a run needs, time on several."""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from repetita.errors import SpecError, nearest
from repetita.model.config import count, flops_per_token
from repetita.model.peaks import DEVICES, Device
from repetita.study.expand import Job
from repetita.study.prepare import Prepared
from repetita.study.price import Cost, chains, count_text
from repetita.study.summary import group_of

HOUR = 3600.0

PAPER_SCALE = "paper"
"""The scale that is priced on GPUs when no device is named."""
DEFAULT_DEVICE = "h100"
DEFAULT_UTILISATION = 0.4
"""Share of the peak that large training runs reach (published: OPT-175B 0.47, PaLM 0.46)."""

BYTES_PER_PARAMETER = 16
"""Weights and gradients in 16 bits, and in 32 bits the weights again and Adam's two moments."""
FORWARD = 3
"""A token is scored with a third of the operations that training on it takes."""
USABLE = 0.9
"""Share of a GPU's memory that a run may fill."""
SPREAD = (1.0, 0.5, 0.25, 0.0)
"""Longest chains of runs that are tried, as shares of the time that all the work takes at least."""


class GpuGroup(NamedTuple):
    """Runs of a plan that share objective, arm and size."""

    name: str
    n_runs: int
    training_tokens: int
    measuring_tokens: int
    gpu_hours: float
    fewest_gpus: int
    """GPUs, a power of two, that hold the largest run's weights, gradients, moments and one sequence each."""
    memory: int
    """Bytes that each of them then holds."""


class GpuPrice(NamedTuple):
    """A plan on so many GPUs of a kind, each at a share of its peak; what is done already costs nothing."""

    device: str
    flops_per_second: float
    """Peak of one GPU."""
    utilisation: float
    n_gpus: int
    groups: tuple[GpuGroup, ...]
    training_gpu_hours: float
    measuring_gpu_hours: float
    hours: float
    """Wall time by list scheduling, runs spread over several GPUs (at full efficiency) where that helps."""
    least_hours: float
    """No order of runs takes less: all GPU-hours over all GPUs, or the longest chain of trunk and fork."""

    @property
    def gpu_hours(self) -> float:
        """Of training and measuring."""
        return self.training_gpu_hours + self.measuring_gpu_hours

    def as_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        groups = [group._asdict() for group in self.groups]
        return self._asdict() | {"gpu_hours": self.gpu_hours, "groups": groups}


class _Run(NamedTuple):
    job: Job
    seconds: float
    """On one GPU."""
    measuring: float
    """Of these, those of measuring."""
    fewest: int


def price_on_gpus(
    prepared: Prepared,
    *,
    device: str = DEFAULT_DEVICE,
    utilisation: float = DEFAULT_UTILISATION,
    n_gpus: int | None = None,
    by: Callable[[Job], str] = group_of,
) -> GpuPrice:
    """What is left of a plan on `n_gpus` (default: as many as its largest run needs), its runs grouped `by`.

    Operations are those of the model's matrix products, output matrix and attention included. Raises
    SpecError for an unknown device, a utilisation outside (0, 1], and too few GPUs for the largest run.
    """
    if device not in DEVICES:
        raise SpecError(f"no device is named '{device}'; {nearest(device, DEVICES)}")
    if not 0 < utilisation <= 1:
        raise SpecError(
            f"utilisation = {utilisation:g} is outside (0, 1]; give a share of the peak, such as 0.4"
        )
    of = DEVICES[device]
    runs = {
        job.fingerprint: _run(job, prepared, rate=of.flops_per_second * utilisation, device=of)
        for job in prepared.needed()
    }
    fewest = max((run.fewest for run in runs.values()), default=1)
    n_gpus = fewest if n_gpus is None else n_gpus
    if n_gpus < fewest:
        raise SpecError(
            f"{n_gpus} GPUs ({device}) do not hold the largest run; give at least the {fewest} that it needs"
        )
    groups: dict[str, list[_Run]] = {}
    for run in runs.values():
        groups.setdefault(by(run.job), []).append(run)
    after = prepared.after()
    measuring = sum(run.measuring for run in runs.values())
    total = sum(run.seconds for run in runs.values())
    longest = max(
        chains({name: run.seconds / n_gpus for name, run in runs.items()}, after=after).values(), default=0.0
    )
    return GpuPrice(
        device=device,
        flops_per_second=of.flops_per_second,
        utilisation=utilisation,
        n_gpus=n_gpus,
        groups=tuple(_group(name, members, prepared) for name, members in groups.items()),
        training_gpu_hours=(total - measuring) / HOUR,
        measuring_gpu_hours=measuring / HOUR,
        hours=_shortest(runs, after=after, n_gpus=n_gpus) / HOUR,
        least_hours=max(total / n_gpus, longest) / HOUR,
    )


def gpu_seconds(job: Job, cost: Cost, *, device: str, utilisation: float) -> float:
    """Of one GPU, for what `cost` counts of a job."""
    tokens = cost.training_tokens + cost.measuring.tokens / FORWARD
    rate = DEVICES[device].flops_per_second * utilisation
    return tokens * flops_per_token(job.spec.model).matmul / rate


def by_size(prepared: Prepared) -> Callable[[Job], str]:
    """What groups the runs of a paper's plan: objective and size, of trunks the size of their forks."""
    names: dict[int, str] = {}
    for job in prepared.jobs.values():
        for arm in job.arms:
            if arm.get("size"):
                names.setdefault(count(job.spec.model).body, str(arm["size"]))

    def name(job: Job) -> str:
        parameters = count(job.spec.model)
        return f"{job.spec.model.objective} {names.get(parameters.body) or count_text(parameters.total)}"

    return name


def _run(job: Job, prepared: Prepared, *, rate: float, device: Device) -> _Run:
    cost, flops = prepared.costs[job.fingerprint], flops_per_token(job.spec.model).matmul
    measuring = cost.measuring.tokens * flops / FORWARD / rate
    fewest = 1
    while memory_per_gpu(job, n_gpus=fewest) > USABLE * device.memory:
        fewest *= 2
    return _Run(job, cost.training_tokens * flops / rate + measuring, measuring, fewest)


def memory_per_gpu(job: Job, *, n_gpus: int) -> int:
    """Bytes on each of `n_gpus` that share a run: state sharded, one sequence each in 16-bit activations."""
    model = job.spec.model
    kept = model.context * model.n_layer * (14 * model.d_model + 3 * model.mlp_width)
    logits = 2 * model.context * model.n_ids * 4
    # The layer that is being computed is there as a whole, weights and gradients.
    whole = 4 * count(model).formula_12ld2 // model.n_layer if n_gpus > 1 else 0
    return math.ceil(BYTES_PER_PARAMETER * count(model).total / n_gpus) + 2 * kept + logits + whole


def _group(name: str, members: Sequence[_Run], prepared: Prepared) -> GpuGroup:
    costs = [prepared.costs[run.job.fingerprint] for run in members]
    largest = max(members, key=lambda run: memory_per_gpu(run.job, n_gpus=1))
    return GpuGroup(
        name=name,
        n_runs=len(members),
        training_tokens=sum(cost.training_tokens for cost in costs),
        measuring_tokens=sum(cost.measuring.tokens for cost in costs),
        gpu_hours=sum(run.seconds for run in members) / HOUR,
        fewest_gpus=largest.fewest,
        memory=memory_per_gpu(largest.job, n_gpus=largest.fewest),
    )


def _shortest(runs: Mapping[str, _Run], *, after: Mapping[str, str | None], n_gpus: int) -> float:
    """Seconds on so many GPUs, the best of some ways to spread runs over several of them."""
    even = sum(run.seconds for run in runs.values()) / n_gpus
    ways = [_widths(runs, after=after, n_gpus=n_gpus, target=even * share) for share in SPREAD]
    return min(_list_schedule(runs, widths=way, after=after, n_gpus=n_gpus) for way in ways)


def _widths(
    runs: Mapping[str, _Run], *, after: Mapping[str, str | None], n_gpus: int, target: float
) -> dict[str, int]:
    """GPUs of each run: as few as hold it, doubled while its chain would take longer than `target`."""
    widths = {name: run.fewest for name, run in runs.items()}
    while True:
        ahead = chains({name: run.seconds / widths[name] for name, run in runs.items()}, after=after)
        late = [
            name
            for name in runs
            if _from_start(name, ahead=ahead, after=after, runs=runs, widths=widths) > target
            and 2 * widths[name] <= min(n_gpus, runs[name].job.spec.batch_size)
        ]
        if not late:
            return widths
        for name in late:
            widths[name] *= 2


def _from_start(
    name: str,
    *,
    ahead: Mapping[str, float],
    after: Mapping[str, str | None],
    runs: Mapping[str, _Run],
    widths: Mapping[str, int],
) -> float:
    """Seconds of the longest chain through a run."""
    seconds, trunk = ahead[name], after.get(name)
    while trunk is not None and trunk in runs:
        seconds += runs[trunk].seconds / widths[trunk]
        trunk = after.get(trunk)
    return seconds


def _list_schedule(
    runs: Mapping[str, _Run], *, widths: Mapping[str, int], after: Mapping[str, str | None], n_gpus: int
) -> float:
    """Seconds until all is done, the run with most behind it first wherever enough GPUs are free."""
    seconds = {name: run.seconds / widths[name] for name, run in runs.items()}
    urgency = chains(seconds, after=after)
    forks: dict[str | None, list[str]] = {}
    for name in runs:
        trunk = after.get(name)
        forks.setdefault(trunk if trunk in runs else None, []).append(name)
    ready: dict[int, list[tuple[float, str]]] = {width: [] for width in widths.values()}
    running: list[tuple[float, str]] = []
    now, free, came = 0.0, n_gpus, forks.get(None, [])
    while came or running or any(ready.values()):
        for name in came:
            heapq.heappush(ready[widths[name]], (-urgency[name], name))
        while fitting := [queue for width, queue in ready.items() if queue and width <= free]:
            name = heapq.heappop(min(fitting))[-1]
            heapq.heappush(running, (now + seconds[name], name))
            free -= widths[name]
        now, name = heapq.heappop(running)
        free += widths[name]
        came = forks.get(name, [])
    return now
