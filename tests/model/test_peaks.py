"""GPUs are found by the names that drivers give them."""

import pytest

from repetita.model.peaks import DEVICES, peak_of


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("NVIDIA B200", "b200"),
    ],
)
def test_a_driver_name_is_known(name: str, device: str) -> None:
    assert peak_of(name) == DEVICES[device].flops_per_second


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "NVIDIA GH200 480GB",
        "NVIDIA GeForce RTX 4090",
        "x86_64",
        "",
    ],
)
def test_another_name_is_not(name: str) -> None:
    assert peak_of(name) is None
