"""Decays come back from curves drawn from them, by their least AICc, with intervals over rows or seeds."""

from typing import Any

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.decay_fit import FORMULAS, DecayFit, fit_decay_law

STEPS = np.geomspace(1, 1000, 30)
TRUTH = {
    "exponential-decay": {"E": 0.2, "A": 0.6, "rate": 0.05},
    "power-decay": {"E": 0.2, "A": 0.6, "alpha": 0.5},
    "power-to-zero-decay": {"A": 0.6, "alpha": 0.5},
    "logarithmic-decay": {"A": 0.6, "rate": 0.05},
}


def curve(form: str, *, noise: float = 0.0, seed: int = 0, shift: float = 0.0) -> dict[str, Any]:
    values = DecayFit(form, TRUTH[form]).predict(STEPS)
    return {"step": STEPS, "value": values + shift + np.random.default_rng(seed).normal(0, 1, 30) * noise}


@pytest.mark.parametrize("form", FORMULAS)
def test_each_form_comes_back(form: str) -> None:
    found = fit_decay_law(form, columns=curve(form), n_replicates=0)
    assert list(found.values) == list(TRUTH[form])
    for name, value in TRUTH[form].items():
        assert found.values[name].value == pytest.approx(value, rel=1e-6), name
    assert found.r2 == pytest.approx(1.0)


@pytest.mark.parametrize("form", ["exponential-decay", "power-to-zero-decay"])
def test_forgetting_finds_the_form(form: str) -> None:
    columns = curve(form, noise=0.01, seed=1)
    found = fit_decay_law("forgetting", columns=columns)
    assert (found.law, found.formula) == ("forgetting", FORMULAS[form])
    for name, value in TRUTH[form].items():
        assert found.values[name].holds(value), name
    residual = found.predict(STEPS) - columns["value"]
    assert found.objective == pytest.approx(float(residual @ residual) / 2, rel=1e-9)


def test_forms_that_fit_as_well_are_named() -> None:
    short = {name: column[:8] for name, column in curve("exponential-decay", noise=0.05).items()}
    found = fit_decay_law("forgetting", columns=short, n_replicates=0)
    assert any("the form is not decided" in text for text in found.warnings)


def test_seeds_give_t_intervals() -> None:
    curves = [curve("exponential-decay", noise=0.01, seed=s, shift=x) for s, x in enumerate((0, 0.03, -0.03))]
    columns = {name: np.concatenate([one[name] for one in curves]) for name in ("step", "value")}
    groups = np.repeat([0, 1, 2], 30).tolist()
    found = fit_decay_law("forgetting", columns=columns, groups=groups)
    assert found.values["E"].holds(0.2)
    assert found.values["E"].n == 3
    alone = fit_decay_law("forgetting", columns=columns, groups=groups, n_replicates=100)
    assert alone.values["E"].half_width < found.values["E"].half_width  # type: ignore[operator]
    assert any("rows of one seed are not independent" in text for text in alone.warnings)


def test_a_short_horizon_leaves_the_floor_open() -> None:
    late = curve("exponential-decay", noise=0.01)
    columns = {name: column[12:24] for name, column in late.items()}
    found = fit_decay_law("exponential-decay", columns=columns)
    assert (found.values["E"].low, found.values["E"].high) == (None, None)
    assert any("decades show no floor" in text for text in found.warnings)


def test_a_fixed_floor_stays() -> None:
    columns = curve("exponential-decay", noise=0.01, seed=1)
    found = fit_decay_law("forgetting", columns=columns, fix={"E": 0.2})
    assert found.values["E"].method == "fixed"
    assert found.values["rate"].holds(0.05)


def test_values_may_be_negative() -> None:
    columns = curve("exponential-decay", shift=-0.5)
    found = fit_decay_law("exponential-decay", columns=columns, n_replicates=0)
    assert found.values["E"].value == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("columns", "fix", "hint"),
    [
        ({name: column[:3] for name, column in curve("power-decay").items()}, {}, "at least 5 rows"),
        (curve("power-decay"), {"tau": 1.0}, "cannot fix 'tau'"),
    ],
)
def test_mistakes_are_one_sentence(columns: dict[str, Any], fix: dict[str, float], hint: str) -> None:
    with pytest.raises(SpecError, match=hint):
        fit_decay_law("forgetting", columns=columns, fix=fix)


def test_a_decay_that_is_given_whole_is_judged() -> None:
    columns = curve("exponential-decay", noise=0.01)
    found = fit_decay_law("exponential-decay", columns=columns, fix=TRUTH["exponential-decay"])
    residual = columns["value"] - curve("exponential-decay")["value"]
    assert found.objective == pytest.approx(float(residual @ residual) / 2)
    assert not found.warnings


@pytest.mark.slow
@pytest.mark.parametrize("form", ["exponential-decay", "power-decay"])
def test_intervals_cover_as_stated(form: str) -> None:
    """Of 150 repetitions 95% are 142.5; 0.90 is 2.8 standard errors below."""
    hits = dict.fromkeys(TRUTH[form], 0)
    for seed in range(150):
        columns = curve(form, noise=0.01, seed=1000 + seed)
        found = fit_decay_law(form, columns=columns, n_replicates=150, seed=seed)
        for name, value in TRUTH[form].items():
            hits[name] += found.values[name].holds(value)
    assert all(count >= 135 for count in hits.values()), hits
