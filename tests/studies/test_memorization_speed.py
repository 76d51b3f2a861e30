"""Planted times come back in every unit, reached or not, and the claims follow the plant."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.corpus.treatment import Passes
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.fit.times_to_memorize import UNITS
from repetita.report.draw import svg
from repetita.spec import canonical_json
from repetita.studies._speed import ALL_TARGETS, CAUSAL, MASKED, TAUS, cells, online, window_tokens
from repetita.studies._speed_claims import LOW
from repetita.studies.memorization_speed import SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import both, charts, effect, everything, noise, planted, said
from tests.studies.trained import trained

Labels = Mapping[str, Any]
There = Callable[[Labels], bool]
TARGETS = {CAUSAL: 1.0, MASKED: 0.15}
FIGURES = "slope-by-tau length-at-m memorized time time-in-units unit-length m-update".split()
NAMES = ("objective", "size", "arm", "seed")
GUESSED = 0.1
"""Accuracy on the test set, of every model at every state."""


class Plant:
    """M(f) = logistic((ln passes - middle) / width); both middle and width may fall with size."""

    def __init__(
        self,
        *,
        faster: float = 0.1,
        steeper: float = 0.08,
        middle: Mapping[str, float] | None = None,
        most: Callable[[Labels], float] = lambda labels: 1.0,
        sd: float = 0.01,
        salt: int = 0,
    ) -> None:
        self.faster, self.steeper, self.most, self.sd, self.salt = faster, steeper, most, sd, salt
        self.middle = middle or {CAUSAL: math.log(25), MASKED: math.log(150)}

    def slope(self, tau: float) -> float:
        """Slope of ln T on ln N, and so the planted effect of each claim."""
        return -self.faster - self.steeper * math.log(tau / (1 - tau))

    def log_time(self, labels: Labels, tau: float) -> float:
        u = math.log(labels["non_embedding"] / 25_000)
        own = noise(self.salt, labels["objective"], labels["size"], labels["seed"], sd=self.sd)
        width = 0.4 - self.steeper * u
        level = self.middle[labels["objective"]] - self.faster * u + own
        return level + width * math.log(tau / (1 - tau))

    def memorized(self, labels: Labels, passes: float) -> float:
        if passes <= 0:
            return 0.0
        u = math.log(labels["non_embedding"] / 25_000)
        z = (math.log(passes) - self.log_time(labels, 0.5)) / (0.4 - self.steeper * u)
        return min(self.most(labels), 1 / (1 + math.exp(-z)))


def made(scale: str, plant: Plant, *, there: There = everything, longer: float = 1.3) -> Collected:
    """The table of a scale, with run lengths `longer` than by chance and M_update a pass behind M(f)."""

    def value(what: str) -> Callable[[Labels, str, str, int], float | None]:
        def at(labels: Labels, probe: str, on: str, step: int) -> float | None:
            m = plant.memorized(labels, passes_of(labels, step))
            if what == "memorized":
                return None if probe == "unit_length" else GUESSED if on == "test" else m
            if probe != "unit_length" or m <= 0:
                return None
            own = math.exp(noise(labels["seed"], labels["size"], sd=0.01))
            return 1 / (1 - 0.99 * m) * (longer * own if what == "unit_length" else 1.0)

        return at

    whole = planted(STUDY, scale=scale, metric="memorized", value=value("memorized"), there=there)
    for metric in ("unit_length", "unit_length_shuffled"):
        lengths = planted(STUDY, scale=scale, metric=metric, value=value(metric), there=there)
        whole = both(whole, lengths) if len(lengths.measurements) else whole
    share = pl.col("objective").replace_strict(TARGETS, return_dtype=pl.Float64) if len(whole.runs) else 1.0
    table = whole.measurements
    if len(table):
        read = pl.col("step") * pl.col("batch_size") * pl.col("length")
        table = table.with_columns(
            n=pl.col("n_sequences") * pl.col("length"), tokens=(read * share).round().cast(pl.Int64)
        )
        table = with_details(table, plant)
    found = Collected(whole.study, whole.scale, whole.labels, whole.runs, table, whole.absent, whole.manifest)
    found.__dict__["steps"], found.__dict__["corruption"] = batches(found, plant)
    return found


def with_details(table: pl.DataFrame, plant: Plant) -> pl.DataFrame:
    """Run lengths say what 1 / (1 - M) was."""

    def detail(row: Labels) -> str | None:
        if row["metric"] != "unit_length":
            return None
        m = plant.memorized(row, passes_of(row, row["step"]))
        return json.dumps({"independent": 1 / (1 - m) if m < 1 else None})

    details = [detail(row) for row in table.iter_rows(named=True)]
    return table.with_columns(detail=pl.Series(details, dtype=pl.String))


def passes_of(labels: Labels, step: float) -> float:
    return step * float(labels["batch_size"]) / float(labels["n_sequences"])


def batches(found: Collected, plant: Plant) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each update's hits: M(f) of a pass before; of masked runs by kind, `kept` always right."""
    steps, shown = [], []
    empty = pl.DataFrame(schema={**found.runs.schema, "step": pl.Int64, "hits": pl.Int64, "n": pl.Int64})
    for labels in found.runs.iter_rows(named=True):
        step = np.arange(labels["steps"])
        m = np.array([plant.memorized(labels, passes_of(labels, s) - 1) for s in step])
        n = round(labels["batch_size"] * labels["length"] * TARGETS[labels["objective"]])
        one = pl.DataFrame({"step": step, "hits": np.round(m * n).astype(int), "n": n})
        one = one.join(pl.DataFrame([labels]), how="cross")
        steps.append(one.select(empty.columns))
        if labels["objective"] == MASKED:
            for kind, hits in (("mask", pl.col("hits")), ("kept", pl.col("n"))):
                shown.append(one.with_columns(hits=hits, kind=pl.lit(kind)).select(*empty.columns, "kind"))
    return (
        pl.concat([empty, *steps], how="vertical_relaxed"),
        pl.concat([empty.with_columns(kind=pl.lit("")), *shown], how="vertical_relaxed"),
    )


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


