"""AdamW as a run uses it: matrices alone decay, one clip over all gradients, state by parameter name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repetita.train.recipe import Recipe

_STEP = "step"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimizer:
    """AdamW over a model's parameters (Loshchilov and Hutter 2019), torch's fused kernel.

    Weight decay acts on matrices only, not on biases and norms. Learning rates are given step by step;
    the curve is the recipe's.
    """

    def __init__(self, model: nn.Module, *, recipe: Recipe) -> None:
        self.parameters = dict(model.named_parameters())
        self.clip_at = recipe.clip
        tensors = list(self.parameters.values())
        groups = [
            {"params": [p for p in tensors if p.ndim >= 2], "weight_decay": recipe.weight_decay},
            {"params": [p for p in tensors if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(
            groups, lr=0.0, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True
        )
        for parameter in tensors:  # as torch itself does at the first update; here to be saved before it
            self.adamw.state[parameter] = {
                _STEP: torch.zeros((), dtype=torch.float32, device=parameter.device)
            } | {moment: torch.zeros_like(parameter) for moment in _MOMENTS}

    def clear(self) -> None:
        """Forgets all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def clip(self) -> float:
        """The norm of all gradients together, before they are scaled down to the recipe's `clip`."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.clip_at is not None:
            torch._foreach_mul_(gradients, torch.clamp(self.clip_at / (norm + 1e-6), max=1.0))
        return float(norm)

    def update(self, *, learning_rate: float) -> None:
        """One update of the parameters from their gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.step()

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, a flat dict: `<parameter>.exp_avg`, `<parameter>.exp_avg_sq`, `step`."""
        states = {name: self.adamw.state[p] for name, p in self.parameters.items()}
        flat: dict[str, Tensor] = {
            f"{name}.{moment}": state[moment] for name, state in states.items() for moment in _MOMENTS
        }
        return flat | {_STEP: next(iter(states.values()))[_STEP]}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back a state that `tensors` gave."""
        for name, parameter in self.parameters.items():
            state = self.adamw.state[parameter]
            state[_STEP].copy_(tensors[_STEP])
            for moment in _MOMENTS:
                state[moment].copy_(tensors[f"{name}.{moment}"])
