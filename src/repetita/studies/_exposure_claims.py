"""Claims on exposures: equality of all levels within a margin, differences of two, slopes against a count."""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

import numpy as np

from repetita.fit.claim import Claim, by_seed, detectable_margin, directional, equivalent, undecided
from repetita.fit.estimate import LEVEL, t_interval
from repetita.studies._exposure import Exposure
from repetita.studies._exposure_curves import By, Level, seeds_of_all
from repetita.studies._power import smallest_effect

PAPER = "Tirumala et al. 2022"

KEPT_SD = 0.005
"""Assumed standard deviation over seeds of a difference between two levels in what is kept, in M(f), for
planning only: a guess. No verdict uses it."""
RAW_SD = 0.01
"""The same for the lowest M itself."""


def alike(
    levels: Sequence[Level],
    *,
    by: By,
    names: Mapping[Exposure, str],
    margin: float,
    name: str,
    statement: str,
    source: str,
    unit: str,
    primary: bool = True,
) -> Claim:
    """Whether all levels are equal within +-margin: every pair of them, each by two one-sided tests.

    `names` gives the planned levels. All pairs have to pass, so the p-value is that of
    the pair that is hardest to pass (intersection-union test), and no error rate is shared among them; a
    pair contradicts only at 0.05 / number of pairs.
    """
    there = [level for level in levels if level.exposure in names]
    seeds = seeds_of_all(there)
    rule = f"every pair of {len(names)} levels equal within +-{margin:g} {unit} (two one-sided t tests)"
    if len(there) < len(names) or not seeds:
        return undecided(
            name=name, statement=statement, source=source, rule=rule, primary=primary,
            note=f"no seed has all {len(names)} levels",
        )  # fmt: skip
    drafts: list[tuple[str, Claim]] = []
    for one, other in combinations(there, 2):
        mine, theirs = by(one), by(other)
        pair = " minus ".join(names[level.exposure] for level in (one, other))
        gaps = [mine[seed] - theirs[seed] for seed in seeds]
        drafts.append(
            (pair, equivalent(gaps, name=name, statement=statement, source=source, margin=margin, unit=unit,
                              primary=primary))
        )  # fmt: skip
    pair, chosen = _hardest(drafts)
    shown = {names[level.exposure]: float(np.mean([by(level)[seed] for seed in seeds])) for level in there}
    levels_kept = ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
    parts = [f"the pair that decides: {pair}", chosen.note, f"means: {levels_kept}"]
    if max(map(abs, shown.values())) < margin:
        parts.append("every level by itself is nearer to 0 than the margin, so that equality says little")
    if len(drafts) > 1:
        chosen = chosen._replace(
            rule=f"{chosen.rule}; for every pair of {len(there)} levels, a contradiction at 0.05 / "
            f"{len(drafts)} pairs"
        )
    return chosen._replace(note="; ".join(part for part in parts if part))


def _hardest(drafts: Sequence[tuple[str, Claim]]) -> tuple[str, Claim]:
    """The pair that decides: the clearest one beyond the margin, else the one hardest to show equal."""
    apart = [(pair, claim) for pair, claim in drafts if claim.leaning == "contradicted"]
    if apart:
        pair, claim = min(apart, key=lambda draft: draft[1].p or 0.0)
        p = min(1.0, (claim.p or 0.0) * len(drafts))
        return pair, claim._replace(p=p, verdict="contradicted" if p <= 1 - LEVEL else "inconclusive")
    if drafts[0][1].n < 2:
        return max(drafts, key=lambda draft: abs(_value(draft[1])))
    return max(drafts, key=lambda draft: draft[1].p or 0.0)


def _value(claim: Claim) -> float:
    return 0.0 if claim.estimate is None or claim.estimate.value is None else claim.estimate.value


def more(
    one: Level | None,
    other: Level | None,
    *,
    by: By,
    name: str,
    statement: str,
    source: str,
    unit: str,
    note: str = "",
    primary: bool = True,
) -> Claim:
    """Whether `one` has more than `other`, paired by seed."""
    seeds = seeds_of_all([one, other]) if one is not None and other is not None else []
    if one is None or other is None or not seeds:
        return undecided(
            name=name, statement=statement, source=source, primary=primary,
            rule="difference above 0 (t test over seeds)", note="no seed has both levels",
        )  # fmt: skip
    mine, theirs = by(one), by(other)
    return directional(
        [mine[seed] - theirs[seed] for seed in seeds],
        name=name, statement=statement, source=source, unit=unit, note=note, primary=primary,
    )  # fmt: skip


def rises(
    levels: Sequence[Level],
    *,
    by: By,
    n_planned: int,
    name: str,
    statement: str,
    source: str,
    note: str = "",
) -> Claim:
    """Slope against log10 of the number of exposures, by seed, over all planned levels."""
    seeds = seeds_of_all(levels)
    if len(levels) < n_planned or not seeds or n_planned < 2:
        return undecided(
            name=name, statement=statement, source=source, primary=True,
            rule="slope above 0 (t test over seeds)", note=f"no seed has all {n_planned} levels",
        )  # fmt: skip
    counts = np.log10([level.exposure.times for level in levels])
    # Rounded far below one token: the fit leaves 1e-17 of equal values, alike in every seed.
    slopes = [round(np.polyfit(counts, [by(level)[seed] for level in levels], 1)[0], 12) for seed in seeds]
    return directional(
        slopes, name=name, statement=statement, source=source, note=note,
        unit="of M(f) per tenfold number of exposures",
    )  # fmt: skip


def remains(level: Level, *, name: str, what: str, primary: bool = False) -> Claim:
    """Whether anything is kept at a level: without it equality of levels says nothing."""
    twins = t_interval(by_seed(level.curves.last("minus_twin"))).text()
    return directional(
        by_seed(level.kept()),
        name=name,
        statement=f"{what}: {level.curves.x[-1] - 1:.0f} updates after the last exposure the special batches "
        "are still known better than without it",
        source=f"{PAPER}, section 5, with the placebo fork that the paper lacks",
        unit="of M(f), special minus placebo",
        note=f"against the never-seen twin (difference in differences): {twins}",
        primary=primary,
    )


def smallest_margin(*, n: int, sd: float, margin: float) -> str:
    """What equality n seeds can show with power 0.8 if the levels are equal, in words."""
    if n < 2:
        return f"nothing: one seed illustrates only (assumed sd over seeds {sd:g})"
    found = detectable_margin(sd=sd, n=n)
    enough = next((many for many in range(5, 1000) if detectable_margin(sd=sd, n=many) <= margin), None)
    wanted = (
        f"the margin {margin:g} needs {enough} seeds" if enough else f"the margin {margin:g} is out of reach"
    )
    return (
        f"equality within {found:.2g} of M(f) for one pair of levels with {n} seeds; {wanted} "
        f"(assumed sd over seeds {sd:g})"
    )


def smallest_slope(*, n: int, counts: Sequence[int], predicted: float, primary: int) -> str:
    """The smallest slope against log10 of the counts that n seeds can show, in words."""
    spread = float(np.std(np.log10(counts))) * math.sqrt(len(counts))
    unit = "of M(f) per tenfold number of exposures"
    return smallest_effect(
        n=n, sd=round(KEPT_SD / spread, 4), unit=unit, predicted=predicted, primary=primary
    )


def means(by_level: Mapping[str, Mapping[Hashable, float]], /) -> str:
    """Values by level in one line, each with its interval."""
    return ", ".join(
        f"{name} {t_interval(by_seed(dict(values))).text()}" for name, values in by_level.items()
    )
