"""What heads of GPT-2, GPT-NeoX and Llama layouts do equals formulas written out, and our own answers."""

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from repetita.errors import NotApplicable
from repetita.model import head_paths, pretrained_circuits
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject
from repetita.model.pretrained_attention import Without, attend
from repetita.model.transformer import Transformer
from repetita.subject import Rows, Tokens
from tests.model.gpt2 import as_gpt2
from tests.model.neox import as_neox
from tests.model.strangers import CONTEXT, N_HEAD, N_LAYER, D, V, stranger

pytestmark = [pytest.mark.slow, pytest.mark.ci]

Floats = NDArray[np.float64]
L, K = 10, D // N_HEAD
KINDS = ["gpt2", "gpt_neox", "llama", "mistral", "mixtral", "qwen2"]


def tokens(n: int = 3, *, seed: int = 0) -> Tokens:
    return np.random.default_rng(seed).integers(3, V, (n, L))


class Parts(NamedTuple):
    """One head's matrices as its layout has them, cut out by hand: (K D) each, `write` (D K), `bias` (K,)."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    write: Tensor
    gain: Tensor


def blocks(model: Any) -> Any:
    return model.base_model.h if model.config.model_type == "gpt2" else model.base_model.layers


def final_norm(model: Any) -> Any:
    names = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}
    return getattr(model.base_model, names.get(model.config.model_type, "norm"))


def parts(model: Any, layer: int, head: int) -> Parts:
    block, own = blocks(model)[layer], slice(head * K, (head + 1) * K)
    if model.config.model_type == "gpt2":
        both, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        query, key, value = (both[:, n * D :][:, own].T for n in range(3))
        return Parts(
            query, key, value, bias[2 * D :][own], block.attn.c_proj.weight[own].T, block.ln_1.weight
        )
    gain = block.input_layernorm.weight
    if model.config.model_type == "gpt_neox":
        both, bias = block.attention.query_key_value.weight, block.attention.query_key_value.bias
        query, key, value = (both[(3 * head + n) * K : (3 * head + n + 1) * K] for n in range(3))
        at = (3 * head + 2) * K
        return Parts(query, key, value, bias[at : at + K], block.attention.dense.weight[:, own], gain)
    read, shared = block.self_attn, slice(head // 2 * K, (head // 2 + 1) * K)
    bias = torch.zeros(K) if read.v_proj.bias is None else read.v_proj.bias[shared]
    key, value = read.k_proj.weight[shared], read.v_proj.weight[shared]
    return Parts(read.q_proj.weight[own], key, value, bias, read.o_proj.weight[:, own], gain)


def centred(x: Any, model: Any) -> Any:
    if model.config.model_type not in ("gpt2", "gpt_neox"):
        return x
    return x - x.mean(-1, keepdims=True)


def added(kind: str, ids: Tokens) -> list[list[Tensor]]:
    """[layer][head]: what a head adds to all logits (B L V), less their mean, the final norm's scale held."""
    model: Any = stranger(kind, attention="eager")
    last: list[Tensor] = []
    final_norm(model).register_forward_pre_hook(lambda _, given: last.append(given[0]))
    found = []
    with torch.no_grad():
        answer = model(torch.from_numpy(ids), output_attentions=True, output_hidden_states=True)
        normed = final_norm(model)(last[0])
        shift = getattr(final_norm(model), "bias", None)
        # The scale, read off what the norm answers: it is linear but for that.
        linear = centred(last[0], model) * final_norm(model).weight
        scale = ((normed if shift is None else normed - shift) / linear).median(-1, keepdim=True).values
        for layer, block in enumerate(blocks(model)):
            before = block.ln_1 if kind == "gpt2" else block.input_layernorm
            stream, heads = before(answer.hidden_states[layer]), []
            for head in range(N_HEAD):
                own = parts(model, layer, head)
                mixed = answer.attentions[layer][:, head] @ (stream @ own.value.T + own.bias)
                out = centred(mixed @ own.write.T, model) * scale * final_norm(model).weight
                logits = out @ model.lm_head.weight.T
                heads.append(logits - logits.mean(-1, keepdim=True))
            found.append(heads)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_attribution_equals_each_heads_logits_written_out(kind: str) -> None:
    ids, targets = tokens(), tokens(seed=1)
    model, expected = stranger(kind), added(kind, ids)
    found = pretrained_circuits.attribute(model, ids, targets)
    raised = list(pretrained_circuits.raises(model, ids))
    assert found.shape == (N_LAYER, N_HEAD, *ids.shape)
    wanted, own = torch.from_numpy(targets)[..., None], torch.from_numpy(ids)[:, None].expand(-1, L, -1)
    for layer in range(N_LAYER):
        for head in range(N_HEAD):
            logits = expected[layer][head]
            direct = logits.gather(-1, wanted)[..., 0]
            np.testing.assert_allclose(found[layer, head], direct, atol=2e-3, rtol=1e-3)
            np.testing.assert_allclose(raised[layer][:, head], logits.gather(-1, own), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_circuits_equal_their_whole_matrices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_paths, "VOCABULARY_AT_ONCE", 10)
    model: Any = stranger(kind)
    copying, composed = pretrained_circuits.ov_copying(model), pretrained_circuits.k_composition(model)
    assert composed.shape == (N_LAYER, N_HEAD, N_LAYER, N_HEAD)

    def plain(weight: Tensor) -> Floats:
        return np.asarray(weight.detach().double().numpy())

    embedded = centred(plain(model.get_input_embeddings().weight), model)
    unembedded = plain(model.lm_head.weight)
    unembedded = unembedded - unembedded.mean(0)
    for layer in range(N_LAYER):
        for head in range(N_HEAD):
            own = Parts(*map(plain, parts(model, layer, head)))  # type: ignore[arg-type]
            written = (embedded * own.gain) @ own.value.T @ own.write.T
            circuit = (centred(written, model) * plain(final_norm(model).weight)) @ unembedded.T
            values = np.linalg.eigvals(circuit)
            assert copying[layer, head] == pytest.approx(values.sum().real / np.abs(values).sum(), abs=1e-4)
            for other in range(N_HEAD):
                if layer == 0:
                    assert not composed[0].any()
                    continue
                first = Parts(*map(plain, parts(model, 0, other)))  # type: ignore[arg-type]
                marks = centred((embedded * first.gain) @ first.value.T @ first.write.T, model)
                scores = ((embedded * own.gain) @ own.query.T) @ ((marks * own.gain) @ own.key.T).T
                expected = np.trace(scores) / K**0.5
                assert composed[layer, head, 0, other] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def ours(position: Any) -> Transformer:
    output = "tied" if position == "learned" else "untied"
    config = ModelConfig(
        n_layer=N_LAYER, n_head=N_HEAD, d_model=D, vocab_size=V, context=CONTEXT, position=position,
        output=output,
    )  # fmt: skip
    model = Transformer(config, seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_our_model_says_the_same_in_the_code_of_transformers(position: str) -> None:
    model, ids, targets = ours(position), tokens(), tokens(seed=1)
    other: Any = as_gpt2(model) if position == "learned" else as_neox(model)
    own = LiveSubject(model)
    close: Any = {"atol": 1e-3, "rtol": 1e-3}
    for pattern, expected in zip(attend(other, ids), own.attend(ids), strict=True):
        np.testing.assert_allclose(pattern, expected, atol=1e-4)
    found = pretrained_circuits.attribute(other, ids, targets)
    np.testing.assert_allclose(found, own.attribute(ids, targets), **close)
    for added_BHLL, expected in zip(pretrained_circuits.raises(other, ids), own.raises(ids), strict=True):
        np.testing.assert_allclose(added_BHLL, expected, **close)
    np.testing.assert_allclose(pretrained_circuits.ov_copying(other), own.ov_copying(), atol=1e-5)
    np.testing.assert_allclose(pretrained_circuits.k_composition(other), own.k_composition(), **close)
    rows = Rows(ids, targets, np.ones(ids.shape, dtype=bool))
    heads = [(0, 1), (1, 2), (1, 3)]
    for patterns in ("frozen", "recomputed"):
        without = Without(other, heads=heads, patterns=patterns)
        with torch.no_grad():
            logits = without.run(lambda: other(torch.from_numpy(ids)).logits)
        loss = -logits.log_softmax(-1).gather(-1, torch.from_numpy(targets)[..., None])[..., 0]
        expected = own.without(heads, patterns=patterns).score(rows).loss
        np.testing.assert_allclose(loss, expected, **close)


def test_half_precision_is_summed_in_single() -> None:
    """Weights that half precision holds exactly give the answers of single precision, but for the stream."""
    model: Any = stranger("llama")
    exact, ids = deepcopy(model), tokens()
    model.to(torch.bfloat16)
    exact.load_state_dict(model.state_dict())
    np.testing.assert_allclose(
        pretrained_circuits.ov_copying(model), pretrained_circuits.ov_copying(exact), atol=1e-6
    )
    found = pretrained_circuits.attribute(model, ids, ids)
    expected = pretrained_circuits.attribute(exact, ids, ids)
    assert found.dtype == np.float32
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("kind", ["opt", "gemma2", "bert", "bloom"])
def test_other_layouts_are_not_applicable(kind: str) -> None:
    model, ids = stranger(kind), tokens()
    for ask in (
        lambda: pretrained_circuits.attribute(model, ids, ids),
        lambda: list(pretrained_circuits.raises(model, ids)),
        lambda: pretrained_circuits.ov_copying(model),
        lambda: pretrained_circuits.k_composition(model),
    ):
        with pytest.raises(NotApplicable, match=f"this is '{kind}'"):
            ask()


def test_weights_that_are_not_there_are_not_applicable() -> None:
    model: Any = stranger("llama")
    with pytest.raises(NotApplicable, match="in memory and not packed"):
        pretrained_circuits.ov_copying(model.to("meta"))
    model = stranger("gpt2")
    with pytest.raises(NotApplicable, match="no output matrix"):
        pretrained_circuits.ov_copying(model.base_model)
