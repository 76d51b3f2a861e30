"""Double descent: a hump of the final loss across runs, and of the loss within one run."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from repetita.errors import SpecError
from repetita.fit.curves import Floats, curve, peak_position, smooth
from repetita.fit.estimate import Estimate, t_interval

NOISE = 3.0
"""A rise counts when it exceeds this many standard deviations of the control's noise."""

PLATEAU_SPAN = 2.0
"""A plateau spans at least this factor of tokens (repeated-data paper, notes, section 4)."""


class HumpAcross(NamedTuple):
    """An interior maximum of the final loss over passes E, at fixed size and fraction."""

    kind: Literal["hump", "edge", "unclear"]
    """`edge`: the maximum is at the end of the grid, which decides nothing (rule 25). `hump`: interior and,
    with two seeds or more, the interval of `height` lies above zero."""
    peak: float
    """Passes at the highest point of the grid."""
    peak_between: tuple[float | None, float | None]
    """The neighbours in the grid: the true peak lies between them."""
    peak_interpolated: float
    height: Estimate
    """Nats by which the peak stands over the lower of its two sides: `height_by_seed`, t interval."""
    height_left: Estimate
    height_right: Estimate
    height_by_seed: dict[Any, float]
    note: str


class HumpWithin(NamedTuple):
    """What the loss does within one run, over log tokens."""

    kind: Literal["literal", "rising", "plateau", "none"]
    """`literal`: falls, rises, falls again. `rising`: still up when the run ended, which is no second
    descent. `plateau`: flat over a factor of two of tokens where the control still falls."""
    start: float | None
    """Tokens at the local minimum, or at the start of the plateau."""
    stop: float | None
    """Tokens at the local maximum, or at the end of the plateau."""
    rise: float
    """Nats from the minimum to the maximum of the smoothed curve; where there is none, its largest rise."""
    noise: float
    """sd of one evaluation, from the control."""
    after: float
    """Nats by which the curve had fallen from that maximum by the end of the run."""


def hump_across(losses: Mapping[Any, Mapping[float, float]], /) -> HumpAcross:
    """The hump in final losses by seed and passes, `losses[seed][passes]` in nats; needs 3 values of E.

    For each seed the peak and the lowest point on either side are chosen on the other seeds, so that choosing
    among noisy points does not make a hump. Seeds may cover parts of the grid: the peak of the grid comes
    from seed and passes effects together, and a seed counts towards the height if its passes reach beyond the
    others' peak on both sides.
    """
    effects = _effects(losses)
    grid = sorted(effects)
    if len(grid) < 3:
        raise SpecError(f"a hump needs at least 3 values of passes, got {len(grid)}")
    values = [effects[e] for e in grid]
    at = int(np.argmax(values))
    sides: dict[Any, tuple[float, float]] = {}
    for seed, own in losses.items():
        others = _effects({key: other for key, other in losses.items() if key != seed} or losses)
        pair = _sides(own, others)
        if pair is not None:
            sides[seed] = pair
    if not sides:
        # Where the others never bracket the peak (one seed has the whole grid), the pooled peak is judged.
        pooled = {seed: _sides(own, effects) for seed, own in losses.items()}
        sides = {seed: pair for seed, pair in pooled.items() if pair is not None}
    if not sides and 0 < at < len(grid) - 1:
        raise SpecError("no seed has passes on both sides of the peak; run one seed over the whole grid")
    if not sides:
        sides = dict.fromkeys(losses, (0.0, 0.0))
    by_seed = {seed: min(pair) for seed, pair in sides.items()}
    height = t_interval(list(by_seed.values()))
    left, right = (t_interval([pair[i] for pair in sides.values()]) for i in (0, 1))
    around = (grid[at - 1] if at else None, grid[at + 1] if at + 1 < len(grid) else None)
    kind: Literal["hump", "edge", "unclear"]
    if None in around:
        kind, note = "edge", f"the highest loss is at the edge of the grid (E = {grid[at]:g}): inconclusive"
    elif height.value is not None and height.value > 0 and (len(losses) == 1 or (height.low or 0) > 0):
        kind, note = "hump", "one seed: an illustration" if len(losses) == 1 else ""
    else:
        kind, note = "unclear", "the peak does not stand out of the noise of the seeds"
    position = peak_position(grid, y=values)
    return HumpAcross(kind, grid[at], around, position, height, left, right, by_seed, note)


