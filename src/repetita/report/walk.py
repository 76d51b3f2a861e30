"""The page of a paper: figure by figure what it claims, what was found here, and what came later."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from repetita.errors import SpecError
from repetita.fit.claim import Claim
from repetita.report.coloured import Drawing
from repetita.report.page import (
    Colours,
    Deviation,
    Table,
    check_names,
    render,
    shown_claim,
    shown_facts,
    shown_figure,
    shown_table,
)


class Step(NamedTuple):
    """One figure or result of a paper beside what a study found."""

    label: str
    """As the paper calls it, "Figure 10 left"; unique in a page."""
    title: str
    says: str
    """The paper's claim."""
    later: str = ""
    """Where later work agrees or disagrees."""
    primary: bool = False
    """Whether its headline shares the error rate of the page, run or not."""
    state: str = ""
    """Why there is nothing to show: "not run yet"."""
    power: str = ""
    """Scale, seeds and the smallest effect that could be found."""
    headline: Claim | None = None
    """The one claim that shares the error rate of the page."""
    findings: Sequence[Claim] = ()
    """Others that are shown at once, descriptive here."""
    more_findings: Sequence[Claim] = ()
    """Folded."""
    figures: Sequence[Drawing] = ()
    """Shown at once."""
    tables: Sequence[Table] = ()
    more_figures: Sequence[Drawing] = ()
    """Folded; drawn when they are unfolded."""
    more_tables: Sequence[Table] = ()
    deviations: Sequence[Deviation] = ()
    warnings: Sequence[str] = ()

    @property
    def anchor(self) -> str:
        """What links inside the page point to."""
        return "step-" + re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")


class Walk(NamedTuple):
    """A paper, step by step."""

    title: str
    lead: str
    source: str
    steps: Sequence[Step]
    tables: Sequence[Table] = ()
    """Of the whole: what it took."""
    provenance: Mapping[str, Mapping[str, object]] = {}


def walk_page(walk: Walk, *, drawings: Mapping[str, str] | None = None) -> str:
    """One HTML file as `report.page.page` makes them; figures that are folded have no static drawing.

    Raises SpecError for two steps of one label, two figures or tables of one name, or no step at all.
    """
    if not walk.steps:
        raise SpecError("page: a walk without a step; give at least one")
    check_names([step.anchor for step in walk.steps], "steps")
    figures = [figure for step in walk.steps for figure in (*step.figures, *step.more_figures)]
    tables = [table for step in walk.steps for table in (*step.tables, *step.more_tables)]
    tables += walk.tables
    figure_names, table_names = [one.name for one in figures], [one.name for one in tables]
    check_names(figure_names + table_names, "figures or tables")
    numbers = {name: i for names in (figure_names, table_names) for i, name in enumerate(names, 1)}
    steps = [_step(step, numbers, i, drawings or {}) for i, step in enumerate(walk.steps, 1)]
    return render(
        "walk.html",
        colours=Colours(),
        figures=figures,
        tables=tables,
        title=walk.title,
        lead=walk.lead,
        source=walk.source,
        steps=steps,
        n_primary=sum(step.primary for step in walk.steps),
        figure_word="Plot",
        whole=[shown_table(table, numbers[table.name]) for table in walk.tables],
        provenance=shown_facts(walk.provenance),
    )


def _step(step: Step, numbers: Mapping[str, int], index: int, drawings: Mapping[str, str]) -> dict[str, Any]:
    """A step as the template reads it."""
    headline = step.headline
    return {
        **{
            name: getattr(step, name)
            for name in ("anchor", "label", "title", "says", "later", "state", "power")
        },
        "headline": None if headline is None else shown_claim(headline, f"{index}-0"),
        "findings": [shown_claim(claim, f"{index}-{i}") for i, claim in enumerate(step.findings, 1)],
        "more_findings": [shown_claim(one, f"{index}-m{i}") for i, one in enumerate(step.more_findings, 1)],
        "figures": [shown_figure(one, numbers[one.name], drawings.get(one.name)) for one in step.figures],
        "tables": [shown_table(one, numbers[one.name]) for one in step.tables],
        "more_figures": [shown_figure(one, numbers[one.name], "") for one in step.more_figures],
        "more_tables": [shown_table(one, numbers[one.name]) for one in step.more_tables],
        "deviations": list(step.deviations),
        "has_why": any(line.why for line in step.deviations),
        "warnings": list(step.warnings),
    }
