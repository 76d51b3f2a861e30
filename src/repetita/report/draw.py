"""Figures drawn: Vega-Lite for the page (one spec a panel, light and dark) and SVG for a paper, offline."""

import functools
import re
from typing import TYPE_CHECKING, Any

import vl_convert

from repetita.report.coloured import ColouredText, Drawing, svg_of_text
from repetita.report.figure import Axis, Cell, Figure, Layer, Row, Rule
from repetita.report.legend import DASHES, all_drawn, drawn_cell, label, palette, series_dashes
from repetita.report.palette import THEMES, ThemeName, config
from repetita.report.scale import domain, log_ticks, position, value_axis

if TYPE_CHECKING:
    import altair

VegaLite = dict[str, Any]

VERSION = "6.4"
"""Vega-Lite version of the specs; altair 6 writes it and vl-convert 1.9 carries it."""

STATIC_WIDTH = 720
"""Width of an SVG in pixels, about that of a paper's text."""

_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
_LAYER_DASH = {"solid": [1, 0], "dashed": [6, 4], "dotted": [2, 3]}

_NUMBER = (
    "abs(datum.value) >= 1e3 ? replace(format(datum.value, '.3~s'), 'G', 'B') : "
    "datum.value != 0 && abs(datum.value) < 1e-3 ? format(datum.value, '.1~e') : format(datum.value, '.4~r')"
)
_LABEL = "isNumber(datum.value) ? format(datum.value, ',.6~g') : datum.label"
_WRAPPED = f"split(replace({_LABEL}, regexp('(.{{10,20}}?) ', 'g'), '$1\\n'), '\\n')"
"""Labels of a category axis, broken after 10 to 20 characters so that they fit on a phone."""


def chart(figure: Figure) -> "altair.Chart":
    """The figure as an altair chart, for a notebook."""
    import altair

    drawn: altair.Chart = altair.Chart.from_dict(static_spec(figure))
    return drawn


def svg(figure: Drawing, *, theme: ThemeName = "light") -> str:
    """The figure as SVG text, without its title and caption; needs neither network nor browser."""
    if isinstance(figure, ColouredText):
        return svg_of_text(figure, theme=theme)
    text = str(vl_convert.vegalite_to_svg(static_spec(figure, theme=theme), vl_version=VERSION))
    # Vega numbers clip paths through the life of a process; a figure must not depend on those before.
    first = min((int(number) for number in re.findall(r'id="clip(\d+)"', text)), default=0)
    return re.sub(r'(id="|url\(#)clip(\d+)', lambda found: f"{found[1]}clip{int(found[2]) - first}", text)


@functools.cache
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script that defines `vegaEmbed`; about 0.9 MB."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VERSION))


def static_spec(figure: Figure, *, theme: ThemeName = "light") -> VegaLite:
    """The whole figure with its data and legend, for SVG and for other tools."""
    values = panel_values(figure)
    columns = 1 if len(values) == 1 else 2 if len(values) in (2, 4) else 3
    width = (STATIC_WIDTH - 50 * columns) // columns
    drawn = [
        _panel(figure, theme, value, legends=True) | {"width": width, "height": figure.height}
        for value in values
    ]
    whole = drawn[0] if len(drawn) == 1 else {"concat": drawn, "columns": columns, "spacing": 28}
    return whole | {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VERSION}.json",
        "data": {"values": rows_drawn(figure)},
        "config": config(theme),
        "background": THEMES[theme].background,
        "padding": 12,
    }


def page_spec(figure: Figure, *, theme: ThemeName, panel: Cell = None) -> VegaLite:
    """One panel for the page: as wide as its container, its data named `rows`.

    The parameters `hidden` and `hidden_style` are lists of series and style values that are not drawn.
    """
    spec = _panel(figure, theme, panel, legends=False)
    spec["layer"].append(_hover(figure, theme, panel))
    return spec | {
        "data": {"name": "rows"},
        "params": [{"name": "hidden", "value": []}, {"name": "hidden_style", "value": []}],
        "width": "container",
        "height": figure.height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": config(theme),
        "background": "transparent",
    }


def rows_drawn(figure: Figure) -> list[Row]:
    """The drawn columns to seven digits, and the drawn ends of range layer i as `_low<i>` and `_high<i>`."""
    used = figure.used_columns()
    ranged = [(i, layer) for i, layer in enumerate(figure.layers) if layer.low is not None]
    drawn = []
    for row in figure.rows:
        kept = {column: drawn_cell(row.get(column)) for column in used}
        for i, layer in ranged:
            kept[f"_low{i}"], kept[f"_high{i}"] = _ends(figure, layer, row)
        drawn.append(kept)
    return drawn


def panel_values(figure: Figure) -> list[Cell]:
    """The panels in order; [None] for a figure without them."""
    return [None] if figure.panels is None else figure.values(figure.panels.column, figure.panels.order)


