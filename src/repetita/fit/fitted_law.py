"""What comes back of a law fitted to a table: parameters with intervals, every optimum, warnings."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from repetita.fit.estimate import Estimate


class Predictor(Protocol):
    """Something that knows the law's values."""

    def predict(self, x: Any, /) -> NDArray[np.float64]:
        """The law at x."""
        ...


class LawOptimum(NamedTuple):
    """One optimum of a law: another one nearly as good as the best has other parameters."""

    objective: float
    params: Mapping[str, float]


class FittedLaw(NamedTuple):
    """A law and its parameters."""

    law: str
    formula: str
    values: Mapping[str, Estimate]
    """Each parameter of the formula; a bound that the data do not give is open."""
    n: int
    """Rows that were fitted; curves (seeds) for a decay of columns x and y."""
    fit: Predictor
    """The fit itself, with what else is known of it (for a power law of x and y its AICc, scatter, range)."""
    objective: float | None = None
    """What was minimised, summed over rows: Huber's loss (delta 1e-3) of ln loss, or half the squares."""
    r2: float | None = None
    """Share of the variance of the last column that the law explains."""
    optima: tuple[LawOptimum, ...] = ()
    """Every distinct optimum with an objective within 5% of the best, best first."""
    warnings: tuple[str, ...] = ()

    def predict(self, x: Any, /) -> NDArray[np.float64]:
        """The law at x: numbers for a law of one column, else a mapping of columns."""
        return self.fit.predict(x)


def explained(observed: NDArray[np.float64], *, predicted: NDArray[np.float64]) -> float | None:
    """1 minus the residual over the total sum of squares; None where all observations are equal."""
    total = float(((observed - observed.mean()) ** 2).sum())
    return 1 - float(((observed - predicted) ** 2).sum()) / total if total > 0 else None
