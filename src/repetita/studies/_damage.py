"""What repeated data costs, from a grid of final losses: claims of the double-descent study."""

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from repetita.fit.claim import Claim, directional, undecided
from repetita.fit.curves import log_distance, marker, peak_position, wiggle
from repetita.fit.estimate import Crossing
from repetita.fit.hump import HumpAcross, HumpWithin, hump_across, hump_within
from repetita.studies._grid import Curve, Grid, Line, Losses, mean, minus

PAPER = "Hernandez et al. 2022"
MARKER_DISTANCE = math.log(10) / 2
"""A peak and its marker agree when they lie within one step of a half-decade grid of passes."""
WITHIN_PASSES = 400.0
"""The run judged for double descent in time is the one nearest to this many passes: the paper sees it for 100
to 10,000 passes over T = 100B tokens, its lower half is what a short run can reach."""
WITHIN_FRACTION = 0.9


class Damage(NamedTuple):
    """One line of the grid (a size and a fraction) at its peak; losses in nats a token, by seed."""

    line: Line
    hump: HumpAcross
    peak: float
    """Passes of the grid at which the mean loss is highest."""
    excess: Losses
    """Treated minus control at the peak."""
    starvation: Losses
    """Starved minus control: what the missing unique data costs."""
    interference: Losses
    """Treated minus starved at the peak: what re-reading costs beyond that."""
    markers: dict[float, Crossing]
    """Passes at which the subset's loss falls under 5, 10 and 20% of the unique loss, mean over seeds."""


class Within(NamedTuple):
    """One run's learning curve judged against its control's noise."""

    curve: Curve
    hump: HumpWithin


def damages(grid: Grid) -> list[Damage]:
    """Every line with at least three passes and a control."""
    found = []
    for line in grid.lines():
        cells = grid.repeated[line]
        if len(cells) < 3 or line[0] not in grid.control:
            continue
        hump = hump_across(grid.by_seed(line))
        peak = max(cells, key=lambda passes: mean(cells[passes]))
        starved = grid.starved.get(line, {})
        found.append(
            Damage(
                line=line,
                hump=hump,
                peak=peak,
                excess=grid.excess(line, peak),
                starvation=minus(starved, grid.control[line[0]]),
                interference=minus(cells[peak], starved),
                markers={share: _marker(grid, line, None, share) for share in (0.05, 0.1, 0.2)},
            )
        )
    return found


def _marker(grid: Grid, line: Line, seed: Hashable | None, share: float) -> Crossing:
    """Where the subset is memorized, for one seed or for the means over seeds.

    The unique train loss is read as the same run's test loss: unique text is seen once, so it is fresh text.
    """
    subset, test = grid.subset.get(line, {}), grid.repeated[line]
    if seed is None:
        pairs = [(e, mean(subset[e]), mean(test[e])) for e in test if e in subset]
    else:
        pairs = [
            (e, subset[e][seed], test[e][seed])
            for e in test
            if e in subset and seed in subset[e] and seed in test[e]
        ]
    if len(pairs) < 2:
        return Crossing(None, None, None, max(test), "pass")
    passes, repeated, unique = zip(*pairs, strict=True)
    return marker(passes, repeated_loss=repeated, unique_loss=unique, share=share)


def distances(grid: Grid, damage: Damage) -> Losses:
    """|ln E_peak - ln E_marker| by seed, where a seed's own passes hold both inside their range."""
    found: Losses = {}
    for seed, by_passes in grid.by_seed(damage.line).items():
        passes = sorted(by_passes)
        top = max(passes, key=lambda e: by_passes[e])
        if len(passes) < 3 or top in (passes[0], passes[-1]):
            continue
        peak = peak_position(passes, y=[by_passes[e] for e in passes])
        distance = log_distance(peak, to=_marker(grid, damage.line, seed, 0.1))
        if distance is not None:
            found[seed] = distance
    return found


