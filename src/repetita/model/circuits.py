"""What single heads do: attribution to logits, copying and composition from the weights, ablation.

Shapes: B rows, L tokens, N positions of these B * L, D width of the model, H heads, K width of a head,
V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from repetita.errors import NotApplicable, SpecError
from repetita.model import attention, head_paths
from repetita.model.head_paths import Direct, Norm, Reading, Vocabulary
from repetita.model.transformer import Block, Dropout, Transformer
from repetita.subject import Head, Patterns

Heads = frozenset[tuple[int, int]]
NONE: Heads = frozenset()


class Layer(NamedTuple):
    """What a layer's attention did, and what it left."""

    mixed_BLHK: Tensor
    """Values as the heads mixed them, 0 for a head that is left out."""
    pattern_BHLL: Tensor
    after_BLD: Tensor
    """The residual stream after the layer, its MLP included."""


def walk(
    model: Transformer, tokens_BL: Tensor, *, without: Heads = NONE, patterns: Patterns = "frozen"
) -> Iterator[Layer]:
    """One layer after the other by explicit attention, the output of the heads `without` set to 0.

    A head's output is its mixed values times its part of the output matrix; the bias of that matrix belongs
    to no head and stays. With frozen patterns the model with all its heads runs beside and lends its own.
    """
    quiet, reach = Dropout(0.0), model.reach(tokens_BL)
    x_BLD = model.embed(tokens_BL)
    whole_BLD = x_BLD if without and patterns == "frozen" else None
    for number, block in enumerate(cast("Iterable[Block]", model.blocks)):
        heads_BL3HK = block.heads(x_BLD, model.rotary)
        mixed_BHLK, pattern_BHLL = attention.explicit(heads_BL3HK, reach=reach)
        if whole_BLD is not None:
            lent_BHLK, pattern_BHLL = attention.explicit(block.heads(whole_BLD, model.rotary), reach=reach)
            whole_BLD = block.finish(whole_BLD, lent_BHLK.transpose(1, 2).flatten(2), quiet)
            mixed_BHLK = pattern_BHLL @ heads_BL3HK[:, :, 2].transpose(1, 2)
        off = [head for layer, head in without if layer == number]
        mixed_BLHK = mixed_BHLK.transpose(1, 2).clone()
        mixed_BLHK[:, :, off] = 0
        x_BLD = block.finish(x_BLD, mixed_BLHK.flatten(2), quiet)
        yield Layer(mixed_BLHK, pattern_BHLL, x_BLD)


class Ablated:
    """A model without some of its heads, to be scored and looked into like any other."""

    def __init__(self, model: Transformer, *, heads: Iterable[tuple[int, int]], patterns: Patterns) -> None:
        self.heads = frozenset(Head(*head) for head in heads)
        shape = model.config.n_layer, model.config.n_head
        for layer, head in sorted(self.heads):
            if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
                raise SpecError(
                    f"without: there is no head {layer}.{head} in a model of {shape[0]} layers with "
                    f"{shape[1]} heads each; both count from 0"
                )
        self.config, self._model, self._patterns = model.config, model, patterns

    @property
    def output_weight(self) -> Tensor:
        """The output matrix (V D)."""
        return self._model.output_weight

    @property
    def mask_id(self) -> int | None:
        """The id of the mask of a masked model, None for a causal one."""
        return self._model.mask_id

    def states(self, tokens_BL: Tensor, /, *, at_N: Tensor) -> Tensor:
        """What the output matrix is applied to, at some of the flattened positions (N D)."""
        for layer in self._walk(tokens_BL):
            x_BLD = layer.after_BLD
        states_ND: Tensor = self._model.final_norm(x_BLD.flatten(0, 1)[at_N])
        return states_ND if self._model.head is None else self._model.head(states_ND)

    def patterns(self, tokens_BL: Tensor, /) -> Iterator[Tensor]:
        """Attention patterns (B H L L) of one layer after the other, as the ablated model has them."""
        for layer in self._walk(tokens_BL):
            yield layer.pattern_BHLL

    def _walk(self, tokens_BL: Tensor) -> Iterator[Layer]:
        return walk(self._model, tokens_BL, without=self.heads, patterns=self._patterns)


def direct(model: Transformer, tokens_BL: Tensor, /) -> Direct:
    """The direct path from each head of a causal model to the logits, for some rows of tokens."""
    _causal(model)
    mixed = []
    for layer in walk(model, tokens_BL):
        mixed.append(layer.mixed_BLHK)
        last_BLD = layer.after_BLD
    scale_BL1 = (last_BLD.var(-1, unbiased=False, keepdim=True) + model.final_norm.eps).sqrt()
    outs = [block.attention_out.weight for block in _blocks(model)]
    return Direct(mixed=mixed, outs=outs, scale_BL1=scale_BL1, vocabulary=_vocabulary(model))


def ov_copying(model: Transformer, /) -> Tensor:
    """sum(lambda) / sum |lambda| of each head's full OV circuit (n_layer H); see `Circuits.ov_copying`."""
    return head_paths.ov_copying(_vocabulary(model), layers=_layers(model))


def k_composition(model: Transformer, /) -> Tensor:
    """Traces of the QK circuits through earlier heads (n_layer H n_layer H); see `Circuits.k_composition`."""
    return head_paths.k_composition(_vocabulary(model), layers=_layers(model), norm=_norm(model))


def _blocks(model: Transformer) -> Iterable[Block]:
    return cast("Iterable[Block]", model.blocks)


def _norm(model: Transformer) -> Norm:
    return Norm(model.final_norm.weight, centres=True)


def _vocabulary(model: Transformer) -> Vocabulary:
    _causal(model)
    embedding_VD, output_VD = model.embedding.weight, model.output_weight
    place = torch.device("cpu")
    return Vocabulary(embedding_VD=embedding_VD, output_VD=output_VD, norm=_norm(model), place=place)


def _layers(model: Transformer) -> list[Callable[[], Reading]]:
    return [partial(_read, block) for block in _blocks(model)]


def _read(block: Block) -> Reading:
    read = (block.qkv.weight * block.attention_norm.weight).cpu().double()
    query_HKD, key_HKD, value_HKD = read.view(3, block.n_head, -1, read.shape[1])
    out_DC = block.attention_out.weight.cpu().double()
    return Reading(query_HKD, key_HKD, value_HKD, out_DC, query_HKD.shape[1] ** -0.5)


def _causal(model: Transformer) -> None:
    if model.head is not None:
        raise NotApplicable("not applicable: a masked model has a layer between its heads and its logits")
