"""Where the runs of a study are computed: an engine by name, and what it is told."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from repetita.errors import SpecError, nearest
from repetita.spec import Spec
from repetita.study.engines import Engine, Errand, Needs
from repetita.study.local_engine import LocalEngine
from repetita.study.together import check_width, settled

ENGINES = ("local", "ray", "slurm")
DEVICES = ("cpu", "cuda", "auto")


class Where(Spec):
    """An engine and its options. One that has no effect is an error, as everywhere.

    No result depends on it, but for the last bits of one that was computed on another kind of `device`.
    """

    engine: Literal["local", "ray", "slurm"] = "local"
    processes: int | None = None
    """Runs at the same time; None: as many as the engine has room for (local: cores, or GPUs)."""
    address: str | None = None
    """HOST:PORT of a Ray cluster, or auto; None: that of RAY_ADDRESS, else Ray is started on this machine."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """auto: GPUs where there is one (Slurm: where `slurm` asks for one), else CPUs; all runs of a study on
    the same kind."""
    storage: str | None = None
    """URL of an object store that workers pull from and push to, where machines share no root folder (those
    of Slurm must)."""
    slurm: dict[str, Any] = Field(default_factory=dict)
    """What sbatch is told, by submitit's names (partition, account, time in minutes, mem, gres, setup, ...),
    over what the plan asks for."""
    per_run: int | None = None
    """Processes, or GPUs, of one machine that compute each run together; None: one, or as many GPUs as hold
    it, where it is known (locally and on Ray) how large they are."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        for name, valid in (("engine", ENGINES), ("device", DEVICES)):
            if values.get(name, valid[0]) not in valid:
                given = values[name]
                raise SpecError(f"no {name} is named '{given}'; {nearest(str(given), valid)}")
        return values

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        if self.processes is not None and self.processes < 1:
            raise SpecError(f"processes = {self.processes} is no number of processes; give 1 or more")
        if self.per_run is not None and self.per_run < 1:
            raise SpecError(f"per_run = {self.per_run} is no number of processes; give 1 or more")
        if self.address is not None and self.engine != "ray":
            raise SpecError(
                f"--address has no effect with --engine {self.engine}; leave it out, or say --engine ray"
            )
        if self.slurm and self.engine != "slurm":
            raise SpecError(
                f"--slurm has no effect with --engine {self.engine}; leave it out, or say --engine slurm"
            )
        return self


def check_engine(where: Where, *, submits: bool = True) -> None:
    """Raises EngineError where the engine cannot be had at all; called before anything is prepared.

    `submits` is False where only scripts are asked for.
    """
    if where.engine == "ray":
        from repetita.study.ray_cluster import check_address

        check_address(where.address)
    elif where.engine == "slurm":
        from repetita.study.slurm_options import check

        check(where.slurm, device=where.device, submits=submits)


def open_engine(where: Where, *, errand: Errand, folder: Path, needs: Mapping[str, Needs]) -> Engine:
    """The engine, ready for runs with these needs, by name; `folder` is for logs and progress.

    Raises EngineError or SpecError, before anything is trained, for whatever cannot be.
    """
    if where.engine == "ray":
        from repetita.study.ray_engine import RayEngine

        return RayEngine(where, errand=errand, folder=folder, needs=needs)
    if where.engine == "slurm":
        from repetita.study.slurm_engine import SlurmEngine

        return SlurmEngine(where, errand=errand, folder=folder, needs=needs)
    return _open_here(where, errand=errand, folder=folder, needs=needs)


def _open_here(where: Where, *, errand: Errand, folder: Path, needs: Mapping[str, Needs]) -> LocalEngine:
    """The local engine, with room for as many runs as asked for; EngineError for one that is too wide."""
    devices, gpu_bytes = _devices_here(where.device)
    cores = os.cpu_count() or 1
    worlds = []
    for name, one in needs.items():
        wide = settled(one, cuda=bool(gpu_bytes), gpu_bytes=gpu_bytes)
        if devices != ("cpu",):
            check_width(name, wide, at_most=len(devices), gpu_bytes=gpu_bytes, where="this machine")
        worlds.append(wide.world)
    widest = max(worlds)
    if where.processes is not None:
        places = where.processes * widest
    else:
        places = max(1, cores // widest) * widest if devices == ("cpu",) else len(devices)
    return LocalEngine(
        max(widest, min(places, sum(worlds))),
        errand=errand,
        folder=folder,
        devices=devices,
        gpu_bytes=gpu_bytes,
        widest=widest,
        at_once=where.processes,
    )


def _devices_here(device: str) -> tuple[tuple[str, ...], int]:
    """The devices of this machine that are meant, and of GPUs the bytes of the smallest.

    SpecError for a GPU where there is none.
    """
    if device == "cpu":
        return ("cpu",), 0
    import torch  # Only torch knows which GPUs it can use.

    gpus = tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    sizes = [torch.cuda.get_device_properties(gpu).total_memory for gpu in gpus]
    if not gpus and device == "cuda":
        raise SpecError(
            "--device cuda: torch sees no GPU on this machine; leave it out, or say --device auto"
        )
    return gpus or ("cpu",), min(sizes, default=0)
