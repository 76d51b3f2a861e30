"""Before a run: the smallest effect that a claim's seeds can show, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from repetita.fit.claim import detectable_effect, seeds_needed
from repetita.fit.estimate import LEVEL


def smallest_effect(*, n: int, sd: float, unit: str, predicted: float, primary: int) -> str:
    """What n seeds can show with power 0.8 where their effects have this standard deviation.

    `predicted` is the effect that the source leads one to expect, `primary` the number of primary claims that
    Holm's method shares the error rate among (the first of them is tested at 0.05 / primary).
    """
    needed = seeds_needed(effect=predicted, sd=sd)
    wanted = (
        f"{predicted:.3g} {unit} needs {needed} seeds"
        if needed
        else f"{predicted:.3g} {unit} is out of reach"
    )
    if n < 2:
        return f"nothing: one seed illustrates only; {wanted} (assumed sd over seeds {sd:g})"
    alone = detectable_effect(sd=sd, n=n)
    shared = detectable_effect(sd=sd, n=n, level=1 - (1 - LEVEL) / primary)
    return (
        f"{alone:.2g} {unit} with {n} seeds if it is the only claim, {shared:.2g} as first of {primary} by "
        f"Holm's method; {wanted} (assumed sd over seeds {sd:g})"
    )


def smallest_effects(
    *, n: int, sd: Mapping[str, float], unit: Mapping[str, str], predicted: Mapping[str, float]
) -> dict[str, str]:
    """`smallest_effect` of each of the primary claims that share `n` seeds, by name."""
    return {
        name: smallest_effect(n=n, sd=sd[name], unit=unit[name], predicted=predicted[name], primary=len(sd))
        for name in sd
    }


def paired_seeds(planned: Sequence[Mapping[str, Any]], *, by: Sequence[str]) -> int:
    """How many seeds every cell of the plan has; `by` are the labels that tell cells apart."""
    seeds: dict[tuple[Any, ...], set[Any]] = {}
    for labels in planned:
        seeds.setdefault(tuple(labels[name] for name in by), set()).add(labels["seed"])
    return len(set.intersection(*seeds.values()))
