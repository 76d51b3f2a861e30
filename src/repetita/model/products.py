"""Matrix products of linear layers, on a CPU by oneDNN where they are large enough to be faster there.

Shapes: x any leading shape, I and O the widths in and out.
"""

import platform
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
"""Whether oneDNN's product can be called, by the operator that torch's compiler uses. It makes 106 to 111
GFLOP/s where MKL makes 95 to 103 (one thread of an AMD EPYC), and adds the bias in the same pass."""

LARGE = 2**28
"""Multiplications of a product from which oneDNN pays: its calls cost some 30 microseconds more."""


def linear(x_xI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """`x @ weight.T + bias`, differentiable."""
    if _suits(x_xI, weight_OI):
        y_xO: Tensor = _Linear.apply(x_xI, weight_OI, bias_O)  # type: ignore[no-untyped-call]
        return y_xO
    return F.linear(x_xI, weight_OI, bias_O)


def product(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    """`x @ weight.T` without gradients; either may be a transposed view."""
    return _onednn(x_NI, weight_OI, None) if _suits(x_NI, weight_OI) else x_NI @ weight_OI.T


def narrow_product(x_NI: Tensor, weight_IO: Tensor, *, dtype: torch.dtype) -> Tensor:
    """`x @ weight` in float32 of factors that are rounded to `dtype`, without gradients."""
    x_NI, weight_IO = x_NI.to(dtype), weight_IO.to(dtype)
    if x_NI.device.type == "cuda":
        return torch.mm(x_NI, weight_IO, out_dtype=torch.float32)
    return (x_NI @ weight_IO).float()


def _suits(x: Tensor, weight: Tensor) -> bool:
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return ONEDNN and on_cpu and x.numel() * len(weight) >= LARGE


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_xI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        x_NI = x_xI.flatten(0, -2)
        ctx.save_for_backward(x_NI, weight_OI)
        ctx.shape, ctx.has_bias = x_xI.shape, bias_O is not None  # type: ignore[attr-defined]
        return _onednn(x_NI, weight_OI, bias_O).view(*x_xI.shape[:-1], len(weight_OI))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_xO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI = ctx.saved_tensors
        grad_NO = grad_xO.flatten(0, -2)
        grad_x = _onednn(grad_NO, weight_OI.T, None).view(ctx.shape) if ctx.needs_input_grad[0] else None
        # The sum over tokens is MKL's: oneDNN is slower there.
        return grad_x, grad_NO.T @ x_NI, grad_NO.sum(0) if ctx.has_bias else None
