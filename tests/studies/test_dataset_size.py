"""Planted times by size of model and set come back; the common sequences are those of the smallest set."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from repetita.fit.claim import Claim
from repetita.report.draw import svg
from repetita.seeds import Permutation, key
from repetita.spec import canonical_json
from repetita.studies import memorization_speed
from repetita.studies._set_sizes import SEED_SD, TEXTS, horizon, shared
from repetita.studies._speed import cells
from repetita.studies.dataset_size import SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis
from tests.studies.planted import charts, effect, everything, noise, planted
from tests.studies.trained import trained

Labels = Mapping[str, Any]
There = Callable[[Labels], bool]
POOL, LENGTH = 4096, 128


class Plant:
    """ln T = level + slope(S) ln N + by_set ln S in passes; the common part is `behind` the rest."""

    def __init__(
        self, *, slope: float = -0.4, by_set: float = 0.3, interaction: float = -0.05, behind: float = 0.0
    ) -> None:
        self.slope, self.by_set, self.interaction, self.behind = slope, by_set, interaction, behind

    def time(self, labels: Labels) -> float:
        u = math.log(labels["non_embedding"] / 50_000)
        v = math.log(labels["n_sequences"] / 128)
        own = noise(labels["size"], labels["n_sequences"], labels["seed"], sd=0.01)
        return 12 * math.exp((self.slope + self.interaction * v) * u + self.by_set * v + own)

    def memorized(self, labels: Labels, passes: float, *, later: float = 0.0) -> float:
        return 1 / (1 + (self.time(labels) * math.exp(later) / passes) ** 3) if passes > 0 else 0.0


@cache
def members(seed: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A set of a seed, every set the beginning of one order, in an order not to be relied on; and places."""
    order = Permutation(POOL, key(seed, "order"))(np.arange(n, dtype=np.int64))
    shuffled = Permutation(n, 7)(np.arange(n, dtype=np.int64))
    return order[shuffled], shuffled


def made(scale: str, plant: Plant, *, there: There = everything) -> Collected:
    def value(labels: Labels, probe: str, on: str, step: int) -> float | None:
        passes = step * labels["batch_size"] / labels["n_sequences"]
        return 0.1 if on == "test" else plant.memorized(labels, passes)

    found = planted(STUDY, scale=scale, metric="memorized", value=value, there=there)
    runs = {row["folder"]: row for row in found.runs.to_dicts()}
    least = min(labels_of(run)["n_sequences"] for run in STUDY.runs(scale))  # type: ignore[type-var]

    def items(folder: str, *, key: str, step: int) -> dict[str, NDArray[np.generic]]:
        labels = runs[folder]
        n, passes = labels["n_sequences"], step * labels["batch_size"] / labels["n_sequences"]
        m = np.full(n, plant.memorized(labels, passes))
        m[: int(least or 0)] = plant.memorized(labels, passes, later=plant.behind)
        sequence, places = members(labels["seed"], n)
        return {
            "train/sequence": sequence,
            "train/hits": (m * LENGTH)[places],
            "train/n_scored": np.full(n, LENGTH),
        }

    found.__dict__["items"] = items
    return found


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


def test_planted_times_come_back() -> None:
    plant = Plant()
    found = named(STUDY.analyse(made("overnight", plant)))
    assert list(found)[: len(TEXTS)] == list(TEXTS)
    assert found["set-faster"].verdict == "supported"
    assert effect(found["set-faster"]) == pytest.approx(
        plant.slope + plant.interaction * math.log(1 / 4), abs=0.03
    )
    u = np.mean([math.log(n / 50_000) for n in (24_000, 98_000, 220_000, 890_000)])
    expected = plant.by_set + plant.interaction * float(u)
    assert effect(found["set-passes"]) == pytest.approx(expected, abs=0.04)
    assert effect(found["set-updates"]) == pytest.approx(expected + 1, abs=0.04)
    assert effect(found["set-interaction"]) == pytest.approx(plant.interaction * math.log(16), abs=0.03)
    assert found["set-fixed-updates"].verdict == "supported"
    assert found["set-fixed-passes"].verdict == "supported"


def test_sets_that_are_memorized_in_fewer_passes_the_larger_they_are_contradict() -> None:
    found = named(STUDY.analyse(made("overnight", Plant(by_set=-0.4, interaction=0.05))))
    assert found["set-passes"].verdict == "contradicted"
    assert found["set-updates"].verdict == "supported"
    assert found["set-interaction"].verdict == "contradicted"
    assert found["set-fixed-passes"].verdict == "contradicted"


def test_one_set_on_which_larger_models_are_slower_is_enough() -> None:
    found = named(STUDY.analyse(made("overnight", Plant(slope=-0.05, interaction=0.2))))
    assert found["set-faster"].verdict == "contradicted"
    assert found["set-faster-32"].verdict == "supported"


