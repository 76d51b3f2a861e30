"""Exposure of canaries by how often they were written: intervals over them, and a tail beyond the sample."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.fit.estimate import Estimate, t_interval
from repetita.fit.tail import FEWEST, SkewNormal, fit_skew_normal

Floats = NDArray[np.float64]


class ExposureEstimate(NamedTuple):
    """Mean exposure, in bits, of the canaries that were written equally often."""

    written: int
    """How often each of them was."""
    sampled: Estimate
    """By rank among the candidates. Where a canary ranks before all of them its exposure is a lower bound, so
    that the interval is open above."""
    at_bound: int
    """Canaries that do."""
    fitted: Estimate | None
    """By the tail fitted to the candidates; None where there is none (too few of them, or all the same)."""
    extrapolated: int
    """Canaries more likely than every candidate: what `fitted` makes of them is beyond all that was seen."""
    p_value: float | None
    """Goodness of the fit, see `SkewNormal`; small: `fitted` is not to be believed."""

    @property
    def text(self) -> str:
        """What has to stand beside the mean: whether it is a bound, and what the tail makes of it."""
        n = self.sampled.n
        said = [f"{self.at_bound} of {n} rank before all candidates: at least this"] * (self.at_bound > 0)
        if self.fitted is not None:
            said.append(
                f"by a fitted tail {self.fitted.text()}, {self.extrapolated} of {n} extrapolated, its fit "
                f"p = {self.p_value:.2g}"
            )
        return "; ".join(said)


def exposure_estimates(items: Mapping[str, NDArray[Any]], /, *, space: int) -> list[ExposureEstimate]:
    """Of each count, the smallest first; `items` are those of a `CanaryProbe`, `space` all possible secrets.

    Intervals are t over canaries, drawn at random: of one model, whose seed and order are not in them.
    """
    own, others = items["loss"], items["candidate_loss"]
    tail = None
    if len(others) >= FEWEST and np.isfinite(others).all() and np.ptp(others) > 0:
        tail = fit_skew_normal(others)
    found = []
    for count in np.unique(items["count"]).tolist():
        of = items["count"] == count
        at_bound = int(items["at_bound"][of].sum())
        sampled = _over_canaries(items["exposure"][of], method="t over canaries")
        if at_bound:
            sampled = sampled._replace(high=None, method="t over canaries, some a lower bound")
        fitted = None
        if tail is not None:
            bits = fitted_exposure(own[of], tail=tail, space=space)
            fitted = _over_canaries(bits, method="t over canaries, by a fitted skew-normal tail")
        extrapolated = int((own[of] < others.min()).sum())
        p_value = None if tail is None else tail.p_value
        found.append(ExposureEstimate(count, sampled, at_bound, fitted, extrapolated, p_value))
    return found


def fitted_exposure(losses: ArrayLike, /, *, tail: SkewNormal, space: int) -> Floats:
    """-log2 of the share of secrets as likely as each canary by a fitted tail; at most log2 of all of them.

    Carlini et al. 2019, "The Secret Sharer", section 4.
    """
    if space < 1:
        raise SpecError(f"fitted_exposure: a space of {space} secrets holds none; give 10 ** digits")
    return np.asarray(np.minimum(-tail.log_cdf(losses) / math.log(2), math.log2(space)))


def _over_canaries(bits: Floats, *, method: str) -> Estimate:
    found = t_interval(bits, contains="canaries")
    return found._replace(method="one canary" if len(bits) == 1 else method)
