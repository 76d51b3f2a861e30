"""Planted onsets and shares come back, and the claims follow the plant."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.report.draw import svg
from repetita.studies import memorization_speed
from repetita.studies._onset import BEFORE, SUSTAINED, THAT, runs
from repetita.studies._speed import CAUSAL, MASKED
from repetita.studies.overfitting_onset import SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from repetita.train.recipe import same_start
from tests.studies.planted import both, effect, everything, noise, planted
from tests.studies.trained import trained

Labels = Mapping[str, Any]
There = Callable[[Labels], bool]
SMALL = ("tiny", "laptop", "overnight", "gpu")


class Plant:
    """Loss is a parabola in ln passes whose lowest point depends on N; M(f) rises linearly to it."""

    def __init__(
        self, *, rises: float = 0.2, earlier: float = 0.1, known: float = 0.1, at: float = 0.6, bump: int = 0
    ) -> None:
        self.rises, self.earlier, self.known, self.at, self.bump = rises, earlier, known, at, bump

    def onset(self, labels: Labels) -> float:
        """In passes, as a share of what is followed."""
        u = math.log(labels["non_embedding"] / 150_000)
        own = noise(labels["seed"], labels["size"], sd=0.02)
        return self.at * self.length(labels) * math.exp(-self.earlier * u + own)

    def length(self, labels: Labels) -> float:
        shortest = 18 if labels["n_sequences"] == 128 else 12
        return float(shortest)

    def share(self, labels: Labels) -> float:
        u = math.log(labels["non_embedding"] / 150_000)
        return 0.3 * math.exp(self.rises * u + noise("m", labels["seed"], labels["size"], sd=0.02))

    def loss(self, labels: Labels, passes: float) -> float:
        if passes <= 0:
            return 7.0
        rise = 0.5 if self.bump and passes == self.bump else 0.0
        return 5.0 + 0.2 * math.log(passes / self.onset(labels)) ** 2 + rise

    def memorized(self, labels: Labels, passes: float) -> float:
        return min(1.0, self.share(labels) * passes / self.onset(labels))


def made(scale: str, plant: Plant, *, there: There = everything) -> Collected:
    def passes(labels: Labels, step: int) -> float:
        return step * float(labels["batch_size"]) / float(labels["n_sequences"])

    def memorized(labels: Labels, probe: str, on: str, step: int) -> float:
        share = plant.memorized(labels, passes(labels, step))
        return share if on == "train" else share - plant.known

    def loss(labels: Labels, probe: str, on: str, step: int) -> float | None:
        return plant.loss(labels, passes(labels, step)) if on == "test" else None

    found = planted(STUDY, scale=scale, metric="memorized", value=memorized, there=there)
    if found.measurements.is_empty():
        return found
    return both(found, planted(STUDY, scale=scale, metric="loss", value=loss, there=there))


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


@pytest.fixture(scope="module")
def laptop() -> Collected:
    return made("laptop", Plant())


def test_planted_onsets_come_back(laptop: Collected) -> None:
    plant = Plant()
    labels = {(row["objective"], row["size"], row["seed"]): row for row in laptop.runs.to_dicts()}
    for (objective, size), of in runs(laptop.measurements).items():
        for seed, run in of.items():
            own = labels[objective, size, seed]
            assert run.onset(SUSTAINED).x == pytest.approx(plant.onset(own), abs=1.01)
            before, that = run.onset(BEFORE).x, run.onset(THAT).x
            assert before is not None
            assert that == before + 1
            assert before - 1 <= plant.onset(own) <= that
            share = run.before(SUSTAINED).x
            assert share == pytest.approx(plant.share(own), rel=0.3)
            assert run.excess(SUSTAINED) == pytest.approx(0.1, abs=0.02)


def test_claims_follow_the_plant(laptop: Collected) -> None:
    claims = STUDY.analyse(laptop).claims
    found = named(STUDY.analyse(laptop))
    assert claims[0].name == "onset-causal-rises"
    for name in ("onset-causal-rises", "onset-causal-rises-literal", "onset-causal-memory"):
        assert found[name].verdict == "supported", (name, found[name])
    assert found["onset-causal-earlier"].verdict == "supported"
    assert effect(found["onset-causal-rises"]) == pytest.approx(0.2, abs=0.1)
    assert effect(found["onset-causal-memory"]) == pytest.approx(0.1, abs=0.01)
    assert found["onset-masked-rises"].verdict == "illustrated"


def test_a_plant_turned_round_contradicts() -> None:
    found = named(STUDY.analyse(made("laptop", Plant(rises=-0.4, earlier=-0.2, known=-0.1))))
    for name in ("onset-causal-rises", "onset-causal-earlier", "onset-causal-memory"):
        assert found[name].verdict == "contradicted", (name, found[name])


def test_a_single_bump_is_a_first_rise_and_no_lasting_one() -> None:
    there = made("laptop", Plant(bump=3))
    found = runs(there.measurements)
    for of in found.values():
        for run in of.values():
            assert run.onset(THAT).x == 3
            assert (run.onset(SUSTAINED).x or 0) > 3
    early = named(STUDY.analyse(there))["onset-causal-literal-early"]
    assert effect(early) < 1


def test_runs_that_never_overfit_decide_nothing_and_are_said() -> None:
    found = STUDY.analyse(made("laptop", Plant(at=50)))
    primary = [claim for claim in found.claims if claim.primary and CAUSAL in claim.name]
    assert {claim.verdict for claim in primary} == {"inconclusive"}
    assert any("did not rise lastingly" in warning for warning in found.warnings)
    (figure, _) = found.figures
    assert {row["seeds_reached"] for row in figure.rows} == {0}


def test_equal_shares_do_not_rise() -> None:
    """Models that guess by frequency all have one M(f): the slope is 0, not what rounding leaves."""

    class Equal(Plant):
        def memorized(self, labels: Labels, passes: float) -> float:
            return 0.1 + 1e-17

    found = named(STUDY.analyse(made("laptop", Equal())))
    for name in ("onset-causal-rises", "onset-causal-rises-literal", "onset-causal-rises-that-pass"):
        assert (found[name].verdict, effect(found[name])) == ("inconclusive", 0.0)


def test_a_mean_over_sizes_says_which_are_left_out() -> None:
    """Large models overfit late here, so that their runs end before; the others still have a mean."""
    claim = named(STUDY.analyse(made("laptop", Plant(earlier=-0.6))))["onset-causal-memory"]
    assert claim.n == 3 and claim.note.endswith("left out, since some seed ended before: 890k")


def test_small_models_that_never_overfit_cannot_support_a_rise() -> None:
    """Theirs is at least M(f) at the end, so the slope is at most what that gives."""
    claim = named(STUDY.analyse(made("laptop", Plant(earlier=1.5, at=1.2, rises=0.2))))["onset-causal-rises"]
    assert claim.verdict != "supported"


PARTIAL: Mapping[str, There] = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "causal only": lambda labels: labels["objective"] == CAUSAL,
    "masked only": lambda labels: labels["objective"] == MASKED,
    "one size": lambda labels: labels["size"] == "100k",
    "sizes of different seeds": lambda labels: (labels["size"] == "25k") == (labels["seed"] == 0),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str) -> None:
    there = made("laptop", Plant(), there=PARTIAL[name])
    found = STUDY.analyse(there)
    assert not any(claim.verdict == "supported" and claim.n < 2 for claim in found.claims)
    if there.runs.is_empty():
        assert found.warnings
        assert not found.claims
    else:
        assert {claim.name for claim in found.claims if claim.primary} == set(STUDY.detectable("laptop"))


@pytest.mark.parametrize("lost", ["train", "validation"])
def test_what_was_not_measured_is_left_out(lost: str) -> None:
    whole = made("laptop", Plant())
    table = whole.measurements.filter(~((pl.col("size") == "100k") & (pl.col("probe") == lost)))
    part = Collected("", "laptop", whole.labels, whole.runs, table, whole.absent, whole.manifest)
    assert (CAUSAL, "100k") not in runs(table)
    assert named(STUDY.analyse(part))["onset-causal-rises"].verdict == "inconclusive"


@pytest.mark.parametrize("scale", SMALL)
def test_scale(scale: str) -> None:
    found = STUDY.analyse(made(scale, Plant()))
    primary = {claim.name for claim in found.claims if claim.primary}
    assert 0 < len(primary) <= MAX_PRIMARY
    assert primary == set(STUDY.detectable(scale))
    assert [figure.name for figure in found.figures] == ["onset-memorized", "onset-validation"]
    for figure in found.figures:
        assert len(figure.rows) < 5000
        assert svg(figure)
    assert [table.name for table in found.tables] == ["onset-times"]
    assert STUDY.deviations(scale)


@pytest.mark.parametrize("scale", SCALES)
def test_runs_are_the_beginnings_of_the_speed_studys(scale: str) -> None:
    whole = [run.spec for run in memorization_speed.STUDY.runs(scale)]
    planned = STUDY.runs(scale)
    for run in planned:
        assert any(same_start(run.spec, other=other, step=run.spec.steps) for other in whole)
    assert {run.labels["objective"] for run in planned} == {CAUSAL, MASKED}
    assert STUDY.detectable(scale)
    assert STUDY.deviations(scale)


@pytest.mark.slow
def test_tiny_runs_end_to_end(tmp_path: Path) -> None:
    there = trained("overfitting_onset", root=tmp_path).collected
    found = STUDY.analyse(there)
    assert {claim.name for claim in found.claims if claim.primary} == set(STUDY.detectable("tiny"))
    assert len(found.figures) == 2
    assert len(found.tables) == 1
