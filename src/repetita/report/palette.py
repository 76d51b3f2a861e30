"""Colours of the drawings, light and dark: Okabe-Ito categories, a sequence of falling luminance, a grey."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

ThemeName = Literal["light", "dark"]

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


class Theme(NamedTuple):
    """Colours of a drawing: text has a contrast of at least 4.5 with the background, lines of at least 2."""

    ink: str
    quiet: str
    grid: str
    background: str
    muted: str
    categories: tuple[str, ...]
    """Okabe and Ito's colour-blind-safe set first, adapted to the background."""
    sequence: tuple[str, ...]
    """Stops of the sequential palette, low to high; luminance falls, so that it also reads in grey."""
    diverging: tuple[str, str]
    """Ends of the scale behind text: below zero, above zero; ink has a contrast of at least 4.5 with them."""


THEMES: dict[ThemeName, Theme] = {
    "light": Theme(
        ink="#2a2d33",
        quiet="#5d636e",
        grid="#ebebe6",
        background="#ffffff",
        muted="#7a808a",
        categories=(
            "#0072b2", "#d55e00", "#009e73", "#b5538f", "#b98500", "#3aa0dd",
            "#5b4b9a", "#8c5a2b", "#5f7d16", "#c2334d", "#2b7f8c", "#6b7280",
        ),
        sequence=("#e9a23b", "#d9603f", "#a8327d", "#4b2e91"),
        diverging=("#5fb0ea", "#f0904f"),
    ),
    "dark": Theme(
        ink="#e4e4df",
        quiet="#a3a8b0",
        grid="#2e3137",
        background="#1b1d21",
        muted="#9299a4",
        categories=(
            "#4fa9e6", "#f28a45", "#33c79a", "#e08fc4", "#e8bd4a", "#93d4fb",
            "#a899f0", "#cf9d6b", "#a9cc55", "#f2788d", "#6cc6d3", "#a3a8b0",
        ),
        sequence=("#ffd07a", "#f59068", "#e075b6", "#9277ee"),
        diverging=("#1d639c", "#9c4a12"),
    ),
}  # fmt: skip


def shades(n: int, theme: ThemeName) -> list[str]:
    """`n` colours evenly along the sequential palette, low to high."""
    stops = THEMES[theme].sequence
    return [_between(stops, i / max(1, n - 1)) for i in range(n)]


def diverging(n: int, theme: ThemeName) -> list[str]:
    """`n` colours (an odd number) from below zero to above it; the middle one is the background."""
    below, above = THEMES[theme].diverging
    stops = (below, THEMES[theme].background, above)
    return [_between(stops, i / (n - 1)) for i in range(n)]


def _between(stops: Sequence[str], at: float) -> str:
    """The colour at `at` in [0, 1] along evenly spaced stops."""
    place = at * (len(stops) - 1)
    left = min(int(place), len(stops) - 2)
    part = place - left
    pairs = ((int(stops[left][i : i + 2], 16), int(stops[left + 1][i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def config(theme: ThemeName) -> dict[str, Any]:
    """Vega-Lite configuration: fonts, colours and spacing shared by all figures of a theme."""
    colours = THEMES[theme]
    return {
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "domainColor": colours.quiet, "domainOpacity": 0.5,
            "tickColor": colours.quiet, "tickOpacity": 0.5,
            "tickSize": 4, "gridColor": colours.grid, "labelColor": colours.quiet, "labelFontSize": 11,
            "labelPadding": 5, "titleColor": colours.ink, "titleFontSize": 12, "titleFontWeight": 500,
            "titlePadding": 10, "titleLimit": 600,
        },
        "axisX": {"grid": False, "titleAnchor": "middle"},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "orient": "top", "labelColor": colours.ink, "titleColor": colours.quiet, "labelFontSize": 11,
            "titleFontSize": 11, "titleFontWeight": 500, "symbolStrokeWidth": 2, "labelLimit": 260,
            "columns": 5, "offset": 12, "padding": 0,
        },
        "title": {
            "color": colours.ink, "fontSize": 12.5, "fontWeight": 600, "anchor": "start", "frame": "group",
            "offset": 8,
        },
    }  # fmt: skip
