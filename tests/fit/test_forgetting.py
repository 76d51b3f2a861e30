import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.forgetting import FLOORED, FORMS, Form, fit_decay, forgetting, retained

X = np.unique(np.round(np.geomspace(1, 3000, 24)))
TRUTH: dict[Form, np.ndarray] = {
    "exponential": 0.3 + 0.4 * np.exp(-X / 60),
    "power": 0.3 + 0.4 * X**-0.6,
    "power-to-zero": 0.7 * X**-0.3,
    "logarithmic": 0.7 - 0.05 * np.log(X),
}


def noise(seed: int, sd: float = 0.005) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(0, sd, len(X)))


@pytest.mark.parametrize("form", ["exponential", "power"])
def test_floor_and_rate_are_recovered(form: Form) -> None:
    found = fit_decay(X, y=TRUTH[form], form=form)
    assert found.floor is not None
    assert found.floor.value == pytest.approx(0.3, abs=1e-5)
    assert found.rate == pytest.approx(1 / 60 if form == "exponential" else 0.6, rel=1e-3)
    np.testing.assert_allclose(found.predict(X), TRUTH[form], atol=1e-5)


@pytest.mark.parametrize("form", ["exponential", "power"])
def test_the_floor_of_one_run_is_covered_as_stated(form: Form) -> None:
    covered = []
    for seed in range(120):
        found = fit_decay(X, y=TRUTH[form] + noise(seed), form=form)
        assert found.floor is not None
        covered.append(found.floor.holds(0.3))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


def test_floors_over_seeds_cover_differences_between_runs() -> None:
    covered = []
    for trial in range(80):
        levels = np.random.default_rng(trial).normal(0, 0.02, 4)
        curves = {s: TRUTH["exponential"] + level + noise(1000 * trial + s) for s, level in enumerate(levels)}
        best = {decay.form: decay for decay in forgetting(X, curves=curves).decays}["exponential"]
        assert best.floor is not None
        covered.append(best.floor.holds(0.3))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.06)


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_told_by_aicc_and_by_the_seed_left_out(form: Form) -> None:
    found = forgetting(X, curves={s: TRUTH[form] + noise(s) for s in range(4)})
    assert found.decays[0].form == form
    if form in FLOORED:  # the others are limits of the power form, which predicts as well
        assert min(found.decays, key=lambda decay: decay.left_out or 0).form == form
    for decay in found.decays:
        assert decay.left_out == pytest.approx(np.sqrt(np.mean(np.square(decay.errors))))
        assert (decay.floor is None) == (decay.form not in FLOORED)
    np.testing.assert_allclose(found.decays[0].predict(X), TRUTH[form], atol=0.01)


def test_a_short_horizon_leaves_the_floor_open() -> None:
    short = X[X <= 20]
    found = forgetting(short, curves={0: 0.3 + 0.4 * np.exp(-short / 5), 1: 0.31 + 0.4 * np.exp(-short / 5)})
    assert "open" in found.note
    floors = [decay.floor for decay in found.decays if decay.floor is not None]
    assert len(floors) == 2
    assert {(floor.low, floor.high) for floor in floors} == {(None, None)}


def test_a_floor_that_is_not_bounded_is_open_below() -> None:
    """Data of the logarithmic form: the power form's floor may lie anywhere below."""
    found = fit_decay(X, y=TRUTH["logarithmic"] + noise(3), form="power")
    assert found.floor is not None
    assert found.floor.low is None


def test_the_papers_baseline_is_the_minimum() -> None:
    y = TRUTH["power"] + noise(1, 0.02)
    found = forgetting(X, curves={0: y, 1: y + 0.1})
    assert found.baseline.value == pytest.approx(y.min() + 0.05)
    assert "minimum of" in found.baseline.method
    assert found.last.value == pytest.approx(y[-1] + 0.05)


def test_retained_memory_is_paired() -> None:
    rng = np.random.default_rng(0)
    level = rng.uniform(0.2, 0.5, (5, 40))
    shift = np.full((5, 40), 0.03)
    found = retained(level + shift, placebo=level, twin=level + 0.2, twin_placebo=level + 0.2)
    np.testing.assert_allclose(found["minus_placebo"], 0.03)
    np.testing.assert_allclose(found["minus_twin"], 0.03, atol=1e-12)
    assert set(retained(level)) == {"raw"}
    with pytest.raises(SpecError, match="no effect"):
        retained(level, twin=level, twin_placebo=level)


def test_the_injection_itself_is_no_point_of_the_decay() -> None:
    with pytest.raises(SpecError, match="x > 0"):
        forgetting(np.arange(6), curves={0: np.ones(6)})
