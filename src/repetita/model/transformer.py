"""The whole transformer in one file: pre-norm, causal or masked, with or without MLP; shapes in names.

Shapes: B rows, L tokens, N positions of these B * L, D width of the model, H heads, K width of a
head, M width of the MLP, V vocabulary. Padding (id 0) stands at the end of a row and is never scored:
causal attention needs no mask for it, attention in both directions leaves it out.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repetita import seeds
from repetita.model import attention
from repetita.model.config import ModelConfig
from repetita.model.loss import Objective, objective
from repetita.model.products import linear

INIT_STD = 0.02
"""Standard deviation of the initial matrices (GPT-2)."""

ROTARY_BASE = 10_000.0
"""Base of the rotary frequencies (Su et al. 2021)."""


class Transformer(nn.Module):
    """A language model with `config`'s shape and the initial weights that `seed` decides.

    Without a seed it has none yet (its parameters are on the meta device): see `holding`.

    `states` and `output_weight` are all that training and scoring ask of a model: the logits are
    `states @ output_weight.T`, which no code here ever computes whole. Weights are float32 on the
    CPU; the same seed gives two models the same value of every parameter that they share in name
    and shape, whatever the rest of their configs. No global generator is touched, and nothing here
    differs between torch's training and evaluation modes. GELU is the exact one (with erf), which on
    a CPU is 2.7 times as fast as its tanh approximation.
    """

    def __init__(self, config: ModelConfig, *, seed: int | None) -> None:
        super().__init__()
        self.config = config
        D, V, masked = config.d_model, config.n_ids, config.objective == "masked"
        # Built on the meta device: torch's own initialisation would draw from the global generator.
        self.embedding = nn.Embedding(V, D, device="meta")
        learned = config.position == "learned"
        self.position = nn.Embedding(config.context, D, device="meta") if learned else None
        self.embedding_norm = nn.LayerNorm(D, device="meta") if masked else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = nn.LayerNorm(D, device="meta")
        self.head = Head(config) if masked else None
        self.output = nn.Linear(D, V, bias=False, device="meta") if config.output == "untied" else None
        if seed is not None:
            self.to_empty(device="cpu")
            for name, parameter in self.named_parameters():
                initialise(parameter, name=name, n_layer=config.n_layer, seed=seed)
        self.rotary: Rotary | None = None if learned else Rotary(config)

    @classmethod
    def holding(cls, config: ModelConfig, *, weights: Mapping[str, Tensor]) -> Self:
        """A model of this shape whose parameters are these tensors, on whatever device they are."""
        model = cls(config, seed=None)
        model.load_state_dict(weights, assign=True)
        return model

    @property
    def output_weight(self) -> Tensor:
        """The output matrix (V D)."""
        return self.embedding.weight if self.output is None else self.output.weight

    @property
    def mask_id(self) -> int | None:
        """The id of the mask, None for a causal model."""
        return self.config.vocab_size if self.head is not None else None

    def hidden(self, tokens_BL: Tensor) -> Tensor:
        """The states of all positions (B L D); see `states`."""
        every_N = torch.arange(tokens_BL.numel(), device=tokens_BL.device)
        return self.states(tokens_BL, at_N=every_N).view(*tokens_BL.shape, -1)

    def states(
        self,
        tokens_BL: Tensor,
        *,
        at_N: Tensor,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the output matrix is applied to (N D), for token ids (B L), L at most `context`.

        `at_N` are the positions wanted among the flattened B * L, rising. What follows the last
        attention is computed for these alone.

        With `dropout` above 0 the embedding and what each branch adds to the residual stream are
        dropped with that probability, drawn from `generator` (which must then be given); attention
        patterns are not dropped.
        """
        drop, reach = Dropout(dropout, generator=generator), self.reach(tokens_BL)
        x_BLD = drop(self.embed(tokens_BL))
        *blocks, last = cast("Iterable[Block]", self.blocks)
        for block in blocks:
            x_BLD = block(x_BLD, reach=reach, rotary=self.rotary, drop=drop)
        x_ND = last.at(x_BLD, at_N=at_N, reach=reach, rotary=self.rotary, drop=drop)
        states_ND: Tensor = self.final_norm(x_ND)
        return states_ND if self.head is None else self.head(states_ND)

    def objective(self, states_ND: Tensor, *, targets_N: Tensor, scale: float) -> Objective:
        """See `loss.objective`."""
        return objective(states_ND, weight_VD=self.output_weight, targets_N=targets_N, scale=scale)

    def patterns(self, tokens_BL: Tensor) -> Iterator[Tensor]:
        """Attention patterns (B H L L) of one layer after the other, by explicit attention."""
        x_BLD, reach = self.embed(tokens_BL), self.reach(tokens_BL)
        for block in cast("Iterable[Block]", self.blocks):
            x_BLD, pattern_BHLL = block.explain(x_BLD, reach=reach, rotary=self.rotary)
            yield pattern_BHLL

    def embed(self, tokens_BL: Tensor) -> Tensor:
        """The residual stream before the first layer (B L D)."""
        x_BLD: Tensor = self.embedding(tokens_BL)
        if self.position is not None:
            x_BLD = x_BLD + self.position.weight[: tokens_BL.shape[1]]
        return x_BLD if self.embedding_norm is None else self.embedding_norm(x_BLD)

    def reach(self, tokens_BL: Tensor) -> attention.Reach:
        """Which tokens a token may read."""
        if self.head is None:
            return attention.CAUSAL
        if bool((tokens_BL[:, -1] != 0).all()):
            return attention.BOTH_WAYS
        text_BL = (tokens_BL != 0).flip(1).cummax(1).values.flip(1)
        text_BL[:, 0] = True  # A row without text would have nothing to read.
        return attention.Reach(causal=False, keys_B11L=text_BL[:, None, None])


