"""AdamW over parameters of which each process holds a part (FSDP2); whole tensors out of parts and back."""

import torch
from torch import Tensor, distributed

from repetita.train.optimizer import MOMENTS, STEP, Trainable
from repetita.train.recipe import Recipe


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """A tensor out of the parts of all processes, which all must call it; where it has none, itself."""
    from torch.distributed.tensor import DTensor  # As in `parallel`, not where nothing is shared.

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


@torch.no_grad()
def fill(tensor: Tensor, *, value: Tensor | None) -> None:
    """Writes a whole value, which rank 0 alone has, into the tensor of all processes; all must call it."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    place = _local(tensor).device
    if value is None:
        full = torch.empty(tensor.shape, dtype=tensor.dtype, device=place)
    else:
        full = value.to(device=place, dtype=tensor.dtype).contiguous()
    if isinstance(tensor, DTensor):
        part = distribute_tensor(full, tensor.device_mesh, tensor.placements)
        tensor.to_local().copy_(part.to_local())
    else:
        distributed.broadcast(full, src=0)
        tensor.copy_(full)


class ShardedOptimizer:
    """As `optimizer.Optimizer`, for a model whose parameters FSDP2 has sharded.

    Parameters are not flattened here: each is a stretch of what FSDP2 itself gathers and reduces at once.
    """

    def __init__(self, model: Trainable, *, recipe: Recipe) -> None:
        named = dict(model.named_parameters())
        order = sorted(named, key=lambda name: named[name].ndim < 2)
        self.parameters = {name: named[name] for name in order}
        self.clip_at = recipe.clip
        matrices = [p for p in self.parameters.values() if p.ndim >= 2]
        others = [p for p in self.parameters.values() if p.ndim < 2]
        self._adamw = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.eps,
            fused=True,
        )
        for p in self.parameters.values():
            self._adamw.state[p] = {
                STEP: torch.zeros((), dtype=torch.float32, device=_local(p).device),
                **{moment: torch.zeros_like(p, requires_grad=False) for moment in MOMENTS},
            }

    def clear(self) -> None:
        """Sets all gradients to zero."""
        self._adamw.zero_grad(set_to_none=True)

    @torch.no_grad()
    def clip(self) -> float:
        """The norm of all gradients together, before they are scaled down to the recipe's `clip`."""
        gradients = [_local(p.grad) for p in self.parameters.values() if p.grad is not None]
        square = torch.stack([g.double().square().sum() for g in gradients]).sum()
        distributed.all_reduce(square)
        norm = float(square.sqrt())
        if self.clip_at is not None and norm > self.clip_at:
            torch._foreach_mul_(gradients, self.clip_at / norm)
        return norm

    def update(self, *, learning_rate: float) -> None:
        """One update of the parameters from their gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()

    def parts(self) -> dict[str, Tensor]:
        """This process's part of the state: `<parameter>.exp_avg`, `<parameter>.exp_avg_sq`, `step`."""
        state = {name: self._adamw.state[p] for name, p in self.parameters.items()}
        parts = {f"{name}.{moment}": of[moment] for moment in MOMENTS for name, of in state.items()}
        return parts | {STEP: next(iter(state.values()))[STEP]}

    def count_on(self) -> None:
        """Counts the updates of all parameters as `step` says, once that is filled."""
        done = self.parts()[STEP]
        for of in self._adamw.state.values():
            of[STEP].copy_(done)


def _local(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
