"""When a model begins to overfit, and what it knows by then: validation loss and M(f) by run."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from repetita.fit.curves import first_rise, sustained_rise
from repetita.fit.estimate import Crossing
from repetita.studies._speed import CAUSAL, Points

if TYPE_CHECKING:
    import polars as pl

SUSTAINED_PASSES = 2.0
"""For so many passes over the training set every look at the validation text has to lie above the onset: the
same number of tokens for all sizes of a scale (rule 14)."""

How = Literal["sustained", "pass before", "that pass"]
SUSTAINED: How = "sustained"
BEFORE: How = "pass before"
THAT: How = "that pass"
HOWS: tuple[How, ...] = (SUSTAINED, BEFORE, THAT)
"""The first point that all later ones of the window exceed; and of the paper's first pass at whose end
perplexity is higher than at the end of the one before, the pass before and that pass itself."""


class Run(NamedTuple):
    """One run; states are passes over the training set."""

    objective: str
    size: str
    seed: Hashable
    n_params: int
    """Non-embedding parameters."""
    loss: Points
    """Nats a token on validation text."""
    test: Points
    """Accuracy on validation text."""
    memorized: Points
    """M(f) on the training set."""

    def onset(self, how: How, /) -> Crossing:
        """The pass at which overfitting begins, or for `pass before` the one before it."""
        passes, loss = self.loss.updates, self.loss.value
        if how == SUSTAINED:
            some = passes > 0
            return sustained_rise(passes[some], y=loss[some], window=SUSTAINED_PASSES, unit="pass")
        whole = (passes > 0) & (passes == np.round(passes))
        found = first_rise(passes[whole], y=loss[whole], unit="pass")
        return found._replace(x=found.low) if how == BEFORE and found.reached else found

    def before(self, how: How, /) -> Crossing:
        """M(f) there; where the run ended without overfitting, at least what it was at the end."""
        at, end = self.onset(how).x, float(self.memorized.value[-1])
        value = None if at is None else float(self._at(self.memorized, at))
        return Crossing(value, value, value, end, "share")

    def excess(self, how: How, /) -> float | None:
        """M(f) there minus accuracy on validation text; None where the run did not overfit."""
        at = self.onset(how).x
        return None if at is None else float(self._at(self.memorized, at) - self._at(self.test, at))

    def _at(self, points: Points, passes: float) -> float:
        return float(np.interp(passes, points.updates, points.value))


Runs = dict[tuple[str, str], dict[Hashable, Run]]
"""By objective and size, causal first and then by parameters; then by seed."""


def runs(table: "pl.DataFrame") -> Runs:
    """The runs with at least two looks at validation text and at M(f)."""
    import polars as pl

    found: list[Run] = []
    for _, part in table.filter(pl.col("value").is_not_null()).group_by("folder", maintain_order=True):
        labels = part.row(0, named=True)
        a_pass = labels["n_sequences"] / labels["batch_size"]

        def points(probe: str, metric: str, part: "pl.DataFrame" = part, a_pass: float = a_pass) -> Points:
            rows = part.filter((pl.col("probe") == probe) & (pl.col("metric") == metric)).sort("step")
            return Points(rows["step"].to_numpy() / a_pass, rows["value"].to_numpy())

        loss, test = points("validation", "loss"), points("validation", "memorized")
        memorized = points("train", "memorized")
        if min(len(of.updates) for of in (loss, test, memorized)) > 1:
            found.append(
                Run(
                    labels["objective"],
                    labels["size"],
                    labels["seed"],
                    labels["non_embedding"],
                    loss,
                    test,
                    memorized,
                )
            )
    ordered: Runs = {}
    for run in sorted(found, key=lambda run: (run.objective != CAUSAL, run.n_params, str(run.seed))):
        ordered.setdefault((run.objective, run.size), {})[run.seed] = run
    return ordered


def by_size(found: Runs, *, objective: str) -> dict[str, dict[Hashable, Run]]:
    """Runs of an objective by size, smallest first, then seed."""
    return {size: of for (kind, size), of in found.items() if kind == objective}
