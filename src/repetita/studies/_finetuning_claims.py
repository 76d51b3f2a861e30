"""Claims on what repeated pre-training leaves after fine-tuning, and what they can detect."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from repetita.fit.claim import Claim, Direction, by_seed, directional, undecided
from repetita.fit.estimate import t_interval
from repetita.studies._finetuning import (
    EARLY,
    SAME_RECIPE,
    Arm,
    Tuned,
    at_most_before,
    early_and_last,
    excess_left,
    gap,
    main_line,
    multipliers,
    multipliers_before,
)
from repetita.studies._grid import Labels, minus
from repetita.studies._power import paired_seeds, smallest_effects

PAPER = "Hernandez et al. 2022, Fig. 12 (f = 0.9; section 2 tells it of 0.5)"
LEAST_LEFT = 0.05
"""What was repeated is called memorized where M(f) on it exceeds that on unseen text by this."""

SEED_SD = {
    "worse-than-scratch": 0.02, "worse-at-the-same-recipe": 0.02, "worse-than-unique": 0.02,
    "recovers": 0.4, "gap-closes": 0.02, "unique-helps": 0.02, "forgets": 0.05,
}  # fmt: skip
"""Assumed standard deviations over seeds of the effects that the claims test, for planning only: round
numbers set before any run was fine-tuned. No verdict uses them."""
UNITS = dict.fromkeys(SEED_SD, "nats") | {"recovers": "in ln of a ratio", "forgets": "of M(f)"}
PREDICTED = {
    "worse-than-scratch": 0.06, "worse-at-the-same-recipe": 0.06, "worse-than-unique": 0.06,
    "recovers": math.log(10 / 1.6), "gap-closes": 0.06, "unique-helps": 0.06, "forgets": 0.3,
}  # fmt: skip
"""What the paper leads one to expect: 1.6x in size after fine-tuning, which is 0.065 nats at an exponent of
0.1375 and 1 nat, and before it 10x (f = 0.5; 73x at 0.9)."""


def claims(there: Tuned) -> Iterator[Claim]:
    """Against scratch (the headline first), against unique pre-training, and what is left of the damage."""
    repeated, unique, scratch = (there.arm(kind) for kind in ("repeated", "unique", "scratch"))
    share = f"f = {there.share:g}"
    yield _against(
        there, repeated, over=scratch, name="worse-than-scratch",
        statement=f"Pre-training with {share} at the worst passes ossifies: fine-tuned after it, a model is "
        "worse than the same model trained on the target alone",
    )  # fmt: skip
    yield _against(
        there, repeated, over=there.arm(SAME_RECIPE), name="worse-at-the-same-recipe",
        statement=f"Pre-training with {share} ends worse, too, than scratch at the recipe of fine-tuning",
        source="control that the paper lacks",
    )  # fmt: skip
    yield _against(
        there, repeated, over=unique, name="worse-than-unique",
        statement=f"Pre-training with {share} ends worse on the target than pre-training on as much unique "
        "text",
    )  # fmt: skip
    yield _recovers(there, repeated)
    yield _closes(there, repeated, unique)
    yield _against(
        there, unique, over=scratch, name="unique-helps", direction="below",
        statement="Pre-trained on unique text and then fine-tuned, a model is better than from scratch: no "
        "ossification",
    )  # fmt: skip
    yield _forgets(there, repeated)
    yield from _beside(there)


def _beside(there: Tuned) -> Iterator[Claim]:
    """Against scratch again, for the other sizes, shares and variants; descriptive."""
    for arm in there.arms:
        if arm.tuned and arm != there.arm(arm.kind):
            share = "unique" if arm.fraction is None else f"f{arm.fraction:g}"
            variant = "" if arm.variant == "main" else "-" + arm.variant.replace(" ", "-")
            yield _against(
                there, arm, over=Arm("scratch", arm.size), primary=False,
                name=f"worse-than-scratch-{arm.size}-{share}{variant}",
                statement=f"N = {arm.size}, {arm.title}: worse than from scratch after fine-tuning",
            )  # fmt: skip


def detectable(planned: Sequence[Labels]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    line = main_line(planned)
    if line is None:
        return {}
    judged = [
        one
        for one in planned
        if (one["stage"], one["size"], one["variant"]) == ("target", line[0], "main")
        and one["fraction"] in (None, line[1])
    ]
    n = paired_seeds(judged, by=("arm", "fraction"))
    return smallest_effects(n=n, sd=SEED_SD, unit=UNITS, predicted=PREDICTED)


def _against(
    there: Tuned,
    arm: Arm,
    *,
    over: Arm,
    name: str,
    statement: str,
    source: str = PAPER,
    direction: Direction = "above",
    primary: bool = True,
) -> Claim:
    """Final loss on the target minus that of another arm, by seed."""
    gaps = minus(there.final.get(arm, {}), there.final.get(over, {}))
    if not gaps:
        rule = f"difference of final test losses {direction} 0 (t test over seeds)"
        return undecided(name=name, statement=statement, source=source, rule=rule, primary=primary,
                         note=f"no seed has both runs yet: {arm.title}, and {over.title}")  # fmt: skip
    return directional(
        by_seed(gaps), name=name, statement=statement, source=source, direction=direction,
        unit=f"nats over {over.title}" if not over.tuned else "nats over unique", primary=primary,
        note=_size_text(there, arm),
    )  # fmt: skip


def _size_text(there: Tuned, arm: Arm) -> str:
    """Effective size on the target in words."""
    found = multipliers(there, arm)
    inside = [ratio for ratio in found.values() if ratio is not None]
    if not found or there.after.unfit:
        return f"N = {arm.size}"
    if len(inside) < len(found):
        lost = len(found) - len(inside)
        return (
            f"N = {arm.size}; its size lies outside the ladder from scratch in {lost} of {len(found)} seeds"
        )
    return f"N = {arm.size}; effective size {t_interval(inside, scale='log').text(digits=2)} of scratch"


def _recovers(there: Tuned, arm: Arm) -> Claim:
    head: dict[str, Any] = {
        "name": "recovers",
        "statement": "Measured by effective size, less is lost after fine-tuning than was lost before it",
        "source": f"{PAPER}: 1.6 times smaller, 73 times before",
    }
    before, after = at_most_before(there, arm), multipliers(there, arm)
    shared = [seed for seed in after if seed in before]
    open_after = [seed for seed in shared if after[seed] is None]
    if not shared or open_after:
        rule = "multiplier after over multiplier before above 1 (t test over seeds on the log scale)"
        why = "the size after fine-tuning lies outside the ladder from scratch"
        if not open_after:
            why = "no seed has all its runs and sizes yet"
        for when, reading in (("before", there.before), ("after", there.after)):
            why = f"no sizes {when} fine-tuning: {reading.unfit}" if reading.unfit else why
        return undecided(**head, rule=rule, note=why, primary=True)
    ratios: dict[Hashable, float] = {seed: (after[seed] or 0.0) / before[seed] for seed in shared}
    bounds = sum(multipliers_before(there, arm).get(seed) is None for seed in shared)
    note = f"before {t_interval([before[seed] for seed in shared], scale='log').text(digits=2)} of its size"
    if bounds:
        note += f", at most: in {bounds} seeds the loss was above that of the smallest control"
    return directional(
        by_seed(ratios), **head, threshold=1.0, scale="log", unit="(multiplier after over before)",
        note=f"{note}; {_size_text(there, arm)}",
    )  # fmt: skip


def _closes(there: Tuned, arm: Arm, unique: Arm) -> Claim:
    head: dict[str, Any] = {
        "name": "gap-closes",
        "statement": "During fine-tuning the model of repeated text catches up with that of unique text: its "
        f"gap at the end is under half of that after {EARLY:.0%} of the tokens",
        "source": f"{PAPER}; the shares are ours",
    }
    found = {seed: early_and_last(points) for seed, points in gap(there, arm, over=unique).items()}
    ends = {seed: pair for seed, pair in found.items() if pair is not None}
    rule = (
        "gap at the end minus half of the early gap below 0 (t test over seeds), where there is an early gap"
    )
    if not ends or min(early for early, _ in ends.values()) <= 0:
        why = "no gap early in fine-tuning in every seed" if ends else "no seed has both curves yet"
        return undecided(**head, rule=rule, note=why, primary=True, n=len(ends))
    values = {seed: last - early / 2 for seed, (early, last) in ends.items()}
    early, last = (t_interval([pair[i] for pair in ends.values()]).text(digits=2) for i in (0, 1))
    return directional(
        by_seed(values), **head, direction="below", unit="nats, gap at the end minus half of the early gap",
        note=f"early {early}, at the end {last} nats",
    )  # fmt: skip


def _forgets(there: Tuned, arm: Arm) -> Claim:
    head: dict[str, Any] = {
        "name": "forgets",
        "statement": f"After {EARLY:.0%} of fine-tuning less than half is left of the memorized text: of "
        "M(f) on it beyond that on unseen text like it",
        "source": f"{PAPER}: it forgets the repeated text; the shares are ours",
    }
    rule = (
        "what is left minus half of it at the start below 0 (t test over seeds), if there is "
        f"{LEAST_LEFT} or more at the start"
    )
    values: dict[Hashable, float] = {}
    shown: list[tuple[float, float, float]] = []
    for seed, points in excess_left(there, arm).items():
        pair = early_and_last(points)
        first = points.get(0.0)
        if pair is None or first is None or first < LEAST_LEFT:
            return undecided(**head, rule=rule, primary=True,
                             note="the repeated text was not memorized in every seed")  # fmt: skip
        values[seed] = pair[0] - first / 2
        shown.append((first, *pair))
    if not values:
        return undecided(**head, rule=rule, note="no such run is there yet", primary=True)
    texts = [t_interval(list(of)).text(digits=2) for of in zip(*shown, strict=True)]
    return directional(
        by_seed(values), **head, direction="below", unit="of M(f), left minus half of it at the start",
        note=f"{texts[0]} at the start, {texts[1]} early, {texts[2]} at the end",
    )  # fmt: skip
