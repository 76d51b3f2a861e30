"""What is asked of Slurm: the options that a user gives, and what the needs of runs come to."""

import importlib.util
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from repetita.errors import EngineError, SpecError, nearest
from repetita.study.engines import Needs
from repetita.study.together import settled

BATCH_SECONDS = 300.0
"""Runs share a job until the plan expects so much of them: a job takes 5 to 10 s to begin (torch, the plan),
and more to be placed, which is then a few percent."""
TIME_MARGIN = 3.0
"""Times what the plan expects: its rates are those of a quiet core, or of this machine."""
START_MINUTES = 10.0
LIMITS = (30, 60, 120, 240, 480, 960, 1440)
"""Time limits in minutes that are asked for. A run that takes longer than the last is requeued at its end."""
MEMORY_MARGIN = 1.5
MEMORY_MORE = 1 << 29
CUDA_MEMORY = 4 << 30
"""What torch with CUDA holds of the host's memory."""
GIB = 1 << 30

NUMBERS = (
    "time nodes ntasks_per_node cpus_per_task cpus_per_gpu num_gpus gpus_per_node gpus_per_task "
    "signal_delay_s array_parallelism"
).split()
LISTS = ("setup", "teardown", "srun_args")
FLAGS = ("exclusive", "stderr_to_stdout", "use_srun")
MORE = "additional_parameters"
OURS = ("nodes", "ntasks_per_node")
ARRAY = 1000
"""Jobs in an array; Slurm takes 1000 unless it is told otherwise (MaxArraySize)."""
FOLDER = "slurm"
"""Where in the study's folder jobs find what they are told, and write what they say."""
TOKEN = "token"
"""File in the folder of jobs that a node must be able to read."""


class Asked(NamedTuple):
    """What is asked for a job; jobs that ask the same are one array."""

    minutes: int
    mebibytes: int
    cpus: int
    world: int = 1


def asked(runs: Sequence[Needs], *, cuda: bool) -> Asked:
    """What a job asks for that computes these runs one after the other, with the margins above."""
    minutes = TIME_MARGIN * sum(needs.seconds for needs in runs) / 60 + START_MINUTES
    limit = next((limit for limit in LIMITS if minutes <= limit), LIMITS[-1])
    widest = max((settled(needs, cuda=cuda) for needs in runs), key=lambda needs: needs.world)
    most = max(settled(needs, cuda=cuda).memory for needs in runs)
    memory = MEMORY_MARGIN * most + MEMORY_MORE + (CUDA_MEMORY * widest.world if cuda else 0)
    return Asked(limit, 1024 * math.ceil(memory / GIB), widest.cpus, widest.world)


def timeouts(runs: Sequence[Needs], *, minutes: int) -> int:
    """How often a job may run into its time limit and be requeued."""
    return 3 + int(TIME_MARGIN * sum(needs.seconds for needs in runs) / (60 * minutes))


def jobs(runs: Mapping[str, Needs], *, cuda: bool) -> list[tuple[Asked, list[str]]]:
    """What to ask for, and the runs that share a job, in the order given.

    Runs that are alike in memory share one until they fill BATCH_SECONDS.
    """
    shares: list[list[str]] = []
    filling: dict[Asked, tuple[list[str], float]] = {}
    for run, needs in runs.items():
        like = asked([needs._replace(seconds=0.0)], cuda=cuda)
        share, seconds = filling.pop(like, ([], 0.0))
        if not share:
            shares.append(share)
        share.append(run)
        if seconds + needs.seconds < BATCH_SECONDS:
            filling[like] = (share, seconds + needs.seconds)
    return [(asked([runs[run] for run in share], cuda=cuda), share) for share in shares]


