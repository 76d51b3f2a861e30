"""What single heads do: attribution to logits, copying and composition from the weights, ablation.

Shapes: B rows, L tokens, N positions of these B * L, D width of the model, H heads, K width of a head,
V vocabulary, C = H * K.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor

from repetita.errors import NotApplicable, SpecError
from repetita.model import attention
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
        self._model, self._patterns = model, patterns

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


class Direct:
    """The direct path from each head of a causal model to the logits, for some rows of tokens.

    The final norm is linear once its scale is held: it centres, divides by the deviation that the stream has
    with all heads at work, and multiplies by its gain. Logits count from their mean over the vocabulary.
    """

    def __init__(self, model: Transformer, tokens_BL: Tensor) -> None:
        _causal(model)
        self._model = model
        self._mixed = []
        for layer in walk(model, tokens_BL):
            self._mixed.append(layer.mixed_BLHK)
            last_BLD = layer.after_BLD
        norm = model.final_norm
        self._scale_BL1 = (last_BLD.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        self._out_VD = readout(model)

    def to_targets(self, targets_BL: Tensor, /) -> Iterator[Tensor]:
        """By layer what each head adds to the logit of the target (B L H)."""
        wanted_BLD = self._out_VD[targets_BL] / self._scale_BL1
        for block, mixed_BLHK in zip(_blocks(self._model), self._mixed, strict=True):
            wanted_BLHK = (wanted_BLD @ block.attention_out.weight).view(mixed_BLHK.shape)
            yield (mixed_BLHK * wanted_BLHK).sum(-1)

    def to_tokens(self, tokens_BL: Tensor, /) -> Iterator[Tensor]:
        """By layer what each head at token i adds to the logit of token j's id (B H L L)."""
        wanted_BLD = self._out_VD[tokens_BL]
        for block, mixed_BLHK in zip(_blocks(self._model), self._mixed, strict=True):
            wanted_BLHK = (wanted_BLD @ block.attention_out.weight).view(mixed_BLHK.shape)
            written_BLHK = mixed_BLHK / self._scale_BL1[..., None]
            yield written_BLHK.transpose(1, 2) @ wanted_BLHK.permute(0, 2, 3, 1)


def readout(model: Transformer, /) -> Tensor:
    """What the final norm's scaled stream is multiplied by for the logits less their mean (V D)."""
    out_VD = model.output_weight - model.output_weight.mean(0)
    out_VD = out_VD * model.final_norm.weight
    return out_VD - out_VD.mean(-1, keepdim=True)


def ov_copying(model: Transformer, /) -> Tensor:
    """sum(lambda) / sum |lambda| of each head's full OV circuit (n_layer H); see `Circuits.ov_copying`.

    The circuit (V V) is a product of (V K) and (K V), so that its eigenvalues other than 0 are those of the
    product (K K) in the other order.
    """
    _causal(model)
    between_DD = readout(model).cpu().double().T @ _embedded(model)
    found = []
    for block in _blocks(model):
        _, _, value_HKD = _read(block)
        out_HDK = block.attention_out.weight.cpu().double().T.view(value_HKD.shape).mT
        small_HKK = value_HKD @ between_DD.T @ out_HDK
        values_HK = torch.linalg.eigvals(small_HKK)
        found.append(values_HK.sum(-1).real / values_HK.abs().sum(-1))
    return torch.stack(found)


def k_composition(model: Transformer, /) -> Tensor:
    """Traces of the QK circuits through earlier heads (n_layer H n_layer H); see `Circuits.k_composition`.

    Both sides of rotary positions are taken unturned, as a token reading itself.
    """
    _causal(model)
    config = model.config
    shape_HKHK = (config.n_head, config.d_head) * 2
    embedded_VD, blocks = _embedded(model), list(_blocks(model))
    gram_DD = embedded_VD.T @ embedded_VD
    traces = torch.zeros((config.n_layer, config.n_head) * 2, dtype=torch.float64)
    for later, block in enumerate(blocks):
        query_HKD, key_HKD, _ = _read(block)
        # What an earlier head wrote is centred by the norm before it is read.
        key_HKD = key_HKD - key_HKD.mean(-1, keepdim=True)
        for earlier, other in enumerate(blocks[:later]):
            _, _, value_HKD = _read(other)
            out_DC = other.attention_out.weight.cpu().double()
            seen_CC = query_HKD.flatten(0, 1) @ gram_DD @ value_HKD.flatten(0, 1).T
            written_CC = key_HKD.flatten(0, 1) @ out_DC
            product_HKHK = (seen_CC * written_CC).view(shape_HKHK)
            traces[later, :, earlier] = product_HKHK.sum((1, 3)) / config.d_head**0.5
    return traces


def _blocks(model: Transformer) -> Iterable[Block]:
    return cast("Iterable[Block]", model.blocks)


def _embedded(model: Transformer) -> Tensor:
    """Embeddings as a norm centres them, in double precision (V D)."""
    embedded_VD = model.embedding.weight.cpu().double()
    return embedded_VD - embedded_VD.mean(-1, keepdim=True)


def _read(block: Block) -> tuple[Tensor, Tensor, Tensor]:
    """What each head's queries, keys and values read of a centred stream (H K D each)."""
    read = (block.qkv.weight * block.attention_norm.weight).cpu().double()
    read_3HKD = read.view(3, block.n_head, -1, read.shape[1])
    return read_3HKD[0], read_3HKD[1], read_3HKD[2]


def _causal(model: Transformer) -> None:
    if model.head is not None:
        raise NotApplicable("not applicable: a masked model has a layer between its heads and its logits")
