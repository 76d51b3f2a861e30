"""The laws of loss equal their closed forms, and their slopes equal differences."""

import numpy as np
import pytest

from repetita.fit.loss_fit import LossFit
from repetita.fit.loss_laws import FORMS, NAMES, log_loss, points
from repetita.fit.repetition_laws import (
    CHINCHILLA,
    DATA_CONSTRAINED,
    chinchilla_loss,
    data_constrained_loss,
    effective_data,
)

RNG = np.random.default_rng(0)
N = np.exp(RNG.uniform(np.log(1e7), np.log(1e10), 40))
U = np.exp(RNG.uniform(np.log(1e8), np.log(1e10), 40))
D = U * np.exp(RNG.uniform(-0.5, 5, 40))
COLUMNS = {"params": N, "tokens": D, "unique_tokens": U}


def test_they_are_the_closed_forms() -> None:
    """With exponents apart, some models larger and some smaller than is optimal for their unique tokens."""
    law = DATA_CONSTRAINED._replace(alpha=0.34, beta=0.37)
    expected = data_constrained_loss(N, tokens=D, unique_tokens=U, law=law)
    assert LossFit("data-constrained", law._asdict()).predict(COLUMNS) == pytest.approx(expected, rel=1e-13)
    own = {name: value for name, value in CHINCHILLA._asdict().items() if value is not None}
    assert LossFit("chinchilla", own).predict({"params": 1e9, "tokens": 2e10}) == pytest.approx(
        float(chinchilla_loss(1e9, tokens=2e10))
    )
    assert LossFit("power", {"A": 20.0, "alpha": 0.1}).predict([1e3, 1e6]) == pytest.approx(
        [20 * 1e3**-0.1, 20 * 1e6**-0.1]
    )


@pytest.mark.parametrize("law", FORMS)
def test_slopes_are_those_of_the_values(law: str) -> None:
    at = points({role: COLUMNS[role] for role in FORMS[law].inputs})
    eta = np.array([[0.6, 6.2, 7.3, 0.34, 0.37, 2.7, 1.7], [-3.0, 5.0, 9.0, 0.5, 0.2, 0.5, 0.1]])
    slopes = log_loss(eta, at)[1]
    for k in range(len(NAMES)):
        step = np.zeros(len(NAMES))
        step[k] = 1e-6
        numeric = (log_loss(eta + step, at)[0] - log_loss(eta - step, at)[0]) / 2e-6
        np.testing.assert_allclose(slopes[..., k], numeric, atol=2e-8 * max(1.0, np.abs(numeric).max()))


def test_a_term_that_is_fixed_at_zero_is_not_there() -> None:
    at = points({"params": N, "tokens": D})
    eta = np.array([[-np.inf, 6.0, -np.inf, 0.3, 1.0, 0.0, 0.0]])
    values, slopes = log_loss(eta, at)
    assert values[0] == pytest.approx(6.0 - 0.3 * np.log(N))
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(("gone", "left"), [("A", "B"), ("B", "A")])
def test_repeated_text_without_a_term(gone: str, left: str) -> None:
    """Without the term of data every size is under the optimal one; without that of sizes none counts."""
    own = DATA_CONSTRAINED._asdict() | {gone: 0.0}
    worth = N if left == "A" else effective_data(D, unique_tokens=U)
    expected = own["E"] + own[left] / worth**0.3526596
    assert LossFit("data-constrained", own).predict(COLUMNS) == pytest.approx(expected)
