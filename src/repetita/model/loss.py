"""Cross-entropy and top-1 hits in one pass over chunks of tokens, never holding all logits.

Shapes: B rows, L tokens, N scored tokens, C tokens of one chunk, D width of the model, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_VALUES = 2**17
"""Logits in one chunk on the CPU: 512 KB of float32, half of a core's L2 cache."""


class TokenScores(NamedTuple):
    """One value a position (B L): loss in nats (float32) and hit; 0 and False where not scored."""

    loss: Tensor
    hit: Tensor


class Objective(NamedTuple):
    """A scalar to call `backward` on, and the scores of the tokens that it sums over."""

    value: Tensor
    loss: Tensor
    hit: Tensor


def chunk_tokens(vocab_size: int) -> int:
    """Tokens whose logits are held at once."""
    return max(16, CHUNK_VALUES // vocab_size)


@torch.no_grad()
def scored_cross_entropy(hidden_BLD: Tensor, *, weight_VD: Tensor, targets_BL: Tensor, scored_BL: Tensor) -> TokenScores:
    """Loss and top-1 hit of every scored position, without gradients.

    The logits of a position are `weight_VD @ hidden`. A hit is a target that no token beats, a tie
    going to the lowest id. Positions that are not scored cost nothing and may hold any target.
    """
    chosen_N, hidden_ND, targets_N = _scored(hidden_BLD, targets_BL, scored_BL)
    loss_N = hidden_ND.new_empty(len(chosen_N))
    hit_N = torch.empty_like(chosen_N, dtype=torch.bool)
    size = chunk_tokens(len(weight_VD))
    for start in range(0, len(chosen_N), size):
        part = slice(start, start + size)
        logp_CV = torch.mm(hidden_ND[part], weight_VD.T).log_softmax(dim=-1)
        _score(logp_CV, targets_N[part], loss_N[part], hit_N[part])
    return TokenScores(loss=_spread(loss_N, chosen_N, scored_BL), hit=_spread(hit_N, chosen_N, scored_BL))


def objective(
    hidden_BLD: Tensor, *, weight_VD: Tensor, targets_BL: Tensor, scored_BL: Tensor, scale: float
) -> Objective:
    """`scale * sum of the loss over scored positions`, differentiable, with the scores.

    The gradients of `hidden_BLD` and `weight_VD` are computed in the same pass, chunk by chunk, so
    that `backward` recomputes nothing. For the mean over a step's batch give 1 / its scored tokens.
    """
    value, loss_BL, hit_BL = _Objective.apply(hidden_BLD, weight_VD, targets_BL, scored_BL, scale)  # type: ignore[no-untyped-call]
    return Objective(value=value, loss=loss_BL, hit=hit_BL)


class _Objective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_BLD: Tensor, weight_VD: Tensor, targets_BL: Tensor, scored_BL: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        chosen_N, hidden_ND, targets_N = _scored(hidden_BLD, targets_BL, scored_BL)
        loss_N = hidden_ND.new_empty(len(chosen_N))
        hit_N = torch.empty_like(chosen_N, dtype=torch.bool)
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD)
        size = chunk_tokens(len(weight_VD))
        for start in range(0, len(chosen_N), size):
            part = slice(start, start + size)
            hidden_CD, targets_C = hidden_ND[part], targets_N[part]
            logp_CV = torch.mm(hidden_CD, weight_VD.T).log_softmax(dim=-1)
            _score(logp_CV, targets_C, loss_N[part], hit_N[part])
            # d loss / d logits = softmax - one-hot, in the memory of the log-probabilities.
            grad_CV = logp_CV.exp_()
            grad_CV.scatter_add_(1, targets_C[:, None], grad_CV.new_full((len(targets_C), 1), -1.0))
            torch.mm(grad_CV, weight_VD, out=grad_hidden_ND[part])
            grad_weight_VD.addmm_(grad_CV.T, hidden_CD)
        grad_hidden_BLD = torch.zeros_like(hidden_BLD)
        grad_hidden_BLD.view(-1, hidden_BLD.shape[-1])[chosen_N] = grad_hidden_ND.mul_(scale)
        ctx.save_for_backward(grad_hidden_BLD, grad_weight_VD.mul_(scale))
        loss_BL = _spread(loss_N, chosen_N, scored_BL)
        hit_BL = _spread(hit_N, chosen_N, scored_BL)
        ctx.mark_non_differentiable(loss_BL, hit_BL)
        return loss_N.sum() * scale, loss_BL, hit_BL

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_BLD, grad_weight_VD = ctx.saved_tensors
        return grad_hidden_BLD * grad, grad_weight_VD * grad, None, None, None


def _scored(hidden_BLD: Tensor, targets_BL: Tensor, scored_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flat positions of the scored tokens, their states and their targets."""
    chosen_N = scored_BL.flatten().nonzero()[:, 0]
    return chosen_N, hidden_BLD.flatten(0, 1)[chosen_N], targets_BL.flatten()[chosen_N]


def _score(logp_CV: Tensor, targets_C: Tensor, loss_C: Tensor, hit_C: Tensor) -> None:
    """Write loss and hit of a chunk; `argmax` gives the first of equal values, hence the lowest id."""
    torch.neg(logp_CV.gather(1, targets_C[:, None])[:, 0], out=loss_C)
    torch.eq(logp_CV.argmax(dim=-1), targets_C, out=hit_C)


def _spread(value_N: Tensor, chosen_N: Tensor, scored_BL: Tensor) -> Tensor:
    """Values of the scored tokens at their positions (B L), zero elsewhere."""
    value_BL = value_N.new_zeros(scored_BL.shape)
    value_BL.view(-1)[chosen_N] = value_N
    return value_BL
