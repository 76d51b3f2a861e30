"""Sizes: closed-form counts are those of the real module, ladders are those of the papers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from repetita.corpus.masking import MASK_SHARE
from repetita.errors import SpecError
from repetita.model.config import (
    ModelConfig,
    Objective,
    Output,
    Position,
    count,
    flops_per_token,
    ladder,
    widened,
)
from repetita.model.loss import scored_cross_entropy
from repetita.model.transformer import Transformer
from repetita.spec import fingerprint


def config(**changes: object) -> ModelConfig:
    values = {"n_layer": 2, "d_model": 24, "n_head": 2, "vocab_size": 50, "context": 16} | changes
    return ModelConfig(**values)


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("output", ["tied", "untied"])
@pytest.mark.parametrize("d_mlp", [None, 0, 40])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_counts_are_those_of_the_module(
    position: Position, output: Output, d_mlp: int | None, objective: Objective
) -> None:
    shape = config(position=position, output=output, d_mlp=d_mlp, n_layer=3, objective=objective)
    model, counted = Transformer(shape, seed=0), count(shape)
    assert counted.total == sum(parameter.numel() for parameter in model.parameters())
    assert counted.embedding == model.embedding.weight.numel()
    assert counted.position == (model.position.weight.numel() if model.position else 0)
    assert counted.output == (model.output.weight.numel() if model.output else 0)
    body = [*model.blocks.parameters(), *model.final_norm.parameters()]
    for only_masked in (model.embedding_norm, model.head):
        body += [] if only_masked is None else only_masked.parameters()
    assert counted.non_embedding == counted.body == sum(parameter.numel() for parameter in body)
    matrices = [parameter for parameter in model.blocks.parameters() if parameter.ndim == 2]
    assert counted.formula_12ld2 == sum(matrix.numel() for matrix in matrices)


@pytest.mark.parametrize("output", ["tied", "untied"])
@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.parametrize("more", [5, 50, 400])
def test_a_wider_mlp_has_as_many_parameters_as_a_larger_vocabulary(
    output: Output, objective: Objective, more: int
) -> None:
    shape = config(output=output, objective=objective)
    larger = count(shape.edit(vocab_size=50 + more)).total
    wider = widened(shape, total=larger)
    a_unit = shape.n_layer * (2 * shape.d_model + 1)
    assert abs(count(wider).total - larger) <= a_unit / 2
    assert wider.edit(d_mlp=shape.d_mlp) == shape
    assert widened(wider, total=count(shape).total) == shape
    assert (
        sum(parameter.numel() for parameter in Transformer(wider, seed=0).parameters()) == count(wider).total
    )


def test_no_width_of_an_mlp_that_is_not_there() -> None:
    with pytest.raises(SpecError, match="no width of the MLP"):
        widened(config(d_mlp=0), total=10**6)
    with pytest.raises(SpecError, match="no width of the MLP"):
        widened(config(), total=1000)


@pytest.mark.parametrize("d_mlp", [None, 0])
def test_flops_are_those_of_the_module(d_mlp: int | None) -> None:
    shape = config(d_mlp=d_mlp)
    model = Transformer(shape, seed=0)
    tokens_BL = torch.zeros(3, shape.context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        for _ in model.patterns(tokens_BL):  # explicit attention: products that are not causal
            pass
        states_ND = model.final_norm(model.embedding(tokens_BL)).flatten(0, 1)
        scored_cross_entropy(states_ND, weight_VD=model.output_weight, targets_N=tokens_BL.flatten())
    forward = counter.get_total_flops() / tokens_BL.numel()
    assert flops_per_token(shape).matmul == 3 * forward


def test_flops_of_a_masked_model_are_those_of_the_module() -> None:
    shape = config(objective="masked", d_model=20, context=20)
    model = Transformer(shape, seed=0)
    tokens_BL = torch.ones(10, shape.context, dtype=torch.int64)
    scored_N = torch.arange(0, 200)[: round(200 * MASK_SHARE)]
    with FlopCounterMode(display=False) as counter:
        states_ND = model.states(tokens_BL, at_N=scored_N)
        scored_cross_entropy(states_ND, weight_VD=model.output_weight, targets_N=scored_N % 50)
    assert flops_per_token(shape).matmul == round(3 * counter.get_total_flops() / 200)


def test_flop_conventions() -> None:
    shape = config()
    flops, counted = flops_per_token(shape), count(shape)
    assert flops.six_n == 6 * counted.non_embedding
    assert flops.kaplan == 6 * counted.formula_12ld2 + 6 * shape.n_layer * shape.context * shape.d_model


def test_hernandez_counts_are_printed_in_the_paper() -> None:
    sizes = ladder("hernandez", vocab_size=50_304, context=8192)
    formula = {name: count(size).formula_12ld2 for name, size in sizes.items()}
    assert formula["1.57M"] == 1_572_864
    assert formula["340M"] == 339_738_624
    assert formula["805M"] == 805_306_368
    assert all(size.d_model == 128 * size.n_layer and size.d_head == 64 for size in sizes.values())


def test_tirumala_names_count_the_embeddings() -> None:
    for name, size in ladder("tirumala", vocab_size=50_272, context=2048).items():
        said = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
        assert count(size).total == pytest.approx(said, rel=0.03)


def test_laptop_names_count_what_is_not_embedding() -> None:
    sizes = ladder("laptop", vocab_size=1024, context=128)
    said = [float(name[:-1]) * 1e3 for name in sizes]
    counts = [count(size).non_embedding for size in sizes.values()]
    assert counts == pytest.approx(said, rel=0.05)
    assert counts == sorted(counts) and counts[0] < 4e3 and counts[-1] > 0.8e6
    assert {size.n_layer for size in sizes.values()} == {2}


def test_rotary_fits_every_ladder() -> None:
    for name in ("laptop", "hernandez", "tirumala"):
        for size in ladder(name, vocab_size=64, context=8, position="rotary", output="untied").values():
            assert size.position == "rotary" and size.output == "untied"


def test_equal_models_have_equal_fingerprints() -> None:
    assert fingerprint(config()) == fingerprint(config(d_mlp=96)) != fingerprint(config(d_mlp=0))
    assert config().edit(d_model=32).mlp_width == 128


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_head": 5}, "not a multiple of n_head = 5"),
        ({"n_head": 8, "position": "rotary"}, "give an even width a head"),
        ({"n_heads": 4}, "did you mean 'n_head'"),
        ({"n_layer": 0}, "n_layer"),
        ({"vocab_size": 1}, "vocab_size"),
    ],
)
def test_refusals_name_the_fix(changes: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        config(**changes)


def test_unknown_ladder() -> None:
    with pytest.raises(SpecError, match="did you mean 'laptop'"):
        ladder("labtop", vocab_size=64, context=8)
