"""Model-FLOPs utilisation: by hand on a device that is known, silent on others."""

import pytest
import torch

from repetita.model.config import flops_per_token
from repetita.train.utilisation import utilisation
from tests.train.conftest import Make


def test_share_of_the_peak(monkeypatch: pytest.MonkeyPatch, spec: Make) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    run, gpu = spec(), torch.device("cuda")
    operations = flops_per_token(run.model).matmul * 4 * 16
    seconds = operations / (0.4 * 2 * 989e12)
    said = utilisation(run, seconds=[9.0, seconds, seconds], device=gpu, world=2)
    assert said is not None and said.startswith("40.0% of the 16-bit peak of 2 x NVIDIA H100 80GB HBM3 (")
    wider = run.edit(model=run.model.edit(context=64))  # Rows are as short as before.
    assert utilisation(wider, seconds=[seconds], device=gpu, world=2) == said.replace("3 steps", "1 steps")
    assert said.endswith("median of 3 steps")
    assert utilisation(run, seconds=[], device=gpu, world=2) is None
    assert utilisation(run, seconds=[1.0], device=torch.device("cpu"), world=2) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another GPU")
    assert utilisation(run, seconds=[1.0], device=gpu, world=2) is None
