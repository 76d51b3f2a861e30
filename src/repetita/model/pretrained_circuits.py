"""Heads of GPT-2, GPT-NeoX and Llama layouts of transformers, read into: attribution and circuits.

Other layouts raise NotApplicable: where weights lie, which norms centre and what is multiplied on the way
differs by architecture, and a number from a wrong reading looks like any other. Mistral, Mixtral and Qwen2
are laid out as Llama is. Models must be in evaluation mode, their weights in memory and not packed.

Shapes: B rows, L tokens, D width of the model, H heads, K width of a head, C = H * K.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from repetita.errors import NotApplicable
from repetita.model import head_paths
from repetita.model.head_paths import Direct, Norm, Reading, Vocabulary
from repetita.model.pretrained_attention import Call, Mixed, served, trunk
from repetita.subject import Floats, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LIKE_LLAMA = ("llama", "mistral", "mixtral", "qwen2")

Part = Any
"""A module of transformers, whose attributes are those of its own class."""


class Layout(NamedTuple):
    """Where a model keeps what its heads read and write."""

    blocks: Part
    final_norm: Part
    out: Callable[[Part], Tensor]
    """What a block's heads write by (D C)."""
    read: Callable[[Part], tuple[Tensor, Tensor, Tensor, float]]
    """A block's queries, keys and values (H K D each, without the norm's gain), and their scale."""
    norm: str
    """Under which name a block has the norm before its attention."""


@torch.no_grad()
def attribute(model: "PreTrainedModel", tokens: Tokens, targets: Tokens, /) -> Floats:
    """What each head adds to the target's logit, (n_layer, H, B, L); see `Attributing.attribute`."""
    added = direct(model, tokens).to_targets(torch.tensor(targets))
    return np.stack([one_BLH.permute(2, 0, 1).cpu().numpy() for one_BLH in added])


@torch.no_grad()
def raises(model: "PreTrainedModel", tokens: Tokens, /) -> Iterator[Floats]:
    """By layer what each head adds to the logits of a row's own tokens; see `Attributing.raises`."""
    for added_BHLL in direct(model, tokens).to_tokens(torch.tensor(tokens)):
        yield added_BHLL.cpu().numpy()


@torch.no_grad()
def ov_copying(model: "PreTrainedModel", /) -> Floats:
    """Of each head, (n_layer, H); see `Circuits.ov_copying`. Heads that share values have a circuit each."""
    found_YH = head_paths.ov_copying(_vocabulary(model), layers=_layers(model))
    return found_YH.numpy().astype(np.float32)


@torch.no_grad()
def k_composition(model: "PreTrainedModel", /) -> Floats:
    """By pairs of heads, (n_layer, H, n_layer, H); see `Circuits.k_composition`."""
    norm = _norm(layout(model).final_norm)
    found = head_paths.k_composition(_vocabulary(model), layers=_layers(model), norm=norm)
    return found.numpy().astype(np.float32)


def direct(model: "PreTrainedModel", tokens: Tokens, /) -> Direct:
    """The direct path from each head to the logits, for some rows of tokens (B, L)."""
    known = layout(model)
    outs = [_there(known.out(block)) for block in known.blocks]
    mixed: list[Tensor] = []
    streams: list[Tensor] = []

    def take(call: Call) -> Mixed:
        answer = call.mixed()
        mixed.append(answer[0])
        return answer

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        streams.append(given[0])

    hook = known.final_norm.register_forward_pre_hook(keep)
    try:
        with served(model, take):
            trunk(model, tokens)()
    finally:
        hook.remove()
    last_BLD = _norm(known.final_norm).centred(streams[-1].float())
    scale_BL1 = (last_BLD.square().mean(-1, keepdim=True) + _epsilon(known.final_norm)).sqrt()
    return Direct(mixed=mixed, outs=outs, scale_BL1=scale_BL1, vocabulary=_vocabulary(model))


