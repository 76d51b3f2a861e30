"""Effective size: what repetition costs in nats, in parameters and in unique tokens, and the band of
damage.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from repetita.errors import SpecError
from repetita.fit.curves import Floats, curve
from repetita.fit.estimate import LEVEL, Crossing, Estimate, paired, t_interval, t_quantile
from repetita.fit.laws import Offset, PowerLaw, fit_power_law

RESOLVABLE = 3.0
"""Neighbouring control sizes that differ by fewer seed sds than this are not resolvable (rule 23)."""

Method = Literal["law", "interpolation"]


class ControlScan(NamedTuple):
    """Final losses of the runs without repetition, over sizes, and the law through them."""

    sizes: Floats
    """Non-embedding parameters, ascending."""
    means: Floats
    """Mean loss over seeds at each size, nats."""
    losses: Mapping[float, Mapping[Any, float]]
    """Loss by size and seed."""
    seed_sd: float | None
    """sd between seeds at one size, pooled; None with one seed everywhere."""
    law: PowerLaw
    ceiling: float
    """ln V: the loss of knowing nothing."""
    unresolved: tuple[tuple[float, float], ...]
    """Neighbouring sizes that the seeds cannot tell apart."""


class EffectiveSize(NamedTuple):
    """A treated size against the control scan. Excess nats are always defined; the rest may be open."""

    excess: Estimate
    """Treated minus control loss at the same size, nats; by seed where the control has those seeds."""
    n_eff: Estimate
    """Size of the control model with the treated loss, parameters."""
    multiplier: Estimate
    """n_eff / n_params."""
    extrapolated: float | None
    """The paper's way: the law inverted wherever it leads; compare with `n_eff` before believing it."""
    note: str


class Damage(NamedTuple):
    """Excess nats split in two, each paired by seed (experiment design, rule 10)."""

    total: Estimate
    """Repeated minus full control."""
    starvation: Estimate
    """Control with the repeated slots empty minus full control: fewer unique tokens."""
    interference: Estimate
    """Repeated minus starved: what the repeated text itself does."""


class HalfDamage(NamedTuple):
    """Where the damage over passes E is half of its maximum, on either side."""

    peak: float
    effect: float
    left: Crossing | None
    """Left-censored (`high` only) where the grid begins above half; None when the peak is at the edge."""
    right: Crossing | None
    """Right-censored where the grid ends above half; None when the peak is at the edge."""
    peak_at_edge: bool


def control_scan(
    losses: Mapping[float, Mapping[Any, float]], *, vocab_size: int, offset: Offset = "none", seed: int = 0
) -> ControlScan:
    """The scan from `losses[n_params][seed]`; the paper's law has no offset (its appendix A: a straight
    line).
    """
    sizes = sorted(losses)
    means = np.array([np.mean(list(losses[size].values())) for size in sizes])
    points = [(size, loss) for size in sizes for loss in losses[size].values()]
    law = fit_power_law([n for n, _ in points], y=[loss for _, loss in points], offset=offset, seed=seed)
    squares = sum(float(np.var(list(own.values())) * len(own)) for own in losses.values())
    df = sum(len(own) - 1 for own in losses.values())
    sd = math.sqrt(squares / df) if df else None
    pairs = zip(sizes[:-1], sizes[1:], -np.diff(means), strict=True)
    close = tuple((a, b) for a, b, drop in pairs if sd is not None and drop < RESOLVABLE * sd)
    return ControlScan(np.array(sizes, dtype=np.float64), means, losses, sd, law, math.log(vocab_size), close)


def effective_size(
    scan: ControlScan, *, n_params: float, losses: Mapping[Any, float], method: Method = "law"
) -> EffectiveSize:
    """Excess nats, N_eff and multiplier of treated runs of one size, `losses[seed]` in nats.

    Inside the control's range of losses N_eff comes from the law (test loss) or from interpolation in
    (ln N, loss) (copying); outside it is an open bound. A loss above ln V has no equivalent size. The
    interval joins the seeds' t interval and the control's own error.
    """
    treated = t_interval(list(losses.values()))
    assert treated.value is not None
    excess = _excess(scan, n_params, losses)
    found, note = _size(scan, treated, method)
    ratio = found._replace(
        value=_over(found.value, n_params), low=_over(found.low, n_params), high=_over(found.high, n_params)
    )
    return EffectiveSize(excess, found, ratio, scan.law.invert(treated.value), note)