def hump_within(
    tokens: ArrayLike,
    *,
    loss: ArrayLike,
    noise: float,
    control: ArrayLike | None = None,
    decades: float = 0.1,
) -> HumpWithin:
    """Rise, plateau or neither of one run's test loss; `control` is the control's loss at the same tokens.

    `noise` is the sd of one evaluation (`curves.wiggle` of the control). Tokens must be above zero. Without a
    control a plateau is not looked for.
    """
    xs, ys = curve(tokens, y=loss)
    level = smooth(xs, y=ys, decades=decades)
    low, high, largest = _first_rise(level, NOISE * noise)
    if high is not None:
        after = float(level[high] - level[high:].min())
        kind: Literal["literal", "rising"] = "literal" if after > NOISE * noise else "rising"
        return HumpWithin(
            kind, float(xs[low]), float(xs[high]), float(level[high] - level[low]), noise, after
        )
    if control is not None:
        flat = _plateau(xs, ys, curve(tokens, y=control)[1], noise)
        if flat is not None:
            return HumpWithin("plateau", *flat, largest, noise, 0.0)
    return HumpWithin("none", None, None, largest, noise, 0.0)


def _effects(losses: Mapping[Any, Mapping[float, float]]) -> dict[float, float]:
    """Mean loss at each E with the seeds' own levels taken out (least squares on seed + passes effects)."""
    grid = sorted({e for own in losses.values() for e in own})
    points = [(i, grid.index(e), y) for i, own in enumerate(losses.values()) for e, y in own.items()]
    design = np.zeros((len(points) + 1, len(losses) + len(grid)))
    for row, (i, j, _) in enumerate(points):
        design[row, i] = design[row, len(losses) + j] = 1
    design[-1, : len(losses)] = 1  # seed effects sum to zero
    target = np.array([y for _, _, y in points] + [0.0])
    found = np.linalg.lstsq(design, target, rcond=None)[0][len(losses) :]
    return {e: float(value) for e, value in zip(grid, found, strict=True)}


def _sides(own: Mapping[float, float], others: Mapping[float, float]) -> tuple[float, float] | None:
    """This seed's height over the left and the right side, at places that the others chose.

    None where the others' peak is not inside the passes of this seed: it says nothing of a hump.
    """
    grid = sorted(set(own) & set(others))
    if len(grid) < 3:
        return None
    peak = max(range(len(grid)), key=lambda i: others[grid[i]])
    if peak in (0, len(grid) - 1):
        return None
    left = min(range(peak), key=lambda i: others[grid[i]])
    right = min(range(peak + 1, len(grid)), key=lambda i: others[grid[i]])
    top = own[grid[peak]]
    return top - own[grid[left]], top - own[grid[right]]


def _first_rise(level: Floats, least: float) -> tuple[int, int | None, float]:
    """Indices of the first minimum that a rise above `least` follows and of its maximum; the largest rise."""
    low = high = 0
    largest = 0.0
    for i in range(len(level)):
        risen = level[high] - level[low] > least
        if risen and level[high] - level[i] > least:
            break  # fell again: the maximum is known
        if not risen and level[i] < level[low]:
            low = high = i
        elif level[i] > level[high]:
            high = i
            largest = max(largest, float(level[high] - level[low]))
    return (low, high, largest) if level[high] - level[low] > least else (low, None, largest)


def _plateau(xs: Floats, ys: Floats, control: Floats, noise: float) -> tuple[float, float] | None:
    """The first span in which the slope over ln tokens is within noise of zero while the control falls."""
    u = np.log(xs)
    for i in range(len(xs)):
        inside = (xs >= xs[i]) & (xs <= xs[i] * PLATEAU_SPAN * (1 + 1e-9))
        if xs[i] * PLATEAU_SPAN > xs[-1] or inside.sum() < 3:
            continue
        v = u[inside] - u[inside].mean()
        error = noise / float(np.sqrt(v @ v))
        slope, falling = (float(v @ y[inside] / (v @ v)) for y in (ys, control))
        apart = slope - falling > NOISE * np.sqrt(2) * error
        if abs(slope) <= 2 * error and falling < -NOISE * error and apart:
            return float(xs[i]), float(xs[inside][-1])
    return None