@pytest.fixture(scope="module")
def laptop() -> Collected:
    return made("laptop", Plant())


def test_planted_times_come_back_in_every_unit(laptop: Collected) -> None:
    found = cells(laptop.measurements)
    labels = {tuple(row[name] for name in NAMES): row for row in laptop.runs.to_dicts()}
    reached = 0
    for key, runs in found.items():
        for seed, run in runs.items():
            own = labels[key.objective, key.size, key.arm, seed]
            for tau in TAUS[key.objective]:
                times = run.times(tau, window=16_384)
                expected = math.exp(Plant().log_time(own, tau))
                if not times["passes"].reached:
                    assert expected > 0.8 * run.progress.passes[-1]
                    continue
                reached += 1
                factors = (1, 128 / own["batch_size"], TARGETS[key.objective], 16_384)
                for unit, factor in zip(UNITS, factors, strict=True):
                    assert times[unit].x == pytest.approx(expected * factor, rel=0.02)
    assert reached > 0.9 * sum(len(runs) * len(TAUS[key.objective]) for key, runs in found.items())


def test_claims_follow_the_plant(laptop: Collected) -> None:
    found, plant = named(STUDY.analyse(laptop)), Plant()
    for name in ("causal-faster", "causal-steeper", "causal-first", "causal-unit-length"):
        assert found[name].verdict == "supported", name
    assert found["masked-faster"].verdict == "supported"
    assert effect(found["causal-faster"]) == pytest.approx(plant.slope(0.9), abs=0.02)
    assert effect(found["causal-first"]) == pytest.approx(plant.slope(0.1), abs=0.02)
    assert effect(found["causal-steeper"]) == pytest.approx(
        plant.slope(0.9) - plant.slope(LOW[CAUSAL]), abs=0.02
    )
    assert effect(found["causal-unit-length"]) == pytest.approx(1.3, abs=0.03)
    assert effect(found["masked-exception"]) == pytest.approx(plant.slope(LOW[MASKED]), abs=0.02)
    # Where a guess is right a tenth of the time, 0.5 above it is M(f) = 0.6.
    assert effect(found["causal-excess-faster"]) == pytest.approx(plant.slope(0.6), abs=0.02)


def test_run_lengths_are_read_where_m_is_tau(laptop: Collected) -> None:
    """However far apart the states lie: here 1 / (1 - 0.99 M), times 1.3, at M = 0.9."""
    found = [run for runs in cells(laptop.measurements).values() for run in runs.values()]
    lengths = [run.length_at("unit_length", tau=0.9, window=16_384) for run in found]
    assert len([one for one in lengths if one is not None]) > 0.9 * len(found)
    for one in lengths:
        assert one is None or one == pytest.approx(1.3 / (1 - 0.99 * 0.9), rel=0.06)
    assert all(run.length_at("no such metric", tau=0.9, window=0) is None for run in found)


