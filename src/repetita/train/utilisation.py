"""Model-FLOPs utilisation: what share of its devices' peak a run's updates use."""

from collections.abc import Sequence
from statistics import median

import torch

from repetita.model.config import ModelConfig, flops_per_token
from repetita.model.peaks import peak_of
from repetita.train.recipe import RunSpec


def utilisation(spec: RunSpec, *, seconds: Sequence[float], device: torch.device, world: int) -> str | None:
    """One sentence on the share of the peak in 16 bits that the median update used (Chowdhery et al. 2022).

    Operations are those of the model's matrix products, forward and backward, whatever is computed twice.
    None for a device whose peak is not known, as no CPU's is, and before any step.
    """
    if device.type != "cuda" or not seconds:
        return None
    name = torch.cuda.get_device_name(device)
    peak = peak_of(name)
    if peak is None:
        return None
    model, length = spec.model, spec.corpus.length
    read = model.edit(context=length) if isinstance(model, ModelConfig) else model
    operations = flops_per_token(read).matmul * spec.batch_size * length
    rate = operations / median(seconds)
    return (
        f"{rate / (peak * world):.1%} of the 16-bit peak of {world} x {name} ({peak / 1e12:g} TFLOP/s each): "
        f"{operations / 1e12:.3g} TFLOP in {median(seconds):.3g} s, median of {len(seconds)} steps"
    )
