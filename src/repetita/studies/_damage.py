"""What repeated data costs, from a grid of final losses: humps, their split, markers, and curves in time."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from repetita.errors import SpecError
from repetita.fit import effective_size
from repetita.fit.curves import log_distance, marker, peak_position, wiggle
from repetita.fit.effective_size import HalfDamage, equivalent_tokens, half_damage
from repetita.fit.estimate import Crossing, Estimate
from repetita.fit.hump import HumpAcross, HumpWithin, hump_across, hump_within
from repetita.studies._grid import Curve, Grid, Line, Losses, mean, minus, same_points

MARKER_SHARE = 0.1
SHARES = (0.05, MARKER_SHARE, 0.2)
"""Shares of the loss on unseen text under which the subset counts as memorized; the second decides."""

FEWEST = 3
"""Passes that a seed needs: a maximum has two sides."""

BySeed = Mapping[Hashable, Mapping[float, float]]


class Damage(NamedTuple):
    """One line of the grid (a size and a fraction); losses in nats a token, by seed."""

    line: Line
    hump: HumpAcross
    """By the seeds whose own passes hold the peak of all seeds inside their range: others cannot show it."""
    peaks: dict[Hashable, float]
    """For each seed the worst passes *of the other seeds*: a noisy curve read at its own maximum flatters the
    damage. A single seed has only its own."""
    excess: Losses
    """Treated minus control at the peak."""
    starvation: Losses
    """Starved minus control: what the missing unique data costs."""
    interference: Losses
    """Treated minus starved at the peak: what re-reading costs beyond that."""
    split: effective_size.Damage | None
    """The three as estimates over the seeds that have all arms; None where no seed has."""
    markers: dict[float, Crossing]
    """Passes at which the subset's loss falls under each of `SHARES` of the unique loss, mean over seeds."""
    band: HalfDamage | None
    """Where the excess is half of its maximum, mean over seeds; None where it is nowhere above zero."""


class Within(NamedTuple):
    """One run's learning curve judged against its control's noise."""

    curve: Curve
    hump: HumpWithin


def damages(grid: Grid) -> list[Damage]:
    """Every line that has a control and enough passes to look for a hump."""
    found = (_damage(grid, line) for line in grid.lines() if line[0] in grid.control)
    return [damage for damage in found if damage is not None]


def _damage(grid: Grid, line: Line) -> Damage | None:
    by_seed = {seed: own for seed, own in grid.by_seed(line).items() if len(own) >= FEWEST}
    try:
        hump = _hump(by_seed)
    except SpecError:  # Too few passes so far, or seeds that share too few.
        return None
    peaks = _peaks(by_seed)
    treated = {seed: by_seed[seed][passes] for seed, passes in peaks.items()}
    control, starved = grid.control[line[0]], grid.starved.get(line, {})
    all_arms = set(treated) & set(control) & set(starved)
    return Damage(
        line=line,
        hump=hump,
        peaks=peaks,
        excess=minus(treated, control),
        starvation=minus(starved, control),
        interference=minus(treated, starved),
        split=effective_size.damage(repeated=treated, starved=starved, control=control) if all_arms else None,
        markers={share: marker_of(grid, line, share=share) for share in SHARES},
        band=_band(grid, line),
    )


def _hump(by_seed: BySeed) -> HumpAcross:
    """The hump by the seeds that can show it; raises SpecError where passes are too few."""
    hump = hump_across(by_seed)
    able = {seed: own for seed, own in by_seed.items() if min(own) < hump.peak < max(own)}
    return hump_across(able) if able else hump


def _peaks(by_seed: BySeed) -> dict[Hashable, float]:
    """The worst passes for each seed, among its own passes, by the other seeds (alone: by itself)."""
    found: dict[Hashable, float] = {}
    for seed, own in by_seed.items():
        others = {
            other: {passes: loss for passes, loss in theirs.items() if passes in own}
            for other, theirs in by_seed.items()
            if other != seed
        }
        try:
            found[seed] = hump_across(others or {seed: own}).peak
        except SpecError:  # The others share too few passes with this seed.
            continue
    return found


