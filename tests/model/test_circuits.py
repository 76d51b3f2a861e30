"""Circuits equal literal formulas and transformers' own attention on the same weights; ablation is exact."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from repetita.errors import NotApplicable, SpecError
from repetita.model.circuits import ov_copying
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject
from repetita.model.transformer import Block, Transformer
from repetita.subject import Ablating, Attending, Attributing, Circuits, Rows
from tests.model.gpt2 import as_gpt2

Ids = NDArray[np.int64]

N_LAYER, N_HEAD, D, V, L = 3, 2, 16, 23, 11
CONFIG = ModelConfig(n_layer=N_LAYER, n_head=N_HEAD, d_model=D, vocab_size=V, context=L)
CONFIGS = [
    CONFIG,
    CONFIG.edit(output="untied", d_mlp=0),
    CONFIG.edit(position="rotary", output="untied"),
]


def made(config: ModelConfig = CONFIG) -> Transformer:
    """Weights large enough that heads differ, gains and biases that are not their initial values."""
    model = Transformer(config, seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def tokens(n: int = 4) -> Ids:
    return np.random.default_rng(0).integers(1, V, (n, L))


def as_rows(read: Ids) -> Rows:
    targets = np.random.default_rng(1).integers(1, V, read.shape)
    return Rows(read, targets, np.ones(read.shape, dtype=bool))


class Taken:
    """A whole forward pass written out head by head with loops, in double precision."""

    def __init__(self, model: Transformer, read: Ids) -> None:
        self.model = model.double()
        ids = torch.from_numpy(read)
        x = model.embedding(ids)
        if model.position is not None:
            x = x + model.position.weight[:L]
        self.start, self.head_out, self.other, self.patterns = x, [], [], []
        for block in model.blocks:
            assert isinstance(block, Block)
            normed = block.attention_norm(x)
            q, k, v = (normed @ block.qkv.weight.T + block.qkv.bias).chunk(3, dim=-1)
            outs = []
            for head in range(N_HEAD):
                at = slice(head * D // N_HEAD, (head + 1) * D // N_HEAD)
                qh, kh = self._turned(q[..., at]), self._turned(k[..., at])
                score = torch.einsum("bik,bjk->bij", qh, kh) / (D // N_HEAD) ** 0.5
                score = score.masked_fill(torch.triu(torch.ones(L, L), 1).bool(), -torch.inf)
                pattern = score.softmax(-1)
                self.patterns.append(pattern)
                outs.append(pattern @ v[..., at] @ block.attention_out.weight[:, at].T)
            self.head_out.append(outs)
            x = x + sum(outs) + block.attention_out.bias
            self.other.append(block.attention_out.bias.expand_as(x))
            if block.mlp_norm is not None and block.mlp_in is not None and block.mlp_out is not None:
                grown = block.mlp_out(F.gelu(block.mlp_in(block.mlp_norm(x))))
                self.other.append(grown)
                x = x + grown
        self.last = x

    def _turned(self, x: Tensor) -> Tensor:
        return x if self.model.rotary is None else self.model.rotary.double()(x[:, :, None, None])[:, :, 0, 0]

    def logits_of(self, part: Tensor, *, bias: bool = False) -> Tensor:
        """What a part of the stream adds to all logits, the norm's scale held; less the mean over V."""
        norm = self.model.final_norm
        sd = (self.last.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        out = (part - part.mean(-1, keepdim=True)) / sd * norm.weight
        logits = (out + norm.bias if bias else out) @ self.model.output_weight.T
        less: Tensor = logits - logits.mean(-1, keepdim=True)
        return less


@pytest.mark.parametrize("config", CONFIGS)
def test_patterns_and_attribution_equal_a_pass_written_out(config: ModelConfig) -> None:
    given = as_rows(tokens())
    subject = LiveSubject(made(config), batch_rows=3)
    patterns = list(subject.attend(given.tokens))
    found, raised = subject.attribute(given.tokens, given.targets), list(subject.raises(given.tokens))
    taken = Taken(made(config), given.tokens)
    ids = torch.from_numpy(given.targets)[..., None]
    with torch.no_grad():
        for layer in range(N_LAYER):
            for head in range(N_HEAD):
                shown = taken.patterns[layer * N_HEAD + head]
                np.testing.assert_allclose(patterns[layer][:, head], shown, atol=1e-5)
                logits = taken.logits_of(taken.head_out[layer][head])
                expected = logits.gather(-1, ids)[..., 0]
                np.testing.assert_allclose(found[layer, head], expected, atol=1e-3, rtol=1e-3)
                own = torch.from_numpy(given.tokens)[:, None, :].expand(-1, L, -1)
                np.testing.assert_allclose(
                    raised[layer][:, head], logits.gather(-1, own), atol=1e-3, rtol=1e-3
                )


@pytest.mark.parametrize("config", CONFIGS)
def test_attributions_and_the_rest_add_up_to_the_logit(config: ModelConfig) -> None:
    given = as_rows(tokens())
    added = LiveSubject(made(config)).attribute(given.tokens, given.targets).sum((0, 1))
    taken = Taken(made(config), given.tokens)
    rest = taken.start + sum(taken.other)
    ids = torch.from_numpy(given.targets)[..., None]
    with torch.no_grad():
        whole = made(config).hidden(torch.from_numpy(given.tokens)) @ made(config).output_weight.T
        logit = (whole - whole.mean(-1, keepdim=True)).gather(-1, ids)[..., 0].numpy()
        others = taken.logits_of(rest, bias=True).gather(-1, ids)[..., 0].numpy()
    np.testing.assert_allclose(added + others, logit, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("config", CONFIGS)
def test_ov_copying_equals_the_eigenvalues_of_the_whole_circuit(config: ModelConfig) -> None:
    model = made(config)
    found = LiveSubject(model).ov_copying()
    centre = np.eye(D) - 1 / D
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    embedded = weights["embedding.weight"] @ centre
    out = weights.get("output.weight", weights["embedding.weight"])
    out = out - out.mean(0)
    for layer in range(N_LAYER):
        gain = np.diag(weights[f"blocks.{layer}.attention_norm.weight"])
        for head in range(N_HEAD):
            at = slice(head * D // N_HEAD, (head + 1) * D // N_HEAD)
            value = weights[f"blocks.{layer}.qkv.weight"][2 * D :][at]
            write = weights[f"blocks.{layer}.attention_out.weight"][:, at]
            final = np.diag(weights["final_norm.weight"])
            circuit = embedded @ gain @ value.T @ write.T @ centre @ final @ out.T
            eigenvalues = np.linalg.eigvals(circuit)
            expected = eigenvalues.sum().real / np.abs(eigenvalues).sum()
            assert found[layer, head] == pytest.approx(expected, abs=1e-4)


def test_a_head_that_hands_on_what_it_reads_copies() -> None:
    model = made(CONFIG.edit(n_head=1, d_mlp=0))
    block = model.blocks[0]
    assert isinstance(block, Block)
    with torch.no_grad():
        for norm in (block.attention_norm, model.final_norm):
            norm.weight.fill_(1.0)
        block.qkv.weight[2 * D :] = torch.eye(D)
        block.attention_out.weight.copy_(torch.eye(D))
        assert ov_copying(model)[0, 0] == pytest.approx(1.0, abs=1e-6)
        block.attention_out.weight.neg_()
        assert ov_copying(model)[0, 0] == pytest.approx(-1.0, abs=1e-6)


def test_k_composition_equals_the_trace_of_the_whole_circuit() -> None:
    model = made()
    found = LiveSubject(model).k_composition()
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    centre, K = np.eye(D) - 1 / D, D // N_HEAD
    embedded = weights["embedding.weight"] @ centre

    def part(layer: int, head: int, which: int) -> NDArray[np.float64]:
        read = weights[f"blocks.{layer}.qkv.weight"]
        return np.asarray(read[which * D + head * K : which * D + (head + 1) * K])

    for late, head in [(1, 0), (2, 1)]:
        gain = np.diag(weights[f"blocks.{late}.attention_norm.weight"])
        for early, other in [(0, 0), (0, 1), (1, 1)]:
            if early >= late:
                assert found[late, head, early, other] == 0
                continue
            write = weights[f"blocks.{early}.attention_out.weight"][:, other * K : (other + 1) * K]
            read = np.diag(weights[f"blocks.{early}.attention_norm.weight"])
            written = embedded @ read @ part(early, other, 2).T @ write.T @ centre
            scores = (embedded @ gain @ part(late, head, 0).T) @ (written @ gain @ part(late, head, 1).T).T
            assert found[late, head, early, other] == pytest.approx(np.trace(scores) / K**0.5, rel=1e-4)


def heads_of(layer: int) -> list[tuple[int, int]]:
    return [(layer, head) for head in range(N_HEAD)]


def test_without_all_heads_of_a_layer_only_the_bias_of_its_attention_is_left() -> None:
    given, model, bare = as_rows(tokens()), made(), made()
    block = bare.blocks[1]
    assert isinstance(block, Block)
    with torch.no_grad():
        block.attention_out.weight.zero_()
    ablated = LiveSubject(model).without(heads_of(1), patterns="recomputed")
    expected = LiveSubject(bare).score(given).loss
    np.testing.assert_allclose(ablated.score(given).loss, expected, rtol=1e-5, atol=1e-5)


def _literally_without(
    model: Transformer,
    read: Ids,
    heads: list[tuple[int, int]],
) -> Iterator[Tensor]:
    """Final stream of a second pass with the first pass' patterns and these heads' outputs at 0."""
    first = Taken(model, read)
    x = first.start
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        value = (block.attention_norm(x) @ block.qkv.weight.T + block.qkv.bias).chunk(3, dim=-1)[2]
        for head in range(N_HEAD):
            at = slice(head * D // N_HEAD, (head + 1) * D // N_HEAD)
            if (layer, head) not in heads:
                pattern = first.patterns[layer * N_HEAD + head]
                x = x + pattern @ value[..., at] @ block.attention_out.weight[:, at].T
        x = x + block.attention_out.bias
        assert block.mlp_norm is not None and block.mlp_in is not None and block.mlp_out is not None
        x = x + block.mlp_out(F.gelu(block.mlp_in(block.mlp_norm(x))))
    yield x


def test_frozen_patterns_are_those_of_the_whole_model() -> None:
    given, heads = as_rows(tokens()), [(0, 1), (1, 0)]
    whole = LiveSubject(made())
    frozen, again = whole.without(heads), whole.without(heads, patterns="recomputed")
    kept, moved, own = (np.stack(list(one.attend(given.tokens))) for one in (frozen, again, whole))
    np.testing.assert_allclose(kept, own, atol=1e-6)
    assert np.abs(moved - own).max() > 0.01
    with torch.no_grad():
        (stream,) = _literally_without(made().double(), given.tokens, heads)
        logits = made().double().final_norm(stream) @ made().double().output_weight.T
        losses = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(given.targets).flatten())
    assert frozen.score(given).loss.mean() == pytest.approx(losses.item(), rel=1e-4)


def test_nothing_left_out_is_the_model_itself() -> None:
    given, subject = as_rows(tokens()), LiveSubject(made())
    same = subject.without([]).score(given).loss
    np.testing.assert_allclose(same, subject.score(given).loss, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.ci
def test_patterns_equal_those_of_transformers_on_the_same_weights() -> None:
    model = made()
    other = as_gpt2(model)
    ids = tokens()
    with torch.no_grad():
        answer = other(torch.from_numpy(ids), output_attentions=True)
        ours = model.hidden(torch.from_numpy(ids)) @ model.output_weight.T
    np.testing.assert_allclose(ours.detach(), answer.logits, atol=1e-4)
    for shown, pattern in zip(LiveSubject(model).attend(ids), answer.attentions, strict=True):
        np.testing.assert_allclose(shown, pattern, atol=1e-5)


def test_it_has_these_capabilities_and_says_what_it_cannot() -> None:
    subject = LiveSubject(made())
    for capability in (Attending, Attributing, Circuits, Ablating):
        assert isinstance(subject, capability)
    with pytest.raises(SpecError, match=r"no head 3\.0"):
        subject.without([(3, 0)])
    masked = LiveSubject(Transformer(CONFIG.edit(objective="masked"), seed=0))
    assert len(list(masked.attend(tokens()))) == N_LAYER
    with pytest.raises(NotApplicable, match="masked"):
        masked.attribute(tokens(), tokens())
    with pytest.raises(NotApplicable, match="masked"):
        masked.ov_copying()
    with pytest.raises(NotApplicable, match="our own transformer"):
        subject.without([(0, 0)]).attribute(tokens(), tokens())


def test_asking_leaves_gradients_on() -> None:
    subject = LiveSubject(made())
    for _ in subject.attend(tokens()):
        assert torch.is_grad_enabled()