def damage(
    *, repeated: Mapping[Any, float], starved: Mapping[Any, float], control: Mapping[Any, float]
) -> Damage:
    """damage = starvation + interference, over the seeds that all three arms have."""
    shared = sorted(set(repeated) & set(starved) & set(control), key=str)
    if not shared:
        raise SpecError("damage: no seed has a repeated, a starved and a control run; run all three with it")

    def difference(a: Mapping[Any, float], b: Mapping[Any, float]) -> Estimate:
        found = t_interval(paired([a[key] for key in shared], control=[b[key] for key in shared]))
        return found._replace(method=found.method.replace("runs", "runs paired by seed"))

    return Damage(difference(repeated, control), difference(starved, control), difference(repeated, starved))


def equivalent_tokens(
    curves: Mapping[Any, tuple[ArrayLike, ArrayLike]], *, losses: Mapping[Any, float]
) -> Estimate:
    """Unique tokens after which the control of the same size and seed had the treated loss.

    `curves[seed]` holds tokens and loss of the control at a constant rate (a decaying one would flatter its
    end). Paired by seed, on the log scale; open where a seed's loss lies outside its curve.
    """
    shared = sorted(set(curves) & set(losses), key=str)
    if not shared:
        raise SpecError("equivalent_tokens: no seed has both a control curve and a treated loss")
    found = [_tokens_at(curves[key], losses[key]) for key in shared]
    inside = [x for x, side in found if side == 0]
    n, method = len(shared), "control's curve inverted by seed"
    if len(inside) == n:
        tokens = t_interval(inside, scale="log")
        return tokens._replace(method=f"{method}, {tokens.method}")
    below, above = (any(side == sign for _, side in found) for sign in (-1, 1))
    low = None if below else min(x for x, _ in found)
    high = None if above else max(x for x, _ in found)
    return Estimate(None, low, high, n, f"{method}, outside the curve", LEVEL, "range over seeds")


def half_damage(passes: ArrayLike, *, effect: ArrayLike) -> HalfDamage:
    """Edges of the band at one size: the E on either side at which the effect is half of its maximum.

    `effect` is -ln(multiplier) (the paper: half-maximum on the log scale) or excess nats where multipliers
    are censored (rule 24). Linear interpolation in ln E.
    """
    e, y = curve(passes, y=effect)
    if len(e) < 3 or e[0] <= 0:
        raise SpecError("half_damage: needs at least 3 values of passes above zero")
    at = int(y.argmax())
    top, edge = float(y[at]), at in (0, len(e) - 1)
    if top <= 0:
        raise SpecError(
            "half_damage: there is no damage (the effect is nowhere above zero); report the excess"
        )
    half, last = top / 2, float(e[-1])
    if edge:
        return HalfDamage(float(e[at]), top, None, None, edge)
    left = Crossing(None, None, float(e[0]), last, "pass")
    right = Crossing(None, last, None, last, "pass")
    under = np.flatnonzero(y <= half)
    before, after = under[under < at], under[under > at]
    if len(before):
        left = _half(e, y, int(before[-1]), int(before[-1]) + 1, half)
    if len(after):
        right = _half(e, y, int(after[0]) - 1, int(after[0]), half)
    return HalfDamage(float(e[at]), top, left, right, edge)


def harmonic_mean(multipliers: Sequence[float], /) -> float:
    """The paper's mean of multipliers over sizes (figures 10 and 21)."""
    if not multipliers or min(multipliers) <= 0:
        raise SpecError("harmonic_mean: needs multipliers above zero")
    return len(multipliers) / sum(1 / m for m in multipliers)


def profitable_multiplier(*, fraction: float, exponent: float) -> float:
    """Least multiplier at which memorizing a fraction f pays: (1 - f)^(1/alpha) (the paper, section 5.1)."""
    return float((1 - fraction) ** (1 / exponent))


def stored_bits(*, control_loss_sum: float, repeated_loss_sum: float, n_params: int) -> tuple[float, float]:
    """Bits stored about the subset, and per parameter: (control - repeated) nats / ln 2 (rule 27).

    Sums over all scored tokens of the subset, each token once.
    """
    bits = (control_loss_sum - repeated_loss_sum) / math.log(2)
    return bits, bits / n_params


def _excess(scan: ControlScan, n_params: float, losses: Mapping[Any, float]) -> Estimate:
    control = scan.losses.get(n_params, {})
    if set(control) & set(losses):
        found = t_interval(paired(losses, control=control))
        return found._replace(method=found.method.replace("runs", "runs paired by seed"))
    level = float(scan.law.predict(n_params))
    found = t_interval([loss - level for loss in losses.values()])
    return found._replace(method=f"{found.method} against the control's law, its error not included")


