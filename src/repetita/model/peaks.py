"""GPUs by name: their peak rate of matrix products in 16 bits, and their memory (torch-free)."""

from collections.abc import Mapping
from typing import NamedTuple


class Device(NamedTuple):
    """One GPU: its peak rate of dense matrix products in 16 bits, and its memory."""

    flops_per_second: float
    memory: int
    """Bytes."""


DEVICES: Mapping[str, Device] = {
    # Dense tensor-core peaks and memory of NVIDIA's data sheets; bfloat16, but for the V100 (float16).
    "v100": Device(125e12, 32_000_000_000),  # V100 SXM2 data sheet, 2018
    "a100-40gb": Device(312e12, 40_000_000_000),  # A100 data sheet, 2021: the paper's own device
    "a100": Device(312e12, 80_000_000_000),  # A100 80GB SXM, the same
    "h100": Device(989e12, 80_000_000_000),  # H100 SXM data sheet, 2023 (half of the figure with sparsity)
    "h200": Device(989e12, 141_000_000_000),  # H200 SXM data sheet, 2024
    "b200": Device(2250e12, 180_000_000_000),  # HGX B200 data sheet, 2024
}

_SLOWER = ("pcie", "nvl")
"""Forms of a GPU whose peak is below that of the SXM module of the same name, but for the A100, whose data
sheet gives one peak for both."""


def peak_of(name: str, /) -> float | None:
    """Peak of the GPU that a driver calls `name`, operations a second; None for one that is not known.

    >>> from repetita.model.peaks import peak_of
    >>> peak_of("NVIDIA H100 80GB HBM3")
    989000000000000.0
    >>> peak_of("NVIDIA H100 PCIe")
    """
    words = name.lower().replace("-", " ").split()
    found = next((word for word in words if word in DEVICES), None)
    slower = "mig" in words or (found != "a100" and any(word in _SLOWER for word in words))
    return None if found is None or slower else DEVICES[found].flops_per_second
