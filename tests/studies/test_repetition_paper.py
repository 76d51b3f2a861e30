"""The page of the repeated-data paper asks every figure, takes one headline a study, shows each plot once."""

import fnmatch
import re
from collections import Counter
from pathlib import Path

import pytest

from repetita.fit.claim import MAX_PRIMARY
from repetita.studies import memorization_paper
from repetita.studies.repetition_paper import PAPER
from repetita.study.execute import execute
from repetita.study.find import built_in, find_paper
from repetita.study.prepare import bundle
from repetita.study.walkthrough import publish_bundle

PRIMARY = {
    "2 left": "double_descent", "5": "copying", "6": "induction_heads", "10": "out_of_distribution",
    "12": "finetuning", "19": "attention_only", "Abstract": "repetition_unit",
    "Discussion": "causality",
}  # fmt: skip
"""The figures whose studies' headlines share the error rate of the page."""

ONLY_ON_TWO_TEXTS = {"hump-*-python-stdlib"}
"""Claims that need a second text, which the tiny scale has not."""
ONLY_OF_LONG_RUNS = {"learning-curves-f90"}
"""Plots of shares that the tiny scale does not run."""


def _named(figure: str) -> str:
    return figure.removeprefix("Figures ").removeprefix("Figure ")


def test_every_figure_of_the_paper_is_there() -> None:
    figures = [_named(entry.figure) for entry in PAPER.entries]
    numbers = {
        int(number) for figure in figures for number in re.findall(r"\d+(?!\.)\b", figure.split(".")[0])
    }
    assert set(range(1, 23)) <= numbers
    assert {"2 left", "2 right", "4 left", "4 right", "7 left", "7 right"} <= set(figures)
    assert len(set(figures)) == len(figures)
    order = [int(found[0]) for figure in figures if (found := re.match(r"\d+", figure))]
    assert order == sorted(order)


def test_one_headline_a_study_and_no_more_than_a_page_may_have() -> None:
    primary = {_named(entry.figure): entry.study for entry in PAPER.entries if entry.primary}
    assert primary == PRIMARY
    assert len(set(primary.values())) == len(primary) <= MAX_PRIMARY


def test_its_studies_are_built_in_and_it_is_found() -> None:
    """Each built-in study belongs to one paper."""
    assert sorted((*PAPER.studies, *memorization_paper.PAPER.studies)) == sorted(built_in())
    found = find_paper("repetition-paper")
    assert found is not None
    assert found.paper is PAPER


def test_it_has_every_scale() -> None:
    for scale in ("tiny", "laptop", "overnight", "gpu", "paper"):
        assert len(bundle("repetition_paper", scale=scale).portions) == len(PAPER.studies)


def test_words_fit_the_vocabulary_and_numbers_are_there() -> None:
    for entry in PAPER.entries:
        assert not re.search("epoch", entry.claim + entry.later + entry.title)
        if entry.primary:
            assert re.search(r"\d", entry.claim), f"{entry.figure}: the paper's numbers"
            assert re.search(r"et al\.|known", entry.later), (
                f"{entry.figure}: later work, or that none is known"
            )


def test_no_name_is_given_to_two_figures_of_the_paper() -> None:
    for kind in ("figures", "tables", "claims"):
        for study in PAPER.studies:
            entries = [getattr(entry, kind) for entry in PAPER.entries if entry.study == study]
            names = Counter(name for named in entries for name in named)
            assert max(names.values(), default=1) == 1


@pytest.mark.slow
@pytest.mark.ci
def test_tiny_from_runs_to_page(tmp_path: Path) -> None:
    """All studies as one execution; each figure and claim of theirs has one place on the page."""
    whole = bundle("repetition_paper", scale="tiny")
    outcome = execute(whole.portions, root=tmp_path, processes=2, paper=whole.folder)
    assert not outcome.failed
    published = publish_bundle(whole, root=tmp_path)
    walk = published.walk
    assert walk is not None
    shown = Counter(figure.name for step in walk.steps for figure in (*step.figures, *step.more_figures))
    drawn = [figure.name for report in published.reports for figure in report.figures]
    assert shown == Counter(drawn)
    assert max(shown.values()) == 1, "names are unique over the studies"
    tables = Counter(table.name for step in walk.steps for table in (*step.tables, *step.more_tables))
    assert max(tables.values()) == 1
    there = [*shown, *tables]
    for name in (name for entry in PAPER.entries for name in (*entry.figures, *entry.tables)):
        assert fnmatch.filter(there, name) or name in ONLY_OF_LONG_RUNS, f"no study draws {name}"
    claims = [claim.name for report in published.reports for claim in report.findings]
    for name in (name for entry in PAPER.entries for name in entry.claims):
        assert fnmatch.filter(claims, name) or name in ONLY_ON_TWO_TEXTS, f"no study claims {name}"
    assert sum(step.headline is not None for step in walk.steps) == len(PRIMARY)
    for report in published.reports:
        told = Counter(claim.name for claim in report.findings)
        assert max(told.values()) == 1
    assert len(published.page.read_text()) < 9_000_000
