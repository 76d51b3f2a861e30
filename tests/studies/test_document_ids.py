"""Planted curves of M(f) come back as means and falls, and the claims follow the plant."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.fit.times_to_memorize import Progress
from repetita.model.config import count
from repetita.report.draw import svg
from repetita.spec import canonical_json
from repetita.studies import memorization_speed
from repetita.studies._ids import Curve, conditions, largest_fall
from repetita.studies._ids_runs import (
    CONDITIONS,
    CONSTANT,
    IDS,
    ORIGINAL,
    OTHER,
    OWN,
    REDRAWN,
    TEST_BEHIND,
    VOCABULARY,
    WIDER,
    WITHOUT,
)
from repetita.studies.document_ids import MAIN, SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import effect, everything, noise, planted
from tests.studies.trained import trained

Labels = Mapping[str, Any]
There = Callable[[Labels], bool]
GAINS = {OWN: 0.10, VOCABULARY: 0.05, REDRAWN: 0.02, CONSTANT: 0.03, WIDER: 0.01}
"""How much higher M(f) lies than in the original, at every state after the first."""
LOST = {WITHOUT: 0.2, OTHER: 0.3}
PRIMARY = {
    "ids-above-original",
    "vocabulary-above-original",
    "ids-above-vocabulary",
    "ids-above-redrawn",
    "vocabulary-above-wider",
    "ids-not-monotone",
}


class Plant:
    """M(f) = level + gain of the condition from the first pass on, with a dip of the prepended IDs."""

    def __init__(
        self, *, gains: Mapping[str, float] = GAINS, dip: float = 0.04, sd: float = 0.004, level: float = 0.5
    ) -> None:
        self.gains, self.dip, self.sd, self.level = gains, dip, sd, level

    def __call__(self, labels: Labels, probe: str, on: str, step: int) -> float | None:
        passes = step * labels["batch_size"] / labels["n_sequences"]
        own = noise(labels["arm"], labels["seed"], labels["size"], sd=self.sd)
        if on.startswith("test"):
            return 0.2 + own + (0.01 if on == TEST_BEHIND else 0.0)
        m = self.level + self.gains.get(str(labels["arm"]), 0.0) + own - LOST.get(on, 0.0)
        if labels["arm"] == OWN and 40 <= passes <= 60:
            m -= self.dip * (1 + own)
        return m if step else 0.0


def made(scale: str, plant: Plant, *, there: There = everything) -> Collected:
    whole = planted(STUDY, scale=scale, metric="memorized", value=plant, there=there)
    if whole.measurements.is_empty():
        return whole
    n = (pl.col("n_sequences") * pl.col("length")).alias("n")
    table = whole.measurements.with_columns(n)
    return Collected(whole.study, whole.scale, whole.labels, whole.runs, table, whole.absent, whole.manifest)


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


@pytest.fixture(scope="module")
def laptop() -> Collected:
    return made("laptop", Plant())


def test_claims_follow_the_plant(laptop: Collected) -> None:
    found = named(STUDY.analyse(laptop))
    dipped = 0.04 * 21 / 80  # 40 to 60 passes of 80, and half a step on either side
    expected = {
        "ids-above-original": GAINS[OWN] - dipped,
        "vocabulary-above-original": GAINS[VOCABULARY],
        "ids-above-vocabulary": GAINS[OWN] - GAINS[VOCABULARY] - dipped,
        "ids-above-redrawn": GAINS[OWN] - GAINS[REDRAWN] - dipped,
        "vocabulary-above-wider": GAINS[VOCABULARY] - GAINS[WIDER],
        "ids-not-monotone": 0.04,
        "ids-above-constant": GAINS[OWN] - GAINS[CONSTANT] - dipped,
        "ids-needed": LOST[WITHOUT],
        "ids-own-needed": LOST[OTHER],
        "ids-test": 0.01,
    }
    for name, value in expected.items():
        assert effect(found[name]) == pytest.approx(value, abs=0.011), name
    assert {name for name, claim in found.items() if claim.primary} == PRIMARY
    for name in PRIMARY:
        assert found[name].verdict == "supported", name
    assert next(iter(found)) == "ids-above-original"


def test_the_other_way_round_contradicts() -> None:
    plant = Plant(gains={name: -gain for name, gain in GAINS.items()}, dip=0.0)
    found = named(STUDY.analyse(made("laptop", plant)))
    assert {found[name].verdict for name in PRIMARY - {"ids-not-monotone"}} == {"contradicted"}
    assert found["ids-not-monotone"].verdict == "inconclusive"  # no curve falls at all: every seed gives 0
    assert "no variance" in found["ids-not-monotone"].note


def test_without_a_difference_nothing_is_found() -> None:
    found = named(STUDY.analyse(made("laptop", Plant(gains={}, dip=0.0, sd=0.02))))
    assert {found[name].verdict for name in PRIMARY - {"ids-not-monotone"}} == {"inconclusive"}


def test_a_level_that_is_not_reached_stays_open(laptop: Collected) -> None:
    table = next(table for table in STUDY.analyse(laptop).tables if table.name == "ids-conditions")
    rows = {str(row[0]): row for row in table.rows}
    assert str(rows[ORIGINAL][3]).startswith("above")
    assert rows[ORIGINAL][4] == "0 of 3"
    high = made("laptop", Plant(level=0.85))
    table = next(table for table in STUDY.analyse(high).tables if table.name == "ids-conditions")
    rows = {str(row[0]): row for row in table.rows}
    assert rows[OWN][4] == "3 of 3"
    assert rows[ORIGINAL][4] == "0 of 3"


PARTIAL: Mapping[str, There] = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "original only": lambda labels: labels["arm"] == ORIGINAL,
    "without the original": lambda labels: labels["arm"] != ORIGINAL,
    "conditions of different seeds": lambda labels: (labels["arm"] == OWN) == (labels["seed"] == 0),
    "one run": lambda labels: (labels["arm"], labels["seed"]) == (OWN, 0),
}


@pytest.mark.parametrize("scale", ["laptop", "overnight"])
@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str, scale: str) -> None:
    there = made(scale, Plant(), there=PARTIAL[name])
    found = STUDY.analyse(there)
    assert not any(claim.verdict == "supported" and claim.n < 2 for claim in found.claims)
    if there.runs.is_empty():
        assert found.warnings
        assert not found.claims
    else:
        # A claim that was planned stays in the count of tests, whatever is there.
        assert {claim.name for claim in found.claims if claim.primary} == PRIMARY
        assert found.figures
        assert found.tables


@pytest.mark.parametrize("lost", ["train", "test", "forms", "test behind"])
def test_what_was_not_measured_is_left_out(laptop: Collected, lost: str) -> None:
    table = laptop.measurements.filter(~((pl.col("arm") == OWN) & (pl.col("probe") == lost)))
    part = Collected("", "", laptop.labels, laptop.runs, table, laptop.absent, laptop.manifest)
    size = conditions(table, planned=laptop.runs.to_dicts())["100k"]
    assert (OWN in size.runs) == (lost not in ("train", "test"))
    found = named(STUDY.analyse(part))
    assert (found["ids-above-original"].verdict == "supported") == (OWN in size.runs)
    assert ("ids-needed" in found) == (lost == "test behind")


def progress(passes: Any, memorized: Any) -> Progress:
    x = np.asarray(passes, dtype=np.float64)
    return Progress(x * 8, x, x, x * 100, np.asarray(memorized, dtype=np.float64))


def test_the_largest_fall_is_below_what_was_and_lasts() -> None:
    x = np.arange(11)
    rising = x / 10
    assert largest_fall(progress(x, rising), until=10, window=100) == (0.0, None)
    touched = rising.copy()
    touched[5] = 0.1  # One state: the next is higher than ever.
    assert largest_fall(progress(x, touched), until=10, window=100).value == 0.0
    low = rising.copy()
    low[5:8] = 0.1, 0.15, 0.1
    fall = largest_fall(progress(x, low), until=10, window=100)
    assert fall.value == pytest.approx(0.4 - 0.15)
    assert fall.passes == 5
    assert largest_fall(progress(x, low), until=10, window=200).value == pytest.approx(0.4 - 0.15)
    assert largest_fall(progress(x, low), until=10, window=300).value == 0.0
    assert largest_fall(progress(x, low), until=5, window=100).value == 0.0


def test_a_mean_is_the_area_by_the_width() -> None:
    curve = Curve(np.array([0.0, 1, 3, 10]), np.array([0.0, 0.5, 0.5, 1.2]))
    assert curve.mean(until=3) == pytest.approx((0.25 + 1) / 3)
    assert curve.mean(until=2) == pytest.approx((0.25 + 0.5) / 2)
    assert curve.mean(until=3, states=np.array([0.0, 3.0])) == pytest.approx(0.25)


@pytest.mark.parametrize("scale", ["tiny", "laptop", "overnight", "gpu"])
def test_scale(scale: str) -> None:
    found = STUDY.analyse(made(scale, Plant()))
    primary = [claim.name for claim in found.claims if claim.primary]
    assert set(primary) == PRIMARY == set(STUDY.detectable(scale))
    assert len(primary) <= MAX_PRIMARY
    names = {figure.name for figure in found.figures}
    assert names >= {"ids-memorized", "ids-means", "ids-forms"}
    assert ("ids-memorized-400k" in names) == (scale == "overnight")
    for figure in found.figures:
        assert len(figure.rows) < 5000
        assert all(row.get("seeds") is not None for row in figure.rows)
    assert {table.name for table in found.tables} >= {"ids-conditions", "ids-forms-end"}
    if scale == "laptop":
        assert all(svg(figure).startswith("<svg") for figure in found.figures)


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Distinct runs that differ from the original in their condition alone, with parameters that match."""
    runs = STUDY.runs(scale)
    assert len({canonical_json(run.spec) for run in runs}) == len(runs)
    assert STUDY.deviations(scale)
    plain = {(run.labels["size"], run.spec.seed): run for run in runs if run.labels["arm"] == ORIGINAL}
    n_conditions = {run.labels["arm"] for run in runs}
    assert n_conditions >= set(MAIN)
    assert n_conditions <= set(CONDITIONS)
    for run in runs:
        spec, of = run.spec, plain[run.labels["size"], run.spec.seed].spec
        assert spec.document_ids == IDS.get(str(run.labels["arm"]))
        assert (spec.corpus, spec.treatment, spec.recipe, spec.batch_size) == (
            of.corpus, of.treatment, of.recipe, of.batch_size,
        )  # fmt: skip
        assert spec.steps <= of.steps
        if run.labels["arm"] == WIDER:
            larger = count(
                of.model.edit(vocab_size=of.model.vocab_size + int(run.labels["n_sequences"] or 0))
            )
            assert count(spec.model).total == pytest.approx(larger.total, rel=2e-3)
            assert spec.model.vocab_size == of.model.vocab_size
        probes = {probe.name: set(probe.on) for probe in run.probes}
        assert ("forms" in probes) == (spec.document_ids is not None)
        assert (OTHER in probes.get("forms", ())) == (
            spec.document_ids is not None and spec.document_ids.kind == "prepended"
        )


def test_the_original_is_the_run_of_the_speed_study() -> None:
    for scale in ("laptop", "overnight", "gpu", "paper"):
        theirs = {canonical_json(run.spec) for run in memorization_speed.SCALES[scale]()}
        own = [run.spec for run in STUDY.runs(scale) if run.labels["arm"] == ORIGINAL]
        assert {canonical_json(spec) for spec in own} <= theirs


@pytest.mark.slow
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    there, report, _ = trained("document_ids", root=tmp_path, report_after=5)
    assert {claim.name for claim in report.findings if claim.primary} == PRIMARY
    assert {figure.name for figure in report.figures} == {"ids-memorized", "ids-means", "ids-forms"}
    size = conditions(there.measurements, planned=there.runs.to_dicts())["3.8k"]
    assert set(size.runs) == set(CONDITIONS)
    for condition, runs in size.runs.items():
        for one in runs.values():
            assert one.progress.passes[-1] == (24 if condition == ORIGINAL else 16)
            assert one.progress.memorized[-1] > one.progress.memorized[0]
            assert math.isclose(one.progress.tokens[-1], one.progress.passes[-1] * 16 * 32)
            assert (OTHER in one.curves) == (condition in IDS and IDS[condition].kind == "prepended")
