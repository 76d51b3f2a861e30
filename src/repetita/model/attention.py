"""Causal attention twice: fused for speed and explicit for its patterns, proved equal by a test.

Shapes: B rows, H heads, L tokens, K width of a head.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Attended(NamedTuple):
    """What explicit attention gives: mixed values (B H L K) and patterns (B H L L), rows sum to 1."""

    mixed: Tensor
    pattern: Tensor


def fused(q_BHLK: Tensor, *, k_BHLK: Tensor, v_BHLK: Tensor) -> Tensor:
    """Mixed values (B H L K) of causal attention at scale 1/sqrt(K), without keeping the patterns."""
    return F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, is_causal=True)


def explicit(q_BHLK: Tensor, *, k_BHLK: Tensor, v_BHLK: Tensor) -> Attended:
    """The same as `fused`, written out; `pattern[b, h, i, j]` is how much token i reads from token j."""
    L, K = q_BHLK.shape[-2:]
    score_BHLL = q_BHLK @ k_BHLK.mT * K**-0.5
    later_LL = torch.ones(L, L, dtype=torch.bool, device=q_BHLK.device).triu(1)
    pattern_BHLL = score_BHLL.masked_fill(later_LL, -torch.inf).softmax(dim=-1)
    return Attended(mixed=pattern_BHLL @ v_BHLK, pattern=pattern_BHLL)
