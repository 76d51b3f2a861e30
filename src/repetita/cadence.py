"""When something is due: every n steps, at steps or passes, log-spaced; a cadence becomes a set of steps.

Step s is the state after s updates, so a run of n steps has the states 0 to n; the first and the last are
always due.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from repetita.errors import SpecError
from repetita.spec import ExactFraction, Spec


class Every(Spec):
    """Every `n` steps."""

    kind: Literal["every"] = "every"
    n: PositiveInt

    def steps(self, n_steps: int, *, steps_per_pass: Fraction | None = None) -> tuple[int, ...]:  # noqa: ARG002
        """The due steps of a run of `n_steps`, sorted, within [0, n_steps], with 0 and n_steps."""
        return _due(range(0, n_steps + 1, self.n), n_steps)


class At(Spec):
    """At the given steps; those after the end of the run are left out."""

    kind: Literal["at"] = "at"
    at: tuple[NonNegativeInt, ...]

    def steps(self, n_steps: int, *, steps_per_pass: Fraction | None = None) -> tuple[int, ...]:  # noqa: ARG002
        """See `Every.steps`."""
        return _due(self.at, n_steps)


class AtPasses(Spec):
    """After the given passes over the repeated set, each at the nearest step."""

    kind: Literal["at_passes"] = "at_passes"
    passes: tuple[ExactFraction, ...]

    def steps(self, n_steps: int, *, steps_per_pass: Fraction | None = None) -> tuple[int, ...]:
        """See `Every.steps`; raises SpecError when the treatment has no passes."""
        length = _pass_length(steps_per_pass)
        return _due((round(passes * length) for passes in self.passes), n_steps)


class LogSpaced(Spec):
    """Equal ratios from `first` on: `per_decade` points a decade, or `k` points to the end of the run.

    `unit` says what is counted, steps or passes, and `origin` (a step) where counting starts: an origin at an
    injection gives the log-spaced steps after it, and the origin itself.
    """

    kind: Literal["log_spaced"] = "log_spaced"
    per_decade: PositiveInt | None = None
    k: PositiveInt | None = None
    first: ExactFraction = Fraction(1)
    unit: Literal["steps", "passes"] = "steps"
    origin: NonNegativeInt = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.per_decade is None) == (self.k is None):
            raise SpecError("LogSpaced: give either per_decade or k (points in all), not both")
        if self.first <= 0:
            raise SpecError(f"LogSpaced: first = {self.first} must be above 0; the first step is always due")
        return self

    def steps(self, n_steps: int, *, steps_per_pass: Fraction | None = None) -> tuple[int, ...]:
        """See `Every.steps`; raises SpecError for unit passes when the treatment has no passes."""
        unit = 1.0 if self.unit == "steps" else float(_pass_length(steps_per_pass))
        first = float(self.first) * unit
        span = n_steps - self.origin
        if span < first:
            return _due((self.origin,), n_steps)
        if self.k is not None:
            ratio = (span / first) ** (1 / max(1, self.k - 1))
            points = [first * ratio**i for i in range(self.k)]
        else:
            assert self.per_decade is not None
            points = []
            while (point := first * 10 ** (len(points) / self.per_decade)) <= span:
                points.append(point)
        return _due((self.origin, *(self.origin + round(point) for point in points)), n_steps)


class Several(Spec):
    """The union of several cadences."""

    kind: Literal["several"] = "several"
    of: tuple["Cadence", ...]

    def steps(self, n_steps: int, *, steps_per_pass: Fraction | None = None) -> tuple[int, ...]:
        """See `Every.steps`."""
        parts = (cadence.steps(n_steps, steps_per_pass=steps_per_pass) for cadence in self.of)
        return _due((step for part in parts for step in part), n_steps)


Cadence = Annotated[Every | At | AtPasses | LogSpaced | Several, Field(discriminator="kind")]

Several.model_rebuild()


def _due(steps: Iterable[int], n_steps: int) -> tuple[int, ...]:
    return tuple(sorted({0, n_steps, *(step for step in steps if 0 <= step <= n_steps)}))


def _pass_length(steps_per_pass: Fraction | None) -> Fraction:
    if steps_per_pass is None:
        raise SpecError(
            "a cadence in passes needs a treatment that has passes from its first step on; give steps for a "
            "stream, or for a subset that starts later"
        )
    return steps_per_pass