def parse(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE several times as a mapping; keys that take a list may come more than once."""
    options: dict[str, Any] = {}
    for one in given:
        key, equals, value = one.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key or not value:
            raise SpecError(f"--slurm {one} is no option; write KEY=VALUE, such as --slurm partition=gpu")
        if key in (*LISTS, MORE):
            options.setdefault(key, []).append(value)
        elif key in options:
            raise SpecError(f"--slurm {key} is given twice; leave one of them out")
        else:
            options[key] = value
    return options


def check(given: Mapping[str, Any], *, device: str, submits: bool) -> None:
    """Raises EngineError where submitit or Slurm's commands are missing, SpecError for a bad option."""
    if importlib.util.find_spec("submitit") is None:
        raise EngineError(
            "--engine slurm needs submitit, which is not installed; run: pip install 'repetita[slurm]'"
        )
    uses_cuda(device, given=options(given))
    for command in ("sbatch", "srun", "squeue", "scancel") if submits else ():
        if shutil.which(command) is None:
            raise EngineError(
                f"--engine slurm needs Slurm's {command}, which is not on this machine; start this on a "
                f"login node of the cluster, or say --dry-run to see what would be submitted"
            )


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as submitit takes them; SpecError for a key that it does not know, and for a bad value."""
    import submitit

    valid = submitit.SlurmExecutor._valid_parameters() - set(OURS)
    read: dict[str, Any] = {}
    for key, value in given.items():
        if key in OURS:
            raise SpecError(
                f"--slurm {key} is not to be given: a run is computed on one node (--per-run); leave it out"
            )
        if key not in valid:
            raise SpecError(
                f"--slurm {key}={value}: submitit knows no '{key}'; {nearest(key, valid)} (another option of "
                f"sbatch goes by --slurm {MORE}=KEY=VALUE)"
            )
        read[key] = _value(key, value)
    for key in ("clusters", "cluster", "M"):
        if key in read.get(MORE, {}):
            raise SpecError(
                f"--slurm {MORE}={key}=...: squeue is asked of this machine's cluster; leave it out, and "
                f"start this on a login node of that one"
            )
    return read


def _value(key: str, value: Any) -> Any:
    if key in NUMBERS:
        if not str(value).isdigit() or int(value) < 1:
            unit = " of minutes" if key == "time" else ""
            raise SpecError(f"--slurm {key}={value} is no number{unit}; write one, such as {key}=240")
        return int(value)
    if key in LISTS:
        return [value] if isinstance(value, str) else list(value)
    if key == MORE:
        pairs = value.items() if isinstance(value, Mapping) else [one.partition("=")[::2] for one in value]
        return {name: text if text != "" else True for name, text in pairs}
    if key in FLAGS and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    return str(value)


def asks_gpus(given: Mapping[str, Any]) -> bool:
    """Whether the options name GPUs."""
    more = (*given.get(MORE, {}), str(given.get("gres", "")))
    named = {"gpus_per_node", "gpus_per_task", "num_gpus"} & given.keys()
    return bool(named) or any(one.startswith("gpu") for one in more)


def uses_cuda(device: str, *, given: Mapping[str, Any]) -> bool:
    """Whether jobs compute on GPUs; SpecError for GPUs that would be paid for and stand idle."""
    if device == "cpu" and asks_gpus(given):
        raise SpecError("--slurm asks for GPUs, and --device cpu uses none; say --device cuda")
    return device == "cuda" or (device == "auto" and asks_gpus(given))


def parameters(one: Asked, *, given: Mapping[str, Any], cuda: bool, folder: Path) -> dict[str, Any]:
    """What submitit is told for jobs that ask this: the needs, and over them what the user gave."""
    token = shlex.quote(str(folder / TOKEN))
    blind = shlex.quote(f"does not see {folder}; give a folder that all nodes share, by --root")
    own: dict[str, Any] = {
        "job_name": "repetita",
        "time": one.minutes,
        "mem": f"{one.mebibytes}M",
        "cpus_per_task": one.cpus,
    }
    if cuda and not asks_gpus(given):
        own["gpus_per_node"] = one.world
    if {"mem_per_cpu", "mem_per_gpu"} & given.keys():
        del own["mem"]
    # One thread each: results are bit-equal per thread count, and numpy counts them before our first line.
    first = [f'test -r {token} || {{ echo "$(hostname)" {blind} >&2; exit 66; }}']
    threads = ["export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1"]
    return own | dict(given) | {"setup": [*first, *given.get("setup", ()), *threads]}
