"""Planted savings come back against the control of the same arm; plain runs are `double_descent`'s."""

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repetita.corpus.treatment import RepeatedSubset, Stream
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.spec import canonical_json
from repetita.studies import _damage_runs
from repetita.studies.mitigation import (
    CLAIMS,
    DECAY,
    DEDUPLICATED,
    DROPOUT,
    EARLY,
    LATE,
    LOWER,
    PLAIN,
    SCALES,
    STUDY,
)
from repetita.study.collect import Collected
from tests.studies.planted import Value, effect, noise, planted, said
from tests.studies.trained import trained

Labels = Mapping[str, Any]
EXPONENT, COEFFICIENT, STARVED, HEIGHT = 0.06, 7.5, 0.1, 0.4
OWN_COST = 0.2
"""What weight decay costs without any repetition."""


def costs(shares: Mapping[str, float] = {}, *, moved: float = 1.0, run_sd: float = 0.002) -> Value:
    """A hump over passes whose height each arm multiplies; weight decay moves it, and costs by itself."""

    def value(labels, probe, on, step):
        level = COEFFICIENT * labels["non_embedding"] ** -EXPONENT
        level += noise("seed", labels["seed"], sd=0.02)
        level += noise(sorted(map(str, labels.items())), sd=run_sd)
        if probe == "subset":
            return 0.3
        if labels["variant"] == DECAY:
            level += OWN_COST
        if labels["arm"] == "shorter":
            level += STARVED
        if labels["arm"] == "starved":
            level += STARVED
        if labels["arm"] == "repeated":
            at = 256.0 * (moved if labels["variant"] == DECAY else 1.0)
            at /= 2 if labels["variant"] == LOWER else 1
            hump = math.exp(-(math.log(labels["passes"] / at) ** 2))
            level += (STARVED + HEIGHT * hump) * shares.get(labels["variant"], 1.0)
        return level + (3.0 * (step + 1) ** -0.5 if probe == "curve" else 0.0)

    return value


def named(collected: Collected) -> dict[str, Claim]:
    return {claim.name: claim for claim in STUDY.analyse(collected).claims}


def test_what_weight_decay_does_without_repetition_is_not_counted() -> None:
    found = named(planted(STUDY, scale="overnight", value=costs({DECAY: 0.4})))
    assert found["mitigation-decay"].verdict == "supported"
    assert effect(found["mitigation-decay"]) == pytest.approx(0.6 * (STARVED + HEIGHT), abs=0.01)
    assert abs(effect(found["mitigation-dropout"])) < 0.005
    assert effect(found["mitigation-deduplicated"]) == pytest.approx(HEIGHT, abs=0.01)


def test_a_damage_that_only_moves_to_other_passes_is_no_saving() -> None:
    found = named(planted(STUDY, scale="laptop", value=costs(moved=800 / 256)))
    assert found["mitigation-decay"].verdict == "inconclusive"
    assert abs(effect(found["mitigation-decay"])) < 0.01
    assert "with at 800 passes" in found["mitigation-decay"].note


def test_an_arm_that_costs_more_contradicts() -> None:
    found = named(planted(STUDY, scale="laptop", value=costs({LATE: 2.0, EARLY: 0.5, LOWER: 0.3})))
    assert found["mitigation-late"].verdict == "contradicted"
    assert effect(found["mitigation-early"]) == pytest.approx(0.5 * (STARVED + HEIGHT), abs=0.01)
    assert found["mitigation-lower"].verdict == "supported"
    assert "subset of 50 sequences" in found["mitigation-lower"].note


def test_the_headline_comes_first() -> None:
    found = STUDY.analyse(planted(STUDY, scale="laptop", value=costs()))
    assert found.claims[0].name == "mitigation-decay"
    assert [claim.name for claim in found.claims if claim.primary] == list(CLAIMS)


