"""The published laws give the published numbers, and the toy model equals its own simulation."""

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.repetition_laws import (
    CHINCHILLA,
    CHINCHILLA_REFITTED,
    DATA_CONSTRAINED,
    additive_penalty_loss,
    chinchilla_loss,
    compute_equivalent_gain,
    compute_optimum,
    data_constrained_loss,
    effective_data,
    effective_params,
    optimal_params,
    peak_passes,
    toy_error,
    toy_hump,
)


def test_repeated_tokens_are_worth_what_was_published() -> None:
    """Muennighoff et al. 2023: D'/U at 1, 2, 4, 8, 16 and 40 passes, and its limit."""
    passes = np.array([1, 2, 4, 8, 16, 40])
    worth = effective_data(passes * 1e9, unique_tokens=1e9) / 1e9
    assert worth.round(2).tolist() == [1.00, 1.97, 3.73, 6.62, 10.58, 15.17]
    assert effective_data(1e15, unique_tokens=1e9) / 1e9 == pytest.approx(16.39, abs=0.005)
    assert effective_data(5e8, unique_tokens=1e9) == 5e8, "what is not read is not there"


@pytest.mark.parametrize("law", [CHINCHILLA, CHINCHILLA_REFITTED, DATA_CONSTRAINED])
def test_the_optimum_is_the_least_loss_at_its_compute(law: object) -> None:
    assert isinstance(law, type(CHINCHILLA))
    best = compute_optimum(1e21, law=law)
    assert 6 * best.params * best.tokens == pytest.approx(1e21)
    around = best.params * np.geomspace(0.5, 2, 41)
    losses = chinchilla_loss(around, tokens=1e21 / 6 / around, law=law)
    assert int(losses.argmin()) == 20
    assert optimal_params(best.tokens, law=law) == pytest.approx(float(best.params))


def test_the_compute_optimal_size_for_few_tokens() -> None:
    assert optimal_params(1e9) / 1e9 == pytest.approx(0.051, abs=0.0005)


def test_the_data_constrained_law_begins_as_a_law_of_unique_text() -> None:
    small = float(optimal_params(1e9)) / 2
    once = data_constrained_loss(small, tokens=1e9, unique_tokens=1e9)
    assert once == chinchilla_loss(small, tokens=1e9, law=DATA_CONSTRAINED)
    assert effective_params(small, unique_tokens=1e9) == small
    assert effective_params(small * 100, unique_tokens=1e9) < small * 2 * (1 + 5.309743) * 1.000001
    passes = np.geomspace(1, 1000, 30)
    assert np.all(np.diff(data_constrained_loss(small, tokens=passes * 1e9, unique_tokens=1e9)) <= 0)


def test_without_a_penalty_the_additive_law_counts_all_tokens() -> None:
    at = {"tokens": 4e9, "unique_tokens": 1e9, "law": CHINCHILLA, "delta": 1.5, "kappa": 0.5}
    assert additive_penalty_loss(1e8, penalty=0.0, **at) == chinchilla_loss(1e8, tokens=4e9)  # type: ignore[arg-type]
    added = additive_penalty_loss(1e8, penalty=0.01, **at) - chinchilla_loss(1e8, tokens=4e9)  # type: ignore[arg-type]
    assert added == pytest.approx(0.01 * 3**1.5 * 0.1**0.5)


def test_the_compute_equivalent_gain_inverts_its_law() -> None:
    flops = np.array([1e17, 1e18])
    losses = 2.365 + 6.647e5 * flops**-0.317
    gain = compute_equivalent_gain(losses[0], control_loss=losses[1], floor=2.365, exponent=0.317)
    assert gain == pytest.approx(0.1)
    with pytest.raises(SpecError, match="above the floor"):
        compute_equivalent_gain(2.0, control_loss=3.0, floor=2.365, exponent=0.317)


def test_the_worst_passes_are_the_published_ones() -> None:
    assert peak_passes([34e6, 344e6]) == pytest.approx([1400, 155], rel=0.05)


@pytest.mark.parametrize("mistake", [{"params": 0.0}, {"tokens": -1.0}])
def test_sizes_at_or_under_zero_are_refused(mistake: dict[str, float]) -> None:
    at = {"params": 1e6, "tokens": 1e8} | mistake
    with pytest.raises(SpecError, match=f"{next(iter(mistake))} must be above 0"):
        chinchilla_loss(at["params"], tokens=at["tokens"])


def test_a_law_of_unique_text_has_no_value_of_repeats() -> None:
    with pytest.raises(SpecError, match="R_D"):
        effective_data(2e9, unique_tokens=1e9, law=CHINCHILLA)


@pytest.mark.parametrize("repeats", [1, 6])
def test_the_toy_error_is_that_of_regressions_on_the_duplicated_rows(repeats: int) -> None:
    rng = np.random.default_rng(repeats)
    unique, often = rng.standard_normal((60, 12)), rng.standard_normal((8, 12))
    missing = rng.standard_normal(3)
    missing /= np.linalg.norm(missing)
    weights, errors = rng.standard_normal(12), []
    rows = np.concatenate([unique, *[often] * repeats])
    for _ in range(4000):
        noise_u, noise_d = rng.standard_normal((60, 3)) @ missing, rng.standard_normal((8, 3)) @ missing
        targets = rows @ weights + np.concatenate([noise_u, *[noise_d] * repeats])
        found = np.linalg.lstsq(rows, targets, rcond=None)[0]
        errors.append(1 + float((found - weights) @ (found - weights)))
    expected = toy_error(unique, duplicated=often, repeats=repeats)
    assert np.mean(errors) == pytest.approx(expected, abs=4 * np.std(errors) / np.sqrt(len(errors)))


def test_the_toy_has_its_hump_inside_and_none_without_duplication() -> None:
    repeats = [1, 2, 3, 5, 10, 20, 50, 150]
    found = toy_hump(repeats, n_rows=300, n_features=50, n_draws=20)
    at = int(found.error.argmax())
    assert 0 < at < len(repeats) - 1
    for side in (0, -1):
        rise = found.error[at] - found.error[side]
        assert rise > 5 * np.hypot(found.standard_error[at], found.standard_error[side])
    assert found.n_duplicated.tolist() == [150, 75, 50, 30, 15, 8, 3, 1]
    # Ordinary least squares on Gaussian rows: 1 + p / (n - p - 1).
    assert found.error[0] == pytest.approx(1 + 50 / 249, abs=4 * found.standard_error[0])
    none = toy_hump(repeats, n_rows=300, n_features=50, fraction=0.0, n_draws=20)
    assert np.ptp(none.error) == 0
    assert none.error[0] == pytest.approx(found.error[0], rel=1e-12)


def test_the_toy_refuses_what_it_cannot_solve() -> None:
    with pytest.raises(SpecError, match="as many unique rows as features"):
        toy_hump([1, 2], n_rows=100, n_features=80, fraction=0.5)
    with pytest.raises(SpecError, match="distinct rows"):
        toy_error(np.ones((3, 5)), duplicated=np.ones((1, 5)), repeats=2)
