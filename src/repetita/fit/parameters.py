"""Parameters of a law by name: which are free, held at a value or tied to another, and within what bounds."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.errors import SpecError, nearest

Floats = NDArray[np.float64]

_UNCENTRED = (-60.0, 160.0)
"""What widens the bounds of coefficients that are tied and so have no centre of their own."""


_HARDLY_THERE = 7.0
"""Above the bound at which a term counts as absent, on the scale of logarithms."""


class Parameter(NamedTuple):
    """One parameter; the search works on its logarithm where `log` says so."""

    name: str
    kind: str
    """Parameters of one kind can be tied to each other."""
    low: float
    """Bounds of the search, on its scale."""
    high: float
    log: bool = False
    exponent: str = ""
    """The exponent with which this coefficient is searched at the points' centre, for speed."""
    centre: float = 0.0
    """Mean logarithm that the exponent is for."""
    term: str = ""
    """The coefficient without which this one has no effect."""


class Space(NamedTuple):
    """What the search moves in: eta = base + matrix @ phi, phi the free coordinates within `box`.

    Without free coordinates (P = 0) it is one point: a law that is given whole.
    """

    parameters: tuple[Parameter, ...]
    base: Floats
    """(K,); parameters on the search's scale where all free coordinates are 0."""
    matrix: Floats
    """(K, P)."""
    box: tuple[Floats, Floats]
    """(P,) and (P,)."""
    owner: tuple[str, ...]
    """By free coordinate the parameters that it stands for, as in 'alpha = beta'."""

    def eta(self, phi: Floats, /) -> Floats:
        """All parameters on the search's scale, (..., K) of (..., P)."""
        return np.asarray(self.base + phi @ self.matrix.T)

    def natural(self, phi: Floats, /) -> dict[str, Floats]:
        """Each parameter by name, of shape (...)."""
        eta = self.eta(phi)
        return {
            one.name: np.exp(eta[..., i]) if one.log else np.asarray(eta[..., i])
            for i, one in enumerate(self.parameters)
        }

    def distance(self, phi: Floats, other: Floats, /) -> float:
        """The largest difference of any coordinate that has an effect at one of the points.

        Terms of a thousandth of the loss or less are as one.
        """
        least = np.where(self.terms, self.box[0] + _HARDLY_THERE, -np.inf)
        apart = np.abs(np.maximum(phi, least) - np.maximum(other, least))
        return float(apart[~(self.idle(phi) & self.idle(other))].max(initial=0.0))

    def idle(self, phi: Floats, /) -> NDArray[np.bool_]:
        """(P,); the coordinates that have no effect at a point (P,), since their term is hardly there."""
        small = self.terms & (phi <= self.box[0] + _HARDLY_THERE)
        gone = {
            name
            for owner, is_small in zip(self.owner, small, strict=True)
            if is_small
            for name in owner.split(" = ")
        }
        gone |= {one.name for one, at in zip(self.parameters, self.base, strict=True) if at == -math.inf}
        of = {one.name: one.term for one in self.parameters}
        return np.array(
            [all(of[name] in gone for name in owner.split(" = ")) for owner in self.owner], dtype=bool
        )

    @property
    def terms(self) -> NDArray[np.bool_]:
        """(P,); the coordinates that are a term of the law, which is absent at the lower bound."""
        names = {one.name for one in self.parameters if one.log and one.kind in ("floor", "coefficient")}
        return np.array([owner.split(" = ")[0] in names for owner in self.owner], dtype=bool)

    def inside(self, eta: Floats, /) -> Floats:
        """Free coordinates (R, P) nearest to parameters (R, K) on the search's scale, within the box."""
        known = np.isfinite(self.base)  # A term that is fixed at 0 has the logarithm -inf.
        away = eta[:, known] - self.base[known]
        if not self.owner:
            return np.empty((1, 0))
        phi = away @ np.linalg.pinv(self.matrix[known]).T
        return np.unique(np.clip(phi, *self.box), axis=0)


