"""Runs that several processes of one machine compute: how many they are, and how torchrun starts them."""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from repetita.errors import EngineError, RunStopped, SpecError
from repetita.model.config import ModelConfig, count
from repetita.study.engines import Errand, Needs
from repetita.study.expand import Job
from repetita.study.price import PROCESS_BYTES, Cost, size_text
from repetita.study.progress import ProgressFile, Sight, read_sight
from repetita.train.stopping import StopRequests

log = logging.getLogger(__name__)

USABLE = 0.9
"""Share of a GPU's memory that runs may fill."""
CUDA_BYTES = 600_000_000
"""What CUDA and cuBLAS take of a GPU in each process before the first tensor."""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
POLL_SECONDS = 0.1
GRACE_SECONDS = 50.0
"""How long the processes may take to write their checkpoint; engines wait a little longer than this."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


def needs_of(job: Job, *, cost: Cost, per_run: int | None = None) -> Needs:
    """What a job takes of the machine that computes it, by `per_run` processes or as many as it needs.

    Raises SpecError for a job that so many cannot share.
    """
    spec, kept = job.spec, count(job.spec.model)
    # Of all but the transformer's other layers each GPU gathers weights and gradients, 4 bytes each.
    gathered = 8 * (kept.total - kept.body + kept.body // max(1, spec.model.n_layer))
    alone = spec.recipe.dropout > 0 or spec.trainer is not None
    if per_run is not None and per_run > 1 and spec.trainer is None:
        _check_shared(job, per_run=per_run)
    gpu = cost.memory - PROCESS_BYTES + CUDA_BYTES
    splits = not alone and isinstance(spec.model, ModelConfig)  # FSDP2 knows no model of others.
    return Needs(
        cost.memory,
        cost.seconds,
        gpu_memory=gpu,
        gpu_whole=min(gpu, CUDA_BYTES + gathered),
        world=1 if spec.trainer else per_run or 1,
        most=spec.batch_size if splits and per_run is None else 1,
    )


def _check_shared(job: Job, *, per_run: int) -> None:
    """Raises SpecError for what `train.parallel.choose` would refuse, before anything is trained."""
    spec, given = job.spec, f"--per-run {per_run}: {job.slug}"
    if spec.recipe.dropout:
        raise SpecError(
            f"{given} has dropout {spec.recipe.dropout}, whose masks several processes would draw otherwise "
            f"than one; leave it out"
        )
    if spec.batch_size < per_run:
        raise SpecError(
            f"{given} has batches of {spec.batch_size} sequences, and some processes would get none; give at "
            f"most --per-run {spec.batch_size}"
        )


def gpu_memory(needs: Needs, *, world: int) -> int:
    """Bytes on each of the GPUs that share a run: what can be divided is, by rows and by FSDP2."""
    if world == 1:
        return needs.gpu_memory
    return needs.gpu_whole + (needs.gpu_memory - needs.gpu_whole) // world


def settled(needs: Needs, *, cuda: bool, gpu_bytes: int = 0) -> Needs:
    """What a run takes where it is computed: of GPUs of this size as few, a power of two, as hold it.

    As many as could share it where even those do not hold it. The size of GPUs that nobody knows is 0, and a
    run is then as wide as was asked for.
    """
    world = needs.world
    if cuda and gpu_bytes:
        while 2 * world <= needs.most and gpu_memory(needs, world=world) > USABLE * gpu_bytes:
            world *= 2
    # On a GPU, the first of them alone holds all of a model in the machine's own memory, when it saves it.
    memory = needs.memory + (world - 1) * (PROCESS_BYTES if cuda else needs.memory)
    return needs._replace(world=world, cpus=world, memory=memory)


def check_width(name: str, needs: Needs, *, at_most: int, gpu_bytes: int, where: str) -> None:
    """Raises EngineError for a run, by name, that the GPUs of one machine (at most so many) do not hold.

    `where` says which machine that is.
    """
    each = gpu_memory(needs, world=needs.world)
    if gpu_bytes and each > USABLE * gpu_bytes:
        could = "it cannot be shared" if needs.most < 2 else f"no more than {needs.world} can share it"
        raise EngineError(
            f"{name} takes {size_text(each)} of a GPU, and {where} has {size_text(gpu_bytes)}; {could}, so "
            f"choose another --scale, or larger GPUs"
        )
    if needs.world > at_most:
        at_most, of = max(1, at_most), f" of {size_text(gpu_bytes)}" if gpu_bytes else ""
        nodes = -(-needs.world // at_most)
        raise EngineError(
            f"{name} takes {needs.world} GPUs{of}, and {where} has at most {at_most}; train it first on "
            f"{nodes} machines, by torchrun --nnodes {nodes} --nproc-per-node {at_most} --rdzv-backend c10d "
            f"--rdzv-endpoint HOST:29400 -m repetita train SPEC.json --device cuda on each of them"
        )


def do_together(
    run: str, *, number: int, errand: Errand, devices: Sequence[str], file: ProgressFile
) -> Sight:
    """Has a run computed by a process for each of `devices`, all on this machine; what became of it.

    Their progress is passed on to `file`. They end with a checkpoint when this process is asked to stop, and
    RunStopped is raised, and also when it is killed: the first of them notices that its stdin ends.
    """
    with tempfile.TemporaryDirectory(prefix="repetita-") as name, StopRequests() as stop:
        said, words = Path(name) / "progress.json", Path(name) / "log"
        with words.open("wb") as out, _started(run, errand, devices, said=said, out=out) as process:
            while process.poll() is None and not stop.asked:
                time.sleep(POLL_SECONDS)
                sight = read_sight(said)
                if sight is not None and not sight.ended:
                    file.show(sight._replace(order=number))
        sight, lines = read_sight(said), words.read_text(errors="replace").splitlines()
    if sight is not None and sight.ended:
        return sight._replace(order=number)
    if stop.asked:
        raise RunStopped(f"stopped by {stop.asked}; run it again to continue")
    log.error("run %s in %d processes:\n%s", run[:12], len(devices), "\n".join(lines[-200:]))
    spoken = [line.removeprefix("repetita: ") for line in lines if line.startswith("repetita: ")]
    why = spoken[0] if spoken else f"torchrun ended with exit code {process.returncode}"
    return Sight(order=number, state="died", message=why)


@contextmanager
def _started(
    run: str, errand: Errand, devices: Sequence[str], *, said: Path, out: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """The processes of a run while they are needed: when their stdin ends they write a checkpoint and end."""
    kind = devices[0].partition(":")[0]
    command = errand._replace(device=kind).command()[1:]
    launch = [*TORCHRUN, "--nproc-per-node", str(len(devices)), *command]
    launch += ["--fingerprint", run, "--progress", str(said), "--until-eof"]
    # Slurm sends what announces a time limit to each process of a job, and to these it would be the end.
    process = subprocess.Popen(
        ["/bin/sh", "-c", "trap '' USR2; exec \"$@\"", "sh", *launch],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=out,
        env=os.environ | _visible(devices),
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun kills those that do not end then.
            process.wait()


def _visible(devices: Sequence[str]) -> dict[str, str]:
    """What shows the processes of a run these GPUs alone; nothing where they are told by no number."""
    numbers = [int(device.partition(":")[2]) for device in devices if ":" in device]
    shown = os.environ.get(VISIBLE, "").split(",") if os.environ.get(VISIBLE) else None
    return {VISIBLE: ",".join(shown[at] if shown else str(at) for at in numbers)} if numbers else {}
