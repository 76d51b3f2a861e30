"""A figure as data: its rows, what each axis shows, how many things were measured; no drawing here."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from repetita.errors import SpecError, nearest
from repetita.spec import Spec

Cell = str | int | float | None
Row = dict[str, Cell]

MAX_ROWS = 5000
"""A figure holds fewer rows than this: a page must open on a phone (design, section 7)."""

MAX_SERIES = 12
"""More series than this cannot be told apart by any palette; draw panels instead."""

_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")  # noqa: RUF001


class Axis(Spec):
    """One column drawn along x or y. The title names the quantity and its unit."""

    column: str
    title: str
    scale: Literal["linear", "log", "symlog", "category"] = "linear"
    domain: tuple[float, float] | None = None
    """Ends of the axis; None takes them from the rows, intervals and reference lines."""
    start: Literal["data", "zero"] = "data"
    """Whether a linear axis may start near the data or must include zero (bars always do)."""
    order: tuple[Cell, ...] = ()
    """Order of the values of a category axis; those left out follow as they appear."""


class Series(Spec):
    """The column that splits rows into coloured series, with an entry each in the legend."""

    column: str
    title: str
    kind: Literal["category", "sequence"] = "category"
    """`sequence` draws ordered series (model sizes, passes) in one sequential palette, low to high."""
    order: tuple[Cell, ...] = ()
    """Order of the series; those left out follow: numbers ascending, text as it appears."""
    muted: tuple[Cell, ...] = ()
    """Series drawn grey and dashed: the control."""


class Style(Spec):
    """A second column that splits the series by dash of the line and shape of the point."""

    column: str
    title: str
    order: tuple[Cell, ...] = ()


class Panels(Spec):
    """The column whose values each get a panel of their own, side by side."""

    column: str
    title: str
    order: tuple[Cell, ...] = ()
    share: Literal["both", "x", "y", "none"] = "both"
    """Which axes are the same in all panels."""


class Layer(Spec):
    """One mark drawn for every series, later layers on top.

    `y` names another column than the figure's axis (a fitted line beside measured points); rows in
    which it is None are left out. `band` and `interval` run from `low` to `high`; None in one of them
    is a bound that is open and is drawn to the edge of the panel. Both run along the value axis: y, or x
    where y is a category.
    """

    kind: Literal["line", "point", "band", "interval", "bar"]
    y: str | None = None
    low: str | None = None
    high: str | None = None
    dash: Literal["solid", "dashed", "dotted"] = "solid"

    @model_validator(mode="after")
    def _check(self) -> Self:
        ranged = self.kind in ("band", "interval")
        if ranged and (self.low is None or self.high is None):
            raise SpecError(f"Layer: a {self.kind} needs the columns low and high; name both")
        if not ranged and (self.low is not None or self.high is not None):
            raise SpecError(
                f"Layer: low and high have no effect on a {self.kind}; add a band or interval layer"
            )
        return self


class Rule(Spec):
    """A reference line across the panel (ln V, a marker), labelled in the panel."""

    axis: Literal["x", "y"]
    at: float
    label: str
    series: Cell = None
    """Draw it in the colour of this series instead of grey."""
    panel: Cell = None
    """Draw it in this panel only."""


class Figure(Spec):
    """What is drawn, checked: fewer than 5,000 rows, known columns, finite numbers or None.

    `n` says in words how many things stand behind the figure ("3 seeds x 9 E, 512 test sequences").
    Rows are plain dicts; numpy scalars are accepted. Raises SpecError in one sentence.
    """

    name: str
    """Lower-case words joined by hyphens, unique in a page; names the downloaded files."""
    title: str
    caption: str
    n: str = Field(min_length=1)
    rows: tuple[Row, ...]
    x: Axis
    y: Axis
    series: Series | None = None
    style: Style | None = None
    panels: Panels | None = None
    layers: tuple[Layer, ...] = Field(default=(Layer(kind="line"), Layer(kind="point")), min_length=1)
    rules: tuple[Rule, ...] = ()
    tooltip: tuple[str, ...] = ()
    """Further columns shown when a point is hovered."""
    height: int = Field(default=300, ge=80, le=900)
    """Height of a panel in pixels."""

    @field_validator("rows", mode="before")
    @classmethod
    def _plain_rows(cls, rows: Any) -> tuple[Row, ...]:
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
            raise SpecError("Figure: rows must be a list of dicts, one a row")
        return tuple(_plain_row(row, index) for index, row in enumerate(rows))

    @model_validator(mode="after")
    def _check(self) -> Self:
        where = f"Figure '{self.name}'"
        if not NAME.match(self.name):
            raise SpecError(
                f"{where}: the name must be lower-case words joined by hyphens, like 'loss-by-passes'"
            )
        if not self.rows:
            raise SpecError(f"{where}: it has no rows; leave it out and say why in a warning")
        if len(self.rows) >= MAX_ROWS:
            raise SpecError(f"{where}: {len(self.rows)} rows, {MAX_ROWS - 1} are allowed; thin or bin them")
        known = self.columns()
        for column in known:
            if not _COLUMN.match(column):
                raise SpecError(
                    f"{where}: column '{column}' must be letters, digits and underscores, like 'n_params'"
                )
        for column in self.used_columns():
            if column not in known:
                raise SpecError(f"{where}: no row has the column '{column}'; {nearest(column, known)}")
        for axis in (self.x, self.y):
            self._check_axis(axis, where)
        for key in (self.series, self.style, self.panels):
            for index, row in enumerate(self.rows):
                if key is not None and row.get(key.column) is None:
                    raise SpecError(
                        f"{where}: row {index} has no '{key.column}'; every row needs one to be drawn"
                    )
        if self.series is not None and len(self.series_values()) > MAX_SERIES:
            raise SpecError(
                f"{where}: {len(self.series_values())} series, {MAX_SERIES} can be told apart; use panels"
            )
        return self

    def _check_axis(self, axis: Axis, where: str) -> None:
        """Numbers on a numeric axis, a domain that fits the scale."""
        if axis.scale != "category":
            for column in self.value_columns(axis):
                for index, row in enumerate(self.rows):
                    if isinstance(row.get(column), str):
                        raise SpecError(
                            f"{where}: row {index} has text in '{column}', which is drawn on a "
                            f"{axis.scale} axis; give numbers or set scale='category'"
                        )
        if axis.domain is not None and (
            axis.domain[0] >= axis.domain[1] or (axis.scale == "log" and axis.domain[0] <= 0)
        ):
            raise SpecError(f"{where}: domain {axis.domain} does not rise or is not positive on a log axis")
        if axis.order and axis.scale != "category":
            raise SpecError(f"{where}: order has no effect on a {axis.scale} axis; set scale='category'")

    def columns(self) -> list[str]:
        """Every column of any row, in order of first appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def used_columns(self) -> list[str]:
        """Columns that an axis, a series, a panel, a layer or a tooltip draws."""
        keys = [
            key.column for key in (self.x, self.y, self.series, self.style, self.panels) if key is not None
        ]
        layers = [
            name for layer in self.layers for name in (layer.y, layer.low, layer.high) if name is not None
        ]
        return list(dict.fromkeys([*keys, *layers, *self.tooltip]))

    @property
    def value_axis(self) -> Literal["x", "y"]:
        """The axis along which intervals run: y, or x where y is a category."""
        return "x" if self.y.scale == "category" else "y"

    def value_columns(self, axis: Axis) -> list[str]:
        """All columns whose numbers are drawn along `axis`."""
        columns = [axis.column]
        if axis is getattr(self, self.value_axis):
            columns += [
                name for layer in self.layers for name in (layer.low, layer.high, layer.y) if name is not None
            ]
        return list(dict.fromkeys(columns))

    def series_values(self) -> list[Cell]:
        """The series, in the order of the legend."""
        return [] if self.series is None else self.values(self.series.column, self.series.order)

    def values(self, column: str, order: tuple[Cell, ...] = ()) -> list[Cell]:
        """Distinct values of a column: `order` first, then numbers ascending or text as it appears."""
        seen = list(dict.fromkeys(row[column] for row in self.rows if row.get(column) is not None))
        if seen and all(isinstance(value, int | float) for value in seen):
            seen.sort(key=lambda value: float(value))  # type: ignore[arg-type]
        first = [value for value in order if value in seen]
        return first + [value for value in seen if value not in first]

    def n_off_log(self) -> int:
        """Rows that a log axis cannot draw because they lie at or below zero; they stay in the CSV."""
        axes = [axis for axis in (self.x, self.y) if axis.scale == "log"]
        return sum(
            any(isinstance(value := row.get(axis.column), int | float) and value <= 0 for axis in axes)
            for row in self.rows
        )

    def csv(self) -> str:
        """The rows as CSV with a column `n`, safe to open in a spreadsheet."""
        columns = self.columns()
        if "n" in columns:
            return csv_text(columns, ([row.get(column) for column in columns] for row in self.rows))
        return csv_text(
            [*columns, "n"], ([*(row.get(column) for column in columns), self.n] for row in self.rows)
        )


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[Cell]]) -> str:
    """CSV (RFC 4180) in which no text is a formula.

    Text that a spreadsheet would run (it starts with = + - @ or a control character) gets a leading
    apostrophe, as OWASP advises; numbers stay numbers and None is empty.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_inert(column) for column in columns])
    for row in rows:
        writer.writerow([_inert(cell) for cell in row])
    return out.getvalue()


def _inert(cell: Cell) -> Cell:
    """The cell, with an apostrophe before text that a spreadsheet would take for a formula."""
    if isinstance(cell, str):
        cell = cell.replace("\0", "")
        if cell.lstrip(" ").startswith(_FORMULA):
            return "'" + cell
    return cell


def _plain_row(row: Any, index: int) -> Row:
    """One row with Python scalars; raises SpecError on anything else or on NaN and infinities."""
    if not isinstance(row, Mapping):
        raise SpecError(f"Figure: row {index} is a {type(row).__name__}; give a dict of column to value")
    plain: Row = {}
    for column, given in row.items():
        value = given.item() if hasattr(given, "item") and getattr(given, "ndim", None) == 0 else given
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise SpecError(
                f"Figure: row {index}, column '{column}': {type(value).__name__} cannot be drawn; give a "
                f"number, text or None"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(
                f"Figure: row {index}, column '{column}' is {value}; write None where there is no value"
            )
        plain[str(column)] = value
    return plain