class Block(nn.Module):
    """One layer: attention, then (where d_mlp is not 0) an MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, M = config.d_model, config.mlp_width
        self.n_head = config.n_head
        self.attention_norm = nn.LayerNorm(D, device="meta")
        self.qkv = nn.Linear(D, 3 * D, device="meta")
        self.attention_out = nn.Linear(D, D, device="meta")
        self.mlp_norm = nn.LayerNorm(D, device="meta") if M else None
        self.mlp_in = nn.Linear(D, M, device="meta") if M else None
        self.mlp_out = nn.Linear(M, D, device="meta") if M else None

    def forward(
        self, x_BLD: Tensor, *, reach: attention.Reach, rotary: "Rotary | None", drop: "Dropout"
    ) -> Tensor:
        """The residual stream after this layer."""
        mixed_BLHK = attention.fused(self.heads(x_BLD, rotary), reach=reach)
        return self.finish(x_BLD, mixed_BLHK.flatten(2), drop)

    def at(
        self,
        x_BLD: Tensor,
        *,
        at_N: Tensor,
        reach: attention.Reach,
        rotary: "Rotary | None",
        drop: "Dropout",
    ) -> Tensor:
        """The residual stream after this layer at some of the flattened positions alone (N D)."""
        mixed_BLHK = attention.fused(self.heads(x_BLD, rotary), reach=reach)
        x_ND, mixed_ND = x_BLD.flatten(0, 1), mixed_BLHK.flatten(0, 1).flatten(1)
        if 2 * len(at_N) < len(x_ND):
            return self.finish(x_ND[at_N], mixed_ND[at_N], drop)
        # To pick nearly all positions costs more than to compute the others as well.
        x_ND = self.finish(x_ND, mixed_ND, drop)
        return x_ND if len(at_N) == len(x_ND) else x_ND[at_N]

    def explain(
        self, x_BLD: Tensor, *, reach: attention.Reach, rotary: "Rotary | None"
    ) -> tuple[Tensor, Tensor]:
        """The residual stream after this layer and the layer's attention patterns (B H L L)."""
        mixed_BHLK, pattern_BHLL = attention.explicit(self.heads(x_BLD, rotary), reach=reach)
        return self.finish(x_BLD, mixed_BHLK.transpose(1, 2).flatten(2), Dropout(0.0)), pattern_BHLL

    def heads(self, x_BLD: Tensor, rotary: "Rotary | None") -> Tensor:
        """Queries, keys and values (B L 3 H K)."""
        qkv_BLD3 = _apply(self.qkv, self.attention_norm(x_BLD))
        B, L, D3 = qkv_BLD3.shape
        heads_BL3HK = qkv_BLD3.view(B, L, 3, self.n_head, D3 // (3 * self.n_head))
        if rotary is None:
            return heads_BL3HK
        turned_BL2HK = rotary(heads_BL3HK[:, :, :2]).to(heads_BL3HK.dtype)
        return torch.cat((turned_BL2HK, heads_BL3HK[:, :, 2:]), dim=2)

    def finish(self, x_xD: Tensor, mixed_xD: Tensor, drop: "Dropout") -> Tensor:
        """Everything after the attention, position by position (x: any leading shape)."""
        x_xD = x_xD + drop(_apply(self.attention_out, mixed_xD))
        if self.mlp_norm is None or self.mlp_in is None or self.mlp_out is None:
            return x_xD
        return x_xD + drop(_apply(self.mlp_out, F.gelu(_apply(self.mlp_in, self.mlp_norm(x_xD)))))


class Head(nn.Module):
    """What a masked model has before its output matrix: dense, GELU, norm (as RoBERTa)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model, device="meta")
        self.norm = nn.LayerNorm(config.d_model, device="meta")

    def forward(self, states_ND: Tensor) -> Tensor:
        """States as the output matrix takes them."""
        ready_ND: Tensor = self.norm(F.gelu(_apply(self.dense, states_ND)))
        return ready_ND


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021), first half of a head paired with the second (as GPT-NeoX)."""

    cos_L11K: Tensor
    sin_L11K: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        K = config.d_head
        frequency = ROTARY_BASE ** -(torch.arange(0, K, 2, dtype=torch.float64) / K)
        angle = torch.outer(torch.arange(config.context, dtype=torch.float64), frequency).repeat(1, 2)
        angle_L11K = angle[:, None, None]
        self.register_buffer("cos_L11K", angle_L11K.cos().float(), persistent=False)
        self.register_buffer("sin_L11K", angle_L11K.sin().float(), persistent=False)

    def forward(self, x_BL2HK: Tensor) -> Tensor:
        """Queries and keys turned by their position."""
        L, K = x_BL2HK.shape[1], x_BL2HK.shape[-1]
        first, second = x_BL2HK[..., : K // 2], x_BL2HK[..., K // 2 :]
        turned_BL2HK = torch.cat((-second, first), dim=-1)
        return x_BL2HK * self.cos_L11K[:L] + turned_BL2HK * self.sin_L11K[:L]


def _apply(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


class Dropout:
    """Dropout from an explicit generator; probability 0 returns its input itself."""

    def __init__(self, probability: float, *, generator: torch.Generator | None = None) -> None:
        if probability > 0 and generator is None:
            raise ValueError("dropout above 0 draws from an explicit generator; give one")
        self.probability, self.generator = probability, generator

    def __call__(self, x: Tensor) -> Tensor:
        if self.probability == 0:
            return x
        keep = 1 - self.probability
        return x * torch.empty_like(x).bernoulli_(keep, generator=self.generator).div_(keep)


@torch.no_grad()
def initialise(values: Tensor, *, name: str, n_layer: int, seed: int) -> Tensor:
    """GPT-2's initial values: normal of std 0.02, residual projections divided by sqrt(2 n_layer).

    Each matrix has a stream of its own, named by the parameter, so that a larger vocabulary or another
    output matrix leaves every other parameter as it was.
    """
    if name.endswith("norm.weight"):
        return values.fill_(1.0)
    if name.endswith("bias"):
        return values.zero_()
    residual = name.endswith(("attention_out.weight", "mlp_out.weight"))
    std = INIT_STD / (2 * n_layer) ** 0.5 if residual else INIT_STD
    generator = torch.Generator().manual_seed(seeds.key(seed, f"init/{name}"))
    return values.normal_(0.0, std, generator=generator)
