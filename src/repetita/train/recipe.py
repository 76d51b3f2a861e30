"""A run as a value: corpus, model, treatment, optimizer recipe and seed (torch-free)."""

import math
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import Treatment
from repetita.errors import SpecError
from repetita.model.config import ModelConfig
from repetita.spec import Spec


class Recipe(Spec):
    """AdamW and its learning-rate curve, with the memorization paper's settings as defaults.

    Linear warm-up from 0 over `warmup_steps`, then constant, or cosine or linear down to
    `final_share` of the peak at step `horizon` (default: the end of the run).
    """

    learning_rate: PositiveFloat
    warmup_steps: int = Field(default=100, ge=0)
    curve: Literal["constant", "cosine", "linear"] = "constant"
    horizon: PositiveInt | None = None
    final_share: float = Field(default=0.1, ge=0, le=1)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    eps: PositiveFloat = 1e-8
    weight_decay: float = Field(default=0.0, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    clip: PositiveFloat | None = 1.0

    def lr(self, step: int) -> float:
        """Learning rate of update `step` (the first update is step 0 and its rate is above zero)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.curve == "constant":
            return self.learning_rate
        assert self.horizon is not None
        span = max(1, self.horizon - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / span)
        shape = 0.5 * (1 + math.cos(math.pi * done)) if self.curve == "cosine" else 1 - done
        return self.learning_rate * (self.final_share + (1 - self.final_share) * shape)


class RunSpec(Spec):
    """Everything that changes the result of one run; its fingerprint names the run's folder.

    `steps` updates of `batch_size` sequences each. Probes, cadence, device, threads, micro-batch and
    engine are not here: they do not change the result.
    """

    corpus: CorpusSpec
    model: ModelConfig
    treatment: Treatment
    recipe: Recipe
    steps: PositiveInt
    batch_size: PositiveInt
    seed: int = 0

    @model_validator(mode="after")
    def _settle(self) -> Self:
        """Fill in what the run's size decides, so that runs that are equal have equal specs."""
        total = self.steps * self.batch_size
        treatment = self.treatment.settled(total=total, batch_size=self.batch_size)
        horizon = None if self.recipe.curve == "constant" else self.recipe.horizon or self.steps
        if horizon is not None and horizon < self.recipe.warmup_steps:
            raise SpecError(
                f"Recipe: warmup_steps = {self.recipe.warmup_steps} is longer than the learning-rate curve "
                f"({horizon} steps); shorten the warm-up or lengthen the run"
            )
        object.__setattr__(self, "treatment", treatment)
        object.__setattr__(self, "recipe", self.recipe.edit(horizon=horizon))
        return self

    def until(self, step: int) -> Self:
        """The run of the first `step` steps: the trunk that this run shares with its forks."""
        return self.edit(steps=step, treatment=self.treatment.until(step))
