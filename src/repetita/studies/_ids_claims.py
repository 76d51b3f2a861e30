"""Claims on document IDs: six primary ones at the size of most runs, the headline first."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.studies._ids import Size
from repetita.studies._ids_runs import (
    CONSTANT,
    ORIGINAL,
    OTHER,
    OWN,
    REDRAWN,
    TEST,
    TEST_BEHIND,
    TRAINED,
    UNTIED,
    UNTIED_OWN,
    UNTIED_VOCABULARY,
    VOCABULARY,
    WIDER,
    WITHOUT,
    conditions_of,
)
from repetita.studies._power import smallest_effect

PAPER = "Tirumala et al. 2022, Fig. 6"
UNIT = "of M(f), mean over the passes"


class Gap(NamedTuple):
    """A claim that M(f) of one condition lies above that of another."""

    name: str
    statement: str
    source: str
    upper: str
    lower: str
    predicted: float = 0.05
    """What the source leads one to expect, for planning."""


STEPS = (
    Gap("ids-above-original", "with an ID before each sequence more of the set is memorized than without",
        f"{PAPER}: about 0.90 against 0.80 after 100 passes", OWN, ORIGINAL, 0.1),
    Gap("vocabulary-above-original", "a vocabulary enlarged by IDs that are never used memorizes more",
        f"{PAPER}: about 0.85 against 0.80 after 100 passes", VOCABULARY, ORIGINAL),
    Gap("ids-above-vocabulary", "IDs that are used add to what the larger vocabulary does",
        f"{PAPER}: about 0.90 against 0.85 after 100 passes", OWN, VOCABULARY),
    Gap("ids-above-redrawn", "it matters that an ID stays with its sequence: IDs drawn anew do less",
        "ours: the control of an identifier that identifies nothing", OWN, REDRAWN),
    Gap("vocabulary-above-wider", "parameters in unused IDs do more than as many in a wider MLP",
        "ours: the control of the parameter count", VOCABULARY, WIDER),
)  # fmt: skip
"""The primary claims on means; the largest fall is the sixth."""
BESIDE = (
    Gap("ids-above-constant", "IDs of their own do more than one ID for all", "ours", OWN, CONSTANT),
    Gap("redrawn-above-original", "IDs drawn anew at each visit already do more than none", "ours", REDRAWN,
        ORIGINAL),
    Gap("constant-above-original", "one ID for all already does more than none", "ours", CONSTANT, ORIGINAL),
    Gap("wider-above-original", "a wider MLP alone does more", "ours", WIDER, ORIGINAL),
    Gap("vocabulary-above-untied", "where the output is not tied, a larger vocabulary alone does more",
        "ours: unused IDs then change no input", UNTIED_VOCABULARY, UNTIED),
    Gap("ids-above-untied", "where the output is not tied, an ID before each sequence does more than none",
        "ours: unused IDs then change no input", UNTIED_OWN, UNTIED),
)  # fmt: skip
FALL = "ids-not-monotone"
SEED_SD = {**{gap.name: 0.02 for gap in STEPS}, FALL: 0.01}
"""Assumed standard deviations over seeds, for planning only: a guess. No verdict uses them."""
SEEN = 0.005
"""How much further M(f) has to fall with IDs than without: about what the eye sees in the paper's figure."""
PREDICTED_FALL = 0.02
"""A guess as well: the paper says that M(f) is not monotone with IDs, and not by how much."""


def claims(found: Mapping[str, Size], *, planned: Sequence[Mapping[str, Any]]) -> Iterator[Claim]:
    """The primary claims at the first size; the other comparisons, forms and sizes are descriptive."""
    sizes = list(dict.fromkeys(sorted((row["size"] for row in planned), key=lambda s: -_n(planned, s))))
    size = found.get(sizes[0])
    there = set(conditions_of(planned, size=sizes[0]))
    for gap in STEPS:
        if {gap.upper, gap.lower} <= there:
            yield _gap(gap, size, primary=True)
    if {OWN, ORIGINAL} <= there:
        yield _fall(size)
    if size is not None:
        for gap in BESIDE:
            if {gap.upper, gap.lower} <= set(size.runs):
                yield _gap(gap, size, primary=False)
        yield from _forms(size)
    for other in sizes[1:]:
        for gap in STEPS[:3]:
            if other in found and {gap.upper, gap.lower} <= set(found[other].runs):
                renamed = gap._replace(
                    name=f"{gap.name}-{other.lower().replace('.', '-')}",
                    statement=f"N = {other}: {gap.statement}",
                )
                yield _gap(renamed, found[other], primary=False)


