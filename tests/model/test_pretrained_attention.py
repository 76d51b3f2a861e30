"""Patterns are those that transformers shows; heads are left out exactly, with patterns kept or paid anew."""

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repetita.errors import NotApplicable, SpecError
from repetita.model.memory import Batches
from repetita.model.pretrained_attention import Without, attend, head_counts, trunk
from repetita.subject import Tokens
from tests.model.strangers import N_HEAD, N_LAYER, D, V, stranger

pytestmark = [pytest.mark.slow, pytest.mark.ci]

L = 12
SERVED = [
    *("gpt2", "gpt_neox", "llama", "mistral", "opt", "gemma2", "gpt_oss", "qwen3", "gemma3_text", "phi3"),
    *("olmo2", "bert", "roberta", "modernbert", "albert", "distilbert"),
]


def tokens(n: int = 3) -> Tokens:
    return np.random.default_rng(0).integers(3, V, (n, L))


def shown(kind: str, ids: Tokens, **options: Any) -> list[Tensor]:
    """What transformers itself shows, by explicit attention."""
    with torch.no_grad():
        answer = stranger(kind, attention="eager")(torch.from_numpy(ids), output_attentions=True, **options)
    return list(answer.attentions)


def logits(model: Any, ids: Tokens) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.from_numpy(ids)).logits
    return found


@pytest.mark.parametrize("kind", SERVED)
def test_patterns_are_those_of_transformers_and_the_model_is_left_as_it_was(kind: str) -> None:
    model, ids = stranger(kind), tokens()
    before, attention = logits(model, ids), model.config._attn_implementation
    found = list(attend(model, ids))
    assert len(found) == N_LAYER
    for pattern, expected in zip(found, shown(kind, ids), strict=True):
        assert pattern.dtype == np.float32 and np.array_equal(pattern, expected.numpy())
    assert model.config._attn_implementation == attention
    assert torch.equal(logits(model, ids), before)


def test_only_layers_with_attention_count() -> None:
    ids = tokens()
    (found,), (expected,) = (
        attend(stranger("jamba"), ids),
        [one for one in shown("jamba", ids) if one is not None],
    )
    assert np.array_equal(found, expected.numpy())


def test_rows_are_asked_in_parts_and_the_model_may_be_asked_in_between() -> None:
    model, ids = stranger("llama"), tokens(5)
    before, whole = logits(model, ids), list(attend(model, ids))
    for pattern, expected in zip(
        attend(model, ids, batches=Batches(torch.device("cpu"), rows=2)), whole, strict=True
    ):
        np.testing.assert_allclose(pattern, expected, atol=1e-6)
        assert torch.equal(logits(model, ids), before)
    for one, other in zip(attend(model, ids), attend(model, ids), strict=True):
        assert np.array_equal(one, other)


def test_padding_is_not_read() -> None:
    ids = tokens()
    ids[1, 7:] = 0
    reads = ids != 0
    found = list(attend(stranger("bert"), ids, reads=reads))
    expected = shown("bert", ids, attention_mask=torch.from_numpy(reads).long())
    for pattern, theirs in zip(found, expected, strict=True):
        assert np.array_equal(pattern, theirs.numpy())
        assert (pattern[1, :, :, 7:] == 0).all()


def test_half_precision_is_the_models_own() -> None:
    model: Any = stranger("llama", attention="eager")
    model, ids = model.to(torch.bfloat16), tokens()
    with torch.no_grad():
        theirs = model(torch.from_numpy(ids), output_attentions=True).attentions
    for pattern, expected in zip(attend(model, ids), theirs, strict=True):
        assert np.array_equal(pattern, expected.float().numpy())


def test_weights_may_lie_elsewhere_and_come_when_they_are_needed(tmp_path: Path) -> None:
    from accelerate import disk_offload

    model, ids = stranger("llama"), tokens()
    expected, left = list(attend(model, ids)), Without(model, heads=HEADS)
    states = left.run(trunk(model, ids)).last_hidden_state.detach()
    disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    assert model.device.type == "meta"
    for pattern, before in zip(attend(model, ids), expected, strict=True):
        assert np.array_equal(pattern, before)
    assert torch.equal(Without(model, heads=HEADS).run(trunk(model, ids)).last_hidden_state, states)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        *((kind, "has no attention that") for kind in ("bloom", "falcon", "mamba", "deberta-v2")),
        ("diffllama", "asks for attention 4 times in 2 layers"),
    ],
)
def test_a_model_that_the_interface_does_not_serve_is_not_applicable(kind: str, why: str) -> None:
    model, ids = stranger(kind), tokens()
    before = logits(model, ids)
    with pytest.raises(NotApplicable, match=f"'{kind}' {why}"):
        list(attend(model, ids))
    assert torch.equal(logits(model, ids), before)


