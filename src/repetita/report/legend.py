"""Series as the reader meets them: label, colour in both themes, dash; and cells as they are drawn."""

from collections.abc import Sequence
from typing import NamedTuple

from repetita.report.figure import Cell, Figure
from repetita.report.palette import THEMES, ThemeName, shades

SOLID: list[int] = [1, 0]
DASHES: tuple[list[int], ...] = (SOLID, [6, 4], [2, 3], [10, 3, 2, 3], [12, 6])
_MUTED_DASH = [5, 4]

_PROTOTYPE = frozenset(
    "__proto__ constructor hasOwnProperty isPrototypeOf propertyIsEnumerable toLocaleString toString valueOf "
    "__defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__".split()
)
"""Names that every JavaScript object has; Vega groups rows by plain objects and fails on such a series."""


class KeyEntry(NamedTuple):
    """An entry of a legend: one series, or one style."""

    label: str
    value: Cell
    """As the drawn rows have it."""
    light: str
    """Colour; a style has that of text."""
    dark: str
    dash: list[int]


def palette(figure: Figure, theme: ThemeName) -> list[str]:
    """The colour of each of `figure.series_values()`."""
    if figure.series is None:
        return []
    colours, values = THEMES[theme], figure.series_values()
    loud = [value for value in values if value not in figure.series.muted]
    chosen = shades(len(loud), theme) if figure.series.kind == "sequence" else list(colours.categories)
    of = dict(zip(loud, chosen, strict=False))
    return [of.get(value, colours.muted) for value in values]


def legend(figure: Figure) -> list[KeyEntry]:
    """Entries of the colour legend, in order; empty without series."""
    pairs = zip(figure.series_values(), palette(figure, "light"), palette(figure, "dark"), strict=True)
    dashes = series_dashes(figure)
    return [
        KeyEntry(label(value), drawn_cell(value), light, dark, dashes[i])
        for i, (value, light, dark) in enumerate(pairs)
    ]


def style_legend(figure: Figure) -> list[KeyEntry]:
    """Entries of the legend of dashes and shapes, in order; empty without a style."""
    if figure.style is None:
        return []
    light, dark = THEMES["light"].quiet, THEMES["dark"].quiet
    values = figure.values(figure.style.column, figure.style.order)
    return [
        KeyEntry(label(v), drawn_cell(v), light, dark, DASHES[i % len(DASHES)]) for i, v in enumerate(values)
    ]


def label(value: Cell) -> str:
    """A cell as a reader sees it: thousands grouped, at most five significant digits, None an en dash."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.1f}" if 1e4 <= abs(value) < 1e15 else f"{value:.5g}"


def series_dashes(figure: Figure) -> list[list[int]]:
    """Dash of each series: muted ones dashed, unless a style column decides dashes."""
    muted = () if figure.series is None or figure.style is not None else figure.series.muted
    return [_MUTED_DASH if value in muted else SOLID for value in figure.series_values()]


def drawn_cell(value: Cell) -> Cell:
    """A cell as drawn: seven digits, and a word joiner before names that JavaScript keeps for itself.

    The CSV keeps every digit and every name.
    """
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return f"\N{WORD JOINER}{value}" if value in _PROTOTYPE else value


def all_drawn(values: Sequence[Cell]) -> list[Cell]:
    """`drawn_cell` of each."""
    return [drawn_cell(value) for value in values]
