"""Where a model computes and how exactly: device, threads, determinism, decided once and described."""

import ctypes
import os
import platform
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from repetita.errors import SpecError, nearest

KINDS = ("cpu", "cuda", "mps")
"""Kinds of device that `setup` takes; `cuda:1` and the like name one of several."""

_KEEP_MEMORY = {-1: 2**31 - 1, -2: 2**26, -3: 2**30}  # glibc's M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD


class Device(NamedTuple):
    """What `setup` decided: where tensors live and how many threads one process computes with."""

    torch_device: torch.device
    threads: int


def setup(device: str = "cpu", *, threads: int = 1) -> Device:
    """Prepares this process for bit-repeatable float32 training and scoring; call it before both.

    Deterministic algorithms only, no TF32, numbers below 1e-38 count as zero (AdamW's second moments
    get there, and a CPU computes with such numbers up to a hundred times slower). Results are equal
    bit for bit for one torch build, CPU kind and number of threads. Raises SpecError for a device that
    is not there.
    """
    place = present(device)
    if threads < 1:
        raise SpecError(f"threads = {threads} is no number of threads; give 1 or more")
    # cuBLAS reads it when it starts; without it its results may differ between runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True)
    # Otherwise every new tensor is filled, at the cost of a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    _keep_freed_memory()
    return Device(torch_device=place, threads=threads)


def describe(device: Device) -> dict[str, Any]:
    """What of a device can change results in their last bits, for the header of a run."""
    place = device.torch_device
    cuda = place.type == "cuda"
    return {
        "device": place.type,
        "name": torch.cuda.get_device_name(place) if cuda else platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": device.threads,
        "dtype": "float32",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch": str(torch.__version__),
    }


def present(device: str, /) -> torch.device:
    """The device of this name, once it is sure to be there; SpecError for one that is not."""
    kind = device.partition(":")[0]
    if kind not in KINDS:
        raise SpecError(f"no device is named '{device}'; {nearest(kind, KINDS)}")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise SpecError(f"'{device}' is no device; write for example cpu, cuda or cuda:0") from None
    if kind == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise SpecError(
            f"device '{device}' is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            f"use device cpu"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SpecError("device 'mps' is not there (it needs a Mac with Apple silicon); use device cpu")
    return place


def _keep_freed_memory() -> None:
    """Tells glibc to keep freed memory: each step takes the same blocks again, and fetching their pages
    anew from the kernel costs 7% of a step (2 layers x 64, 16 x 128 tokens). Elsewhere nothing is done."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _KEEP_MEMORY.items():
            mallopt(option, value)