def test_larger_models_that_are_slower_contradict() -> None:
    plant = Plant(faster=-0.15, steeper=0.0, middle={CAUSAL: math.log(8), MASKED: math.log(60)})
    found = named(STUDY.analyse(made("laptop", plant, longer=0.8)))
    for name in ("causal-faster", "masked-faster", "causal-unit-length"):
        assert found[name].verdict == "contradicted", name
    assert found["masked-exception"].verdict == "supported"
    assert effect(found["causal-faster"]) == pytest.approx(0.15, abs=0.02)


def test_small_models_that_never_get_there_still_support() -> None:
    """Their T is beyond the end of their runs: the slope is at most what that end gives."""

    def most(labels: Labels) -> float:
        return 0.7 if labels["size"] == "25k" else 1.0

    claim = named(STUDY.analyse(made("laptop", Plant(most=most))))["causal-faster"]
    assert claim.verdict == "supported"
    assert claim.estimate is not None
    assert (claim.estimate.value, claim.estimate.low) == (None, None)
    assert claim.estimate.high is not None
    assert claim.estimate.high < Plant().slope(0.9)
    assert "not seen to the end" in claim.note


def test_large_models_that_never_get_there_cannot_support() -> None:
    """Here the slope is at least what their ends give, and that bound is no evidence for a lower one."""

    def most(labels: Labels) -> float:
        return 0.7 if labels["non_embedding"] > 500_000 else 1.0

    claim = named(STUDY.analyse(made("laptop", Plant(most=most))))["causal-faster"]
    assert claim.verdict == "inconclusive"
    assert claim.estimate is not None
    assert claim.estimate.high is None

    def early(labels: Labels) -> float:
        return 0.7 if labels["size"] != "25k" else 1.0

    quick = Plant(middle={CAUSAL: math.log(4), MASKED: math.log(150)}, most=early)
    assert named(STUDY.analyse(made("laptop", quick)))["causal-faster"].verdict != "supported"


def test_nothing_that_is_reached_decides_nothing() -> None:
    found = named(STUDY.analyse(made("laptop", Plant(most=lambda labels: 0.05))))
    assert {claim.verdict for claim in found.values() if claim.primary} == {"inconclusive"}
    assert all(claim.note for claim in found.values() if claim.primary)


@pytest.mark.slow
@pytest.mark.ci
def test_without_any_difference_few_studies_find_one() -> None:
    wrong = 0
    for salt in range(12):
        plant = Plant(faster=0.0, steeper=0.0, sd=0.1, salt=salt)
        table = made("laptop", plant, there=lambda labels: labels["objective"] == CAUSAL)
        wrong += named(STUDY.analyse(table))["causal-faster"].verdict != "inconclusive"
    assert wrong <= 2


def test_hits_of_batches_are_their_own_quantity(laptop: Collected) -> None:
    window = window_tokens(laptop.runs.to_dicts())
    assert window == 16_384
    found = [one for one in online(laptop, window=window) if one.key.arm != "own batch"]
    kinds = {name: {one.kind for one in found if one.key.objective == name} for name in TARGETS}
    assert kinds == {CAUSAL: {ALL_TARGETS}, MASKED: {ALL_TARGETS, "mask", "kept"}}
    runs = cells(laptop.measurements)
    for one in found:
        if one.kind == "kept":
            assert set(one.points.value) == {1.0}
            continue
        run = runs[one.key][one.seed]
        # The mean over a window of one pass of what was M(f) a pass before: M(f) of a pass and a half before.
        at = one.points.updates[20::40]
        before = np.interp(at - 12, run.progress.updates, run.progress.memorized)
        np.testing.assert_allclose(one.points.value[20::40], before, atol=0.03)
    later = named(STUDY.analyse(laptop))["causal-update-later"]
    assert later.verdict == "supported"
    assert not later.primary


PARTIAL: Mapping[str, There] = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "causal only": lambda labels: labels["objective"] == CAUSAL,
    "masked only": lambda labels: labels["objective"] == MASKED,
    "one size": lambda labels: labels["size"] == "100k",
    "one run": lambda labels: (labels["size"], labels["seed"], labels["objective"]) == ("25k", 0, CAUSAL),
    "sizes of different seeds": lambda labels: (labels["size"] == "25k") == (labels["seed"] == 0),
    "every third": lambda labels: int(noise(sorted(map(str, labels.items())), sd=1e6)) % 3 == 0,
}


@pytest.mark.parametrize("scale", ["demo", "laptop"])
@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str, scale: str) -> None:
    there = made(scale, Plant(), there=PARTIAL[name])
    found = STUDY.analyse(there)
    assert sum(claim.primary for claim in found.claims) <= MAX_PRIMARY
    assert not any(claim.verdict == "supported" and claim.n < 2 for claim in found.claims)
    if there.runs.is_empty():
        assert found.warnings
        assert not found.claims
    else:
        # A claim that was planned stays in the count of tests, whatever is there.
        assert {claim.name for claim in found.claims if claim.primary} == set(STUDY.detectable(scale))


