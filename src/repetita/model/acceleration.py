"""How a transformer is computed faster or in less memory, its parameters and their names as they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from repetita.errors import SpecError, nearest
from repetita.model.transformer import Transformer

Dtype = Literal["float32", "bfloat16"]


def accelerate(model: Transformer, /, *, compiled: bool = False, recompute: bool = False) -> None:
    """Has the layers of a model compiled by torch, or their activations computed again for the backward pass.

    What is compiled differs in the last bits from what is not; to compute again gives the same bits. Of the
    memory for activations, what is kept with `recompute` is the residual stream before each layer.
    """
    for block in model.blocks:
        for name in ("forward", "at"):
            method: Callable[..., Tensor] = getattr(block, name)
            if compiled:
                method = torch.compile(method)
            if recompute:
                method = _again_backward(method)
            setattr(block, name, method)


@contextmanager
def precision(dtype: Dtype, /, *, device: torch.device) -> Iterator[None]:
    """Within it matrix products are computed in `dtype`; weights, norms, softmax and losses stay float32."""
    if dtype == "float32":
        yield
        return
    with torch.autocast(device.type, dtype=getattr(torch, dtype)):
        yield


def dtype_of(name: str, /) -> Dtype:
    """The number format of this name; SpecError for one that no run is computed in."""
    if name not in get_args(Dtype):
        raise SpecError(f"dtype '{name}' is none that a run computes in; {nearest(name, get_args(Dtype))}")
    return cast("Dtype", name)


def _again_backward(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # No state of generators is kept: what is dropped comes from a generator of the run, which refuses this.
    again: Any = partial(checkpoint, method, use_reentrant=False, preserve_rng_state=False)

    def call(x_BLD: Tensor, **others: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return method(x_BLD, **others)
        found: Tensor = again(x_BLD, **others)
        return found

    return call
