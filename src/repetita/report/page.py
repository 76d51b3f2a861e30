"""The page of one or several studies: findings first, in one HTML file that opens anywhere, offline."""

import base64
import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from typing import Any, NamedTuple

import jinja2

from repetita.errors import SpecError
from repetita.fit.claim import Claim
from repetita.report import draw, legend
from repetita.report.coloured import STEPS, ColouredText, Drawing, Shown, tooltip_fields
from repetita.report.figure import Cell, Figure, csv_text
from repetita.report.palette import THEMES, config, diverging

GLYPHS = {"supported": "✓", "contradicted": "✕", "inconclusive": "?", "illustrated": "◐"}
"""A sign beside the colour of each verdict, for readers who do not see the colour."""


class Table(NamedTuple):
    """A small table of the page; None is an en dash, numbers are aligned right."""

    name: str
    """Lower-case words joined by hyphens, unique in a page; names the downloaded file."""
    title: str
    caption: str
    n: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def csv(self) -> str:
        """The table as CSV with a column `n`, safe to open in a spreadsheet."""
        if "n" in self.columns:
            return csv_text(self.columns, self.rows)
        return csv_text([*self.columns, "n"], ([*row, self.n] for row in self.rows))


class Deviation(NamedTuple):
    """A parameter that differs from the paper's."""

    parameter: str
    paper: str
    ours: str
    why: str = ""


class Report(NamedTuple):
    """One study as its page shows it."""

    name: str
    title: str
    question: str
    prediction: str
    source: str
    """Where the prediction comes from: paper, section or figure."""
    findings: Sequence[Claim] = ()
    figures: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    deviations: Sequence[Deviation] = ()
    provenance: Mapping[str, Mapping[str, object]] = {}
    """Groups of facts, in order: {"Software": {"torch": "2.13"}, "Runs": {slug: fingerprint}}."""
    warnings: Sequence[str] = ()


def page(
    reports: Report | Sequence[Report],
    *,
    title: str | None = None,
    lead: str = "",
    drawings: Mapping[str, str] | None = None,
) -> str:
    """One HTML file with everything inside: works from disk, offline, and asks nothing of the network.

    Several reports become sections of one page, figures and tables numbered throughout. `drawings` are the
    SVGs by name of figure that are there already; the others are drawn. Raises SpecError for two figures or
    tables of one name, or no report at all.
    """
    studies = [reports] if isinstance(reports, Report) else list(reports)
    if not studies:
        raise SpecError("page: no report to show; give at least one")
    check_names([study.name for study in studies], "reports")
    figures = [figure for study in studies for figure in study.figures]
    tables = [table for study in studies for table in study.tables]
    figure_names, table_names = [figure.name for figure in figures], [table.name for table in tables]
    check_names(figure_names + table_names, "figures or tables")
    colours = Colours()
    numbers = {name: i for names in (figure_names, table_names) for i, name in enumerate(names, 1)}
    drawn = drawings or {}
    return render(
        "page.html",
        colours=colours,
        figures=figures,
        tables=tables,
        title=title or studies[0].title,
        lead=lead,
        figure_word="Figure",
        studies=[_study(study, numbers, index, drawn) for index, study in enumerate(studies, 1)],
    )


def render(
    template: str,
    *,
    colours: "Colours",
    figures: Sequence[Drawing],
    tables: Sequence[Table],
    title: str,
    **context: object,
) -> str:
    """The page that a template makes of these figures and tables, with all that it needs inside."""
    early, script, library = _script("early.html"), _script("script.html"), draw.javascript()
    for figure in figures:
        colours.take(figure)
    css = _file("page.css") + colours.css()
    return (
        _environment(colours)
        .get_template(template)
        .render(
            **context,
            title=title,
            glyphs=GLYPHS,
            policy=_policy(scripts=(early, library, script), style=css),
            css=css,
            early=early,
            library=library,
            script=script,
            data=_data(figures, tables),
            version=metadata.version("repetita"),
        )
    )


