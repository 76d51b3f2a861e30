"""Attention twice: fast without its patterns and explicit with them, proved equal by a test.

Shapes: B rows, H heads, L tokens, K width of a head, 3 for queries, keys and values, G = B * H,
T queries of a tile, E keys that the tile may read.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

TILE = 64
"""Queries of a tile in causal attention on a CPU: smaller tiles compute less that is masked, larger ones have
better matrix products (measured: 32 and 64 are alike at 128 tokens, 64 is best at 512)."""

TILED_UP_TO = 1024
"""Tokens of a row up to which the patterns of a CPU's attention are kept for its backward pass."""


class Attended(NamedTuple):
    """What explicit attention gives: mixed values (B H L K) and patterns (B H L L), rows sum to 1."""

    mixed_BHLK: Tensor
    pattern_BHLL: Tensor


class Reach(NamedTuple):
    """Which tokens a token may read: all before it and itself if `causal`, else those of `keys_B11L`."""

    causal: bool
    keys_B11L: Tensor | None = None
    """True where a token is text and not padding; None where no row has padding."""


CAUSAL, BOTH_WAYS = Reach(causal=True), Reach(causal=False)


def fused(heads_BL3HK: Tensor, *, reach: Reach) -> Tensor:
    """Mixed values (B L H K) of queries, keys and values at scale 1/sqrt(K), without the patterns.

    On a CPU, in rows of up to TILED_UP_TO tokens, by matrix products over tiles of queries, whose backward
    pass computes nothing twice: torch's fused kernel takes 1.2 to 1.4 times as long there (docs/log.md).
    """
    exact_on_cpu = heads_BL3HK.device.type == "cpu" and heads_BL3HK.dtype == torch.float32
    if exact_on_cpu and reach.keys_B11L is None and heads_BL3HK.shape[1] <= TILED_UP_TO:
        mixed_BLHK: Tensor = _Tiled.apply(heads_BL3HK, reach.causal)  # type: ignore[no-untyped-call]
        return mixed_BLHK
    q_BHLK, k_BHLK, v_BHLK = heads_BL3HK.permute(2, 0, 3, 1, 4).unbind()
    mixed_BHLK: Tensor = F.scaled_dot_product_attention(
        q_BHLK, k_BHLK, v_BHLK, attn_mask=reach.keys_B11L, is_causal=reach.causal
    )
    return mixed_BHLK.transpose(1, 2)


def explicit(heads_BL3HK: Tensor, *, reach: Reach) -> Attended:
    """The same as `fused`, written out; `pattern_BHLL[b, h, i, j]` is how much token i reads from j."""
    q_BHLK, k_BHLK, v_BHLK = heads_BL3HK.permute(2, 0, 3, 1, 4).unbind()
    L, K = q_BHLK.shape[-2:]
    score_BHLL = q_BHLK @ k_BHLK.mT * K**-0.5
    if reach.causal:
        later_LL = torch.ones(L, L, dtype=torch.bool, device=score_BHLL.device).triu(1)
        score_BHLL = score_BHLL.masked_fill(later_LL, -torch.inf)
    if reach.keys_B11L is not None:
        score_BHLL = score_BHLL.masked_fill(~reach.keys_B11L, -torch.inf)
    pattern_BHLL = score_BHLL.softmax(dim=-1)
    return Attended(mixed_BHLK=pattern_BHLL @ v_BHLK, pattern_BHLL=pattern_BHLL)


class _Tiled(torch.autograd.Function):
    """Attention by tiles of queries, each over the keys that it may read; patterns are kept."""

    @staticmethod
    def forward(ctx: FunctionCtx, heads_BL3HK: Tensor, causal: bool) -> Tensor:
        B, L, _, H, K = heads_BL3HK.shape
        heads_3BHLK = heads_BL3HK.new_empty(3, B, H, L, K).copy_(heads_BL3HK.permute(2, 0, 3, 1, 4))
        q_GLK, k_GLK, v_GLK = heads_3BHLK.view(3, B * H, L, K).unbind()
        q_GLK.mul_(K**-0.5)
        mixed_BLHK: Tensor = q_GLK.new_empty(B, L, H, K)
        mixed_BHLK, patterns = mixed_BLHK.transpose(1, 2), []
        later_TT = q_GLK.new_full((TILE, TILE), -torch.inf).triu_(1)
        for start, stop in _tiles(L, causal):
            size, n_keys = stop - start, stop if causal else L
            pattern_GTE = torch.bmm(q_GLK[:, start:stop], k_GLK[:, :n_keys].mT)
            if causal:
                pattern_GTE[:, :, start:].add_(later_TT[:size, :size])
            torch.softmax(pattern_GTE, dim=-1, out=pattern_GTE)
            tile_GTK = torch.bmm(pattern_GTE, v_GLK[:, :n_keys])
            mixed_BHLK[:, :, start:stop].copy_(tile_GTK.view(B, H, size, K))
            patterns.append(pattern_GTE)
        ctx.save_for_backward(q_GLK, k_GLK, v_GLK, *patterns)
        ctx.causal = causal  # type: ignore[attr-defined]
        return mixed_BLHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLHK: Tensor) -> tuple[Tensor | None, ...]:
        q_GLK, k_GLK, v_GLK, *patterns = ctx.saved_tensors
        B, L, H, K = grad_BLHK.shape
        grad_GLK = grad_BLHK.transpose(1, 2).reshape(B * H, L, K)
        grads_3GLK = q_GLK.new_zeros(3, B * H, L, K)
        dq_GLK, dk_GLK, dv_GLK = grads_3GLK
        for (start, stop), pattern_GTE in zip(_tiles(L, ctx.causal), patterns, strict=True):
            n_keys, grad_GTK = pattern_GTE.shape[2], grad_GLK[:, start:stop]
            dpattern_GTE = torch.bmm(grad_GTK, v_GLK[:, :n_keys].mT)
            dscore_GTE = torch._softmax_backward_data(dpattern_GTE, pattern_GTE, -1, dpattern_GTE.dtype)
            dv_GLK[:, :n_keys].add_(torch.bmm(pattern_GTE.mT, grad_GTK))
            dk_GLK[:, :n_keys].add_(torch.bmm(dscore_GTE.mT, q_GLK[:, start:stop]))
            dq_GLK[:, start:stop].add_(torch.bmm(dscore_GTE, k_GLK[:, :n_keys]), alpha=K**-0.5)
        return grads_3GLK.view(3, B, H, L, K).permute(1, 3, 0, 2, 4), None


def _tiles(n_tokens: int, causal: bool) -> list[tuple[int, int]]:
    """Where tiles begin and end; without causality nothing is saved by more than one."""
    size = TILE if causal else n_tokens
    return list(pairwise([*range(0, n_tokens, size), n_tokens]))
