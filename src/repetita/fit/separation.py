"""How well a score tells two groups apart: area under the curve, and hits at few false alarms."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.fit.estimate import LEVEL, Estimate, proportion, t_quantile

Floats = NDArray[np.float64]

FALSE_ALARMS = 0.01
"""Share of texts never seen that may be taken for members, where the share of members found is given."""
SCORES = ("loss", "zlib", "lowercase", "reference")
FAMILIES = ("min_k_",)
"""Items of `measure.membership` that are scores, by name and by how their names begin."""


class Separation(NamedTuple):
    """How well one score tells texts known to be members from texts known not to be."""

    score: str
    reads_model: bool
    """False for a blind score: where one of these is not near one half, the two groups differ in what has
    nothing to do with the model, and so may every other score."""
    auc: Estimate
    found: Estimate
    """Share of the members above the score that 1% of the others exceed."""


def by_score(
    members: Mapping[str, NDArray[Any]], /, *, others: Mapping[str, NDArray[Any]]
) -> list[Separation]:
    """Each score in the items of `MembershipProbe.loss` of both groups, and last two that read no model.

    `blind_bytes`: longer texts higher; `blind_zlib`: texts that zlib shrinks less higher. Raises SpecError
    where a text has no number as its score.

    >>> import numpy as np
    >>> from repetita.fit.separation import by_score
    >>> sizes = {"bytes": np.array([9, 8]), "zlib_bytes": np.array([9, 8])}
    >>> rows = by_score(sizes | {"loss": np.array([-1, -2])}, others=sizes | {"loss": np.array([-3, -4])})
    >>> [(row.score, row.auc.value) for row in rows]
    [('loss', 1.0), ('blind_bytes', 0.5), ('blind_zlib', 0.5)]
    """
    names = [name for name in members if name in others and (name in SCORES or name.startswith(FAMILIES))]
    pairs = {name: (members[name], others[name]) for name in names}
    pairs["blind_bytes"] = (members["bytes"], others["bytes"])
    pairs["blind_zlib"] = (
        members["zlib_bytes"] / members["bytes"],
        others["zlib_bytes"] / others["bytes"],
    )
    return [
        Separation(
            name,
            not name.startswith("blind_"),
            auc(inside, outside=outside),
            hits_at(inside, outside=outside, false_alarms=FALSE_ALARMS),
        )
        for name, (inside, outside) in pairs.items()
    ]


def auc(inside: ArrayLike, /, *, outside: ArrayLike, level: float = LEVEL) -> Estimate:
    """Chance that a member of the first group scores above one of the second, ties one half.

    The interval is DeLong et al.'s (1988) on the logit scale, with t of the smaller group's size. Groups that
    are told apart without one error have no variance: their interval is that of a proportion of the smaller
    group without a miss. One member on a side leaves both bounds open. Raises SpecError for an empty group
    and for scores that are not numbers; infinite ones are ranked.
    """
    x, y = _scores(inside), _scores(outside)
    above = _placed(x, among=y)
    value, method, n = float(above.mean()), "DeLong, logit", min(len(x), len(y))
    if n == 1:
        return Estimate(value, None, None, n, "one text in a group", level)
    if value in (0.0, 1.0):
        exact = proportion(round(value * n), n=n, level=level)
        return Estimate(value, exact.low, exact.high, n, "Clopper-Pearson, smaller group", level, "texts")
    below = _placed(y, among=x)
    variance = float(above.var(ddof=1)) / len(x) + float(below.var(ddof=1)) / len(y)
    half = t_quantile(level, n - 1) * math.sqrt(variance) / (value * (1 - value))
    centre = math.log(value / (1 - value))
    low, high = (1 / (1 + math.exp(-max(-700.0, centre + side * half))) for side in (-1, 1))
    return Estimate(value, low, high, n, method, level, "texts")


def hits_at(
    inside: ArrayLike, /, *, outside: ArrayLike, false_alarms: float = 0.01, level: float = LEVEL
) -> Estimate:
    """Share of the first group above the threshold that at most this share of the second exceeds.

    The number that counts for an accusation (Carlini et al. 2022, "Membership inference attacks from first
    principles", section III). The exact interval takes the threshold as given. With fewer than
    1 / `false_alarms` outside, the threshold is their highest score.
    """
    x, y = _scores(inside), np.sort(_scores(outside))[::-1]
    threshold = y[int(false_alarms * len(y) + 1e-9)]
    return proportion(int((x > threshold).sum()), n=len(x), level=level)


def _placed(scores: Floats, *, among: Floats) -> Floats:
    """Share of `among` that each score is above, ties one half."""
    ranked = np.sort(among)
    places = [np.searchsorted(ranked, scores, side=side) for side in ("left", "right")]
    return np.asarray(sum(places) / (2 * len(ranked)), dtype=np.float64)


def _scores(values: ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64).ravel()
    if not len(found) or np.isnan(found).any():
        raise SpecError("both groups need at least one text, and every score must be a number")
    return found
