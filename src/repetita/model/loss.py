"""Cross-entropy and top-1 hits in one pass over chunks of tokens, never holding all logits.

Shapes: B rows, L tokens, N scored tokens, C tokens of one chunk, D width of the model, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

CHUNK_VALUES = {"cpu": 2**18, "cuda": 2**26}
"""Logits held at once by kind of device: on the CPU 1 MB of float32, a core's L2 cache (measured)."""

LEAST_CHUNK = 64
"""Tokens a chunk has at least: thinner matrix products waste the core."""


class TokenScores(NamedTuple):
    """One value a position (B L): loss in nats (float32) and hit; 0 and False where not scored."""

    loss_BL: Tensor
    hit_BL: Tensor


class Objective(NamedTuple):
    """A scalar to call `backward` on, and the scores of the tokens that it sums over."""

    value: Tensor
    loss_BL: Tensor
    hit_BL: Tensor


def chunk_tokens(vocab_size: int, *, device: str = "cpu") -> int:
    """Tokens whose logits are held at once."""
    return max(LEAST_CHUNK, CHUNK_VALUES.get(device, CHUNK_VALUES["cpu"]) // vocab_size)


@torch.no_grad()
def scored_cross_entropy(
    hidden_BLD: Tensor, *, weight_VD: Tensor, targets_BL: Tensor, scored_BL: Tensor
) -> TokenScores:
    """Loss and top-1 hit of every scored position, without gradients.

    The logits of a position are `weight_VD @ hidden`. A hit is a target that no token beats, a tie
    going to the lowest id. Positions that are not scored cost nothing and may hold any target.
    """
    chosen_N, hidden_ND, targets_N = _scored(hidden_BLD, targets_BL, scored_BL)
    loss_N = torch.empty_like(chosen_N, dtype=torch.float32)
    hit_N = torch.empty_like(chosen_N, dtype=torch.bool)
    size = chunk_tokens(len(weight_VD), device=weight_VD.device.type)
    for start in range(0, len(chosen_N), size):
        part = slice(start, start + size)
        _chunk(hidden_ND[part] @ weight_VD.T, targets_N[part], loss_N[part], hit_N[part])
    return TokenScores(_spread(loss_N, chosen_N, scored_BL), _spread(hit_N, chosen_N, scored_BL))


def objective(
    hidden_BLD: Tensor, *, weight_VD: Tensor, targets_BL: Tensor, scored_BL: Tensor, scale: float
) -> Objective:
    """`scale` times the sum of the loss over scored positions, differentiable, with the scores.

    The gradients of `hidden_BLD` and `weight_VD` are computed in the same pass, chunk by chunk, so
    that `backward` recomputes nothing. For the mean over a step's batch give 1 / its scored tokens.
    """
    return Objective(*_Objective.apply(hidden_BLD, weight_VD, targets_BL, scored_BL, scale))  # type: ignore[no-untyped-call]


class _Objective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_BLD: Tensor,
        weight_VD: Tensor,
        targets_BL: Tensor,
        scored_BL: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        chosen_N, hidden_ND, targets_N = _scored(hidden_BLD, targets_BL, scored_BL)
        loss_N = torch.empty_like(chosen_N, dtype=torch.float32)
        hit_N = torch.empty_like(chosen_N, dtype=torch.bool)
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD)
        size = chunk_tokens(len(weight_VD), device=weight_VD.device.type)
        for start in range(0, len(chosen_N), size):
            part = slice(start, start + size)
            hidden_CD, target_C1 = hidden_ND[part], targets_N[part, None]
            grad_CV = _chunk(hidden_CD @ weight_VD.T, targets_N[part], loss_N[part], hit_N[part])
            # d loss / d logits = softmax - one-hot, in the memory of the softmax.
            grad_CV.scatter_add_(1, target_C1, grad_CV.new_full(target_C1.shape, -1.0))
            torch.mm(grad_CV, weight_VD, out=grad_hidden_ND[part])
            grad_weight_VD.addmm_(grad_CV.T, hidden_CD)
        grad_hidden_BLD = torch.zeros_like(hidden_BLD, memory_format=torch.contiguous_format)
        grad_hidden_BLD.flatten(0, 1).index_copy_(0, chosen_N, grad_hidden_ND.mul_(scale))
        ctx.save_for_backward(grad_hidden_BLD, grad_weight_VD.mul_(scale))
        loss_BL = _spread(loss_N, chosen_N, scored_BL)
        hit_BL = _spread(hit_N, chosen_N, scored_BL)
        ctx.mark_non_differentiable(loss_BL, hit_BL)
        return loss_N.sum() * scale, loss_BL, hit_BL

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_BLD, grad_weight_VD = ctx.saved_tensors
        return grad_hidden_BLD * grad, grad_weight_VD * grad, None, None, None


def _scored(hidden_BLD: Tensor, targets_BL: Tensor, scored_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flat positions of the scored tokens, their states and their targets."""
    chosen_N = scored_BL.flatten().nonzero()[:, 0]
    return chosen_N, hidden_BLD.flatten(0, 1)[chosen_N], targets_BL.flatten()[chosen_N]


def _chunk(logits_CV: Tensor, target_C: Tensor, loss_C: Tensor, hit_C: Tensor) -> Tensor:
    """Write the loss and hit of a chunk, return its softmax (C V); overwrites nothing else for good.

    Reductions to a maximum are 15 times as fast as `argmax` on a CPU, and torch's fused softmax is
    faster than its exp; so the best rival of the target is found by masking the target, and the loss
    comes from the largest probability, which unlike the target's own never underflows (it is >= 1/V).
    """
    target_C1 = target_C[:, None]
    own_C1 = logits_CV.gather(1, target_C1)
    logits_CV.scatter_(1, target_C1, -torch.inf)
    rival_C1 = logits_CV.amax(dim=1, keepdim=True)
    logits_CV.scatter_(1, target_C1, own_C1)
    hit_C.copy_((own_C1 > rival_C1)[:, 0])
    tie_C = (own_C1 == rival_C1)[:, 0]
    if tie_C.any():
        # Rare; argmax gives the first of equal values, hence the lowest id.
        hit_C[tie_C] = logits_CV[tie_C].argmax(dim=1) == target_C[tie_C]
    softmax_CV = logits_CV.softmax(dim=1)
    best_C1 = torch.maximum(own_C1, rival_C1)
    loss_C.copy_((best_C1 - own_C1 - softmax_CV.amax(dim=1, keepdim=True).log())[:, 0])
    return softmax_CV


def _spread(value_N: Tensor, chosen_N: Tensor, scored_BL: Tensor) -> Tensor:
    """Values of the scored tokens at their positions (B L), zero elsewhere."""
    value_BL = value_N.new_zeros(scored_BL.shape)
    value_BL.view(-1)[chosen_N] = value_N
    return value_BL
