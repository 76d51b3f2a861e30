"""Cross-entropy and top-1 hits in one pass over chunks of tokens, never holding all logits.

Shapes: N scored tokens, C tokens of one chunk, D width of the model, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from repetita.model.products import narrow_product, product

CHUNK_VALUES = {"cpu": 2**18, "cuda": 2**26}
"""Logits held at once by kind of device: on the CPU 1 MB of float32, a core's L2 cache (measured)."""

LEAST_CHUNK = 256
"""Tokens a chunk has at least: thinner matrix products read the output matrix too often (V = 16,384: 61 to
80 GFLOP/s with 64 tokens, 84 to 96 with 256)."""

SMALL_OUTPUT = 2**18
"""Values of an output matrix up to which its gradient is added up transposed: MKL makes D x C x V up to 40%
faster than V x C x D while the sum stays in a core's cache (V = 1,024, D = 64)."""


class TokenScores(NamedTuple):
    """One value a scored token (N,): loss in nats (float32), hit and, if asked for, the most likely id."""

    loss_N: Tensor
    hit_N: Tensor
    predicted_N: Tensor | None = None


class Objective(NamedTuple):
    """A scalar to call `backward` on, and the scores of the tokens that it sums over."""

    value: Tensor
    loss_N: Tensor
    hit_N: Tensor


