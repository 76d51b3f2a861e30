"""Units that cost the same are called alike, others not; their texts differ in nothing else."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.corpus.sequences import open_corpus
from repetita.corpus.treatment import RepeatedSubset
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.spec import canonical_json
from repetita.studies.repetition_unit import MARGIN, NAMES, SCALES, STUDY, TINY, UNITS
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import Value, effect, noise, planted, said
from tests.studies.trained import trained

Labels = Mapping[str, Any]
EXPONENT, COEFFICIENT, STARVED, HEIGHT = 0.06, 7.5, 0.04, 0.25


def planted_costs(
    costs: Mapping[str, float] = {}, *, peak: float = 240.0, run_sd: float = 0.002
) -> Value:  # fmt: skip
    """Control by a power law; a hump over passes whose height each unit multiplies by its own cost."""

    def value(labels, probe, on, step):
        level = COEFFICIENT * labels["non_embedding"] ** -EXPONENT
        level += noise("seed", labels["seed"], sd=0.02)
        level += noise(sorted(map(str, labels.items())), sd=run_sd)
        if probe == "subset":
            return 0.3
        if labels["arm"] != "control":
            level += STARVED
        if labels["arm"] == "repeated":
            hump = math.exp(-(math.log(labels["passes"] / peak) ** 2))
            level += HEIGHT * costs.get(labels["variant"], 1.0) * hump
        return level + (3.0 * (step + 1) ** -0.5 if probe == "curve" else 0.0)

    return value


def named(collected: Collected) -> dict[str, Claim]:
    return {claim.name: claim for claim in STUDY.analyse(collected).claims}


def test_equal_costs_are_alike_with_five_seeds_and_open_with_three() -> None:
    five = named(planted(STUDY, scale="overnight", value=planted_costs()))
    assert [five[f"unit-{unit}"].verdict for unit in UNITS[1:]] == ["supported"] * 3
    assert all(five[f"unit-{unit}-costs"].verdict == "supported" for unit in UNITS)
    assert effect(five["unit-sentence-costs"]) == pytest.approx(STARVED + HEIGHT, abs=0.01)
    assert not five["unit-100k-sentence"].primary
    three = named(planted(STUDY, scale="laptop", value=planted_costs()))
    assert three["unit-sentence"].verdict == "inconclusive"
    assert "equality needs 5 seeds" in three["unit-sentence"].note


def test_a_unit_that_costs_less_is_not_alike() -> None:
    found = named(planted(STUDY, scale="laptop", value=planted_costs({"sentences": 0.3})))
    assert found["unit-sentence"].verdict == "contradicted"
    assert effect(found["unit-sentence"]) == pytest.approx(-0.7 * HEIGHT, abs=0.01)
    assert found["unit-paragraph"].verdict == "inconclusive"
    assert abs(effect(found["unit-paragraph"])) < MARGIN


def test_each_unit_is_read_at_its_own_worst_passes() -> None:
    def value(labels, probe, on, step):
        given = {**labels, "passes": labels["passes"] and labels["passes"] / 3}
        return planted_costs()(given if labels["variant"] == "sentences" else labels, probe, on, step)

    found = STUDY.analyse(planted(STUDY, scale="laptop", value=value))
    (table,) = found.tables
    worst = {str(row[0]): str(row[2]) for row in table.rows}
    assert worst == {"sequences": "240", "documents": "240", "paragraphs": "240", "sentences": "720"}
    claims = {claim.name: claim for claim in found.claims}
    assert effect(claims["unit-sentence"]) == pytest.approx(0, abs=0.01)


def test_the_headline_is_the_shortest_unit_and_comes_first() -> None:
    found = STUDY.analyse(planted(STUDY, scale="laptop", value=planted_costs()))
    assert found.claims[0].name == "unit-sentence"
    assert found.claims[0].primary


def test_effective_sizes_are_what_the_planted_costs_stand_for() -> None:
    found = STUDY.analyse(planted(STUDY, scale="laptop", value=planted_costs()))
    figure = next(figure for figure in found.figures if figure.name == "unit-effective-size")
    level = COEFFICIENT * 25_472**-EXPONENT
    expected = ((level + STARVED + HEIGHT) / level) ** (-1 / EXPONENT)
    for row in figure.rows:
        assert float(row["multiplier"] or 0) == pytest.approx(expected, rel=0.25)
    split = next(figure for figure in found.figures if figure.name == "unit-damage")
    starved = [row["loss"] for row in split.rows if row["part"] == "starvation"]
    assert starved == pytest.approx([STARVED] * 4, abs=0.01)


PARTIAL = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "no control": lambda labels: labels["arm"] != "control",
    "controls only": lambda labels: labels["arm"] == "control",
    "nothing starved": lambda labels: labels["arm"] != "starved",
    "no sequences": lambda labels: labels["variant"] != "sequences",
    "sequences only": lambda labels: labels["variant"] == "sequences",
    "seeds apart": lambda labels: (
        labels["passes"] is None or (labels["passes"] < 100) == (labels["seed"] == 0)
    ),
    "every third": lambda labels: int(noise(sorted(map(str, labels.items())), sd=1e6)) % 3 == 0,
}  # fmt: skip


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_decides_nothing_that_it_cannot(name: str) -> None:
    found = STUDY.analyse(planted(STUDY, scale="laptop", value=planted_costs(), there=PARTIAL[name]))
    verdicts = {claim.verdict for claim in found.claims}
    if name == "one seed":
        assert verdicts == {"illustrated"}
    if name in ("no control", "controls only"):
        assert verdicts == {"inconclusive"}
    if name == "nothing":
        assert found.warnings
        assert not found.claims


@pytest.mark.parametrize("scale", SCALES)
def test_scale(scale: str) -> None:
    """Primary claims with what they can detect, unique names of figures, and all runs of a pair there."""
    found: Analysis = STUDY.analyse(planted(STUDY, scale=scale, value=planted_costs()))
    primary = {claim.name for claim in found.claims if claim.primary}
    assert 0 < len(primary) <= MAX_PRIMARY
    assert primary == set(STUDY.detectable(scale))
    names = [one.name for one in (*found.figures, *found.tables)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("unit-") for name in names)
    assert all(row.why for row in STUDY.deviations(scale))


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Every unit has the control of every seed, one run for all, and the same passes over as much text."""
    planned = STUDY.runs(scale)
    controls: dict[tuple[object, ...], set[str]] = {}
    passes: dict[str, set[tuple[object, ...]]] = {}
    for run in planned:
        labels, treatment = said(run), run.spec.treatment
        assert run.spec.model.context == run.spec.corpus.length
        if labels["arm"] == "control":
            key = (labels["size"], labels["seed"])
            controls.setdefault(key, set()).add(canonical_json(run.spec))
        if labels["arm"] == "repeated":
            assert isinstance(treatment, RepeatedSubset)
            assert NAMES[treatment.unit] == labels["variant"]
            assert run.spec.corpus.units == treatment.unit
            cell = (labels["size"], labels["seed"], labels["passes"], labels["subset"])
            passes.setdefault(labels["variant"], set()).add(cell)
            assert cell[:2] in controls
    assert all(len(specs) == 1 for specs in controls.values())
    assert passes["sentences"] == passes["sequences"] == passes["documents"] == passes["paragraphs"]


def test_texts_of_the_units_differ_in_the_set_units_alone(tmp_path: Path) -> None:
    corpora = [open_corpus(TINY.edit(units=unit), cache=tmp_path) for unit in UNITS]
    for name in ("train", "test"):
        sets = [corpus.sets[name] for corpus in corpora]
        assert len({len(one) for one in sets}) == 1
        some = np.arange(0, len(sets[0]), 7)
        for other in sets[1:]:
            assert np.array_equal(other.rows(some).targets, sets[0].rows(some).targets)
    assert len({len(corpus.sets["units"]) for corpus in corpora}) > 1


@pytest.mark.slow
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    report = trained("repetition_unit", root=tmp_path, report_after=7).report
    assert {"unit-damage", "unit-by-passes", "unit-over-training"} <= {one.name for one in report.figures}
    assert {claim.name for claim in report.findings} >= {f"unit-{unit}-costs" for unit in UNITS}
