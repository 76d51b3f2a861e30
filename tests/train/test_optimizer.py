"""AdamW does what its paper says, on matrices and vectors alike."""

import numpy as np
import torch
from torch import nn

from repetita.train.optimizer import Optimizer
from repetita.train.recipe import Recipe

RECIPE = Recipe(learning_rate=0.1, beta1=0.9, beta2=0.98, weight_decay=0.5, clip=1.0)


def layer() -> nn.Linear:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6.0).view(2, 3) - 2)
        model.bias.fill_(1.0)
    return model


def give_gradients(model: nn.Linear, scale: float) -> None:
    assert model.weight.grad is not None
    assert model.bias.grad is not None
    model.weight.grad.copy_(scale * torch.linspace(-1, 1, 6).view(2, 3))
    model.bias.grad.copy_(scale * torch.tensor([3.0, -4.0]))


def test_updates_are_those_of_the_paper_and_only_matrices_decay() -> None:
    model = layer()
    optimizer = Optimizer(model, recipe=RECIPE.edit(clip=None))
    value = {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}
    first = {name: np.zeros_like(v) for name, v in value.items()}
    second = {name: np.zeros_like(v) for name, v in value.items()}
    for t in range(1, 6):
        optimizer.clear()
        give_gradients(model, scale=t)
        optimizer.clip()
        optimizer.update(learning_rate=0.1 * t)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            g = parameter.grad.double().numpy()
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.98 * second[name] + 0.02 * g * g
            decay = 0.5 if value[name].ndim == 2 else 0.0
            step = (first[name] / (1 - 0.9**t)) / (np.sqrt(second[name] / (1 - 0.98**t)) + 1e-8)
            value[name] = value[name] * (1 - 0.1 * t * decay) - 0.1 * t * step
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), value[name], rtol=1e-5)


def test_the_norm_of_all_gradients_is_returned_and_cut_to_the_limit() -> None:
    model = layer()
    optimizer = Optimizer(model, recipe=RECIPE)
    give_gradients(model, scale=1.0)
    expected = np.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None))
    assert abs(optimizer.clip() - expected) < 1e-5
    assert abs(optimizer.clip() - 1.0) < 1e-5
    give_gradients(model, scale=0.01)
    assert optimizer.clip() < 1
    assert model.bias.grad is not None
    assert model.bias.grad.tolist() == (0.01 * torch.tensor([3.0, -4.0])).tolist()


def test_state_that_was_given_back_goes_on_bit_for_bit() -> None:
    model, other = layer(), layer()
    optimizer, resumed = Optimizer(model, recipe=RECIPE), Optimizer(other, recipe=RECIPE)
    for t in range(4):
        if t == 2:
            other.load_state_dict(model.state_dict())
            resumed.load({name: tensor.clone() for name, tensor in optimizer.parts().items()})
        for net, adamw in ((model, optimizer), (other, resumed)):
            give_gradients(net, scale=t + 1.0)
            adamw.clip()
            adamw.update(learning_rate=0.1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert set(optimizer.parts()) == {
        "step",
        *(f"{name}.{moment}" for name in ("weight", "bias") for moment in ("exp_avg", "exp_avg_sq")),
    }


def test_backward_adds_to_the_gradients_that_are_cleared() -> None:
    model = layer()
    optimizer = Optimizer(model, recipe=RECIPE)
    gradient = model.bias.grad
    assert gradient is not None
    for expected in (1.0, 2.0):
        model(torch.ones(1, 3)).sum().backward()
        assert gradient.tolist() == [expected] * 2
    optimizer.clear()
    assert gradient.tolist() == [0.0] * 2