def _band(grid: Grid, line: Line) -> HalfDamage | None:
    excess = {passes: grid.excess(line, passes) for passes in grid.repeated[line]}
    means = {passes: mean(by_seed) for passes, by_seed in excess.items() if by_seed}
    if len(means) < FEWEST or max(means.values()) <= 0:
        return None
    return half_damage(list(means), effect=list(means.values()))


def marker_of(grid: Grid, line: Line, *, seed: Hashable | None = None, share: float) -> Crossing:
    """Where the subset is memorized, for one seed or for the means over seeds.

    The unique train loss is read as the same run's test loss: unique text is seen once, so it is fresh text.
    """
    ratios: dict[float, tuple[float, float]] = {}
    for passes, test in grid.repeated[line].items():
        subset = grid.subset.get(line, {}).get(passes, {})
        seeds = [one for one in test if one in subset and seed in (None, one)]
        if seeds:
            ratios[passes] = mean([subset[one] for one in seeds]), mean([test[one] for one in seeds])
    if len(ratios) < 2:
        return Crossing(None, None, None, max(grid.repeated[line]), "pass")
    repeated, unique = zip(*ratios.values(), strict=True)
    return marker(list(ratios), repeated_loss=repeated, unique_loss=unique, share=share)


def distances(grid: Grid, line: Line) -> dict[Hashable, float | None]:
    """|ln E_peak - ln E_marker| by seed, None where the seed's passes do not hold both inside their range.

    A None is no missing value: it is a distance that could be large, so leaving such seeds out would favour
    agreement.
    """
    found: dict[Hashable, float | None] = {}
    for seed, by_passes in grid.by_seed(line).items():
        if len(by_passes) >= FEWEST:
            at = marker_of(grid, line, seed=seed, share=MARKER_SHARE)
            found[seed] = log_distance(_position(by_passes), to=at)
    return found


def shifts(grid: Grid, *, small: Line, large: Line) -> dict[Hashable, float | None]:
    """Peak passes of the larger size over those of the smaller by seed; None where one is at an edge."""
    found: dict[Hashable, float | None] = {}
    one, other = grid.by_seed(small), grid.by_seed(large)
    for seed in one:
        shared = set(one[seed]) & set(other.get(seed, {}))
        if len(shared) >= FEWEST:
            at = [_position({passes: line[seed][passes] for passes in shared}) for line in (one, other)]
            found[seed] = None if at[0] is None or at[1] is None else at[1] / at[0]
    return found


def _position(by_passes: Mapping[float, float]) -> float | None:
    """Passes of a seed's maximum, interpolated; None where it is at an edge."""
    passes = sorted(by_passes)
    losses = [by_passes[one] for one in passes]
    if losses.index(max(losses)) in (0, len(losses) - 1):
        return None
    return peak_position(passes, y=losses)


def within_runs(curves: Sequence[Curve], *, schedule: str) -> list[Within]:
    """Learning curves of the repeated runs with one learning-rate curve, each against its control."""
    controls = {(c.size, c.seed): c for c in curves if c.arm == "control" and c.schedule == schedule}
    found = []
    for one in curves:
        control = controls.get((one.size, one.seed))
        if one.arm != "repeated" or one.schedule != schedule or control is None:
            continue
        shared = same_points(one, control)
        start = len(control.tokens) // 3  # The first fall is no noise.
        noise = wiggle(control.tokens[start:], y=control.loss[start:])
        hump = hump_within(one.tokens, loss=one.loss, noise=noise, control=control.loss if shared else None)
        found.append(Within(one, hump))
    return found


def equivalents(curves: Sequence[Curve]) -> list[tuple[Curve, Estimate]]:
    """Unique tokens after which the constant-rate control was as good: a run of each cell, its estimate."""
    constant = [one for one in curves if one.schedule == "constant"]
    cells: dict[tuple[object, ...], dict[Hashable, Curve]] = {}
    for one in constant:
        if one.arm == "repeated":
            cells.setdefault((one.size, one.fraction, one.passes), {})[one.seed] = one
    found = []
    for cell in cells.values():
        first = next(iter(cell.values()))
        control = {
            one.seed: (one.tokens, one.loss)
            for one in constant
            if one.arm == "control" and one.size == first.size and one.seed in cell
        }
        if control:
            losses = {seed: one.loss[-1] for seed, one in cell.items()}
            found.append((first, equivalent_tokens(control, losses=losses)))
    return found
