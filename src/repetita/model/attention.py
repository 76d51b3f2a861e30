"""Attention twice: fused for speed and explicit for its patterns, proved equal by a test.

Shapes: B rows, H heads, L tokens, K width of a head.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Heads(NamedTuple):
    """Queries, keys and values, each B H L K."""

    q_BHLK: Tensor
    k_BHLK: Tensor
    v_BHLK: Tensor


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


def fused(heads: Heads, *, reach: Reach) -> Tensor:
    """Mixed values (B H L K) at scale 1/sqrt(K), without keeping the patterns."""
    return F.scaled_dot_product_attention(
        heads.q_BHLK, heads.k_BHLK, heads.v_BHLK, attn_mask=reach.keys_B11L, is_causal=reach.causal
    )


def explicit(heads: Heads, *, reach: Reach) -> Attended:
    """The same as `fused`, written out; `pattern_BHLL[b, h, i, j]` is how much token i reads from j."""
    L, K = heads.q_BHLK.shape[-2:]
    score_BHLL = heads.q_BHLK @ heads.k_BHLK.mT * K**-0.5
    if reach.causal:
        later_LL = torch.ones(L, L, dtype=torch.bool, device=score_BHLL.device).triu(1)
        score_BHLL = score_BHLL.masked_fill(later_LL, -torch.inf)
    if reach.keys_B11L is not None:
        score_BHLL = score_BHLL.masked_fill(~reach.keys_B11L, -torch.inf)
    pattern_BHLL = score_BHLL.softmax(dim=-1)
    return Attended(mixed_BHLK=pattern_BHLL @ heads.v_BHLK, pattern_BHLL=pattern_BHLL)
