"""Causal attention twice: fused for speed and explicit for its patterns, proved equal by a test.

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


def fused(heads: Heads) -> Tensor:
    """Mixed values (B H L K) of causal attention at scale 1/sqrt(K), without keeping the patterns."""
    return F.scaled_dot_product_attention(heads.q_BHLK, heads.k_BHLK, heads.v_BHLK, is_causal=True)


def explicit(heads: Heads) -> Attended:
    """The same as `fused`, written out; `pattern_BHLL[b, h, i, j]` is how much token i reads from j."""
    L, K = heads.q_BHLK.shape[-2:]
    score_BHLL = heads.q_BHLK @ heads.k_BHLK.mT * K**-0.5
    later_LL = torch.ones(L, L, dtype=torch.bool, device=score_BHLL.device).triu(1)
    pattern_BHLL = score_BHLL.masked_fill(later_LL, -torch.inf).softmax(dim=-1)
    return Attended(mixed_BHLK=pattern_BHLL @ heads.v_BHLK, pattern_BHLL=pattern_BHLL)