def space(
    parameters: Sequence[Parameter],
    *,
    fix: Mapping[str, float] | None = None,
    tie: Sequence[str] = (),
    absent: Mapping[str, float] | None = None,
    optional: Sequence[str] = (),
) -> Space:
    """The coordinates that are left free; SpecError for an unknown name, a value out of range, nonsense tied.

    `tie` holds texts such as 'alpha=beta'. The law lacks the parameters `absent`, which are held at these
    values; of them only the `optional` can be fixed at others.
    """
    names = [one.name for one in parameters]
    lacking = dict(absent or {})
    for name, value in (fix or {}).items():
        _check_value(name, value, [p for p in parameters if p.name not in lacking or p.name in optional])
    fixed = lacking | dict(fix or {})
    tied = _tied(tie, [one for one in parameters if one.name not in lacking], fixed)
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name not in fixed:
            groups.setdefault(tied.get(name, name), []).append(i)
    base = np.array([_on_scale(fixed[one.name], one) if one.name in fixed else 0.0 for one in parameters])
    matrix, box = np.zeros((len(names), len(groups))), np.empty((2, len(groups)))
    place = {i: j for j, members in enumerate(groups.values()) for i in members}
    for i, j in place.items():
        matrix[i, j] = 1.0
    for j, members in enumerate(groups.values()):
        chosen = [parameters[i] for i in members]
        box[:, j] = max(one.low for one in chosen), min(one.high for one in chosen)
        exponent = chosen[0].exponent
        if len(members) > 1 and exponent:
            box[:, j] += _UNCENTRED
        elif exponent in fixed:
            base[members[0]] += chosen[0].centre * fixed[exponent]
        elif exponent:
            matrix[members[0], place[names.index(exponent)]] += chosen[0].centre
    owner = tuple(" = ".join(names[i] for i in members) for members in groups.values())
    return Space(tuple(parameters), base, matrix, (box[0], box[1]), owner)


def _tied(tie: Sequence[str], parameters: Sequence[Parameter], fixed: Mapping[str, float]) -> dict[str, str]:
    """By parameter the one that leads its group."""
    kinds = {one.name: one.kind for one in parameters}
    leader: dict[str, str] = {}
    for text in tie:
        parts = [part.strip() for part in text.split("=")]
        if len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
            raise SpecError(f"to tie is to join two parameters, as in alpha=beta; got '{text}'")
        for name in parts:
            if name not in kinds:
                raise SpecError(f"cannot tie '{name}': the law has no such parameter; {nearest(name, kinds)}")
            if name in fixed:
                raise SpecError(f"cannot tie '{name}', which is fixed: fix it or tie it, not both")
        first, second = parts
        if kinds[first] != kinds[second]:
            same = [name for name in kinds if kinds[name] == kinds[first] and name != first]
            raise SpecError(
                f"cannot tie {first} to {second}, which is of another kind; {first} can be tied to "
                f"{' or '.join(same) or 'nothing'}"
            )
        whole = {
            name
            for name in kinds
            if leader.get(name, name) in (leader.get(first, first), leader.get(second, second))
        }
        for name in whole:
            leader[name] = min(whole, key=list(kinds).index)
    return leader


def _check_value(name: str, value: float, parameters: Sequence[Parameter]) -> None:
    known = {one.name: one for one in parameters}
    if name not in known:
        raise SpecError(f"cannot fix '{name}': the law has no such parameter; {nearest(name, known)}")
    one = known[name]
    if not math.isfinite(value) or (one.log and value < 0) or (not one.log and one.low >= 0 > value):
        raise SpecError(f"cannot fix {name} at {value:g}: give a finite number that is not negative")
    if value == 0 and (one.kind == "rate" or (not one.log and one.low > 0)):
        raise SpecError(f"cannot fix {name} at 0: give a number above 0")


def _on_scale(value: float, one: Parameter) -> float:
    if not one.log:
        return value
    return math.log(value) if value > 0 else -math.inf