def test_damage_over_training_pairs_steps_where_tokens_differ_a_little() -> None:
    """Real runs differ in scored tokens by parts in ten thousand, as their sequences are not equally full."""
    given = planted(STUDY, scale="laptop", value=costs())
    more = (pl.col("passes").fill_null(0) + pl.col("seed")).cast(pl.Int64)
    uneven = given.measurements.with_columns(tokens=pl.col("tokens") + pl.col("step") * more // 1000)
    found = STUDY.analyse(dataclasses.replace(given, measurements=uneven))
    figure = next(figure for figure in found.figures if figure.name == "mitigation-over-training")
    points: dict[object, list[float]] = {}
    for row in figure.rows:
        assert row["seeds"] == 3
        points.setdefault(row["arm"], []).append(float(row["loss"] or 0))
    assert {len(losses) for losses in points.values()} == {16}
    assert points[PLAIN][-1] == pytest.approx(STARVED + HEIGHT, abs=0.01)


def test_no_damage_is_a_multiplier_of_one_against_the_own_control() -> None:
    found = STUDY.analyse(planted(STUDY, scale="laptop", value=costs({DECAY: 0.0})))
    figure = next(figure for figure in found.figures if figure.name == "mitigation-effective-size")
    ratio = {row["arm"]: float(row["multiplier"] or 0) for row in figure.rows}
    assert ratio[DECAY] == pytest.approx(1.0, abs=0.03)
    assert ratio[PLAIN] < 0.3
    (table,) = found.tables
    assert [row[0] for row in table.rows][-2:] == [
        "deduplicated, filled with unique text: the control itself", DEDUPLICATED,
    ]  # fmt: skip
    assert all(len(row) == len(table.columns) for row in table.rows)


PARTIAL = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "no control": lambda labels: labels["arm"] != "control",
    "controls only": lambda labels: labels["arm"] == "control",
    "no plain arm": lambda labels: labels["variant"] != PLAIN,
    "plain arm only": lambda labels: labels["variant"] == PLAIN,
    "no shorter run": lambda labels: labels["arm"] != "shorter",
    "one subset": lambda labels: labels["subset"] in (None, 160),
    "every third": lambda labels: int(noise(sorted(map(str, labels.items())), sd=1e6)) % 3 == 0,
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_decides_nothing_that_it_cannot(name: str) -> None:
    found = STUDY.analyse(planted(STUDY, scale="laptop", value=costs(), there=PARTIAL[name]))
    primary = [claim for claim in found.claims if claim.primary]
    if name != "nothing":
        assert len(primary) == len(CLAIMS)
    if name in ("no control", "controls only", "no plain arm", "plain arm only"):
        open_ = [claim for claim in primary if claim.name != "mitigation-deduplicated"]
        assert {claim.verdict for claim in open_} == {"inconclusive"}
    if name == "one seed":
        assert {claim.verdict for claim in primary} == {"illustrated"}


@pytest.mark.parametrize("scale", SCALES)
def test_scale(scale: str) -> None:
    """Primary claims with what they can detect, unique names of figures."""
    found = STUDY.analyse(planted(STUDY, scale=scale, value=costs()))
    primary = {claim.name for claim in found.claims if claim.primary}
    assert 0 < len(primary) <= MAX_PRIMARY
    assert primary == set(STUDY.detectable(scale))
    names = [one.name for one in (*found.figures, *found.tables)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("mitigation-") for name in names)
    assert all(row.why for row in STUDY.deviations(scale))


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Each arm has a control of its own recipe and seed; copies placed elsewhere are as many as without."""
    planned = STUDY.runs(scale)
    controls = {
        (said(run)["variant"], said(run)["size"], run.spec.seed): canonical_json(run.spec.recipe)
        for run in planned
        if run.labels["arm"] == "control"
    }
    copies: dict[tuple[object, ...], dict[str, Fraction]] = {}
    for run in planned:
        labels, spec, treatment = said(run), run.spec, run.spec.treatment
        if labels["arm"] not in ("repeated", "starved"):
            assert isinstance(treatment, Stream)
            continue
        assert isinstance(treatment, RepeatedSubset)
        assert controls[labels["variant"], labels["size"], spec.seed] == canonical_json(spec.recipe)
        assert (spec.recipe.weight_decay == 0.1) == (labels["variant"] == DECAY)
        assert (spec.recipe.dropout == 0.1) == (labels["variant"] == DROPOUT)
        assert treatment.fraction is not None
        steps = (treatment.stop or spec.steps) - treatment.begins
        lane = treatment.fraction * steps * spec.batch_size
        at = (labels["size"], spec.seed, treatment.n_sequences)
        copies.setdefault(at, {})[labels["variant"]] = lane
    for arms in copies.values():
        for name in {LATE, EARLY} & set(arms):
            assert abs(arms[name] / arms[PLAIN] - 1) < Fraction(1, 10_000)


def test_runs_without_mitigation_are_those_of_double_descent() -> None:
    """Shared, so that this study costs its other arms only; and measured by the same probes."""
    there = {canonical_json(run.spec): run.probes for run in _damage_runs.laptop()}
    for run in SCALES["laptop"]():
        if run.labels["variant"] == PLAIN:
            assert there[canonical_json(run.spec)] == run.probes


def test_the_shorter_run_has_what_deduplication_leaves() -> None:
    short = [run.spec for run in SCALES["laptop"]() if run.labels["arm"] == "shorter"]
    assert {spec.steps for spec in short} == {(12_800 + 50) // 16}
    assert {spec.recipe.horizon for spec in short} == {803}


@pytest.mark.slow
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    there = trained("mitigation", root=tmp_path, report_after=7)
    report, table = there.report, there.collected.measurements
    before = table.filter(
        (pl.col("probe") == "curve") & (pl.col("metric") == "loss") & (pl.col("step") <= 10)
    )
    start = {
        name: before.filter((pl.col("variant") == name) & (pl.col("arm") == arm) & (pl.col("size") == "1.9k"))
        .sort("seed", "step").get_column("value").to_list()
        for name, arm in ((PLAIN, "control"), (LATE, "repeated"), (EARLY, "repeated"))
    }  # fmt: skip
    assert start[LATE] == start[PLAIN]
    assert start[EARLY] != start[PLAIN]
    expected = {"mitigation-damage", "mitigation-by-passes", "mitigation-over-training"}
    assert expected <= {one.name for one in report.figures}
    assert {claim.name for claim in report.findings} >= set(CLAIMS)