class Colours:
    """Classes for the colours of legends: the page's policy forbids style attributes."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], str] = {}
        self._behind_text = False

    def take(self, figure: Drawing) -> None:
        """Know the colours of a figure's legends."""
        if isinstance(figure, ColouredText):
            self._behind_text = True
            return
        for entry in [*legend.legend(figure), *legend.style_legend(figure)]:
            self.name(entry)

    def name(self, entry: legend.KeyEntry) -> str:
        """The class of an entry's colours."""
        return self._pairs.setdefault((entry.light, entry.dark), f"c{len(self._pairs)}")

    def css(self) -> str:
        """One rule a class; the colours come from the palette, never from a study."""
        pairs = self._pairs.items()
        rules = [f".{name}{{stroke:light-dark({light},{dark})}}\n" for (light, dark), name in pairs]
        if self._behind_text:
            both = zip(*(diverging(2 * STEPS + 1, theme) for theme in ("light", "dark")), strict=True)
            rules += [
                f".t{i}{{background:light-dark({light},{dark})}}\n" for i, (light, dark) in enumerate(both)
            ]
        return "".join(rules)


def _study(
    study: Report, numbers: Mapping[str, int], index: int, drawings: Mapping[str, str]
) -> dict[str, Any]:
    """A report as the template reads it."""
    claims = [shown_claim(claim, f"{index}-{i}") for i, claim in enumerate(study.findings, 1)]
    tally: Counter[str] = Counter(claim.verdict for claim in study.findings)
    return {
        "id": index,
        "title": study.title,
        "question": study.question,
        "prediction": study.prediction,
        "source": study.source,
        "primary": [claim for claim in claims if claim["primary"]],
        "secondary": [claim for claim in claims if not claim["primary"]],
        "tally": [(verdict, tally[verdict]) for verdict in GLYPHS if tally[verdict]],
        "warnings": list(study.warnings),
        "figures": [
            shown_figure(figure, numbers[figure.name], drawings.get(figure.name)) for figure in study.figures
        ],
        "tables": [shown_table(table, numbers[table.name]) for table in study.tables],
        "deviations": list(study.deviations),
        "has_why": any(line.why for line in study.deviations),
        "provenance": shown_facts(study.provenance),
    }


