"""A planted law comes back, an offset where there is one; controls are those of the study they serve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.report.figure import Figure
from repetita.spec import canonical_json
from repetita.studies import _damage_runs
from repetita.studies._controls import ladder, left_out, miss
from repetita.studies.control_scaling import SCALES, STUDY
from repetita.study.plan import Analysis
from tests.studies.planted import Value, effect, noise, planted
from tests.studies.trained import trained


def law(*, floor: float = 0.0, exponent: float = 0.08, sd: float = 0.004) -> Value:
    def value(labels: Mapping[str, Any], probe: str, on: str, step: int) -> float:
        level = floor + (8.0 - floor) * (labels["non_embedding"] / 500) ** -exponent
        return float(level * (1 + noise(labels["size"], labels["seed"], labels["corpus"], sd=sd)))

    return value


def found(scale: str, value: Value) -> tuple[Analysis, dict[str, Claim]]:
    analysis = STUDY.analyse(planted(STUDY, scale=scale, value=value))
    return analysis, {claim.name: claim for claim in analysis.claims}


def test_a_straight_ladder_is_straight_and_needs_no_offset() -> None:
    analysis, claims = found("overnight", law(sd=0.001))
    assert analysis.claims[0].name == "straight"
    assert claims["straight"].verdict == "supported"
    assert effect(claims["straight"]) < 1.15
    assert claims["offset"].verdict != "contradicted"
    assert "exponent 0.08" in claims["straight"].note
    assert claims["straight-python-stdlib"].primary


def test_a_bent_ladder_is_neither() -> None:
    """Halfway to the floor at the largest size: the line through all misses the ends."""
    _, claims = found("overnight", law(floor=3.0, exponent=0.2, sd=0.001))
    assert claims["straight"].verdict == "contradicted"
    assert claims["offset"].verdict == "contradicted"
    assert effect(claims["offset"]) < 0.5


def test_one_seed_of_code_illustrates() -> None:
    _, claims = found("laptop", law())
    assert claims["straight-python-stdlib"].verdict == "illustrated"
    assert claims["straight"].n == 3


def test_miss_and_sizes_left_out_by_hand() -> None:
    """Three sizes a decade apart: one loss 10% high bends by thirds, read at the slope."""
    sizes = {"a": 1_000, "b": 10_000, "c": 100_000}
    straight = ladder("x", losses={name: {0: n**-0.1} for name, n in sizes.items()}, n_params=sizes)
    assert miss(straight, 0) == pytest.approx(1.0)
    bent = ladder(
        "x",
        losses={name: {0: n**-0.1 * (1.1 if name == "b" else 1)} for name, n in sizes.items()},
        n_params=sizes,
    )
    assert miss(bent, 0) == pytest.approx(1.1 ** (2 / 3 / 0.1), rel=1e-6)
    assert miss(ladder("x", losses={"a": {0: 1.0}, "b": {0: 0.9}}, n_params=sizes), 0) is None
    n = [1e3, 1e4, 1e5, 1e6, 1e7]
    assert left_out(n, losses=[2 * x**-0.1 for x in n], offset="none") == pytest.approx(0, abs=1e-6)
    assert left_out(n, losses=[1 + 5 * x**-0.3 for x in n], offset="fitted") == pytest.approx(0, abs=1e-5)
    assert left_out(n[:4], losses=[4, 3, 2, 1], offset="fitted") is None


@pytest.mark.parametrize("scale", ["laptop", "overnight", "gpu", "paper"])
def test_controls_are_shared_with_double_descent(scale: str) -> None:
    own = {canonical_json(run.spec) for run in STUDY.runs(scale) if run.labels["corpus"] != "python-stdlib"}
    theirs = {
        canonical_json(run.spec) for run in _damage_runs.SCALES[scale]()
        if run.labels["arm"] == "control" and run.labels["curve"] == "cosine"
    }  # fmt: skip
    assert own
    assert own <= theirs


@pytest.mark.parametrize("scale", SCALES)
def test_scale(scale: str) -> None:
    analysis, claims = found(scale, law())
    primary = {name for name, claim in claims.items() if claim.primary}
    assert len(primary) <= MAX_PRIMARY
    assert primary == set(STUDY.detectable(scale))
    assert {figure.name for figure in analysis.figures} == {"control-scaling", "control-residuals"}
    assert all(isinstance(figure, Figure) and len(figure.rows) < 500 for figure in analysis.figures)
    laws = next(table for table in analysis.tables if table.name == "control-laws")
    assert {row[-1] for row in laws.rows} != {None}
    assert all(row.why for row in STUDY.deviations(scale))


PARTIAL = {
    "nothing": lambda labels: False,
    "two sizes": lambda labels: labels["size"] in ("0.6k", "3.8k"),
    "three sizes": lambda labels: labels["size"] in ("0.6k", "3.8k", "14k"),
    "one seed": lambda labels: labels["seed"] == 0,
    "seeds apart": lambda labels: (labels["seed"] == 0) == (labels["size"] > "2"),
    "code only": lambda labels: labels["corpus"] == "python-stdlib",
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str) -> None:
    analysis = STUDY.analyse(planted(STUDY, scale="laptop", value=law(), there=PARTIAL[name]))
    assert analysis.warnings or {"straight", "offset"} <= {claim.name for claim in analysis.claims}


@pytest.mark.slow
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    report = trained("control_scaling", root=tmp_path).report
    assert {figure.name for figure in report.figures} == {"control-scaling", "control-residuals"}
    assert {"straight", "straight-python-stdlib"} <= {claim.name for claim in report.findings}
