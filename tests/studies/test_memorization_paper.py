"""The paper's page asks every figure, takes eight headline claims, and shows each figure of a study once."""

import fnmatch
import re
from collections import Counter
from pathlib import Path

import pytest

from repetita.fit.claim import MAX_PRIMARY
from repetita.studies import repetition_paper
from repetita.studies.memorization_paper import PAPER
from repetita.study.execute import execute
from repetita.study.find import built_in, find_paper
from repetita.study.prepare import bundle
from repetita.study.walkthrough import publish_bundle
from repetita.study.where import Where

PRIMARY = {"1", "4", "6", "7", "8", "9", "10 left", "10 right"}


def test_every_figure_of_the_paper_is_there() -> None:
    figures = {entry.figure.removeprefix("Figure ") for entry in PAPER.entries}
    assert {str(n) for n in range(1, 17)} - {"10"} <= figures
    assert {"10 left", "10 right", "Abstract", "Section 2"} <= figures
    assert len({entry.figure for entry in PAPER.entries}) == len(PAPER.entries)


def test_eight_claims_of_eight_studies() -> None:
    primary = [entry for entry in PAPER.entries if entry.primary]
    assert {entry.figure.removeprefix("Figure ") for entry in primary} == PRIMARY
    assert len({entry.study for entry in primary}) == len(primary) == MAX_PRIMARY


def test_its_studies_are_built_in_and_it_is_found() -> None:
    assert set(PAPER.studies) == set(built_in()) - set(repetition_paper.PAPER.studies)
    found = find_paper("memorization-paper")
    assert found is not None
    assert found.paper is PAPER


def test_it_has_every_scale() -> None:
    for scale in ("tiny", "laptop", "overnight", "gpu", "paper"):
        assert len(bundle("memorization_paper", scale=scale).portions) == len(PAPER.studies)


def test_words_fit_the_vocabulary_and_numbers_are_there() -> None:
    for entry in PAPER.entries:
        assert not re.search("epoch", entry.claim + entry.later + entry.title)
        if entry.primary:
            assert re.search(r"\d", entry.claim), f"{entry.figure}: the paper's numbers"
            assert re.search(r"et al\.|known", entry.later), (
                f"{entry.figure}: later work, or that none is known"
            )


@pytest.mark.slow
def test_tiny_from_runs_to_page(tmp_path: Path) -> None:
    """All twelve studies as one execution; each figure of theirs has one place on the page."""
    whole = bundle("memorization_paper", scale="tiny")
    outcome = execute(whole.portions, root=tmp_path, where=Where(processes=2), paper=whole.folder)
    assert not outcome.failed
    published = publish_bundle(whole, root=tmp_path)
    walk = published.walk
    assert walk is not None
    shown = Counter(figure.name for step in walk.steps for figure in (*step.figures, *step.more_figures))
    assert set(shown) == {figure.name for report in published.reports for figure in report.figures}
    named = {name for entry in PAPER.entries for name in (*entry.figures, *entry.tables)}
    there = set(shown) | {table.name for report in published.reports for table in report.tables}
    assert named <= there
    claims = {claim.name for report in published.reports for claim in report.findings}
    for name in (name for entry in PAPER.entries for name in entry.claims):
        assert fnmatch.filter(claims, name), f"no study of the paper has a claim {name}"
    assert sum(step.headline is not None for step in walk.steps) == MAX_PRIMARY
    told = Counter(one.name for step in walk.steps for one in (*step.findings, *step.more_findings))
    assert max(told.values()) == 1
    assert len(published.page.read_text()) < 9_000_000