def chunk_tokens(vocab_size: int, *, device: str = "cpu") -> int:
    """Tokens whose logits are held at once."""
    return max(LEAST_CHUNK, CHUNK_VALUES.get(device, CHUNK_VALUES["cpu"]) // vocab_size)


@torch.no_grad()
def scored_cross_entropy(
    states_ND: Tensor, *, weight_VD: Tensor, targets_N: Tensor, predict: bool = False
) -> TokenScores:
    """Loss and top-1 hit of tokens from the states that predict them, without gradients.

    The logits of a token are `weight_VD @ state`. A hit is a target that no token beats, a tie going
    to the lowest id. With `predict` the most likely id as well: scoring takes up to half as
    long again (V = 8,192; 10% at V = 1,024).
    """
    size = chunk_tokens(len(weight_VD), device=weight_VD.device.type)
    logits = partial(product, weight_OI=weight_VD)
    return scored_in_chunks(states_ND, logits=logits, targets_N=targets_N, size=size, predict=predict)


@torch.no_grad()
def scored_in_chunks(
    states_ND: Tensor,
    *,
    logits: Callable[[Tensor], Tensor],
    targets_N: Tensor,
    size: int,
    predict: bool = False,
) -> TokenScores:
    """As `scored_cross_entropy`, `size` tokens at once, for any head that makes their logits from states.

    Logits come in float32 (C V) and in memory of their own, which is written over.
    """
    loss_N, hit_N = _empty_scores(states_ND)
    predicted_N = targets_N.clone() if predict else None
    for start in range(0, len(states_ND), size):
        part = slice(start, start + size)
        predicted_C = None if predicted_N is None else predicted_N[part]
        _chunk(logits(states_ND[part]), targets_N[part], loss_N[part], hit_N[part], predicted_C)
    return TokenScores(loss_N, hit_N, predicted_N)


def objective(states_ND: Tensor, *, weight_VD: Tensor, targets_N: Tensor, scale: float) -> Objective:
    """`scale` times the sum of the loss over tokens, differentiable, with the scores.

    The gradients of `states_ND` and `weight_VD` are computed in the same pass, chunk by chunk, so
    that `backward` recomputes nothing. For the mean over a step's batch give 1 / its scored tokens.
    Under autocast the factors of matrix products are rounded to its dtype; all else stays float32.
    """
    kind, dtype = states_ND.device.type, None
    if torch.is_autocast_enabled(kind):
        dtype, states_ND = torch.get_autocast_dtype(kind), states_ND.float()
    with torch.autocast(kind, enabled=False):
        made = _Objective.apply(states_ND, weight_VD, targets_N, scale, dtype)  # type: ignore[no-untyped-call]
    return Objective(*made)


def objective_of_head(
    states_ND: Tensor,
    *,
    logits: Callable[[Tensor], Tensor],
    targets_N: Tensor,
    scale: float,
    size: int,
) -> Objective:
    """As `objective`, `size` tokens at once, for any head that makes logits (C V) from states.

    What the head's own parameters get of the gradient they get here, the states when `backward` is called.
    """
    loss_N, hit_N = _empty_scores(states_ND)
    grad_states_ND = torch.empty_like(states_ND)
    for start in range(0, len(states_ND), size):
        part = slice(start, start + size)
        states_CD = states_ND[part].detach().requires_grad_()
        logits_CV = logits(states_CD)
        loss_C = F.cross_entropy(logits_CV, targets_N[part], reduction="none")
        (loss_C.sum() * scale).backward()  # type: ignore[no-untyped-call]
        loss_N[part], hit_N[part] = loss_C.detach(), logits_CV.argmax(dim=1) == targets_N[part]
        assert states_CD.grad is not None
        grad_states_ND[part] = states_CD.grad
    through = (states_ND * grad_states_ND).sum()
    return Objective(through - through.detach() + loss_N.sum() * scale, loss_N, hit_N)


class _Objective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        scale: float,
        dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if dtype is not None:
            return _narrow(ctx, states_ND, weight_VD, targets_N, scale, dtype)
        loss_N, hit_N = _empty_scores(states_ND)
        grad_states_ND = torch.empty_like(states_ND)
        turned = weight_VD.numel() <= SMALL_OUTPUT
        grad_weight = torch.zeros_like(
            weight_VD.T if turned else weight_VD, memory_format=torch.contiguous_format
        )
        size = chunk_tokens(len(weight_VD), device=weight_VD.device.type)
        for start in range(0, len(states_ND), size):
            part = slice(start, start + size)
            states_CD, target_C1 = states_ND[part], targets_N[part, None]
            grad_CV = _chunk(product(states_CD, weight_VD), targets_N[part], loss_N[part], hit_N[part])
            # d loss / d logits = softmax - one-hot, in the memory of the softmax.
            grad_CV.scatter_add_(1, target_C1, grad_CV.new_full(target_C1.shape, -1.0))
            grad_states_ND[part] = product(grad_CV, weight_VD.T)
            if turned:
                grad_weight.addmm_(states_CD.T, grad_CV)
            else:
                grad_weight.addmm_(grad_CV.T, states_CD)
        grad_weight_VD = grad_weight.T if turned else grad_weight
        ctx.save_for_backward(grad_states_ND.mul_(scale), grad_weight_VD.mul_(scale))
        ctx.mark_non_differentiable(loss_N, hit_N)
        return loss_N.sum() * scale, loss_N, hit_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_states_ND, grad_weight_VD = ctx.saved_tensors
        return grad_states_ND * grad, grad_weight_VD * grad, None, None, None


def _narrow(
    ctx: FunctionCtx,
    states_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    scale: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_Objective.forward`, the factors of each product rounded to `dtype` and its sum in float32."""
    loss_N, hit_N = _empty_scores(states_ND)
    grad_states_ND, grad_weight_VD = torch.empty_like(states_ND), torch.zeros_like(weight_VD)
    states, weight = states_ND.to(dtype), weight_VD.to(dtype)
    size = chunk_tokens(len(weight_VD), device=weight_VD.device.type)
    for start in range(0, len(states_ND), size):
        part = slice(start, start + size)
        logits_CV = narrow_product(states[part], weight.T, dtype=dtype)
        grad_CV = _chunk(logits_CV, targets_N[part], loss_N[part], hit_N[part])
        grad_CV.scatter_add_(1, targets_N[part, None], grad_CV.new_full((len(grad_CV), 1), -1.0))
        grad_narrow_CV = grad_CV.to(dtype)
        grad_states_ND[part] = narrow_product(grad_narrow_CV, weight, dtype=dtype)
        grad_weight_VD += narrow_product(grad_narrow_CV.T, states[part], dtype=dtype)
    ctx.save_for_backward(grad_states_ND.mul_(scale), grad_weight_VD.mul_(scale))
    ctx.mark_non_differentiable(loss_N, hit_N)
    return loss_N.sum() * scale, loss_N, hit_N


def _empty_scores(states_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the loss and hit of each token."""
    n = len(states_ND)
    loss_N = torch.empty(n, dtype=torch.float32, device=states_ND.device)
    return loss_N, torch.empty_like(loss_N, dtype=torch.bool)


def _chunk(
    logits_CV: Tensor,
    target_C: Tensor,
    loss_C: Tensor,
    hit_C: Tensor,
    predicted_C: Tensor | None = None,
) -> Tensor:
    """Write the loss and hit of a chunk; returns its softmax (C V), in the memory of the logits.

    `predicted_C` holds the targets; where they are missed the most likely id is written over them.

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
    if predicted_C is not None:
        missed_C = ~hit_C
        predicted_C[missed_C] = logits_CV[missed_C].argmax(dim=1)
    softmax_CV = torch.softmax(logits_CV, dim=1, out=logits_CV)
    best_C1 = torch.maximum(own_C1, rival_C1)
    loss_C.copy_((best_C1 - own_C1 - softmax_CV.amax(dim=1, keepdim=True).log())[:, 0])
    return softmax_CV