def _size(scan: ControlScan, treated: Estimate, method: Method) -> tuple[Estimate, str]:
    """N_eff of the mean treated loss and what to know about it."""
    assert treated.value is not None
    loss, n = treated.value, treated.n
    smallest, largest = float(scan.sizes[0]), float(scan.sizes[-1])
    empty = Estimate(None, None, None, n, f"control {method}", LEVEL, "seeds and control")
    if method == "law" and scan.law.exponent <= 0:
        return empty, "the control's loss does not fall with size: no equivalent size"
    if loss > scan.ceiling:
        return empty, "a loss above ln V has no equivalent size"
    ends = _loss_at(scan, smallest, method), _loss_at(scan, largest, method)
    if loss > ends[0]:
        return empty._replace(high=smallest), "worse than the smallest control: open below"
    if loss < ends[1]:
        return empty._replace(low=largest), "better than the largest control: open above"
    centre = _invert(scan, loss, method)
    own = _control_error(scan, loss, method)
    low = _bound(scan, treated.high, centre, -own, method)
    high = _bound(scan, treated.low, centre, own, method)
    close = [pair for pair in scan.unresolved if pair[0] <= centre <= pair[1]]
    note = (
        f"not resolvable: control sizes {close[0][0]:g} and {close[0][1]:g} differ by less than "
        if close
        else ""
    )
    note += f"{RESOLVABLE:g} seed standard deviations" if close else ""
    return empty._replace(value=centre, low=low, high=high), note


def _bound(scan: ControlScan, loss: float | None, centre: float, own: float, method: Method) -> float | None:
    """N at one end of the treated interval, pushed out by the control's error (with its side's sign); None
    outside the scan."""
    if loss is None or not _loss_at(scan, float(scan.sizes[-1]), method) <= loss:
        return None
    if loss > _loss_at(scan, float(scan.sizes[0]), method):
        return None
    gap = math.log(_invert(scan, loss, method) / centre)
    bound = centre * math.exp(math.copysign(math.hypot(gap, own), own))
    return bound if scan.sizes[0] <= bound <= scan.sizes[-1] else None


def _control_error(scan: ControlScan, loss: float, method: Method) -> float:
    """Half-width in ln N that the control's own scatter gives at this loss."""
    if method == "law":
        found = scan.law.inverse(loss)
        if found.low is None or found.high is None:
            return math.inf
        return math.log(found.high / found.low) / 2
    if scan.seed_sd is None:
        return 0.0
    falling, logs = _falling(scan), np.log(scan.sizes)
    i = min(int(np.flatnonzero(falling <= loss)[0]), len(falling) - 1) or 1
    drop = float(falling[i - 1] - falling[i])
    if drop <= 0:
        return math.inf
    counts = [len(own) for own in scan.losses.values()]
    error = t_quantile(LEVEL, sum(counts) - len(counts)) * scan.seed_sd / math.sqrt(min(counts))
    return error * float(logs[i] - logs[i - 1]) / drop


def _falling(scan: ControlScan) -> Floats:
    """Mean losses made monotone: each at most that of any smaller size."""
    return np.asarray(np.minimum.accumulate(scan.means))


def _loss_at(scan: ControlScan, size: float, method: Method) -> float:
    if method == "law":
        return float(scan.law.predict(size))
    return float(np.interp(math.log(size), np.log(scan.sizes), _falling(scan)))


def _invert(scan: ControlScan, loss: float, method: Method) -> float:
    if method == "law":
        found = scan.law.invert(loss)
        assert found is not None
        return found
    falling = _falling(scan)
    return math.exp(float(np.interp(loss, falling[::-1], np.log(scan.sizes)[::-1])))


def _over(value: float | None, n_params: float) -> float | None:
    return None if value is None else value / n_params


def _tokens_at(points: tuple[ArrayLike, ArrayLike], loss: float) -> tuple[float, int]:
    """Tokens at this loss on the curve's lower envelope; -1: worse than its start, 1: better than its end."""
    tokens, values = curve(points[0], y=points[1])
    tokens, values = tokens[tokens > 0], values[tokens > 0]
    lowest = np.minimum.accumulate(values)
    if loss > lowest[0]:
        return float(tokens[0]), -1
    if loss < lowest[-1]:
        return float(tokens[-1]), 1
    i = int(np.flatnonzero(lowest <= loss)[0])
    if i == 0:
        return float(tokens[0]), 0
    share = (lowest[i - 1] - loss) / (lowest[i - 1] - lowest[i])
    return float(tokens[i - 1] * (tokens[i] / tokens[i - 1]) ** share), 0


def _half(e: Floats, y: Floats, i: int, j: int, half: float) -> Crossing:
    share = (half - y[i]) / (y[j] - y[i])
    at = float(e[i] * (e[j] / e[i]) ** share)
    return Crossing(at, float(e[i]), float(e[j]), float(e[-1]), "pass")
