"""Ends and ticks of axes, computed here so that hiding a series or opening another theme moves nothing."""

import math
from collections.abc import Sequence

from repetita.report.figure import Axis, Cell, Figure, Row


def domain(figure: Figure, axis: Axis, panel: Cell = None) -> tuple[float, float]:
    """Ends of a numeric axis: rows, bounds and reference lines with a little air, zero where it must be."""
    if axis.domain is not None:
        return axis.domain
    found = _numbers(figure, axis, panel)
    if axis.scale == "log":
        found = [value for value in found if value > 0] or [1.0, 10.0]
        low, high = math.log(min(found)), math.log(max(found))
        air = 0.03 * (high - low) or 0.2
        return math.exp(low - air), math.exp(high + air)
    low, high = min(found, default=0.0), max(found, default=1.0)
    bars = axis is value_axis(figure) and any(layer.kind == "bar" for layer in figure.layers)
    if axis.start == "zero" or bars:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = low - (0.1 * abs(low) or 0.5), high + (0.1 * abs(high) or 0.5)
    air = 0.02 * (high - low)
    low, high = (low if low == 0 else low - air), (high if high == 0 else high + air)
    if axis.scale == "symlog":
        return low, high
    step = tick_step(low, high)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _numbers(figure: Figure, axis: Axis, panel: Cell) -> list[float]:
    """Every number that is drawn along the axis in a panel (in all panels where they share it)."""
    name = "x" if axis is figure.x else "y"
    rows: Sequence[Row] = figure.rows
    shared = figure.panels is None or figure.panels.share in ("both", name)
    if figure.panels is not None and not shared:
        rows = [row for row in rows if row.get(figure.panels.column) == panel]
    columns = figure.value_columns(axis)
    found = [
        float(value)
        for column in columns
        for row in rows
        if isinstance(value := row.get(column), int | float)
    ]
    rules = [rule for rule in figure.rules if rule.axis == name]
    return found + [rule.at for rule in rules if shared or rule.panel is None or rule.panel == panel]


def value_axis(figure: Figure) -> Axis:
    """The axis along which intervals run."""
    return figure.x if figure.value_axis == "x" else figure.y


def tick_step(low: float, high: float) -> float:
    """The step of about five round ticks (1, 2 or 5 times a power of ten)."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return power * min((1, 2, 5, 10), key=lambda times: abs(math.log(times * power / rough)))


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a log axis: powers of ten, with 3 or 2 and 5 over few decades; none below a factor of 4.

    Where none are given the drawing library chooses round numbers itself.
    """
    if high / low < 4:
        return []
    decades = math.log10(high / low)
    steps = (1,) if decades > 3.5 else (1, 3) if decades > 2 else (1, 2, 5)
    every = max(1, round(decades / 8))
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [
        float(f"{times}e{power}") for power in range(first, last + 1) if power % every == 0 for times in steps
    ]
    return [tick for tick in ticks if low <= tick <= high]


def position(figure: Figure, axis: Axis, at: float, panel: Cell) -> float:
    """Where a value lies along its axis: 0 at the low end, 1 at the high end."""
    low, high = domain(figure, axis, panel)
    if axis.scale == "log":
        return math.log(at / low) / math.log(high / low) if at > 0 else 0.0
    return (at - low) / (high - low)
