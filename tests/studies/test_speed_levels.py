"""Slopes by tau are those that were planted, bounds are marked, and lengths stand at equal M(f)."""

import pytest

from repetita.report.figure import Figure
from repetita.studies._speed import CAUSAL, MASKED, TAUS
from repetita.studies.memorization_speed import STUDY
from tests.studies.planted import charts, effect
from tests.studies.test_memorization_speed import Labels, Plant, made, named


def figures(plant: Plant) -> dict[str, Figure]:
    return {figure.name: figure for figure in charts(STUDY.analyse(made("laptop", plant)))}


def test_slopes_by_tau_come_back() -> None:
    plant = Plant()
    rows = figures(plant)["speed-slope-by-tau"].rows
    assert [row["tau"] for row in rows if row["objective"] == CAUSAL] == list(TAUS[CAUSAL])
    for row in rows:
        if row["line"] is not None:
            assert row["value"] == pytest.approx(plant.slope(float(str(row["tau"]))), abs=0.03)


def test_levels_that_small_models_do_not_reach_give_upper_bounds() -> None:
    def most(labels: Labels) -> float:
        return 0.7 if labels["size"] == "25k" else 1.0

    rows = figures(Plant(most=most))["speed-slope-by-tau"].rows
    bounded = [row for row in rows if row["low"] is None]
    assert {row["objective"] for row in bounded} == {CAUSAL, MASKED}
    assert {row["tau"] for row in bounded} == {0.8, 0.9, 0.95}
    assert all("upper bound" in str(row["known"]) for row in bounded)


def test_lengths_at_equal_m_are_of_the_smallest_and_the_largest_size() -> None:
    """Planted lengths depend on M alone: one curve for both sizes, 1.3 times the shuffled one."""
    rows = figures(Plant())["speed-length-at-m"].rows
    assert list(dict.fromkeys(row["size"] for row in rows)) == ["25k", "890k"]
    for row in rows:
        m, longer = float(str(row["memorized"])), 1.3 if row["what"] == "measured" else 1.0
        assert row["value"] == pytest.approx(longer / (1 - 0.99 * m), rel=0.12)


@pytest.mark.parametrize(
    ("faster", "verdict"), [(1.0, "contradicted"), pytest.param(-1.0, "supported", marks=pytest.mark.slow)]
)
def test_early_passes_are_judged_on_m_itself(faster: float, verdict: str) -> None:
    """A few passes in, larger planted models are ahead or behind by what the curves say."""
    plant = Plant(faster=faster, steeper=0.0, middle={CAUSAL: 3.0, MASKED: 3.0})
    for objective in (CAUSAL, MASKED):
        claim = named(STUDY.analyse(made("laptop", plant)))[f"{objective}-early"]
        assert claim.verdict == verdict
        assert not claim.primary
        assert (effect(claim) > 0) == (faster > 0)