def _panel(figure: Figure, theme: ThemeName, panel: Cell, *, legends: bool) -> VegaLite:
    """All layers of one panel, reference lines below the rest."""
    rules = [rule for rule in figure.rules if rule.panel is None or rule.panel == panel]
    layers = [mark for index, rule in enumerate(rules) for mark in _rule(figure, rule, index, theme, panel)]
    layers += [
        _layer(figure, layer, index, theme, panel, legends=legends)
        for index, layer in enumerate(figure.layers)
    ]
    return {"layer": layers} | ({} if panel is None else {"title": {"text": label(panel)}})


def _layer(
    figure: Figure, layer: Layer, index: int, theme: ThemeName, panel: Cell, *, legends: bool
) -> VegaLite:
    """One mark with its channels and the rows that it draws."""
    column = f"_low{index}" if layer.low is not None else layer.y or value_axis(figure).column
    channels = _place(figure, column, panel) | _series_channels(figure, layer, theme, legends=legends)
    if layer.low is not None:
        channels[figure.value_axis + "2"] = {"field": f"_high{index}"}
    mark = _mark(layer, theme)
    if figure.series is None:
        mark["color"] = THEMES[theme].categories[0]
    return {"transform": _only(figure, column, panel, hiding=not legends), "mark": mark, "encoding": channels}


def _mark(layer: Layer, theme: ThemeName) -> VegaLite:
    """A mark's properties that no column decides."""
    dash = {} if layer.dash == "solid" else {"strokeDash": _LAYER_DASH[layer.dash]}
    background = THEMES[theme].background
    marks: dict[str, VegaLite] = {
        "line": {"type": "line", "strokeWidth": 2, "strokeJoin": "round", **dash},
        "point": {
            "type": "point", "size": 46, "filled": True, "opacity": 1, "stroke": background, "strokeWidth": 1,
        },
        "band": {"type": "area", "opacity": 0.16},
        "interval": {"type": "rule", "strokeWidth": 1.8, "opacity": 0.75, **dash},
        "bar": {"type": "bar", "cornerRadiusEnd": 2, "opacity": 0.92},
    }  # fmt: skip
    return marks[layer.kind]


def _place(figure: Figure, column: str, panel: Cell) -> VegaLite:
    """The x and y channels, with `column` along the value axis."""
    x, y = _channel(figure, figure.x, panel), _channel(figure, figure.y, panel)
    (x if figure.value_axis == "x" else y)["field"] = column
    return {"x": x, "y": y}


def _channel(figure: Figure, axis: Axis, panel: Cell) -> VegaLite:
    """The x or y channel of an axis. The title of y stands above the axis, where it needs no width."""
    above = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleX": 0, "titleY": -12}
    look: VegaLite = {} if axis is figure.x else above
    if axis.scale == "category":
        values = all_drawn(figure.values(axis.column, axis.order))
        look |= {"labelAngle": 0, "labelLimit": 170, "labelExpr": _WRAPPED, "grid": False}
        scale: VegaLite = {"domain": values}
        return {
            "field": axis.column,
            "type": "nominal",
            "title": axis.title or None,
            "scale": scale,
            "axis": look,
        }
    low, high = domain(figure, axis, panel)
    ticks = log_ticks(low, high) if axis.scale == "log" else []
    look |= {"labelExpr": _NUMBER, "labelOverlap": "greedy"} | (
        {"values": ticks} if ticks else {"tickCount": 5}
    )
    scale = {"type": axis.scale, "domain": [low, high], "nice": False, "zero": False}
    if axis.scale == "log":
        del scale["zero"]
    return {
        "field": axis.column,
        "type": "quantitative",
        "title": axis.title or None,
        "scale": scale,
        "axis": look,
    }


def _series_channels(figure: Figure, layer: Layer, theme: ThemeName, *, legends: bool) -> VegaLite:
    """Colour, dash, shape and offset of a layer."""
    channels: VegaLite = {}
    lines = any(other.kind == "line" for other in figure.layers)
    # Axis titles stand above the panel, where Vega keeps no room for them below a legend.
    room = {"offset": 34 if figure.panels is None and figure.y.title else 12}
    shown = {"labelExpr": _LABEL, "symbolOpacity": 1, **room} | (
        {"symbolType": "stroke", "symbolSize": 300} if lines else {"symbolSize": 90}
    )
    solid_line = layer.kind == "line" and layer.dash == "solid"
    if (series := figure.series) is not None:
        values = all_drawn(figure.series_values())
        common = {
            "field": series.column,
            "type": "nominal",
            "title": series.title,
            "legend": shown if legends else None,
        }
        channels["color"] = common | {"scale": {"domain": values, "range": palette(figure, theme)}}
        if solid_line and figure.style is None and series.muted:
            channels["strokeDash"] = common | {"scale": {"domain": values, "range": series_dashes(figure)}}
        category = figure.y if figure.value_axis == "x" else figure.x
        if (
            category.scale == "category"
            and layer.kind not in ("line", "band")
            and series.column != category.column
        ):
            offset = "yOffset" if category is figure.y else "xOffset"
            channels[offset] = {"field": series.column, "type": "nominal", "scale": {"domain": values}}
    if (style := figure.style) is not None:
        values = all_drawn(figure.values(style.column, style.order))
        common = {
            "field": style.column,
            "type": "nominal",
            "title": style.title,
            "legend": shown if legends else None,
        }
        if solid_line:
            channels["strokeDash"] = common | {
                "scale": {"domain": values, "range": list(DASHES[: len(values)])}
            }
        elif layer.kind == "point":
            if legends and lines:
                common["legend"] = None
            channels["shape"] = common | {"scale": {"domain": values, "range": list(_SHAPES[: len(values)])}}
        else:
            channels["detail"] = {"field": style.column, "type": "nominal"}
    return channels


