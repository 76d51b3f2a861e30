"""Planted multipliers on other texts come back; texts without sizes and open bounds decide nothing."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from repetita.corpus.sequences import CorpusSpec
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.report.page import Report
from repetita.studies.double_descent import STUDY as DOUBLE_DESCENT
from repetita.studies.out_of_distribution import SCALES, STUDY
from repetita.study.expand import corpora_of
from repetita.study.expected import plan_corpora
from repetita.study.plan import Analysis
from repetita.study.prepare import portion, prepare
from repetita.study.text import text_of
from tests.studies.planted import Value, effect, noise, planted
from tests.studies.trained import trained

NEAR, FAR = (7.2, 0.04), (8.8, 0.02)
LAWS = {
    "test": (7.5, 0.06), "encyclopedia": NEAR, "speeches": NEAR, "words": NEAR, "code": FAR, "french": FAR
}  # fmt: skip
"""Coefficient and exponent of the controls; far texts stay above ln V = 6.93 up to 150k parameters."""
PEAK = 256.0


def texts(
    *, drop: Mapping[float, float], cost: float = 1.0, sd: float = 0.002, starved: float = 1.0
) -> Value:
    """Effective size falls around 256 passes, f by f, on other texts by `drop[f]` more at the peak."""

    def value(labels: Mapping[str, Any], probe: str, on: str, step: int) -> float | None:
        if probe not in LAWS:
            return None
        coefficient, exponent = LAWS[probe]
        shrunk = 0.0
        if labels["arm"] != "control":
            share = labels["fraction"]
            near = 1.0 if labels["arm"] == "starved" else math.exp(-(math.log(labels["passes"] / PEAK) ** 2))
            of = starved if labels["arm"] == "starved" else cost
            shrunk = of * share * near
            if probe != "test" and labels["arm"] == "repeated":
                shrunk -= near * math.log(drop.get(share, 1.0))
        level: float = coefficient * (labels["non_embedding"] * math.exp(-shrunk)) ** -exponent
        by_seed = noise("seed", probe, labels["seed"], sd=0.005)
        return level + by_seed + noise(probe, sorted(map(str, labels.items())), sd=sd)

    return value


def analysis(value: Value, *, scale: str = "overnight", **kept: Any) -> Analysis:
    return STUDY.analyse(planted(STUDY, scale=scale, value=value, **kept))


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


PAPERS = {0.5: 0.84, 0.9: 0.75}


@pytest.fixture(scope="module")
def overnight() -> Analysis:
    return analysis(texts(drop=PAPERS, cost=1.5, sd=0.0005))


def test_the_papers_pattern_is_found(overnight: Analysis) -> None:
    claims = named(overnight)
    assert next(iter(claims)) == "extra-at-high-shares"
    headline = claims["extra-at-high-shares"]
    assert headline.verdict == "supported"
    assert effect(headline) == pytest.approx(0.84, abs=0.03)
    assert headline.statement.startswith("English of an encyclopedia")
    assert "N = 25k, f = 0.5 at 256" in headline.note
    assert effect(claims["extra-drop"]) == pytest.approx(0.84, abs=0.03)
    assert claims["costs-encyclopedia"].verdict == "supported"
    rows = next(table.rows for table in overnight.tables if table.name == "other-text-means")
    at = {str(row[1]): row for row in rows if row[0] == "English of an encyclopedia"}
    assert at["0.5"][2] == "25k, 57k, 100k"
    assert float(str(at["0.1"][3]).split()[0]) == pytest.approx(1.0, abs=0.03)
    assert float(str(at["0.9"][3]).split()[0]) == pytest.approx(0.75, abs=0.03)


def test_a_text_worse_than_a_uniform_guess_has_no_sizes(overnight: Analysis) -> None:
    claims = named(overnight)
    code = claims["extra-at-high-shares-code"]
    assert (code.verdict, code.estimate) == ("inconclusive", None)
    assert "more than a uniform guess (ln V = 6.93)" in code.note
    assert any("Python code" in warning for warning in overnight.warnings)
    assert claims["costs-code"].estimate is not None
    drawn = next(figure for figure in overnight.figures if figure.name == "other-text-extra")
    assert {row["text"] for row in drawn.rows} == {"English of an encyclopedia"}
    assert {figure.name for figure in overnight.figures} == {
        "other-text-extra", "other-text-multipliers", "other-text-excess", "other-text-controls"
    }  # fmt: skip
    names = [one.name for one in (*overnight.figures, *overnight.tables)]
    assert len(set(names)) == len(names)


def test_the_same_everywhere_is_no_extra() -> None:
    claims = named(analysis(texts(drop={}, cost=1.5, sd=0.0005)))
    assert claims["extra-at-high-shares"].verdict == "inconclusive"
    assert effect(claims["extra-at-high-shares"]) == pytest.approx(1.0, abs=0.03)
    better = named(analysis(texts(drop={0.5: 1.3, 0.9: 1.3}, cost=1.5, sd=0.0005)))
    assert better["extra-at-high-shares"].verdict == "contradicted"


def test_an_extra_that_missing_data_explains_is_not_re_readings() -> None:
    """Starved runs lose more on the other text, too: as much as the repeated ones."""
    drop = {0.5: 0.8}
    given = texts(drop=drop, cost=1.5, sd=0.0005)

    def value(labels: Mapping[str, Any], probe: str, on: str, step: int) -> float | None:
        if labels["arm"] == "starved":
            at_peak = {**labels, "arm": "repeated", "passes": PEAK}
            return given(at_peak, probe, on, step)
        return given(labels, probe, on, step)

    claims = named(analysis(value))
    assert effect(claims["extra-drop"]) == pytest.approx(0.8, abs=0.05)
    assert effect(claims["extra-beyond-starvation"]) == pytest.approx(1.0, abs=0.05)
    assert claims["extra-beyond-starvation"].verdict == "inconclusive"


def test_a_loss_outside_the_ladder_is_an_open_bound() -> None:
    found = analysis(texts(drop=PAPERS, cost=12.0))
    claims = named(found)
    assert claims["extra-at-high-shares"].verdict == "inconclusive"
    assert "open bound" in claims["extra-at-high-shares"].note
    assert claims["costs-encyclopedia"].verdict == "supported"
    cells = next(table.rows for table in found.tables if table.name == "other-texts")
    assert any("open below" in str(row[6]) for row in cells)


def test_unfinished_studies_say_what_is_missing() -> None:
    assert analysis(texts(drop={}), there=lambda labels: False).warnings
    controls = analysis(texts(drop={}), there=lambda labels: labels["arm"] == "control")
    assert controls.warnings and not controls.claims
    some = named(analysis(texts(drop=PAPERS), there=lambda labels: labels["size"] != "100k"))
    assert some["extra-at-high-shares"].verdict == "inconclusive"
    assert "no runs yet of N = 100k" in some["extra-at-high-shares"].note


def test_laptop_illustrates_nothing_with_three_seeds() -> None:
    found = analysis(texts(drop=PAPERS, cost=1.5, sd=0.0005), scale="laptop")
    headline = named(found)["extra-at-high-shares"]
    assert (headline.verdict, headline.n) == ("supported", 3)
    assert effect(headline) == pytest.approx(0.84, abs=0.06)
    assert sum(claim.primary for claim in found.claims) <= MAX_PRIMARY


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_plans_the_runs_of_double_descent(scale: str, tmp_path: Path) -> None:
    runs = STUDY.runs(scale)
    theirs = {run.spec.edit(corpus=run.spec.corpus) for run in DOUBLE_DESCENT.runs(scale)}
    own = [run for run in runs if run.spec not in theirs]
    assert len(own) == (4 if scale == "laptop" else 0)
    first = runs[0].spec.corpus
    assert all(one.with_ids_of(first).tokenizer == one.tokenizer for one in corpora_of(runs))
    claims = analysis(texts(drop={}), scale=scale).claims
    assert {claim.name for claim in claims if claim.primary} == set(STUDY.detectable(scale))
    assert STUDY.deviations(scale)


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_large_scales_are_planned_without_their_text(scale: str, tmp_path: Path) -> None:
    part = portion("out_of_distribution", scale=scale)
    prepared = prepare([part], root=tmp_path, corpora=plan_corpora([part], root=tmp_path))
    assert prepared.needed()
    assert not (tmp_path / "corpora").exists()


def test_another_text_takes_the_ids_with_it_and_is_no_other_text() -> None:
    part = portion("out_of_distribution", scale="laptop", text=text_of("python-stdlib"))
    corpora = corpora_of(part.planned)
    assert [spec.source for spec in corpora] == ["python-stdlib", "wikipedia-en", "wikipedia-fr"]
    assert all(spec.tokenizer.trained_on == CorpusSpec(source="python-stdlib").text for spec in corpora[1:])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return trained("out_of_distribution", root=tmp_path_factory.mktemp("others")).report


@pytest.mark.slow
def test_tiny_runs_and_says_what_was_planned(made: Report) -> None:
    assert set(STUDY.detectable("tiny")) == {claim.name for claim in made.findings if claim.primary}
    assert {"other-text-excess", "other-text-controls"} <= {figure.name for figure in made.figures}
    assert {table.name for table in made.tables} == {
        "other-text-means", "other-texts", "other-text-ladder"
    }  # fmt: skip
