"""Laws of loss come back from data drawn from them, with what was fixed or tied, bounds and warnings."""

import math
from typing import Any

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.loss_fit import LossFit, fit_loss_law
from repetita.fit.loss_laws import FORMS
from repetita.fit.repetition_laws import CHINCHILLA_REFITTED, DATA_CONSTRAINED

TRUTH: dict[str, dict[str, Any]] = {
    "power": {"A": 20.0, "alpha": 0.1},
    "power-with-offset": {"E": 1.7, "A": 100.0, "alpha": 0.3},
    "chinchilla": {k: v for k, v in CHINCHILLA_REFITTED._asdict().items() if v is not None},
    "data-constrained": DATA_CONSTRAINED._asdict(),
}


def runs(law: str, *, n: int = 60, noise: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """Columns of runs of the law, log-normal about it."""
    rng = np.random.default_rng(seed)
    tokens = np.exp(rng.uniform(np.log(1e9), np.log(3e11), n))
    whole = {
        "params": np.exp(rng.uniform(np.log(5e7), np.log(1e10), n)),
        "tokens": tokens,
        "unique_tokens": tokens / np.exp(rng.uniform(0, 4.5, n)),
    }
    columns = {role: whole[role] for role in FORMS[law].inputs}
    loss = LossFit(law, TRUTH[law]).predict(columns) * np.exp(rng.normal(0, 1, n) * noise)
    return columns | {"loss": loss}


@pytest.mark.parametrize("law", FORMS)
def test_without_noise_the_law_itself_comes_back(law: str) -> None:
    found = fit_loss_law(law, columns=runs(law), n_replicates=0)
    for name, value in TRUTH[law].items():
        assert found.values[name].value == pytest.approx(value, rel=1e-4), name
    assert found.objective is not None and found.objective < 1e-12
    assert found.r2 == pytest.approx(1.0)
    assert len(found.optima) == 1
    assert found.predict(runs(law)) == pytest.approx(runs(law)["loss"])


def test_with_noise_it_lies_in_the_intervals_and_the_objective_is_the_published_one() -> None:
    columns = runs("chinchilla", n=80, noise=0.005)
    found = fit_loss_law("chinchilla", columns=columns)
    for name, value in TRUTH["chinchilla"].items():
        assert found.values[name].holds(value), name
        assert found.values[name].half_width is not None
    assert found.objective == pytest.approx(objective(dict(found.optima[0].params), columns), rel=1e-9)
    assert found.optima[0].objective < objective(TRUTH["chinchilla"], columns)


def test_the_same_seed_gives_the_same_numbers() -> None:
    columns = runs("power", n=12, noise=0.01)
    first, again, other = (fit_loss_law("power", columns=columns, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.values["alpha"].low != other.values["alpha"].low


def test_two_stages_fix_the_first_and_fit_the_rates() -> None:
    """Muennighoff et al. 2023: five parameters from text read once, then R_D and R_N alone."""
    columns = runs("data-constrained", n=100, noise=0.005, seed=1)
    five = {name: TRUTH["data-constrained"][name] for name in ("E", "A", "B", "alpha", "beta")}
    found = fit_loss_law("data-constrained", columns=columns, fix=five)
    for name, value in five.items():
        assert (found.values[name].value, found.values[name].low, found.values[name].high) == (value,) * 3
    assert found.values["R_D"].holds(TRUTH["data-constrained"]["R_D"])
    assert found.values["R_N"].holds(TRUTH["data-constrained"]["R_N"])


def test_tied_exponents_are_equal_and_cost_little_where_they_are_true() -> None:
    columns = runs("data-constrained", n=50, noise=0.002)
    free = fit_loss_law("data-constrained", columns=columns, n_replicates=0)
    tied = fit_loss_law("data-constrained", columns=columns, tie=["alpha=beta"], n_replicates=0)
    assert tied.values["alpha"] == tied.values["beta"]
    assert free.objective is not None and tied.objective is not None
    assert free.objective <= tied.objective <= 1.1 * free.objective


def test_a_power_law_takes_a_floor_that_is_given() -> None:
    columns = runs("power-with-offset", n=20)
    found = fit_loss_law("power", columns=columns, fix={"E": 1.7}, n_replicates=0)
    assert found.values["alpha"].value == pytest.approx(0.3, rel=1e-6)
    assert found.values["E"].method == "fixed"
    assert list(found.values) == ["E", "A", "alpha"]


def test_a_law_that_is_given_whole_is_judged_on_the_runs() -> None:
    columns = runs("chinchilla", n=20, noise=0.01)
    found = fit_loss_law("chinchilla", columns=columns, fix=TRUTH["chinchilla"])
    assert found.objective == pytest.approx(objective(TRUTH["chinchilla"], columns), rel=1e-12)
    assert [dict(one.params) for one in found.optima] == [TRUTH["chinchilla"]]
    assert {one.method for one in found.values.values()} == {"fixed"}
    assert not found.warnings


def by_hand(at: dict[str, Any]) -> Any:
    """Muennighoff et al. 2023 as they write it (section 14.3 of the notes), with their constants."""
    a, b, e, alpha, r_d, r_n = (
        math.exp(6.255414),
        math.exp(7.3049974),
        math.exp(0.6254804),
        0.3526596,
        15.387756,
        5.309743,
    )
    n, d = at["params"], at["tokens"]
    u_d = np.minimum(at["unique_tokens"], d)
    u_n = np.minimum(n, (a / b) ** (1 / alpha) * u_d)  # G^2 U_D where the exponents are one.
    d_eff = u_d + u_d * r_d * (1 - np.exp(-(d / u_d - 1) / r_d))
    n_eff = u_n + u_n * r_n * (1 - np.exp(-(n / u_n - 1) / r_n))
    return e + a / n_eff**alpha + b / d_eff**alpha


def test_the_data_constrained_law_is_the_published_formula() -> None:
    columns = runs("data-constrained", n=40, noise=0.01)
    columns["unique_tokens"][:5] = columns["tokens"][:5] * 3  # More than is read: as if all were read once.
    found = fit_loss_law("data-constrained", columns=columns, fix=TRUTH["data-constrained"])
    size = np.abs(np.log(by_hand(columns)) - np.log(columns["loss"]))
    huber = np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 0.5e-3))
    assert found.objective == pytest.approx(float(huber.sum()), rel=1e-9)
    assert found.predict(columns) == pytest.approx(by_hand(columns))


def test_text_read_once_by_no_larger_models_than_it_is_optimal_for_is_chinchilla() -> None:
    columns = runs("data-constrained", n=40)
    columns["unique_tokens"] = columns["tokens"]
    columns["params"] = 0.04 * columns["tokens"]  # Under 0.051 tokens.
    five = {name: TRUTH["data-constrained"][name] for name in ("E", "A", "B", "alpha", "beta")}
    once = LossFit("chinchilla", five).predict(columns)
    assert LossFit("data-constrained", TRUTH["data-constrained"]).predict(columns) == pytest.approx(once)


def test_a_floor_that_is_not_there_is_open_below() -> None:
    found = fit_loss_law("power-with-offset", columns=runs("power", n=30, noise=0.01))
    assert found.values["E"].low is None
    assert "the interval of E is open below" in found.warnings


def test_models_too_small_to_have_excess_parameters_say_nothing_of_them() -> None:
    columns = runs("data-constrained", n=60, noise=0.002)
    columns["params"] = columns["unique_tokens"] * 1e-3
    columns["loss"] = LossFit("data-constrained", TRUTH["data-constrained"]).predict(columns)
    found = fit_loss_law("data-constrained", columns=columns, n_replicates=50)
    assert (found.values["R_N"].low, found.values["R_N"].high) == (None, None)
    assert "the interval of R_N is open below and above" in found.warnings


def test_every_optimum_nearly_as_good_is_listed_and_is_one() -> None:
    """Nine runs do not decide between a steep and a flat law of data: no small step from either is better."""
    columns = runs("chinchilla", n=9, noise=0.03, seed=16)
    found = fit_loss_law("chinchilla", columns=columns, n_replicates=0)
    first, second = found.optima
    assert found.objective == first.objective < second.objective <= 1.05 * first.objective
    assert second.params["beta"] < 0.9 < 1.2 < first.params["beta"]
    assert any("2 optima are within 5% of the best and disagree" in text for text in found.warnings)
    rng = np.random.default_rng(0)
    for one in found.optima:
        for step in rng.normal(0, 1e-4, (50, 5)):
            moved = {k: v * np.exp(s) for (k, v), s in zip(one.params.items(), step, strict=True)}
            assert objective(moved, columns) > one.objective


def objective(params: dict[str, float], columns: dict[str, Any]) -> float:
    size = np.abs(np.log(LossFit("chinchilla", params).predict(columns)) - np.log(columns["loss"]))
    return float(np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 0.5e-3)).sum())