def test_the_common_sequences_are_those_of_the_smallest_set() -> None:
    """Planted behind the rest, they are read as what they are, whatever the order of the items."""
    plant = Plant(behind=0.7)
    there = made("laptop", plant)
    found = cells(there.measurements)
    known = shared(there, found)
    assert len(known) == len(there.runs)
    labels = {(row["size"], row["n_sequences"], row["seed"]): row for row in there.runs.to_dicts()}
    for (cell, seed), points in known.items():
        run = found[cell][seed]
        own = labels[cell.size, cell.n_sequences, seed]
        for updates, value in zip(points.updates[5:], points.value[5:], strict=True):
            passes = run.progress.at(updates).passes
            assert value == pytest.approx(plant.memorized(own, passes, later=0.7), abs=1e-9)


def test_a_seed_without_its_smallest_set_has_nothing_in_common() -> None:
    def there(labels: Labels) -> bool:
        return bool(labels["seed"] > 0 or labels["n_sequences"] > 32)

    part = made("laptop", Plant(), there=there)
    known = shared(part, cells(part.measurements))
    assert known
    assert all(seed > 0 for _, seed in known)  # type: ignore[operator]


def test_small_models_that_never_get_there_still_support() -> None:
    """On the large set the small one ends before half is memorized: the slope is at most what is seen."""
    found = STUDY.analyse(made("laptop", Plant(slope=-0.9, interaction=-0.1, by_set=0.7)))
    claim = named(found)["set-faster-512"]
    assert claim.verdict == "supported"
    assert claim.estimate is not None
    assert claim.estimate.value is None
    assert any("was not reached" in text for text in found.warnings)


def test_runs_are_compared_where_all_of_them_are() -> None:
    at = horizon([labels_of(run) for run in STUDY.runs("laptop")])
    assert at == (400, 48)


PARTIAL: Mapping[str, There] = {
    "nothing": lambda labels: False,
    "one set": lambda labels: labels["n_sequences"] == 128,
    "one size": lambda labels: labels["size"] == "25k",
    "no smallest set": lambda labels: labels["n_sequences"] > 32,
    "seeds apart": lambda labels: (labels["n_sequences"] == 32) == (labels["seed"] == 0),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str) -> None:
    there = made("laptop", Plant(), there=PARTIAL[name])
    found = STUDY.analyse(there)
    if there.runs.is_empty():
        assert found.warnings
        return
    primary = {claim.name: claim.verdict for claim in found.claims if claim.primary}
    assert primary == dict.fromkeys(TEXTS, "inconclusive")
    assert found.figures
    assert found.tables


@pytest.mark.parametrize("scale", ["tiny", "laptop", "overnight"])
def test_scale(scale: str) -> None:
    found = STUDY.analyse(made(scale, Plant()))
    assert {claim.name for claim in found.claims if claim.primary} == set(STUDY.detectable(scale))
    assert set(SEED_SD) == set(TEXTS)
    assert {figure.name for figure in found.figures} >= {"set-time", "set-common"}
    for figure in charts(found):
        assert len(figure.series_values()) <= 12
        if scale == "laptop":
            assert svg(figure).startswith("<svg")
    assert {table.name for table in found.tables} == {"set-times", "set-common-sizes"}


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Distinct runs; two sizes at least on every set, of the same seeds, with one batch size a model size."""
    runs = STUDY.runs(scale)
    assert len({canonical_json(run.spec) for run in runs}) == len(runs)
    sets = {run.labels["n_sequences"] for run in runs}
    assert len(sets) == 3
    sizes = {n: {run.labels["size"] for run in runs if run.labels["n_sequences"] == n} for n in sets}
    assert len(set.intersection(*sizes.values())) > 1
    for size in set.union(*sizes.values()):
        assert len({run.spec.batch_size for run in runs if run.labels["size"] == size}) == 1
    assert len({one.parameter for one in STUDY.deviations(scale)}) == len(STUDY.deviations(scale))


@pytest.mark.parametrize(("scale", "n"), [("laptop", 12), ("overnight", 21), ("gpu", 12), ("paper", 6)])
def test_runs_of_the_speed_study_are_not_trained_again(scale: str, n: int) -> None:
    speed = {canonical_json(run.spec): run for run in memorization_speed.STUDY.runs(scale)}
    own = {canonical_json(run.spec): run for run in STUDY.runs(scale)}
    both = set(speed) & set(own)
    assert len(both) == n
    for spec in both:
        there = {probe.fingerprint: probe.cadence for probe in speed[spec].probes}
        assert all(there[probe.fingerprint] == probe.cadence for probe in own[spec].probes)


@pytest.mark.slow
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    there = trained("dataset_size", root=tmp_path).collected
    report = STUDY.analyse(there)
    assert {figure.name for figure in report.figures} >= {"set-time", "set-common"}
    assert {claim.name for claim in report.claims if claim.primary} == set(TEXTS)
    found = cells(there.measurements)
    known = shared(there, found)
    assert len(known) == len(there.runs)
    for (cell, seed), points in known.items():
        whole = found[cell][seed].progress.memorized
        # On the smallest set the common sequences are all of it; on larger ones they are a part.
        assert np.allclose(points.value, whole) == (cell.n_sequences == 8)
    assert there.measurements.filter(pl.col("metric") == "memorized")["value"].null_count() == 0