def detectable(planned: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    size = max((row["size"] for row in planned), key=lambda one: _n(planned, one))
    needed = {gap.name: {gap.upper, gap.lower} for gap in STEPS} | {FALL: {OWN, ORIGINAL}}
    predicted = {gap.name: gap.predicted for gap in STEPS} | {FALL: PREDICTED_FALL}
    seeds = {
        name: {row["seed"] for row in planned if (row["size"], row["arm"]) == (size, name)}
        for name in conditions_of(planned, size=size)
    }
    counts = {
        name: len(set.intersection(*(seeds[one] for one in both)))
        for name, both in needed.items()
        if both <= set(seeds)
    }
    return {
        name: smallest_effect(
            n=n, sd=SEED_SD[name], unit="of M(f)", predicted=predicted[name], primary=len(counts)
        )
        for name, n in counts.items()
    }


def _n(planned: Sequence[Mapping[str, Any]], size: str) -> int:
    return sum(row["size"] == size for row in planned)


def _gap(gap: Gap, size: Size | None, *, primary: bool) -> Claim:
    """Mean M(f) of one condition minus that of the other, paired by seed."""
    effects: dict[Hashable, float] = {}
    if size is not None:
        upper, lower = size.means(gap.upper), size.means(gap.lower)
        effects = {seed: upper[seed] - lower[seed] for seed in size.seeds(gap.upper, gap.lower)}
    return _judged(
        effects, name=gap.name, statement=gap.statement, source=gap.source, primary=primary,
        unit=f"{UNIT} to {size.until:g}; {gap.upper} minus {gap.lower}" if size else UNIT,
    )  # fmt: skip


def _fall(size: Size | None) -> Claim:
    effects: dict[Hashable, float] = {}
    note = ""
    if size is not None:
        own, plain = size.falls(OWN), size.falls(ORIGINAL)
        effects = {seed: own[seed].value - plain[seed].value for seed in size.seeds(OWN, ORIGINAL)}
        lows = [f"{own[seed].value:.3f} against {plain[seed].value:.3f}" for seed in effects]
        note = f"by seed: {', '.join(lows)}"
    return _judged(
        effects, name=FALL, primary=True, note=note,
        statement="with IDs M(f) is not monotone: it falls further below what it had been, and stays there "
        "for a pass, than without",
        source=f"{PAPER}: with IDs M(f) no longer rises monotonically", threshold=SEEN,
        unit="of M(f), largest sustained fall; ID prepended minus original",
    )  # fmt: skip


def _forms(size: Size) -> Iterator[Claim]:
    """What is left when the IDs are taken away or exchanged, and what they do to unseen text."""
    runs = size.runs.get(OWN, {})
    states = next((one.curves[WITHOUT].passes for one in runs.values() if WITHOUT in one.curves), None)

    def mean(condition: str, on: str = TRAINED) -> dict[Hashable, float]:
        return size.means(condition, on=on, states=states)

    own = mean(OWN)
    cases = (
        ("ids-needed", "what was memorized behind an ID is recalled less without it", own,
         mean(OWN, WITHOUT), "behind the ID minus without it"),
        ("ids-own-needed", "it is recalled less behind another sequence's ID", own, mean(OWN, OTHER),
         "behind the own ID minus another's"),
        ("ids-without-above-original", "without its ID more is recalled than in runs that never had IDs",
         mean(OWN, WITHOUT), mean(ORIGINAL), "ID prepended, read without it, minus original"),
        ("ids-test", "IDs help on unseen text as well", size.means(OWN, on=TEST_BEHIND),
         size.means(ORIGINAL, on=TEST), "accuracy on the test set, ID prepended minus original"),
    )  # fmt: skip
    for name, statement, upper, lower, what in cases:
        effects = {seed: upper[seed] - lower[seed] for seed in upper if seed in lower}
        if effects:
            yield _judged(
                effects, name=name, statement=statement, source="open in the paper", primary=False,
                unit=f"{UNIT} to {size.until:g}; {what}",
            )  # fmt: skip


def _judged(
    effects: Mapping[Hashable, float],
    *,
    name: str,
    statement: str,
    source: str,
    unit: str,
    primary: bool,
    note: str = "",
    threshold: float = 0.0,
) -> Claim:
    if not effects:
        return undecided(
            name=name, statement=statement, source=source, primary=primary,
            rule=f"mean over seeds above {threshold:g}, t test", note="no seed has both conditions yet",
        )  # fmt: skip
    return directional(
        by_seed(effects), name=name, statement=statement, source=source, unit=f"({unit})", primary=primary,
        note=note, threshold=threshold,
    )  # fmt: skip
