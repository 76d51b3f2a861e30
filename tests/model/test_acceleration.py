"""The same model computed in bfloat16, compiled, or with its activations computed again."""

import pytest
import torch
from torch import Tensor

from repetita.errors import SpecError
from repetita.model.acceleration import accelerate, dtype_of, precision
from repetita.model.config import ModelConfig
from repetita.model.transformer import Transformer

GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
)
CONFIGS = {
    "learned": ModelConfig(n_layer=2, d_model=32, n_head=2, vocab_size=300, context=24),
    "rotary": ModelConfig(n_layer=2, d_model=32, n_head=2, vocab_size=300, context=24, position="rotary"),
    "masked": ModelConfig(n_layer=2, d_model=32, n_head=2, vocab_size=300, context=24, objective="masked"),
}


def step(
    model: Transformer, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of some tokens, and the gradients of their mean."""
    numbers = torch.Generator().manual_seed(1)
    tokens_BL = torch.randint(1, 300, (4, 24), generator=numbers).to(device)
    targets_N = torch.randint(1, 300, (60,), generator=numbers).to(device)
    with precision(dtype_of(dtype), device=torch.device(device)):
        states_ND = model.states(tokens_BL, at_N=torch.arange(0, 60, device=device))
        made = model.objective(states_ND, targets_N=targets_N, scale=1 / 60)
    made.value.backward()  # type: ignore[no-untyped-call]
    return made.loss_N, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16_is_float32_but_for_its_rounding(name: str, device: str) -> None:
    exact = step(Transformer(CONFIGS[name], seed=0).to(device), device=device)
    model = Transformer(CONFIGS[name], seed=0).to(device)
    narrow = step(model, dtype="bfloat16", device=device)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert narrow[0].dtype == torch.float32 and not torch.equal(exact[0], narrow[0])
    assert torch.allclose(exact[0], narrow[0], atol=0.05)
    for parameter, gradient in exact[1].items():
        rounded = narrow[1][parameter]
        assert rounded.dtype == torch.float32
        # The gradient of a bias of keys is 0 but for rounding, here and there.
        assert torch.linalg.vector_norm(rounded - gradient) < 0.05 * gradient.norm() + 1e-6, parameter


def values_kept(model: Transformer) -> tuple[tuple[Tensor, dict[str, Tensor]], int]:
    """A step, and how many values were kept for its backward pass."""
    kept: list[int] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        made = step(model)
    return made, sum(kept)


@pytest.mark.parametrize("name", CONFIGS)
def test_computing_again_gives_the_same_bits(name: str) -> None:
    plain = Transformer(CONFIGS[name], seed=0)
    again = Transformer(CONFIGS[name], seed=0)
    accelerate(again, recompute=True)
    (loss, gradients), n_again = values_kept(again)
    expected, n_plain = values_kept(plain)
    assert n_again < n_plain / 2
    assert torch.equal(loss, expected[0]) and again.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(gradients[name], gradient) for name, gradient in expected[1].items())


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_compiled_layers_give_the_same_numbers(device: str, recompute: bool) -> None:
    expected = step(Transformer(CONFIGS["rotary"], seed=0).to(device), device=device)
    model = Transformer(CONFIGS["rotary"], seed=0).to(device)
    accelerate(model, compiled=True, recompute=recompute)
    loss, gradients = step(model, device=device)
    assert torch.allclose(loss, expected[0], atol=1e-5)
    assert all(torch.allclose(gradients[name], g, atol=1e-5) for name, g in expected[1].items())


def test_another_dtype_is_refused() -> None:
    with pytest.raises(SpecError, match="dtype 'float16' is none that a run computes in"):
        dtype_of("float16")
