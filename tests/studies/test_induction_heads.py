"""Planted scores give back their sizes, onsets and verdicts; every scale is what it says."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.measure.induction import InductionProbe
from repetita.report.draw import svg
from repetita.spec import canonical_json
from repetita.studies import _copying_runs
from repetita.studies._heads import BEST, METRICS, SCORE, disproportion, headline_line, read, worst
from repetita.studies._heads_claims import NAMES
from repetita.studies.induction_heads import SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis
from tests.studies.planted import effect, everything, noise, planted
from tests.studies.trained import trained

Labels = Mapping[str, Any]
SCALE = "tiny"
EXPONENT, SLOPE = 0.1, 0.1
LATE, NEVER = 0.6, 1e9


class Plant:
    """Controls on exact laws in ln N; a treated run is one of `on_score` and `on_loss` of its size."""

    def __init__(
        self, *, on_score: float = 3.0, on_loss: float = 1.15, sd: float = 0.002, forms: float = 0.2,
        late: float = 2.0, step: bool = False,
    ) -> None:  # fmt: skip
        self.on_score, self.on_loss, self.sd, self.step = math.log(on_score), math.log(on_loss), sd, step
        self.forms, self.late = forms, late

    def at(self, metric: str) -> Callable[[Labels, str, str, int], float | None]:
        def value(labels: Labels, probe: str, on: str, step: int) -> float | None:
            if probe != {"loss": "test", "in_context": "in_context"}.get(metric, "heads"):
                return None
            treated = labels["arm"] == "repeated"
            # The damage is greatest at the middle passes.
            share = {9: 0.5, 80: 0.5, 5: 0.5, 1: 0.5}.get(labels["subset"], 1.0) if treated else 0.0
            keys = (labels["seed"], labels["size"], labels["arm"], labels["passes"])
            own = noise(metric, *keys, sd=self.sd)
            size = math.log(labels["non_embedding"])
            if metric == "loss":
                return float(5 * math.exp(-EXPONENT * (size - share * self.on_loss)) + own)
            if metric == "in_context":
                return -0.4 + 0.2 * share + own
            if metric == SCORE:
                if self.step:
                    return float(0.02 + 0.9 * (labels["size"] == "3.8k") - 0.01 * share + own)
                return float(SLOPE * (size - share * self.on_score) - 0.3 + own)
            if metric == BEST:
                formed = self.forms * (self.late if treated else 1.0) * labels["steps"]
                return 0.9 + own if step >= formed else 0.05
            return 0.5 + own

        return value


def made(plant: Plant, *, there: Callable[[Labels], bool] = everything, scale: str = SCALE) -> Collected:
    tables = [planted(STUDY, scale=scale, metric=name, value=plant.at(name), there=there) for name in METRICS]
    one = tables[0]
    joined = pl.concat(
        [table.measurements for table in tables if len(table.measurements)], how="vertical_relaxed"
    )
    return Collected(one.study, one.scale, one.labels, one.runs, joined, one.absent, one.manifest)


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


@pytest.fixture(scope="module")
def whole() -> Collected:
    return made(Plant())


def test_the_claims_follow_the_plant(whole: Collected) -> None:
    found = named(STUDY.analyse(whole))
    assert next(iter(found)) == "disproportion"
    assert {name for name, claim in found.items() if claim.primary} == set(NAMES)
    assert effect(found["disproportion"]) == pytest.approx(math.log(3 / 1.15), abs=0.2)
    assert effect(found["score-falls"]) == pytest.approx(SLOPE * math.log(3), abs=0.01)
    assert effect(found["context-less"]) == pytest.approx(0.2, abs=0.01)
    assert effect(found["score-rises"]) == pytest.approx(SLOPE, abs=0.01)
    assert effect(found["heads-later"]) == pytest.approx(math.log(2), abs=0.3)
    assert found["gate-3.8k"].verdict == "supported" and not found["gate-3.8k"].primary
    assert "prefix matching 3" in found["disproportion"].note


def test_the_worst_passes_are_those_of_the_other_seeds(whole: Collected) -> None:
    heads = read(whole.measurements)
    line = headline_line([dict(labels_of(run)) for run in STUDY.runs(SCALE)])
    assert line == ("3.8k", 0.03)
    subsets = {
        run.labels["passes"]: run.labels["subset"] for run in STUDY.runs(SCALE) if run.labels["subset"]
    }
    assert {subsets[passes] for passes in worst(heads, line).values()} == {3}
    found = disproportion(heads, line)
    assert set(found.on_score) == {0, 1} and found.slopes == "of the same seed"


def test_equal_damage_decides_nothing() -> None:
    plant = Plant(on_score=1.5, on_loss=1.5, sd=0.004)
    assert named(STUDY.analyse(made(plant)))["disproportion"].verdict == "inconclusive"


def test_no_size_is_read_beyond_the_ladder() -> None:
    ladder = [
        int(run.labels["non_embedding"] or 0) for run in SCALES[SCALE]() if run.labels["arm"] == "control"
    ]
    reach = math.log(max(ladder) / min(ladder))
    claim = named(STUDY.analyse(made(Plant(on_score=1000.0))))["disproportion"]
    assert effect(claim) == pytest.approx(reach - math.log(1.15), abs=0.1)
    assert "the least that it can be, in 2 seeds" in claim.note
    # As much lost by the test loss: nothing is known of the difference.
    claim = named(STUDY.analyse(made(Plant(on_score=1000.0, on_loss=1000.0))))["disproportion"]
    assert claim.verdict == "inconclusive" and claim.p is None
    assert "above the smallest control's" in claim.note


def test_a_shut_gate_leaves_everything_undecided() -> None:
    found = STUDY.analyse(made(Plant(forms=0.8)))
    assert named(found)["gate-3.8k"].verdict == "contradicted"
    for name in NAMES[:-1]:
        assert named(found)[name].verdict == "inconclusive" and "gate not passed" in named(found)[name].note
    assert any("nothing is concluded about heads" in warning for warning in found.warnings)


def test_a_score_that_is_not_graded_is_refused_and_said() -> None:
    found = STUDY.analyse(made(Plant(step=True)))
    claim = named(found)["disproportion"]
    assert claim.verdict == "inconclusive" and "the control's score" in claim.note
    assert any("No effective sizes" in warning for warning in found.warnings)
    sizes = next(table for table in found.tables if table.name == "induction-sizes")
    assert all(row[4] == "not read" for row in sizes.rows)


def test_heads_that_never_form_count_with_the_last_step() -> None:
    claim = named(STUDY.analyse(made(Plant(late=NEVER))))["heads-later"]
    assert "do not form" in claim.note and "understates" in claim.note
    assert effect(claim) == pytest.approx(math.log(1 / 0.2), abs=0.35)


def test_one_seed_illustrates() -> None:
    found = named(STUDY.analyse(made(Plant(), there=lambda labels: labels["seed"] == 0)))
    assert found["score-falls"].verdict == found["gate-3.8k"].verdict == "illustrated"


def test_an_unfinished_study_says_what_it_has() -> None:
    controls = STUDY.analyse(made(Plant(), there=lambda labels: labels["arm"] == "control"))
    assert named(controls)["disproportion"].verdict == "inconclusive"
    assert {figure.name for figure in controls.figures} >= {"induction-control-ladder", "induction-formation"}
    one = STUDY.analyse(made(Plant(), there=lambda labels: labels["size"] == "3.8k"))
    assert "two sizes" in named(one)["disproportion"].note
    nothing = planted(STUDY, scale=SCALE, value=lambda *_: None, there=lambda _: False)
    assert STUDY.analyse(nothing).warnings == ("no run is finished yet",)


def test_figures_and_tables_hold_the_plant(whole: Collected) -> None:
    found = STUDY.analyse(whole)
    figures = {figure.name: figure for figure in found.figures}
    assert set(figures) == {
        "induction-size-multiplier", "induction-control-ladder", "induction-score-by-passes",
        "induction-formation",
    }  # fmt: skip
    for figure in figures.values():
        assert svg(figure).startswith("<svg")
    rows = figures["induction-size-multiplier"].rows
    by = {(row["by"], row["fraction"]): row["multiplier"] for row in rows if row["size"] == "3.8k"}
    assert by["prefix matching", 0.03] == pytest.approx(1 / 3, rel=0.1)
    assert by["test loss", 0.03] == pytest.approx(1 / 1.15, rel=0.1)
    cells = {(run.labels["size"], run.labels["fraction"], run.labels["passes"]) for run in STUDY.runs(SCALE)}
    scores, sizes = (next(table for table in found.tables if table.name == name) for name in
                     ("induction-scores", "induction-sizes"))  # fmt: skip
    assert len(scores.rows) == len(cells) and len(sizes.rows) == len({cell for cell in cells if cell[1]})


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_is_what_it_says(scale: str) -> None:
    runs = STUDY.runs(scale)
    shared = {canonical_json(run.spec) for run in _copying_runs.SCALES[scale]()}
    assert {canonical_json(run.spec) for run in runs} == shared
    for run in runs:
        probe = next(probe for probe in run.probes if isinstance(probe, InductionProbe))
        assert 1 + probe.n_tokens * probe.n_copies <= run.spec.corpus.length
        assert {"heads", "test", "in_context"} == {probe.name for probe in run.probes}
    controls = {run.labels["size"] for run in runs if run.labels["arm"] == "control"}
    assert len(controls) >= 3 and {run.labels["size"] for run in runs} == controls
    assert set(STUDY.detectable(scale)) == set(NAMES) and len(NAMES) <= MAX_PRIMARY
    assert len(STUDY.deviations(scale)) > 10


@pytest.mark.slow
def test_it_really_runs(tmp_path: Path) -> None:
    found = trained("induction_heads", root=tmp_path)
    names = {claim.name for claim in found.report.findings}
    assert set(NAMES) <= names
    assert {figure.name for figure in found.report.figures} >= {
        "induction-control-ladder", "induction-score-by-passes", "induction-formation",
        "induction-loss-by-index", "induction-each-head",
    }  # fmt: skip
    assert {table.name for table in found.report.tables} == {
        "induction-scores", "induction-circuits", "induction-sizes",
    }  # fmt: skip
    table = found.collected.measurements
    assert set(METRICS) <= set(table["metric"].unique().to_list())
    previous = table.filter(pl.col("metric") == "previous_token_max")["value"]
    assert previous.min() >= 0 and previous.max() <= 1  # type: ignore[operator]
