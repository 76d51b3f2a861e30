import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.solve import Floats, grid, huber, minimise, refine


def test_many_starts_find_the_deeper_of_two_wells() -> None:
    def wells(x: Floats) -> tuple[float, Floats]:
        return float((x[0] ** 2 - 1) ** 2 + 0.2 * x[0]), np.array([4 * x[0] * (x[0] ** 2 - 1) + 0.2])

    assert minimise(wells, starts=[[1.2]]).x[0] > 0
    found = minimise(wells, starts=grid([-2.0, -0.5, 0.5, 2.0]))
    assert found.x[0] == pytest.approx(-1.0241, abs=1e-3)
    assert found.n_starts == 4
    assert 1 <= found.n_agree < 4


def test_no_finite_value_is_an_error() -> None:
    with pytest.raises(SpecError, match="finite"):
        minimise(lambda x: (float("nan"), x * 0), starts=[[1.0]])


def test_grid_is_every_combination() -> None:
    assert grid([0, 1], [5, 6, 7]).shape == (6, 2)


@pytest.mark.parametrize("delta", [1e-3, 0.1, 10])
def test_huber_has_the_gradient_of_its_value(delta: float) -> None:
    r = np.random.default_rng(0).normal(0, 0.2, 9)
    _, slope = huber(r, delta=delta)
    for i in range(9):
        step = np.zeros(9)
        step[i] = 1e-7 * delta
        numeric = (huber(r + step, delta=delta)[0] - huber(r - step, delta=delta)[0]) / (2 * step[i])
        assert slope[i] == pytest.approx(numeric, rel=1e-4)


def test_refined_fits_equal_the_search() -> None:
    rng = np.random.default_rng(1)
    u = np.linspace(-1, 1, 15)
    design = np.stack([np.ones(15), u], axis=1)
    y = 2 + 3 * u + rng.standard_t(2, (6, 15)) * 0.1

    def model(theta: Floats) -> tuple[Floats, Floats]:
        return theta @ design.T, np.broadcast_to(design, (len(theta), 15, 2)).copy()

    found = refine(model, y=y, start=np.zeros((6, 2)), delta=0.05)
    for row, data in zip(found, y, strict=True):

        def objective(x: Floats, data: Floats = data) -> tuple[float, Floats]:
            value, slope = huber(design @ x - data, delta=0.05)
            return value, slope @ design

        np.testing.assert_allclose(row, minimise(objective, starts=[[0.0, 0.0]]).x, atol=1e-4)
