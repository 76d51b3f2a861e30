"""Planted curves of T over rates give their curvature, best rate and verdicts, cut off or not."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repetita.fit.claim import Claim
from repetita.report.draw import svg
from repetita.spec import canonical_json
from repetita.studies import memorization_speed
from repetita.studies.learning_rate import GRID, SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import charts, effect, everything, noise, planted
from tests.studies.trained import trained

Labels = Mapping[str, Any]
There = Callable[[Labels], bool]
PRIMARY = ("rate-sensitivity", "rate-u-shape", "rate-any")


class Plant:
    """ln T = level + slope ln N + curvature(N) log2(rate / best)^2; M(f) rises through 0.9 at T."""

    def __init__(
        self, *, slope: float = -0.5, curvature: float = 0.2, falls: float = -0.06, best: float = 0.003
    ) -> None:
        self.slope, self.curvature, self.falls, self.best = slope, curvature, falls, best

    def bend(self, labels: Labels) -> float:
        return self.curvature + self.falls * math.log(labels["non_embedding"] / 220_000)

    def time(self, labels: Labels) -> float:
        u = math.log(labels["non_embedding"] / 220_000)
        off = math.log2(labels["rate"] / self.best)
        own = noise(labels["size"], labels["rate"], labels["seed"], sd=0.01)
        return 25 * math.exp(self.slope * u + self.bend(labels) * off**2 + own)

    def memorized(self, labels: Labels, passes: float) -> float:
        return 1 / (1 + (self.time(labels) / passes) ** 4 / 9) if passes > 0 else 0.0


def made(scale: str, plant: Plant, *, there: There = everything, seeds: int | None = None) -> Collected:
    def value(labels: Labels, probe: str, on: str, step: int) -> float | None:
        passes = step * labels["batch_size"] / labels["n_sequences"]
        return 0.1 if on == "test" else plant.memorized(labels, passes)

    def among(labels: Labels) -> bool:
        return there(labels) and (seeds is None or labels["seed"] < seeds)

    return planted(STUDY, scale=scale, metric="memorized", value=value, there=among)


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


def test_planted_curves_come_back() -> None:
    plant = Plant()
    found = named(STUDY.analyse(made("overnight", plant)))
    assert list(found)[:3] == list(PRIMARY)
    assert all(found[name].verdict == "supported" for name in PRIMARY), found
    assert effect(found["rate-sensitivity"]) == pytest.approx(plant.falls, abs=0.01)
    assert effect(found["rate-u-shape"]) == pytest.approx(plant.curvature, abs=0.03)
    assert found["rate-detour"].verdict == "supported"
    assert {claim.name for claim in found.values() if claim.primary} == set(PRIMARY)


def test_flatter_small_models_contradict() -> None:
    found = named(STUDY.analyse(made("overnight", Plant(falls=0.06))))
    assert found["rate-sensitivity"].verdict == "contradicted"


def test_one_rate_at_which_larger_models_are_slower_is_enough() -> None:
    """Large models that bend far more are slower at the rates furthest from the best."""
    found = named(STUDY.analyse(made("overnight", Plant(slope=-0.1, falls=0.08, curvature=0.15))))
    assert found["rate-any"].verdict == "contradicted"
    assert found["rate-0-004"].verdict == "supported"


def test_a_laptop_illustrates_with_the_seed_that_has_every_rate() -> None:
    found = STUDY.analyse(made("laptop", Plant()))
    for name in PRIMARY:
        assert named(found)[name].verdict == "illustrated"
        assert named(found)[name].n == 1
    table = next(table for table in found.tables if table.name == "rate-sensitivities")
    assert [row[0] for row in table.rows] == ["100k", "220k", "890k"]
    assert {row[3] for row in table.rows} <= {"0.002", "0.004"}


def test_runs_that_end_too_early_leave_bounds() -> None:
    """No size gets there at the highest rate: nothing is said of it, and curvatures are bounds."""
    cliff = Plant(curvature=0.9, falls=0.0)
    found = STUDY.analyse(made("laptop", cliff))
    claim = named(found)["rate-sensitivity"]
    assert claim.verdict in ("illustrated", "inconclusive")
    assert any("not reached" in text for text in found.warnings)
    nothing = STUDY.analyse(made("overnight", Plant(slope=0, curvature=0.0, falls=0.0, best=1.0)))
    assert named(nothing)["rate-sensitivity"].verdict == "inconclusive"
    slow = Plant()
    slow.time = lambda labels: 1e6  # type: ignore[method-assign]
    lost = named(STUDY.analyse(made("overnight", slow)))
    assert {lost[name].verdict for name in PRIMARY} == {"inconclusive"}


PARTIAL: Mapping[str, There] = {
    "nothing": lambda labels: False,
    "one rate": lambda labels: labels["rate"] == 0.004,
    "one size": lambda labels: labels["size"] == "100k",
    "all but one cell": lambda labels: (labels["size"], labels["rate"]) != ("220k", 0.002),
    "seeds apart": lambda labels: (labels["size"] == "100k") == (labels["seed"] == 0),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str) -> None:
    there = made("overnight", Plant(), there=PARTIAL[name])
    found = STUDY.analyse(there)
    if there.runs.is_empty():
        assert found.warnings
        return
    assert {claim.name for claim in found.claims if claim.primary} == set(PRIMARY)
    assert {named(found)[name].verdict for name in PRIMARY} == {"inconclusive"}
    assert {figure.name for figure in found.figures} == {"rate-time", "rate-memorized"}


@pytest.mark.parametrize("scale", ["tiny", "laptop", "overnight"])
def test_scale(scale: str) -> None:
    found = STUDY.analyse(made(scale, Plant()))
    assert {claim.name for claim in found.claims if claim.primary} == set(STUDY.detectable(scale))
    for figure in charts(found):
        assert figure.name.startswith("rate-")
        assert len(figure.series_values()) <= 12
        if scale == "laptop":
            assert svg(figure).startswith("<svg")
    assert {table.name for table in found.tables} == {"rate-times", "rate-sensitivities"}


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Every size at every rate, distinct, with one seed in common."""
    runs = STUDY.runs(scale)
    assert len({canonical_json(run.spec) for run in runs}) == len(runs)
    cells = {(run.labels["size"], run.labels["rate"]) for run in runs}
    sizes, rates = {size for size, _ in cells}, {rate for _, rate in cells}
    assert len(cells) == len(sizes) * len(rates)
    assert {(run.labels["size"], run.labels["rate"]) for run in runs if run.spec.seed == 0} == cells
    assert len({one.parameter for one in STUDY.deviations(scale)}) == len(STUDY.deviations(scale))


@pytest.mark.parametrize("scale", ["laptop", "overnight"])
def test_runs_of_the_speed_study_are_not_trained_again(scale: str) -> None:
    speed = {canonical_json(run.spec): run for run in memorization_speed.STUDY.runs(scale)}
    own = {canonical_json(run.spec): run for run in STUDY.runs(scale)}
    shared = set(speed) & set(own)
    assert len(shared) == {"laptop": 18, "overnight": 33}[scale]
    for key in shared:
        # What is measured is there, too: equal probes at equal states.
        there = {probe.fingerprint: probe.cadence for probe in speed[key].probes}
        assert all(there[probe.fingerprint] == probe.cadence for probe in own[key].probes)
    assert {run.labels["rate"] for run in own.values()} == set(GRID)


@pytest.mark.slow
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    there = trained("learning_rate", root=tmp_path).collected
    report = STUDY.analyse(there)
    assert {claim.name for claim in report.claims if claim.primary} == set(PRIMARY)
    assert {figure.name for figure in report.figures} >= {"rate-time", "rate-memorized"}
    assert there.measurements.filter(pl.col("metric") == "memorized")["value"].null_count() == 0