def layout(model: "PreTrainedModel", /) -> Layout:
    """Where this model keeps its heads; NotApplicable where its layout is not one of ours."""
    kind: str = model.config.model_type
    core: Part = model.base_model
    if kind not in ("gpt2", "gpt_neox", *LIKE_LLAMA):
        raise NotApplicable(
            f"not applicable: heads are read into in GPT-2, GPT-NeoX and Llama layouts, and this is '{kind}'"
        )
    if _output(model) is None:
        raise NotApplicable(
            f"not applicable: this '{kind}' has no output matrix, so its heads add to no logit"
        )
    if kind == "gpt2":
        return Layout(core.h, core.ln_f, lambda block: block.attn.c_proj.weight.T, _gpt2_read, "ln_1")
    before = "input_layernorm"
    if kind == "gpt_neox":
        last = core.final_layer_norm
        return Layout(core.layers, last, lambda block: block.attention.dense.weight, _neox_read, before)
    return Layout(core.layers, core.norm, lambda block: block.self_attn.o_proj.weight, _llama_read, before)


def _gpt2_read(block: Part) -> tuple[Tensor, Tensor, Tensor, float]:
    part = block.attn
    # Their linear layers hold the transposed matrix.
    read_3HKD = part.c_attn.weight.T.reshape(3, part.num_heads, part.head_dim, -1)
    return read_3HKD[0], read_3HKD[1], read_3HKD[2], part.scaling


def _neox_read(block: Part) -> tuple[Tensor, Tensor, Tensor, float]:
    part = block.attention
    # A head's queries, keys and values stand together, head after head.
    read_H3KD = part.query_key_value.weight.view(-1, 3, part.head_size, part.query_key_value.in_features)
    return read_H3KD[:, 0], read_H3KD[:, 1], read_H3KD[:, 2], part.scaling


def _llama_read(block: Part) -> tuple[Tensor, Tensor, Tensor, float]:
    part = block.self_attn
    query, key, value = (
        one.weight.view(-1, part.head_dim, one.in_features) for one in (part.q_proj, part.k_proj, part.v_proj)
    )
    shared = part.num_key_value_groups
    return query, key.repeat_interleave(shared, 0), value.repeat_interleave(shared, 0), part.scaling


def _layers(model: "PreTrainedModel") -> list[Callable[[], Reading]]:
    known, place = layout(model), _place(model)
    return [partial(_read, known, block, place) for block in known.blocks]


def _read(known: Layout, block: Part, place: torch.device) -> Reading:
    gain_D = getattr(block, known.norm).weight
    for weight in block.parameters():
        _there(weight)
    *read, scale = known.read(block)
    query, key, value = (one.to(place).double() * gain_D.to(place).double() for one in read)
    return Reading(query, key, value, known.out(block).to(place).double(), scale)


def _vocabulary(model: "PreTrainedModel") -> Vocabulary:
    known = layout(model)
    embedding: Part = model.get_input_embeddings()
    return Vocabulary(
        embedding_VD=_there(embedding.weight),
        output_VD=_there(_output(model).weight),
        norm=_norm(known.final_norm),
        place=_place(model),
    )


def _output(model: "PreTrainedModel") -> Part:
    return model.get_output_embeddings()  # type: ignore[no-untyped-call]


def _norm(norm: Part) -> Norm:
    return Norm(_there(norm.weight), centres=isinstance(norm, nn.LayerNorm))


def _epsilon(norm: Part) -> float:
    return float(norm.eps if isinstance(norm, nn.LayerNorm) else norm.variance_epsilon)


def _place(model: "PreTrainedModel") -> torch.device:
    """Where double precision is at hand: next to the weights on CUDA, else on the CPU."""
    device: torch.device = _output(model).weight.device
    return device if device.type == "cuda" else torch.device("cpu")


def _there(weight: Tensor) -> Tensor:
    if weight.is_meta or not weight.is_floating_point():
        raise NotApplicable(
            "not applicable: heads are read into where weights are in memory and not packed; load the model "
            "whole, in a floating-point dtype"
        )
    return weight
