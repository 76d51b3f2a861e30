"""The page of the repeated-data paper asks every figure, takes one headline a study, shows each plot once."""

import fnmatch
import re
from collections import Counter
from pathlib import Path

import pytest

from repetita.fit.claim import MAX_PRIMARY
from repetita.studies import memorization_paper
from repetita.studies.double_descent import STUDY
from repetita.studies.repetition_paper import PAPER
from repetita.study.execute import execute
from repetita.study.find import built_in, find_paper
from repetita.study.prepare import bundle
from repetita.study.walkthrough import publish_bundle
from repetita.study.where import Where
from tests.studies.planted import planted
from tests.studies.test_double_descent import humps

PRIMARY = {
    "2 left": "double_descent", "5": "copying", "6": "induction_heads", "10": "out_of_distribution",
    "12": "finetuning", "19": "attention_only", "Abstract": "repetition_unit",
    "Discussion": "causality",
}  # fmt: skip
"""The figures whose studies' headlines share the error rate of the page."""

NOT_AT_TINY = {
    "hump-*-python-stdlib", "loss-by-arm", "arms",  # a second text
    "learning-curves-f90",  # a share of nine tenths
    "half-damage-by-share", "capacity", "law-compute-equivalent", "law-toy-hump",  # an interior worst
    "induction-size-multiplier", "other-text-extra",  # controls that tell sizes apart
    "fuzzy-1-layer-*", "fuzzy-2-layers-*",  # a passage with names in other forms
}  # fmt: skip
"""What needs more than forty steps of training on one text."""
ELSEWHERE = {"induction-size-multiplier", "other-text-extra", "fuzzy-1-layer-*", "fuzzy-2-layers-*"}
"""Which the tests of their own studies find on planted measurements."""


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
def test_what_the_tiny_scale_lacks_is_there_where_humps_are_planted() -> None:
    found = STUDY.analyse(planted(STUDY, scale="overnight", value=humps()))
    there = [one.name for one in (*found.figures, *found.tables, *found.claims)]
    for entry in PAPER.entries:
        for name in (*entry.figures, *entry.tables, *entry.claims):
            if entry.study == STUDY.name:
                assert fnmatch.filter(there, name), f"{entry.figure}: {name}"
    own = [entry for entry in PAPER.entries if entry.study == STUDY.name]
    named = {name for entry in own for name in (*entry.figures, *entry.tables, *entry.claims)}
    assert NOT_AT_TINY - named == ELSEWHERE


@pytest.mark.slow
@pytest.mark.ci
def test_tiny_from_runs_to_page(tmp_path: Path) -> None:
    """All studies as one execution; each figure and claim of theirs has one place on the page."""
    whole = bundle("repetition_paper", scale="tiny")
    outcome = execute(whole.portions, root=tmp_path, where=Where(processes=2), paper=whole.folder)
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
        assert fnmatch.filter(there, name) or name in NOT_AT_TINY, f"no study draws {name}"
    claims = [claim.name for report in published.reports for claim in report.findings]
    for name in (name for entry in PAPER.entries for name in entry.claims):
        assert fnmatch.filter(claims, name) or name in NOT_AT_TINY, f"no study claims {name}"
    assert sum(step.headline is not None for step in walk.steps) == len(PRIMARY)
    for report in published.reports:
        told = Counter(claim.name for claim in report.findings)
        assert max(told.values()) == 1
    assert len(published.page.read_text()) < 9_000_000