def within_runs(curves: Sequence[Curve], *, schedule: str) -> list[Within]:
    """Learning curves of the repeated runs with one learning-rate curve, each against its control."""
    controls = {(c.size, c.seed): c for c in curves if c.arm == "control" and c.schedule == schedule}
    found = []
    for one in curves:
        control = controls.get((one.size, one.seed))
        if one.arm != "repeated" or one.schedule != schedule or control is None:
            continue
        shared = one.tokens == control.tokens
        noise = wiggle(control.tokens[len(control.tokens) // 3 :], y=control.loss[len(control.loss) // 3 :])
        hump = hump_within(one.tokens, loss=one.loss, noise=noise, control=control.loss if shared else None)
        found.append(Within(one, hump))
    return found


def claims(grid: Grid, found: Sequence[Damage], within: Sequence[Within]) -> Iterator[Claim]:
    """At most eight primary claims: humps, their split and marker for the main fraction, time, and size."""
    main = max({line[1] for line in grid.lines()}, key=lambda f: sum(line[1] == f for line in grid.lines()))
    for damage in found:
        yield _hump_claim(damage, primary=damage.line[1] == main)
    for damage in found:
        if damage.interference and damage.starvation:
            yield _split_claim(damage, primary=damage.line[1] == main)
    for damage in found:
        yield _marker_claim(grid, damage, primary=damage.line[1] == main)
    judged = _judged(within)
    if judged:
        yield _within_claim(judged)
    at_main = [damage for damage in found if damage.line[1] == main]
    if len(at_main) > 1:
        yield _shift_claim(grid, at_main[0].line, at_main[-1].line)


def _label(line: Line) -> str:
    return f"N = {line[0]}, f = {line[1]:g}"


def _slug(line: Line) -> str:
    return f"{line[0]}-f{line[1]:g}"


def _hump_claim(damage: Damage, *, primary: bool) -> Claim:
    hump, line = damage.hump, damage.line
    statement = f"{_label(line)}: final test loss has an interior maximum in passes"
    source = f"{PAPER}, Figs. 2 and 15"
    left, right = hump.peak_between
    if hump.kind == "edge":
        rule = "a maximum at the edge of the grid decides nothing"
        return undecided(
            name=f"hump-{_slug(line)}", statement=statement, source=source, rule=rule, note=hump.note
        )
    heights = [hump.height_by_seed[seed] for seed in sorted(hump.height_by_seed, key=str)]
    note = (
        f"peak between {left:g} and {right:g} passes; {mean(damage.excess):.2f} nats over the control"
        if damage.excess
        else ""
    )
    return directional(
        heights, name=f"hump-{_slug(line)}", statement=statement, source=source, unit="nats over the lower side",
        note=note, primary=primary,
    )  # fmt: skip


def _split_claim(damage: Damage, *, primary: bool) -> Claim:
    gaps = minus(damage.interference, damage.starvation)
    note = f"at {damage.peak:g} passes: starvation {mean(damage.starvation):.3f}, interference {mean(damage.interference):.3f} nats"
    return directional(
        [gaps[seed] for seed in sorted(gaps, key=str)],
        name=f"interference-{_slug(damage.line)}",
        statement=f"{_label(damage.line)}: at the peak, re-reading costs more than the unique data it displaced",
        source="control that the paper lacks (same steps, repeated slots empty)",
        unit="nats",
        note=note,
        primary=primary,
    )


def _marker_claim(grid: Grid, damage: Damage, *, primary: bool) -> Claim:
    name = f"marker-{_slug(damage.line)}"
    statement = f"{_label(damage.line)}: the peak lies where the repeated subset becomes memorized"
    source = f"{PAPER}, Fig. 2 right"
    near = distances(grid, damage)
    shown = ", ".join(f"{share:.0%}: {crossing.text()}" for share, crossing in damage.markers.items())
    if not near:
        rule = f"|ln E_peak - ln E_marker| below {MARKER_DISTANCE:.2f}"
        return undecided(
            name=name, statement=statement, source=source, rule=rule,
            note=f"peak or marker outside the passes that were run; subset loss under {shown} of the unique loss",
        )  # fmt: skip
    return directional(
        [near[seed] for seed in sorted(near, key=str)], name=name, statement=statement, source=source,
        threshold=MARKER_DISTANCE, direction="below", unit="(distance in ln passes)",
        note=f"peak at {damage.hump.peak_interpolated:.0f} passes; subset loss under {shown} of the unique loss",
        primary=primary,
    )  # fmt: skip


def _judged(within: Sequence[Within]) -> list[Within]:
    """The runs nearest to the passes that the claim names, one a seed, at the largest fraction run."""
    if not within:
        return []
    fractions = {one.curve.fraction for one in within if one.curve.fraction is not None}
    fraction = min(fractions, key=lambda f: abs(f - WITHIN_FRACTION))
    at = [one for one in within if one.curve.fraction == fraction]
    nearest = min(at, key=lambda one: abs(math.log((one.curve.passes or 1) / WITHIN_PASSES)))
    key = (nearest.curve.size, nearest.curve.passes)
    return [one for one in at if (one.curve.size, one.curve.passes) == key]


def _within_claim(judged: Sequence[Within]) -> Claim:
    first = judged[0]
    curve = first.curve
    values = [min(one.hump.rise, one.hump.after) if one.hump.kind == "literal" else 0.0 for one in judged]
    threshold = 3 * max(one.hump.noise for one in judged)
    where = ""
    if first.hump.start is not None and first.hump.stop is not None:
        where = f"minimum at {first.hump.start:.3g} tokens, maximum at {first.hump.stop:.3g}"
    rate = "constant" if curve.schedule == "constant" else "cosine"
    return directional(
        values,
        name="within-run",
        statement=f"N = {curve.size}, f = {curve.fraction:g}, {curve.passes:g} passes, {rate} rate: "
        f"within the run test loss falls, rises, and falls again",
        source=f"{PAPER}, Fig. 3 left",
        threshold=threshold,
        unit="nats (the smaller of the rise and the second fall; threshold 3 sd of the control's noise)",
        note=where,
    )


def _shift_claim(grid: Grid, small: Line, large: Line) -> Claim:
    shifts: Losses = {}
    for seed in sorted(set(grid.by_seed(small)) & set(grid.by_seed(large)), key=str):
        one, other = grid.by_seed(small)[seed], grid.by_seed(large)[seed]
        passes = sorted(set(one) & set(other))
        if len(passes) >= 3:
            peaks = [peak_position(passes, y=[line[e] for e in passes]) for line in (one, other)]
            shifts[seed] = peaks[1] / peaks[0]
    name, statement = (
        "peak-moves",
        f"the worst number of passes is lower at N = {large[0]} than at N = {small[0]} (f = {large[1]:g})",
    )
    source = f"{PAPER}, Figs. 2 and 4: E about N^-0.5"
    if not shifts:
        return undecided(
            name=name,
            statement=statement,
            source=source,
            rule="ratio of the peaks below 1",
            note="no passes shared",
        )
    ratio = grid.n_params[large[0]] / grid.n_params[small[0]]
    return directional(
        list(shifts.values()), name=name, statement=statement, source=source, threshold=1.0, direction="below",
        scale="log", unit="(ratio of peak passes)", note=f"N^-0.5 would give {ratio**-0.5:.2f}",
    )  # fmt: skip