def test_an_error_on_the_way_leaves_the_model_as_it_was() -> None:
    model = stranger("gpt2")
    attention = model.config._attn_implementation
    with pytest.raises(IndexError):
        list(attend(model, np.full((1, L), V + 1)))
    assert model.config._attn_implementation == attention


def test_heads_are_counted_as_they_read() -> None:
    assert head_counts(stranger("gemma2")) == (N_HEAD,) * N_LAYER
    with pytest.raises(SpecError, match=r"no head 0\.4 in a model of 2 layers with 4 heads"):
        Without(stranger("gpt2"), heads=[(0, N_HEAD)])


OUT = {
    "gpt2": lambda model: [block.attn.c_proj.weight.T for block in model.transformer.h],
    "gpt_neox": lambda model: [block.attention.dense.weight for block in model.gpt_neox.layers],
    "llama": lambda model: [block.self_attn.o_proj.weight for block in model.model.layers],
    "opt": lambda model: [block.self_attn.out_proj.weight for block in model.model.decoder.layers],
    "bert": lambda model: [block.attention.output.dense.weight for block in model.bert.encoder.layer],
}
HEADS = [(0, 1), (0, 3), (1, 0)]
K = D // N_HEAD


@pytest.mark.parametrize("kind", list(OUT))
def test_recomputed_is_the_model_whose_heads_write_by_zeros(kind: str) -> None:
    model, ids = stranger(kind), tokens()
    bare = deepcopy(model)
    with torch.no_grad():
        for layer, head in HEADS:
            OUT[kind](bare)[layer][:, head * K : (head + 1) * K] = 0
    without = Without(model, heads=HEADS, patterns="recomputed")
    found = without.run(lambda: logits(model, ids))
    np.testing.assert_allclose(found, logits(bare, ids), atol=1e-4, rtol=1e-4)
    assert (found - logits(model, ids)).abs().max() > 0.1
    for pattern, expected in zip(attend(model, ids, without=without), attend(bare, ids), strict=True):
        np.testing.assert_allclose(pattern, expected, atol=1e-5)


@pytest.mark.parametrize("kind", SERVED)
def test_frozen_patterns_are_those_of_the_whole_model(kind: str) -> None:
    model, ids = stranger(kind), tokens()
    frozen, again = Without(model, heads=HEADS), Without(model, heads=HEADS, patterns="recomputed")
    own = list(attend(model, ids))
    for pattern, expected in zip(attend(model, ids, without=frozen), own, strict=True):
        assert np.array_equal(pattern, expected)
    assert any(
        np.abs(pattern - expected).max() > 0.01
        for pattern, expected in zip(attend(model, ids, without=again), own, strict=True)
    )


@pytest.mark.parametrize("patterns", ["frozen", "recomputed"])
def test_without_no_head_it_is_the_model_itself(patterns: Any) -> None:
    ids = tokens()
    for kind in ("gpt2", "gemma2"):
        model = stranger(kind)
        found = Without(model, heads=[], patterns=patterns).run(partial(logits, model, ids))
        np.testing.assert_allclose(found, logits(model, ids), atol=1e-4, rtol=1e-4)


def test_frozen_equals_a_pass_written_out_with_the_patterns_of_the_whole_model() -> None:
    """Llama with shared keys and values: head after head, values of what is left by patterns of the whole."""
    model, ids = stranger("llama").double(), tokens()
    core: Any = model.base_model
    own = stranger("llama", attention="eager").double()
    with torch.no_grad():
        whole = own(torch.from_numpy(ids), output_attentions=True).attentions
        x = core.embed_tokens(torch.from_numpy(ids))
        for layer, block in enumerate(core.layers):
            values = block.self_attn.v_proj(block.input_layernorm(x))
            for head in range(N_HEAD):
                if (layer, head) in HEADS:
                    continue
                shared = head // 2
                mixed = whole[layer][:, head] @ values[..., shared * K : (shared + 1) * K]
                x = x + mixed @ block.self_attn.o_proj.weight[:, head * K : (head + 1) * K].T
            x = x + block.mlp(block.post_attention_layernorm(x))
        expected = core.norm(x)
    forward = trunk(model, ids)
    with torch.no_grad():
        answer = Without(model, heads=HEADS).run(forward)
    np.testing.assert_allclose(answer.last_hidden_state, expected, atol=1e-6, rtol=1e-6)
