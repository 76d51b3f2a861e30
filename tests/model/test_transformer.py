"""The transformer: causal by its gradients, seeded, the same by fused and explicit attention."""

import math

import pytest
import torch
from torch import Tensor

from repetita.model.attention import CAUSAL
from repetita.model.config import ModelConfig, Objective, Output, Position
from repetita.model.transformer import Block, Transformer

SHAPES: list[tuple[Position, Output, int | None]] = [
    ("learned", "tied", None),
    ("rotary", "untied", None),
    ("learned", "untied", 0),
    ("rotary", "tied", 0),
]
shapes = pytest.mark.parametrize(("position", "output", "d_mlp"), SHAPES)


def model(
    position: Position = "learned",
    output: Output = "tied",
    d_mlp: int | None = None,
    *,
    seed: int = 0,
    objective: Objective = "causal",
    **changes: int,
) -> Transformer:
    sizes = {"n_layer": 2, "d_model": 16, "n_head": 2, "vocab_size": 29, "context": 12} | changes
    shape = ModelConfig(**sizes, position=position, output=output, d_mlp=d_mlp, objective=objective)
    return Transformer(shape, seed=seed)


def tokens(n_rows: int = 2, length: int = 12) -> Tensor:
    return torch.arange(n_rows * length).reshape(n_rows, length) * 7 % 29


def lively(made: Transformer) -> Transformer:
    """The same with weights large enough for attention to be far from uniform, biases included."""
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) * 0.3)
    return made


@shapes
def test_causal_by_gradients(position: Position, output: Output, d_mlp: int | None) -> None:
    made = lively(model(position, output, d_mlp))
    embedded: list[Tensor] = []

    def keep(_: object, __: object, out: Tensor) -> Tensor:
        embedded.append(out.detach().requires_grad_())
        return embedded[-1]

    made.embedding.register_forward_hook(keep)
    hidden_BLD = made.hidden(tokens())
    for at in range(12):
        (grad_BLD,) = torch.autograd.grad(hidden_BLD[0, at].square().sum(), embedded[-1], retain_graph=True)
        reached = grad_BLD.abs().sum(-1) > 0
        assert reached[0, : at + 1].all(), "every earlier token of the row is read"
        assert not reached[0, at + 1 :].any() and not reached[1].any()


@shapes
def test_padding_at_the_end_changes_nothing_before_it(
    position: Position, output: Output, d_mlp: int | None
) -> None:
    made = lively(model(position, output, d_mlp))
    padded = tokens()
    padded[:, 7:] = 0
    torch.testing.assert_close(made.hidden(tokens())[:, :7], made.hidden(padded)[:, :7])
    torch.testing.assert_close(made.hidden(tokens())[:, :7], made.hidden(tokens()[:, :7]))


@shapes
def test_explicit_attention_gives_the_same_states(
    position: Position, output: Output, d_mlp: int | None
) -> None:
    made = lively(model(position, output, d_mlp))
    x_BLD = made.embed(tokens())
    for block, pattern_BHLL in zip(made.blocks, made.patterns(tokens()), strict=True):
        assert isinstance(block, Block)
        x_BLD, explained_BHLL = block.explain(x_BLD, reach=CAUSAL, rotary=made.rotary)
        assert torch.equal(pattern_BHLL, explained_BHLL) and pattern_BHLL.shape == (2, 2, 12, 12)
    torch.testing.assert_close(made.final_norm(x_BLD), made.hidden(tokens()), rtol=1e-4, atol=1e-5)


@shapes
def test_every_parameter_has_a_gradient(position: Position, output: Output, d_mlp: int | None) -> None:
    made = lively(model(position, output, d_mlp))
    torch.autograd.backward((made.hidden(tokens()) @ made.output_weight.T).logsumexp(-1).sum())
    for name, parameter in made.named_parameters():
        # A key's bias adds the same to all scores of a query, which the softmax takes away.
        values = parameter.grad if "qkv.bias" not in name else parameter.grad.view(3, -1)[[0, 2]]  # type: ignore[union-attr]
        assert values is not None and (values != 0).any(), name


def test_rotary_sees_differences_of_position_only() -> None:
    made = lively(model("rotary", n_layer=1))
    assert made.rotary is not None
    q, k = torch.randn(2, 1, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    turned_q, turned_k = (made.rotary(one.expand(1, 12, 1, 1, 8))[0, :, 0, 0] for one in (q, k))
    rows = turned_q @ turned_k.mT
    for offset in range(-11, 12):
        diagonal = rows.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)


