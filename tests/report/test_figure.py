"""A figure refuses what cannot be drawn, and its CSV is safe and complete."""

import csv
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.errors import SpecError
from repetita.report.figure import Axis, Figure, Layer, Series, csv_text
from tests.report import samples

ROWS = ({"x": 1, "loss": 2.0}, {"x": 2, "loss": None})


def figure(**changes: Any) -> Figure:
    values: dict[str, Any] = {
        "name": "a-figure",
        "title": "t",
        "caption": "c",
        "n": "3 seeds",
        "rows": ROWS,
        "x": Axis(column="x", title="x"),
        "y": Axis(column="loss", title="loss"),
    }
    return Figure(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": ()}, "no rows"),
        ({"rows": [{"x": 1, "loss": 1.0}] * 5000}, "4999 are allowed"),
        ({"rows": [{"x": 1, "loss": math.nan}]}, "column 'loss' is nan; write None"),
        ({"rows": [{"x": 1, "loss": -math.inf}]}, "column 'loss' is -inf; write None"),
        ({"rows": [{"x": 1, "loss": [1]}]}, "list cannot be drawn"),
        ({"rows": [{"x": 1, "loss": True}]}, "bool cannot be drawn"),
        ({"rows": [{"x": 1, "loss": "high"}]}, "text in 'loss'"),
        ({"rows": {"x": [1]}}, "list of dicts"),
        ({"rows": [{"x": 1, "loss": 1, "a b": 1}]}, "letters, digits and underscores"),
        ({"y": Axis(column="los", title="loss")}, "did you mean 'loss'"),
        ({"layers": (Layer(kind="band", low="lo", high="hi"),)}, "no row has the column 'lo'"),
        ({"series": Series(column="size", title="size")}, "no row has the column 'size'"),
        ({"name": "A figure"}, "joined by hyphens"),
        ({"n": ""}, "'n'"),
        ({"x": Axis(column="x", title="x", scale="log", domain=(0, 1))}, "not positive on a log axis"),
        ({"x": Axis(column="x", title="x", order=(1,))}, "order has no effect"),
        ({"rows": [{"x": 1, "loss": 1.0, "s": None}], "series": Series(column="s", title="s")}, "row 0"),
        ({"legend": "top"}, "unknown key 'legend'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(changes, words):
    with pytest.raises(SpecError, match=words) as refused:
        figure(**changes)
    assert "\n" not in str(refused.value)


def test_layers_say_what_they_need():
    with pytest.raises(SpecError, match="needs the columns low and high"):
        Layer(kind="band", low="low")
    with pytest.raises(SpecError, match="no effect on a line"):
        Layer(kind="line", low="low", high="high")


def test_too_many_series_are_refused():
    rows = [{"x": 1, "loss": 1.0, "s": f"s{i}"} for i in range(13)]
    with pytest.raises(SpecError, match="13 series"):
        figure(rows=rows, series=Series(column="s", title="s"))


def test_numpy_scalars_become_plain():
    made = figure(rows=[{"x": np.int64(3), "loss": np.float32(0.5)}])
    assert made.rows == ({"x": 3, "loss": 0.5},)
    assert type(made.rows[0]["x"]) is int


def test_figures_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        setattr(figure(), "title", "other")  # noqa: B010


def test_series_keep_the_order_given_then_ascend():
    rows = [{"x": 1, "loss": 1.0, "s": s} for s in (30, 4, 200)]
    assert figure(rows=rows, series=Series(column="s", title="s")).series_values() == [4, 30, 200]
    assert figure(rows=rows, series=Series(column="s", title="s", order=(200,))).series_values() == [
        200,
        4,
        30,
    ]


@pytest.mark.parametrize("make", samples.FIGURES, ids=lambda make: make.__name__)
def test_every_figure_has_a_csv_twin_with_n(make):
    made = make()
    lines = list(csv.DictReader(io.StringIO(made.csv())))
    assert len(lines) == len(made.rows)
    assert all(line["n"] == made.n for line in lines)
    for line, row in zip(lines, made.rows, strict=True):
        for column, value in row.items():
            assert line[column] == ("" if value is None else str(value))


def test_rows_below_a_log_axis_are_counted():
    assert samples.learning().n_off_log() == 6
    assert figure().n_off_log() == 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12), st.sampled_from(["=", "+", "-", "@", "\t", "\r", " =", "|", "%", ""]))
def test_no_text_in_a_csv_is_a_formula(text, start):
    cell = start + text
    (header, row) = csv.reader(io.StringIO(csv_text([cell], [[cell]]), newline=""))
    for found in (*header, *row):
        assert not found.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "|", "%"))
        assert found.removeprefix("'") == cell.replace("\0", "") or found == cell.replace("\0", "")


def test_numbers_in_a_csv_stay_numbers():
    assert csv_text(["a", "b", "c"], [[-1.5, 10, None]]) == "a,b,c\r\n-1.5,10,\r\n"