def test_where_nothing_decides_the_optima_say_so() -> None:
    """Loss that rises with size has no power law: without a slope floor and coefficient are one."""
    rising = {"params": np.geomspace(1e5, 1e9, 10), "loss": np.linspace(2.0, 2.2, 10)}
    found = fit_loss_law("power-with-offset", columns=rising)
    assert len(found.optima) > 1
    assert any("alpha is at its lower bound" in text for text in found.warnings)
    assert found.values["alpha"].low is None


@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        (runs("power", n=0), "no row has a number"),
        (runs("power", n=2), "2 free parameters need 3 runs, got 2"),
        (runs("chinchilla") | {"tokens": np.full(60, 1e9)}, "tokens has one value only"),
        (runs("power") | {"params": np.full(60, 1e9)}, "params has one value only"),
    ],
)
def test_too_little_is_one_sentence(columns: dict[str, Any], hint: str) -> None:
    law = "chinchilla" if "tokens" in columns else "power"
    with pytest.raises(SpecError, match=hint):
        fit_loss_law(law, columns=columns)


def test_few_runs_and_few_refits_are_said() -> None:
    found = fit_loss_law("power", columns=runs("power", n=4, noise=0.01), n_replicates=30)
    assert any("4 rows are few for 2 free parameters" in text for text in found.warnings)
    assert any("30 bootstrap refits are few" in text for text in found.warnings)


def covered(law: str, *, n: int, n_times: int) -> dict[str, float]:
    """Share of intervals that hold the truth."""
    hits = dict.fromkeys(TRUTH[law], 0)
    for seed in range(n_times):
        columns = runs(law, n=n, noise=0.01, seed=seed)
        found = fit_loss_law(law, columns=columns, n_replicates=200, seed=seed)
        for name, value in TRUTH[law].items():
            hits[name] += found.values[name].holds(value)
    return {name: count / n_times for name, count in hits.items()}


@pytest.mark.slow
@pytest.mark.ci
def test_intervals_cover() -> None:
    shares = covered("power", n=20, n_times=60)
    assert all(share >= 0.9 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "n", "n_times", "least"),
    [
        ("power", 12, 150, 0.90),
        ("power-with-offset", 30, 150, 0.90),
        ("chinchilla", 60, 150, 0.90),
        ("data-constrained", 60, 60, 0.87),
    ],
)
def test_intervals_cover_as_stated(law: str, n: int, n_times: int, least: float) -> None:
    """The least shares are 2.8 standard errors below 95%."""
    shares = covered(law, n=n, n_times=n_times)
    assert all(share >= least for share in shares.values()), shares