def _hover(figure: Figure, theme: ThemeName, panel: Cell) -> VegaLite:
    """Rings that appear on the row nearest to the pointer; they carry the tooltip."""
    index = next((i for i, layer in enumerate(figure.layers) if layer.y is None), 0)
    column = figure.layers[index].y or value_axis(figure).column
    kept = _series_channels(figure, Layer(kind="bar"), theme, legends=False)
    kept["opacity"] = {"condition": {"param": "pointed", "empty": False, "value": 1}, "value": 0}
    select = {"type": "point", "nearest": True, "on": "pointerover", "clear": "pointerout"}
    mark: VegaLite = {
        "type": "point",
        "size": 120,
        "filled": False,
        "strokeWidth": 2,
        "tooltip": {"content": "data"},
    }
    if figure.series is None:
        mark["color"] = THEMES[theme].categories[0]
    return {
        "params": [{"name": "pointed", "select": select}],
        "transform": _only(figure, column, panel, hiding=True),
        "mark": mark,
        "encoding": _place(figure, column, panel) | kept,
    }


def _rule(figure: Figure, rule: Rule, index: int, theme: ThemeName, panel: Cell) -> list[VegaLite]:
    """A reference line and its label, inside the panel and on a halo of the background."""
    colours = THEMES[theme]
    series = figure.series_values()
    colour = palette(figure, theme)[series.index(rule.series)] if rule.series in series else colours.quiet
    axis = figure.x if rule.axis == "x" else figure.y
    place = {rule.axis: _channel(figure, axis, panel) | {"field": "at"}}
    data = {"values": [{"at": rule.at, "label": rule.label}]}
    if rule.axis == "y":
        right = index % 2 == 0
        text: VegaLite = {"align": "right" if right else "left", "dy": -8, "dx": -4 if right else 4}
        across: VegaLite = {"x": {"value": "width" if right else 0}}
    else:
        right = position(figure, axis, rule.at, panel) > 0.5
        text = {"align": "right" if right else "left", "dx": -6 if right else 6, "dy": 6 + 15 * (index % 3)}
        across = {"y": {"value": 0}}
    words = place | across | {"text": {"field": "label", "type": "nominal"}}
    text |= {"type": "text", "fontSize": 11, "limit": 260}
    halo = {
        "stroke": colours.background,
        "strokeWidth": 4,
        "strokeJoin": "round",
        "color": colours.background,
    }
    line = {"type": "rule", "strokeDash": [3, 3], "strokeWidth": 1.3, "color": colour}
    return [
        {"data": data, "mark": line, "encoding": place},
        {"data": data, "mark": text | halo, "encoding": words},
        {"data": data, "mark": text | {"color": colour}, "encoding": words},
    ]


def _only(figure: Figure, column: str, panel: Cell, *, hiding: bool) -> list[VegaLite]:
    """The filters of a layer: shown series, rows of the panel with a value (positive on a log axis)."""
    other = figure.y if figure.value_axis == "x" else figure.x
    filters: list[Any] = []
    for axis, name in ((other, other.column), (value_axis(figure), column)):
        filters.append(f"isValid(datum.{name})" + (f" && datum.{name} > 0" if axis.scale == "log" else ""))
    if figure.panels is not None:
        filters.append({"field": figure.panels.column, "equal": drawn_cell(panel)})
    for parameter, key in (("hidden", figure.series), ("hidden_style", figure.style)):
        if hiding and key is not None:
            filters.append(f"indexof({parameter}, datum.{key.column}) < 0")
    return [{"filter": test} for test in filters]


def _ends(figure: Figure, layer: Layer, row: Row) -> tuple[Cell, Cell]:
    """Low and high of a row as drawn; an open bound, or one a log axis cannot show, goes to the edge."""
    axis = value_axis(figure)
    low, high = row.get(layer.low or ""), row.get(layer.high or "")
    if low is None and high is None:
        return None, None
    edge = domain(figure, axis, None if figure.panels is None else row.get(figure.panels.column))
    if not isinstance(low, int | float) or (axis.scale == "log" and low <= 0):
        low = edge[0]
    if not isinstance(high, int | float):
        high = edge[1]
    return drawn_cell(low), drawn_cell(high)
