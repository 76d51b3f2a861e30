"""The device is decided once, described without names of the machine, and repeats itself to the bit."""

import json

import pytest
import torch

from repetita.errors import SpecError
from repetita.model.config import ModelConfig
from repetita.model.device import describe, setup
from repetita.model.loss import objective
from repetita.model.transformer import Transformer


def test_describes_what_can_change_results() -> None:
    device = setup("cpu", threads=1)
    described = describe(device)
    assert device.torch_device == torch.device("cpu") and torch.get_num_threads() == 1
    assert described["device"] == "cpu" and described["threads"] == 1 and described["deterministic"] is True
    assert described == describe(setup("cpu", threads=1)) == json.loads(json.dumps(described))


def test_tiny_numbers_are_zero() -> None:
    setup("cpu")
    assert float(torch.tensor(1e-30) * torch.tensor(1e-15)) == 0


def test_two_steps_of_training_repeat_to_the_bit() -> None:
    setup("cpu")
    config = ModelConfig(n_layer=2, d_model=32, n_head=2, vocab_size=64, context=32)
    targets_BL = torch.arange(4 * 32).reshape(4, 32) * 13 % 64

    def trained() -> torch.Tensor:
        model = Transformer(config, seed=1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            ours = objective(
                model.hidden(targets_BL.roll(1, 1)).flatten(0, 1),
                weight_VD=model.output_weight,
                targets_N=targets_BL.flatten(),
                scale=1 / 128,
            )
            torch.autograd.backward(ours.value)
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(trained(), trained())


@pytest.mark.parametrize(
    ("device", "threads", "says"),
    [("cdua", 1, "did you mean 'cuda'"), ("cuda:99", 1, "is not there"), ("cpu", 0, "give 1 or more")],
)
def test_refusals_name_the_fix(device: str, threads: int, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        setup(device, threads=threads)