def shown_facts(provenance: Mapping[str, Mapping[str, object]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of facts as the template reads them."""
    return [
        (group, [(key, _fact(value)) for key, value in facts.items()]) for group, facts in provenance.items()
    ]


def shown_claim(claim: Claim, identity: str) -> dict[str, Any]:
    """A finding as the template reads it."""
    estimate = claim.estimate
    interval = "" if estimate is None else f"{estimate.level:.0%} interval: {estimate.method}"
    if estimate is not None and estimate.contains:
        interval += f"; contains the variance of {estimate.contains}"
    if estimate is not None and estimate.low is None and estimate.high is None:
        interval = estimate.method
    return claim._asdict() | {
        "id": identity,
        "estimate": None if estimate is None else estimate.text(),
        "unit": claim.unit,
        "interval": interval,
    }


def shown_figure(figure: Drawing, number: int, drawing: str | None) -> dict[str, Any]:
    """A figure's words, legend and static drawing as the template reads them; "" is no static drawing."""
    static = draw.svg(figure) if drawing is None else drawing
    common = {
        **{key: getattr(figure, key) for key in ("name", "title", "caption", "n")},
        "number": number,
        "n_rows": len(figure.rows),
        "svg": base64.b64encode(static.encode()).decode(),
    }
    if isinstance(figure, ColouredText):
        return common | {"coloured": _coloured(figure), "legends": [], "note": ""}
    off = figure.n_off_log()
    keys = [
        (figure.series, "hidden", legend.legend(figure)),
        (figure.style, "hidden_style", legend.style_legend(figure)),
    ]
    n_panels = len(draw.panel_values(figure))
    return common | {
        "coloured": None,
        "note": f"{off} of {len(figure.rows)} rows lie at or below zero and are not on the log axis."
        if off
        else "",
        "legends": [
            {"title": key.title, "parameter": parameter, "entries": entries}
            for key, parameter, entries in keys
            if key is not None
        ],
        "n_panels": n_panels,
        "n_columns": n_panels if n_panels < 3 else 2 if n_panels == 4 else 3,
    }


def _coloured(text: ColouredText) -> dict[str, Any]:
    """Tokens with the classes of their shades, numbered through the excerpts, and the scale."""

    def span(at: int, token: Shown) -> dict[str, Any]:
        shade = [f"t{token.shade + STEPS}"] if token.shade else []
        classes = " ".join([*shade, *(["marked"] if token.marked else [])])
        return {"at": at, "classes": classes, "text": token.text, "ends_line": token.ends_line}

    excerpts, at = [], 0
    for one in text.excerpts:
        tokens = text.shown(one)
        spans = [span(at + i, token) for i, token in enumerate(tokens)]
        excerpts.append({"heading": one.heading, "tokens": spans})
        at += len(tokens)
    shades = [f"t{i}" for i in range(2 * STEPS + 1)]
    return {"excerpts": excerpts, "shades": shades, "ends": text.ends(), "unit": text.unit}


def shown_table(table: Table, number: int) -> dict[str, Any]:
    """A table's cells as text; a column of numbers is aligned right."""
    numeric = [
        all(not isinstance(row[i], str) for row in table.rows) and bool(table.rows)
        for i in range(len(table.columns))
    ]
    return {
        **{key: getattr(table, key) for key in ("name", "title", "caption", "n")},
        "number": number,
        "columns": [{"title": c, "numeric": numeric[i]} for i, c in enumerate(table.columns)],
        "rows": [
            [{"text": legend.label(cell), "numeric": numeric[i]} for i, cell in enumerate(row)]
            for row in table.rows
        ],
    }


def _data(figures: Sequence[Drawing], tables: Sequence[Table]) -> dict[str, Any]:
    """What the page's script reads: specs, rows, CSV."""
    return {
        "config": {theme: config(theme) for theme in THEMES},
        "figures": {figure.name: _figure_data(figure) for figure in figures},
        "tables": {table.name: {"csv": table.csv()} for table in tables},
    }


def _figure_data(figure: Drawing) -> dict[str, Any]:
    """Specs of all panels in both themes, rows once, and the fields of the tooltip."""
    if isinstance(figure, ColouredText):
        columns, rows = figure.columns(), figure.rows
        words = {"panels": [], "columns": columns, "rows": rows, "fields": tooltip_fields()}
        return words | {"csv": figure.csv()}
    panels = []
    for value in draw.panel_values(figure):
        specs = {theme: draw.page_spec(figure, theme=theme, panel=value) for theme in THEMES}
        for spec in specs.values():
            del spec["config"]
        panels.append(specs)
    return {
        "panels": panels,
        "columns": figure.used_columns(),
        "rows": draw.rows_drawn(figure),
        "fields": _fields(figure),
        "hidden": [entry.value for entry in legend.legend(figure)],
        "hidden_style": [entry.value for entry in legend.style_legend(figure)],
        "csv": figure.csv(),
    }


def _fields(figure: Figure) -> list[dict[str, str | None]]:
    """Lines of the tooltip: series, style, x, y with its interval, then what the figure adds."""
    ranged = next((layer for layer in figure.layers if layer.low is not None and layer.y is None), None)
    low, high = (None, None) if ranged is None else (ranged.low, ranged.high)
    fields: list[dict[str, str | None]] = []
    for key in (figure.panels, figure.series, figure.style, figure.x, figure.y):
        if key is not None:
            fields.append({"title": key.title or key.column, "column": key.column, "low": None, "high": None})
    value = figure.x if figure.value_axis == "x" else figure.y
    for field in fields:
        if field["column"] == value.column:
            field["low"], field["high"] = low, high
    extra = [name for name in figure.tooltip if all(field["column"] != name for field in fields)]
    return fields + [{"title": name, "column": name, "low": None, "high": None} for name in extra]


def _policy(*, scripts: Sequence[str], style: str) -> str:
    """Content-security policy: nothing but the page's own inline parts, named by their hashes."""
    hashes = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _fact(value: object) -> str:
    """A fact of the provenance in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_fact(item)}" for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_fact(item) for item in value)
    return legend.label(value) if isinstance(value, float | None) else str(value)


def check_names(names: Sequence[str], what: str) -> None:
    """Raises SpecError for two of one name."""
    for name, count in Counter(names).items():
        if count > 1:
            raise SpecError(f"page: {count} {what} are named '{name}'; give each its own name")


def _environment(colours: Colours) -> jinja2.Environment:
    """Templates of this package with everything escaped."""
    loader = jinja2.FunctionLoader(_file)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.globals["colour_class"] = colours.name
    return environment


@functools.cache
def _file(name: str) -> str:
    return resources.files("repetita.report").joinpath(name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """The JavaScript between the tags of a script file."""
    return _file(name).strip().removeprefix("<script>").removesuffix("</script>")