@pytest.mark.parametrize("lost", ["train", "test", "unit_length", "step 0"])
def test_what_was_not_measured_is_left_out(lost: str) -> None:
    whole = made("demo", Plant())
    broken = (pl.col("size") == "100k") & (pl.col("objective") == CAUSAL)
    hit = pl.col("step") == 0 if lost == "step 0" else pl.col("probe") == lost
    table = whole.measurements.filter(~(broken & hit))
    part = Collected("", "", whole.labels, whole.runs, table, whole.absent, whole.manifest)
    part.__dict__.update(steps=whole.steps, corruption=whole.corruption)
    found = STUDY.analyse(part)
    n_cells = len(cells(table))
    assert n_cells == len(cells(whole.measurements)) - (lost in ("train", "test"))
    assert found.figures


@pytest.mark.parametrize("scale", ["demo", "tiny", "laptop", "overnight"])
def test_scale(scale: str) -> None:
    """At most eight primary claims, each with what it can detect; figures that can be drawn and read."""
    found = STUDY.analyse(made(scale, Plant()))
    primary = {claim.name for claim in found.claims if claim.primary}
    assert 0 < len(primary) <= MAX_PRIMARY
    assert primary == set(STUDY.detectable(scale))
    names = {figure.name for figure in found.figures}
    assert names >= {f"speed-{name}" for name in FIGURES[2 * (scale == "tiny") :]}
    for figure in charts(found):
        assert len(figure.rows) < 5000
        assert len(figure.series_values()) <= 12
        assert all(row.get("seeds") is not None for row in figure.rows)
    assert {table.name for table in found.tables} >= {"speed-times", "speed-trends", "speed-lengths"}
    assert STUDY.deviations(scale)
    if scale == "demo":
        assert all(svg(figure).startswith("<svg") for figure in found.figures)


def test_what_a_scale_cannot_decide_is_said_beforehand() -> None:
    undecidable = {
        scale: {name for name, text in STUDY.detectable(scale).items() if "not decidable" in text}
        for scale in ("demo", "laptop", "overnight")
    }
    assert undecidable == {"demo": {"masked-faster"}, "laptop": set(), "overnight": set()}


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Distinct runs; sizes and objectives of a set and arm have the same seeds, so that they pair."""
    runs = STUDY.runs(scale)
    apart = [canonical_json(run.spec) for run in runs if run.labels["arm"] != "own batch"]
    assert len(set(apart)) == len(apart)
    seeds: dict[tuple[Any, ...], set[int]] = {}
    for run in runs:
        labels, spec = said(run), run.spec
        assert spec.model.objective == labels["objective"]
        assert spec.treatment == Passes(n_sequences=labels["n_sequences"])
        assert spec.recipe.curve == ("linear" if scale == "paper" else "constant")
        passes = spec.steps * spec.batch_size / labels["n_sequences"]
        assert abs(passes - round(passes)) < 0.01
        key = (labels["objective"], labels["n_sequences"], labels["arm"], labels["size"])
        seeds.setdefault(key, set()).add(spec.seed)
    for key in seeds:
        assert len({frozenset(found) for o, found in seeds.items() if o[:3] == key[:3]}) == 1
    sizes = {objective: {key[3] for key in seeds if key[0] == objective} for objective in TARGETS}
    assert len(sizes[CAUSAL]) > 1
    assert len(sizes[MASKED]) > 1


@pytest.mark.slow
@pytest.mark.ci
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    there = trained("memorization_speed", root=tmp_path, report_after=3).collected
    report = STUDY.analyse(there)
    assert {figure.name for figure in report.figures} >= {
        "speed-memorized",
        "speed-unit-length",
        "speed-m-update",
    }
    found = cells(there.measurements)
    assert {key.objective for key in found} == {CAUSAL, MASKED}
    for key, runs in found.items():
        for run in runs.values():
            expected = 24 if key.objective == CAUSAL else pytest.approx(24 * 0.15, rel=0.1)
            assert run.progress.exposures[-1] == expected
            assert run.progress.memorized[-1] > run.progress.memorized[0]
    # Only masked runs have hits by what was shown; together they are the hits of the batch.
    sums = there.corruption.group_by("folder", "step").agg(pl.col("hits").sum())
    whole = there.steps.filter(pl.col("objective") == MASKED).select("folder", "step", "hits")
    assert sums.sort("folder", "step").equals(whole.sort("folder", "step"))
