"""Verdicts on slopes of which some are bounds, since runs ended before what is looked for."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.times_to_memorize import Bound, Slope, bound_of

SLOPE_UNIT = "(slope of ln T on ln N)"
BOUNDS = "where runs ended before that the slope is a bound, which decides in its own direction only"


def slope_claim(
    slopes: Mapping[Hashable, Slope] | None,
    *,
    name: str,
    statement: str,
    source: str,
    direction: Literal["above", "below"] = "below",
    note: str = "",
    primary: bool = True,
    unit: str = SLOPE_UNIT,
) -> Claim:
    """Whether the mean slope lies below (above) 0: t test over seeds.

    Where runs ended before what is looked for, the slope of their seed is a bound. Bounds of one side decide
    in their own direction only: if small models were not seen to the end, the true slope is lower still.
    """
    bound = "unknown" if slopes is None else bound_of(list(slopes.values()))
    if slopes is None or bound == "unknown":
        why = "too few sizes get there within their runs to tell the sign of the slope"
        return undecided(
            name=name, statement=statement, source=source, primary=primary, n=len(slopes or ()),
            rule=f"slope {direction} 0 {unit}, t test over seeds; {BOUNDS}",
            note="no seed has every planned size" if slopes is None else why,
        )  # fmt: skip
    values = by_seed({seed: slope.value for seed, slope in slopes.items()})
    claim = directional(
        values, name=name, statement=statement, source=source, primary=primary, unit=unit,
        direction=direction, note=note,
    )  # fmt: skip
    claim = claim._replace(rule=f"{claim.rule}; {BOUNDS}")
    return claim if bound == "exact" else bounded(claim, bound, values)


def bounded(claim: Claim, bound: Bound, values: Sequence[float]) -> Claim:
    """The claim with the side of its estimate open on which nothing is known."""
    assert claim.estimate is not None
    low, high = claim.estimate.low, claim.estimate.high
    if len(values) == 1:
        low = high = values[0]
    at_most = bound == "at_most"
    opened = claim.estimate._replace(value=None, low=None if at_most else low, high=high if at_most else None)
    note = "; ".join(part for part in (claim.note, "some sizes were not seen to the end") if part)
    claim = claim._replace(estimate=opened, note=note)
    if claim.leaning is None:
        return claim
    below = (claim.leaning == "supported") == claim.rule.startswith("supported if below")
    return claim if below == at_most else claim._replace(verdict="inconclusive", p=None, leaning=None)
