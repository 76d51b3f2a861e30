"""Drawings are valid Vega-Lite, keep their rows, and carry no text as anything but text."""

import json
from xml.etree import ElementTree

import altair
import pytest

from repetita.report import draw
from repetita.report.figure import Axis, Figure, Layer, Rule, Series
from repetita.report.legend import legend, palette
from repetita.report.palette import THEMES, shades
from repetita.report.scale import domain, log_ticks
from tests.report import samples


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("make", samples.FIGURES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_specs_are_valid_vega_lite(make, theme):
    figure = make()
    altair.Chart.from_dict(draw.static_spec(figure, theme=theme))
    for panel in draw.panel_values(figure):
        spec = draw.page_spec(figure, theme=theme, panel=panel)
        altair.Chart.from_dict(spec)
        json.dumps(spec, allow_nan=False)


@pytest.mark.parametrize("make", samples.FIGURES, ids=lambda make: make.__name__)
def test_svg_is_well_formed_and_draws_every_series(make):
    figure = make()
    text = draw.svg(figure)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    for colour in palette(figure, "light"):
        assert colour in text


def test_chart_is_an_altair_chart():
    assert isinstance(draw.chart(samples.law()), altair.TopLevelMixin)


def test_hostile_text_is_text_in_an_svg():
    text = draw.svg(samples.hostile().figures[0])
    elements = list(ElementTree.fromstring(text).iter())
    tags = {element.tag.rpartition("}")[2] for element in elements}
    assert tags <= {"svg", "g", "path", "rect", "line", "text", "defs", "clipPath", "tspan", "style"}
    assert "<script" not in text.lower()
    attributes = {name for element in elements for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on") or "href" in name or name == "src"}


def test_names_that_javascript_keeps_for_itself_are_drawn_as_others():
    figure = samples.hostile().figures[0]
    assert isinstance(figure, Figure)
    entry = legend(figure)[-1]
    assert entry.label == "__proto__"
    assert entry.value != "__proto__"
    assert entry.value in {row["series"] for row in draw.rows_drawn(figure)}
    assert "__proto__" in figure.csv()


def test_shapes_of_rows_are_kept_and_open_bounds_reach_the_edge():
    figure = samples.damage()
    rows = draw.rows_drawn(figure)
    edge = domain(figure, figure.x)[1]
    assert len(rows) == len(figure.rows)
    for row, drawn in zip(figure.rows, rows, strict=True):
        assert drawn["excess"] == pytest.approx(row["excess"])
        assert drawn["_high0"] == pytest.approx(edge if row["high"] is None else row["high"])


def test_a_bound_below_a_log_axis_reaches_the_edge():
    figure = Figure(
        name="f", title="t", caption="c", n="1",
        rows=({"x": 1, "y": 0.5, "low": -0.1, "high": 1.0}, {"x": 2, "y": 0.0, "low": None, "high": None}),
        x=Axis(column="x", title="x"), y=Axis(column="y", title="y", scale="log"),
        layers=(Layer(kind="interval", low="low", high="high"), Layer(kind="point")),
    )  # fmt: skip
    first, second = draw.rows_drawn(figure)
    assert first["_low0"] == pytest.approx(domain(figure, figure.y)[0])
    assert second["_low0"] is None
    assert figure.n_off_log() == 1
    draw.svg(figure)


def test_axes_hold_reference_lines_and_rows():
    figure = samples.learning()
    low, high = domain(figure, figure.y)
    assert high >= figure.rules[0].at
    assert low <= min(row["loss"] for row in figure.rows if isinstance(row["loss"], float))
    low, high = domain(samples.forgetting(), samples.forgetting().y)
    assert low == 0
    constant = figure.edit(rows=({"x": 1, "y": 0.0, "on": "a", "size": 1},), rules=(), style=None,
                           x=Axis(column="x", title="x"), y=Axis(column="y", title="y"))  # fmt: skip
    low, high = domain(constant, constant.y)
    assert low <= 0 < high


@pytest.mark.parametrize(("low", "high"), [(1, 1000), (3e3, 8e5), (1e-9, 1e9), (0.3, 7.0)])
def test_log_ticks_are_few_and_inside(low, high):
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 12
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(ticks)


def test_palettes_are_readable_in_both_themes():
    for name, theme in THEMES.items():
        assert contrast(theme.ink, theme.background) >= 7
        assert contrast(theme.quiet, theme.background) >= 4.5
        for colour in (*theme.categories, theme.muted):
            assert contrast(colour, theme.background) >= 2.7
        ramp = [luminance(colour) for colour in shades(7, name)]
        assert ramp == sorted(ramp, reverse=True)
        assert all(contrast(colour, theme.background) >= 2 for colour in shades(7, name))


def test_muted_series_are_grey_and_dashed():
    control = legend(samples.hump())[-1]
    assert control.value == "control (25k)"
    assert control.light == THEMES["light"].muted
    assert control.dash != [1, 0]


def test_a_rule_takes_the_colour_of_its_series():
    figure = samples.bars().edit(rules=(Rule(axis="y", at=0.5, label="half", series="25k"),))
    assert isinstance(figure.series, Series)
    spec = draw.page_spec(figure, theme="light")
    assert spec["layer"][0]["mark"]["color"] == palette(figure, "light")[0]
