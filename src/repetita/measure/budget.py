"""What measuring may cost: a share of a run's compute, turned into sequences read at a time."""

from fractions import Fraction
from typing import Self

from pydantic import model_validator

from repetita.corpus.masking import DRAWS
from repetita.errors import SpecError
from repetita.measure.probe import PassProbe
from repetita.spec import ExactFraction, introduced

FORWARD = Fraction(1, 3)
"""Compute of a scored token in that of a trained one: forward, without the two halves of backward."""


def times_scored(objective: str) -> int:
    """How often a model of this objective is sent a row to have all its tokens scored once."""
    return DRAWS if objective == "masked" else 1


class BudgetedProbe(PassProbe):
    """Base of the probes whose rows a share of the run's compute can decide."""

    budget: ExactFraction | None = introduced(None)
    """Largest share of the run's training compute that all measurements together may take, the same number
    of sequences at each of them. It decides `max_sequences` when the run is planned, and only that says what
    was read: measured more often, a probe reads fewer sequences, and what it had measured before is measured
    again. Give `max_sequences` itself where states are to be added later."""

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.budget is not None and self.budget <= 0:
            raise SpecError(
                f"{type(self).__name__}: budget = {self.budget} pays for nothing; give a share above 0"
            )
        return self

    def within(self, *, training_tokens: int, measurements: int, length: int, objective: str) -> Self:
        """The same with `max_sequences` as the budget allows, and no budget any more.

        `length` is that of a sequence. Raises SpecError where the budget pays for no sequence.
        """
        if self.budget is None:
            return self
        tokens = self.budget * training_tokens / FORWARD
        rows = int(tokens / (measurements * len(self.on) * length * times_scored(objective)))
        if not rows:
            raise SpecError(
                f"probe '{self.name}': a budget of {float(self.budget):.2g} of the run's compute pays for no "
                f"sequence at {measurements} states; raise it, measure more seldom or give max_sequences"
            )
        return self.edit(budget=None, max_sequences=min(rows, self.max_sequences or rows))
