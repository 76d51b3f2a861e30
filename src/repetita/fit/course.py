"""Texts along a series of checkpoints: when a curve rises and what it loses, and what reading a text caused.

Shapes: T checkpoints in order of steps, N texts that were read in training, M that were not.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.fit.curves import crossing, curve
from repetita.fit.estimate import LEVEL, Crossing, Estimate, t_quantile
from repetita.fit.forgetting import LEAST_POINTS, Forgetting, forgetting

Ints = NDArray[np.int64]

RISES = (0.1, 0.5, 0.9)
"""Shares whose crossing is looked for."""
ONSET = 0.5
"""Of the best head's prefix matching: from there on it is an induction head (as in our own studies)."""
EVALUATIONS = 2
"""Checkpoints in a row that must lie beyond a threshold: one alone may be noise, or a bad checkpoint."""


class Lost(NamedTuple):
    """What a curve loses behind some step; each is None where it cannot be said."""

    since: float
    """The step that it is counted from."""
    at: float
    """Its value there, or at the first checkpoint behind it."""
    half: Crossing | None
    """Steps behind `since` until it stays below the middle between `at` and what it is compared with."""
    forgetting: Forgetting | None
    """Floors and the lowest value behind it; None for fewer than five checkpoints behind `since`."""
    note: str


def rises(steps: ArrayLike, *, y: ArrayLike, thresholds: Sequence[float] = RISES) -> dict[float, Crossing]:
    """By threshold the step from which a curve stays at or above it for two checkpoints."""
    return {at: crossing(steps, y=y, threshold=at, evaluations=EVALUATIONS) for at in thresholds}


def onset(steps: ArrayLike, *, score: ArrayLike, threshold: float = ONSET) -> Crossing:
    """The step from which the best head's prefix-matching score stays at or above `threshold`."""
    return crossing(steps, y=score, threshold=threshold, evaluations=EVALUATIONS)


def lost(
    steps: ArrayLike, *, y: ArrayLike, since: float | None = None, unseen: ArrayLike | None = None
) -> Lost | None:
    """How much a share loses behind step `since`, the last one that read it; None where nothing lies behind.

    Without `since` it is counted from the highest checkpoint, which noise raises: what follows looks like
    forgetting even where nothing is forgotten, and the note says so. `unseen`: the same of texts never read,
    which is what half is counted down to; else 0.
    """
    xs, ys = curve(steps, y=y)
    floor = np.zeros_like(ys) if unseen is None else curve(steps, y=unseen)[1]
    notes = []
    if since is None:
        i = int(ys.argmax())
        notes.append("counted from the highest checkpoint, which noise alone makes higher than the next")
        since = float(xs[i])
    else:
        i = int(np.searchsorted(xs, since))
    if i + 1 >= len(xs):
        return None
    behind = xs > since
    x, kept = xs[behind] - since, ys[behind]
    at, least = float(ys[i]), float(floor[i])
    half = None
    if at > least and len(x) >= EVALUATIONS:
        above = kept - floor[behind]
        half = crossing(x, y=above, threshold=(at - least) / 2, direction="below", evaluations=EVALUATIONS)
    found = None
    if len(x) >= LEAST_POINTS:
        found = forgetting(x, curves={"series": kept})
        notes += [found.note] if found.note else []
    else:
        notes.append(f"{len(x)} checkpoints behind it, {LEAST_POINTS} are needed for a floor")
    return Lost(since, at, half, found, "; ".join(notes))


def difference_in_differences(
    seen: ArrayLike, *, unseen: ArrayLike, before: ArrayLike, after: ArrayLike, level: float = LEVEL
) -> Estimate:
    """Mean change of texts that were read, each between its own checkpoints, less that of others.

    `seen` (N, T); `unseen` (M, T), never read; `before`, `after` (N,): places among the checkpoints. Texts
    are read at different times, and each is compared with the others over its own (Callaway and Sant'Anna
    2021, the never-treated as controls). Welch's t interval over texts: it holds for other texts of these
    kinds and this training, not for other trainings. One text in a group leaves both bounds open. Raises
    SpecError for none, and for values that are not finite.
    """
    own, other = np.asarray(seen, dtype=np.float64), np.asarray(unseen, dtype=np.float64)
    first, last = np.asarray(before, dtype=np.int64), np.asarray(after, dtype=np.int64)
    if own.ndim != 2 or other.ndim != 2 or not len(own) or not len(other) or own.shape[1] != other.shape[1]:
        raise SpecError(
            "difference_in_differences: needs at least one text that was read and one that was not, at the "
            "same checkpoints"
        )
    rows = np.arange(len(own))
    changes = own[rows, last] - own[rows, first]
    # Linear in the controls, so that each of them has one number, whatever the times were.
    moved = other[:, last] - other[:, first]
    others = moved.mean(axis=1)
    # What texts of one time share with the controls is no difference between texts.
    return welch(changes - moved.mean(axis=0) + others.mean(), control=others, level=level)


def welch(treated: ArrayLike, *, control: ArrayLike, level: float = LEVEL) -> Estimate:
    """Difference of the means of two independent groups of texts, with Welch's interval.

    >>> from repetita.fit.course import welch
    >>> welch([0.9, 0.8, 1.0], control=[0.1, 0.2, 0.3]).text()
    '0.7 [0.473, 0.927]'
    """
    x, y = np.asarray(treated, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if not len(x) or not len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise SpecError("a difference needs at least one value on either side, and all values finite")
    value, n = float(x.mean() - y.mean()), len(x) + len(y)
    if min(len(x), len(y)) < 2:
        return Estimate(value, None, None, n, "one text in a group", level)
    a, b = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    if a + b == 0:
        return Estimate(value, None, None, n, "all changes alike: no variance to judge by", level)
    df = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))
    half = t_quantile(level, df) * math.sqrt(a + b)
    return Estimate(value, value - half, value + half, n, "Welch's t over texts", level, "texts")
