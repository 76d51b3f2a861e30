"""Planted accuracies, gains and times on a stream come back, and the claims follow the plant."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.corpus.treatment import Stream
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.report.draw import svg
from repetita.studies import memorization_speed
from repetita.studies._grid import planned_labels
from repetita.studies._speed import CAUSAL, MASKED
from repetita.studies._stream import Found, streams
from repetita.studies.memorization_stream import LAPTOP, SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import both, effect, everything, noise, planted
from tests.studies.trained import trained

Labels = Mapping[str, Any]
There = Callable[[Labels], bool]
SMALL = ("tiny", "laptop", "overnight", "gpu")


class Plant:
    """Accuracy rises with ln updates and N; a batch gains `gain` by its update, fresh text a tenth of it."""

    def __init__(
        self,
        *,
        faster: float = 0.3,
        gain: float = 0.01,
        rises: float = 0.004,
        offset: float = 0.0,
        sd: float = 0.002,
        slow: float = 1.0,
    ) -> None:
        self.faster, self.gain, self.rises, self.offset, self.sd, self.slow = (
            faster, gain, rises, offset, sd, slow,
        )  # fmt: skip

    def gained(self, labels: Labels) -> float:
        own = noise("gain", labels["seed"], labels["size"], sd=self.sd / 2)
        return self.gain + self.rises * math.log10(labels["non_embedding"] / 150_000) + own

    def accuracy(self, labels: Labels, updates: float) -> float:
        """Reaches 0.1 at 200 updates for 100k parameters."""
        u = math.log(labels["non_embedding"] / 100_000)
        own = noise(labels["seed"], labels["size"], sd=self.sd)
        at = math.log(max(updates, 1) / (200 * self.slow)) + self.faster * u
        return float(np.clip(0.1 + 0.04 * at + own, 0.0, 1.0))


def made(scale: str, plant: Plant, *, there: There = everything) -> Collected:
    """The table of a scale: accuracy of batches before and after their update, of fresh text, and online."""

    def memorized(labels: Labels, probe: str, on: str, step: int) -> float | None:
        if labels["regime"] == "passes":
            return None if probe == "unit_length" else 0.1 + 0.8 * step / labels["steps"]
        if not probe.startswith("exposure"):
            return plant.accuracy(labels, step)
        update, gain = int(probe.split()[1]), plant.gained(labels)
        if on == "test":
            return 0.2 + 0.1 * gain * (step > update)
        return 0.3 + 1.1 * gain * (step == update + 1) + 0.5 * gain * (step > update + 1)

    def nats(labels: Labels, probe: str, on: str, step: int) -> float | None:
        value = memorized(labels, probe, on, step)
        return None if value is None or labels["regime"] == "passes" else 6 - value

    found = planted(STUDY, scale=scale, metric="memorized", value=memorized, there=there)
    losses = planted(STUDY, scale=scale, metric="loss", value=nats, there=there)
    found = both(found, losses) if len(losses.measurements) else found
    table = found.measurements
    if len(table):
        read = pl.col("step") * pl.col("batch_size") * pl.col("length")
        key = pl.col("folder") + pl.col("probe")
        table = table.with_columns(n=pl.col("n_sequences") * pl.col("length"), tokens=read, key=key)
    found = Collected(found.study, scale, found.labels, found.runs, table, found.absent, found.manifest)
    found.__dict__["steps"], found.__dict__["corruption"] = _batches(found, plant)
    return found


def _batches(found: Collected, plant: Plant) -> tuple[pl.DataFrame, pl.DataFrame]:
    steps, shown = [], []
    empty = pl.DataFrame(schema={**found.runs.schema, "step": pl.Int64, "hits": pl.Int64, "n": pl.Int64})
    for labels in found.runs.iter_rows(named=True):
        step = np.arange(labels["steps"])
        if labels["regime"] == "passes":
            m = 0.1 + 0.8 * step / labels["steps"] - 0.02
        else:
            m = np.array([plant.accuracy(labels, s) for s in step]) + plant.offset
        n = 1_000_000
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


def taken(found: Collected) -> Found:
    return streams(found, planned=planned_labels(found))


@pytest.fixture(scope="module")
def laptop() -> Collected:
    return made("laptop", Plant())


def test_planted_numbers_come_back(laptop: Collected) -> None:
    found, plant = taken(laptop), Plant()
    assert found.window == 5 * 2048
    assert len(found.proxies) == 6
    labels = {(row["objective"], row["size"], row["seed"]): row for row in laptop.runs.to_dicts()}
    for (objective, size), runs in found.streams.items():
        for seed, run in runs.items():
            own = labels[objective, size, seed]
            assert run.mean_gain == pytest.approx(plant.gained(own))
            assert run.exposures[0].left == pytest.approx(0.4 * plant.gained(own))
            assert run.mean_nats == pytest.approx(plant.gained(own))
            assert len(run.gaps.value) == 4
            assert run.gaps.value.mean() == pytest.approx(0, abs=0.001)
            assert 1.0 in (set(run.online["kept"].value) if objective == MASKED else {1.0})
            time = run.time(0.1, hold=found.hold)
            if time.x is not None:
                assert plant.accuracy(own, time.x - 3) == pytest.approx(0.1, abs=0.002)


def test_claims_follow_the_plant(laptop: Collected) -> None:
    found = named(STUDY.analyse(laptop))
    for name in (
        "stream-faster",
        "stream-exposure",
        "stream-exposure-nats",
        "stream-exposure-rises",
        "stream-fresh",
    ):
        assert found[name].verdict == "supported", (name, found[name])
    assert effect(found["stream-faster"]) == pytest.approx(-0.3, abs=0.04)
    assert effect(found["stream-exposure-rises"]) == pytest.approx(0.004, abs=0.001)
    assert next(iter(STUDY.analyse(laptop).claims)).name == "stream-faster"
    assert "(0.008 at 25k, 0.004 at 100k, 0.004 at 890k)" in found["stream-exposure-rises"].note
    assert found["stream-masked-faster"].verdict == "illustrated"
    assert {found[f"stream-left-causal-{size}"].verdict for size in ("25k", "890k")} == {"supported"}
    assert effect(found["stream-proxy-25k"]) == pytest.approx(-0.02, abs=0.01)


def test_a_plant_turned_round_contradicts() -> None:
    found = named(STUDY.analyse(made("laptop", Plant(faster=-0.3, gain=-0.02, rises=-0.004, offset=0.05))))
    for name in (
        "stream-faster",
        "stream-exposure",
        "stream-exposure-nats",
        "stream-exposure-rises",
        "stream-fresh",
    ):
        assert found[name].verdict == "contradicted", (name, found[name])


def test_what_is_not_reached_is_a_bound() -> None:
    """More slowly only the larger sizes get to 0.1: the slope is at most what the ends give."""
    there = made("laptop", Plant(slow=2.0, sd=0.0005))
    claim = named(STUDY.analyse(there))["stream-faster"]
    assert claim.estimate is not None
    assert claim.estimate.value is None
    assert (claim.verdict, claim.estimate.low) == ("supported", None)
    nothing = STUDY.analyse(made("laptop", Plant(slow=1e4)))
    assert named(nothing)["stream-faster"].verdict == "inconclusive"
    assert any("lower bound" in warning for warning in nothing.warnings)


def test_without_an_effect_none_is_found() -> None:
    found = named(STUDY.analyse(made("laptop", Plant(faster=0, gain=0, rises=0, sd=0.004))))
    assert {found[name].verdict for name in ("stream-exposure", "stream-exposure-rises")} == {"inconclusive"}


PARTIAL: Mapping[str, There] = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "causal only": lambda labels: labels["objective"] == CAUSAL,
    "masked only": lambda labels: labels["objective"] == MASKED,
    "passes only": lambda labels: labels["regime"] == "passes",
    "one run": lambda labels: (labels["size"], labels["seed"], labels["objective"]) == ("25k", 4, CAUSAL),
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


@pytest.mark.parametrize("lost", ["fresh", "exposure 128", "step 128"])
def test_what_was_not_measured_is_left_out(lost: str) -> None:
    whole = made("tiny" if lost == "fresh" else "laptop", Plant())
    hit = pl.col("step") == 128 if lost == "step 128" else pl.col("probe") == lost
    table = whole.measurements.filter(~hit | (pl.col("regime") == "passes"))
    part = Collected("", whole.scale, whole.labels, whole.runs, table, whole.absent, whole.manifest)
    part.__dict__.update(steps=whole.steps, corruption=whole.corruption)
    analysis, found = STUDY.analyse(part), taken(part)
    assert analysis.figures
    for runs in found.streams.values():
        for run in runs.values():
            assert 128 not in {one.update for one in run.exposures} or lost == "fresh"
            assert len(run.gaps.value) == 0 or lost != "fresh"


@pytest.mark.parametrize("scale", SMALL)
def test_scale(scale: str) -> None:
    found = STUDY.analyse(made(scale, Plant()))
    primary = {claim.name for claim in found.claims if claim.primary}
    assert 0 < len(primary) <= MAX_PRIMARY
    assert primary == set(STUDY.detectable(scale))
    names = {figure.name for figure in found.figures}
    assert names == {"stream-time", "stream-curves", "stream-exposure", "stream-corruption", "stream-proxy"}
    for figure in found.figures:
        assert len(figure.rows) < 5000
        assert svg(figure)
    assert {table.name for table in found.tables} == {"stream-times", "stream-sizes"}
    assert STUDY.deviations(scale)


def test_the_papers_own_scale_is_planned_without_a_text() -> None:
    runs = [run for run in STUDY.runs("paper") if run.labels["regime"] == "stream"]
    assert len(runs) == 12
    assert {run.spec.steps for run in runs} == {30_000}
    assert {run.spec.batch_size for run in runs} == {1024, 2048, 4096}
    assert STUDY.detectable("paper")
    assert STUDY.deviations("paper")


@pytest.mark.parametrize("scale", SCALES)
def test_streams_are_read_once_and_the_rest_is_the_speed_studys(scale: str) -> None:
    theirs = {run.spec for run in memorization_speed.STUDY.runs(scale)}
    for run in STUDY.runs(scale):
        if run.labels["regime"] == "stream":
            assert isinstance(run.spec.treatment, Stream)
            exposures = [probe for probe in run.probes if probe.name.startswith("exposure")]
            assert len(exposures) >= 2
            assert all(f"batch/{probe.name.split()[1]}" in probe.on for probe in exposures)
        else:
            assert run.spec in theirs
            assert run.labels["arm"] == "standard"
    assert {run.labels["regime"] for run in STUDY.runs(scale)} == {"stream", "passes"}


def test_seeds_and_looks_of_the_laptop() -> None:
    assert sum(cell.seeds for cell in LAPTOP) == 15
    runs = STUDY.runs("laptop")
    by_objective = {str(run.labels["objective"]): run for run in runs if run.labels["regime"] == "stream"}
    assert len(by_objective[CAUSAL].probes) - len(by_objective[MASKED].probes) == 8


@pytest.mark.slow
@pytest.mark.ci
def test_tiny_runs_end_to_end(tmp_path: Path) -> None:
    """Real runs: online hits equal the probe's before the update; every figure, table and claim is there."""
    there = trained("memorization_stream", root=tmp_path).collected
    found = STUDY.analyse(there)
    assert {claim.name for claim in found.claims if claim.primary} == set(STUDY.detectable("tiny"))
    assert len(found.figures) == 5
    assert len(found.tables) == 2
    sums = there.steps.group_by("folder", "step").agg(pl.col("hits", "n").sum())
    before = there.measurements.filter(
        (pl.col("metric") == "memorized") & (pl.col("set") == "batch") & (pl.col("step") == pl.col("batch"))
    )
    both_ways = before.filter(pl.col("objective") == CAUSAL).join(
        sums, on=["folder", "step"], suffix="_online"
    )
    assert len(both_ways) == 12
    assert (both_ways["value"] * both_ways["n"]).round().to_list() == both_ways["hits"].to_list()
    assert both_ways["n"].to_list() == both_ways["n_online"].to_list()