def test_initial_values() -> None:
    made = model("learned", "untied", n_layer=8, d_model=128, vocab_size=500)
    residual = 0.02 / math.sqrt(16)
    for name, parameter in made.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif parameter.ndim == 1:
            assert not parameter.any(), name
        else:
            expected = residual if "attention_out" in name or "mlp_out" in name else 0.02
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.06), name
            assert abs(float(parameter.detach().mean())) < 5 * expected / math.sqrt(parameter.numel()), name


def test_same_seed_same_weights_and_no_global_generator() -> None:
    before = torch.random.get_rng_state()
    one, same, other = model(seed=3), model(seed=3), model(seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        if value.ndim == 2:
            assert not torch.equal(value, other.state_dict()[name])


def test_larger_vocabulary_leaves_the_other_parameters_as_they_are() -> None:
    """What document IDs need: their only difference is the vocabulary."""
    small, large = model(output="tied"), model(output="untied", vocab_size=100)
    for name, value in small.state_dict().items():
        if name != "embedding.weight":
            assert torch.equal(value, large.state_dict()[name]), name


def test_no_two_matrices_are_alike() -> None:
    made = model("learned", "untied")
    first = [tuple(p.flatten()[:4].tolist()) for p in made.parameters() if p.ndim == 2]
    assert len(set(first)) == len(first)


def test_tied_output_is_the_embedding() -> None:
    made = model(output="tied")
    assert made.output_weight is made.embedding.weight
    assert "output.weight" not in made.state_dict()


def test_attention_only_has_no_mlp() -> None:
    assert not any("mlp" in name for name in model(d_mlp=0).state_dict())


def test_dropout_draws_from_its_generator_alone() -> None:
    made = model()
    before = torch.random.get_rng_state()

    def dropped(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return made.states(tokens(), at_N=torch.arange(24), dropout=0.5, generator=generator)

    assert torch.equal(dropped(1), dropped(1))
    assert not torch.equal(dropped(1), dropped(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ValueError, match="explicit generator"):
        made.states(tokens(), at_N=torch.arange(24), dropout=0.1)


def test_evaluation_mode_is_the_same_model() -> None:
    made = model()
    assert torch.equal(made.train().hidden(tokens()), made.eval().hidden(tokens()))


@shapes
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_states_are_those_of_the_positions_asked_for(
    position: Position, output: Output, d_mlp: int | None, objective: Objective
) -> None:
    made = lively(model(position, output, d_mlp, objective=objective))
    at_N = torch.tensor([0, 3, 4, 11, 12, 20])
    expected_ND = made.hidden(tokens()).flatten(0, 1)[at_N]
    torch.testing.assert_close(made.states(tokens(), at_N=at_N), expected_ND, rtol=1e-5, atol=1e-6)


@shapes
def test_a_masked_model_reads_both_ways(position: Position, output: Output, d_mlp: int | None) -> None:
    made = lively(model(position, output, d_mlp, objective="masked"))
    embedded: list[Tensor] = []

    def keep(_: object, __: object, out: Tensor) -> Tensor:
        embedded.append(out.detach().requires_grad_())
        return embedded[-1]

    made.embedding.register_forward_hook(keep)
    shown = tokens() + 1
    shown[0, 9:] = 0
    hidden_BLD = made.hidden(shown)
    for row, at, n_text in ((0, 0, 9), (0, 8, 9), (1, 5, 12)):
        (grad_BLD,) = torch.autograd.grad(hidden_BLD[row, at].square().sum(), embedded[0], retain_graph=True)
        reached = grad_BLD.abs().sum(-1) > 0
        assert reached[row, :n_text].all(), "all text of the row is read"
        assert not reached[row, n_text:].any() and not reached[1 - row].any(), "no padding, no other row"


def test_separators_inside_a_row_are_read_and_padding_is_not() -> None:
    made = lively(model(objective="masked"))
    shown = tokens() + 1
    shown[:, 4], shown[:, 10:] = 0, 0
    torch.testing.assert_close(made.hidden(shown)[:, :10], made.hidden(shown[:, :10]), rtol=1e-5, atol=1e-6)
    other = shown.clone()
    other[:, 4] = 7
    assert not torch.allclose(made.hidden(other)[:, 0], made.hidden(shown)[:, 0])


def test_the_mask_is_the_last_id() -> None:
    made = model(objective="masked")
    assert made.mask_id == 29 and made.output_weight.shape == (30, 16)
    assert model().mask_id is None and model().output_weight.shape == (29, 16)
    assert made.hidden(torch.full((1, 12), 29)).isfinite().all()
    assert made.hidden(torch.zeros(1, 12, dtype=torch.int64)).isfinite().all(), "a row without any text"
