"""The band of damage comes back from triangles of damage over ln passes, with the paper's edges."""

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.band import fit_band

PAPER = {"k_left": 4.2e6, "alpha_left": -0.56, "k_right": 5.1e7, "alpha_right": -0.50}
SIZES = np.geomspace(1.57e6, 805e6, 8)
Columns = dict[str, np.ndarray]


def grid(
    *,
    sizes: np.ndarray = SIZES,
    fractions: tuple[float, ...] = (0.1, 0.5),
    top: float = 1e7,
    jitter: float = 0.0,
    seed: int = 0,
) -> Columns:
    """Damage that rises and falls linearly in ln E, half of its height at the paper's edges.

    The grid of passes holds the edges and the peak of each size, so that interpolation is exact.
    """
    rng, rows = np.random.default_rng(seed), []
    for n in sizes:
        for f in fractions:
            left, right = (
                np.log(PAPER[f"k_{side}"]) + PAPER[f"alpha_{side}"] * np.log(n) + rng.normal(0, jitter)
                for side in ("left", "right")
            )
            middle, half = (left + right) / 2, (right - left) / 2
            at = [middle + share * half for share in (-4, -2, -1, -0.4, 0, 0.4, 1, 2, 4)]
            rows += [
                (n, np.exp(x), f, f * max(0.0, 1 - abs(x - middle) / (2 * half)))
                for x in at
                if np.exp(x) <= top
            ]
    return dict(zip(("params", "passes", "fraction", "excess"), np.array(rows).T, strict=True))


def test_the_papers_edges_come_back() -> None:
    found = fit_band(columns=grid())
    assert list(found.values) == list(PAPER)
    for name, value in PAPER.items():
        assert found.values[name].value == pytest.approx(value, rel=1e-9), name
    assert found.n == 8 * 2 * 9
    assert not found.warnings
    edges = found.predict(1.57e6)
    assert edges == pytest.approx([1423, 40665], rel=0.01), "the table of the notes, section 6"


def test_rows_of_several_seeds_are_averaged() -> None:
    once = grid()
    twice = {name: np.tile(column, 2) for name, column in once.items()}
    twice["excess"] = twice["excess"] * np.repeat([0.5, 1.5], len(once["excess"]))
    assert fit_band(columns=twice).values["k_left"].value == pytest.approx(PAPER["k_left"], rel=1e-9)


def test_scatter_gives_intervals_that_cover() -> None:
    hits = dict.fromkeys(PAPER, 0)
    for seed in range(60):
        found = fit_band(columns=grid(fractions=(0.5,), jitter=0.2, seed=seed))
        for name, value in PAPER.items():
            hits[name] += found.values[name].holds(value)
    assert all(count >= 51 for count in hits.values()), hits


def test_curves_drawn_again_give_intervals() -> None:
    found = fit_band(columns=grid(jitter=0.2), n_replicates=200)
    again = fit_band(columns=grid(jitter=0.2), n_replicates=200)
    assert found == again
    assert all(found.values[name].holds(value) for name, value in PAPER.items())
    assert "bootstrap over curves (200)" in found.values["k_left"].method


def test_a_peak_at_the_edge_of_the_grid_is_left_out_and_said() -> None:
    """At these passes the smallest size is still on its way up."""
    columns = grid(top=9_000.0)
    found = fit_band(columns=columns)
    assert any(
        "peak at the edge of the grid of passes: 1.57e+06 parameters at f = 0.1" in text
        for text in found.warnings
    )
    assert found.values["alpha_left"].value == pytest.approx(-0.56, rel=1e-9)


def test_an_edge_beyond_the_grid_is_censored() -> None:
    """The two sizes above the smallest peak within the grid, and reach half of the damage beyond it."""
    found = fit_band(columns=grid(top=12_000.0))
    assert "censored" in found.values["alpha_right"].method
    assert found.values["alpha_right"].holds(-0.5)
    held = fit_band(columns=grid(top=12_000.0), fix={"alpha_right": -0.5})
    assert any("do not reach the right edge" in text for text in held.warnings)
    assert held.values["k_right"].value == pytest.approx(PAPER["k_right"], rel=1e-6)


def test_exponents_can_be_fixed_and_tied() -> None:
    fixed = fit_band(columns=grid(), fix={"alpha_left": -0.56, "k_left": 4.2e6})
    assert (fixed.values["k_left"].low, fixed.values["k_left"].high) == (4.2e6, 4.2e6)
    tied = fit_band(columns=grid(), tie=["alpha_left=alpha_right"])
    assert tied.values["alpha_left"].value == tied.values["alpha_right"].value == pytest.approx(-0.53)
    assert tied.objective is not None and tied.objective > 1e-3


def test_two_sizes_leave_the_intervals_open() -> None:
    found = fit_band(columns=grid(sizes=SIZES[:2]))
    assert found.values["alpha_left"].value == pytest.approx(-0.56)
    assert found.values["alpha_left"].low is None
    assert any("open" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        (grid(sizes=SIZES[:1]), "fewer than two sizes"),
        (grid() | {"excess": -grid()["excess"]}, "fewer than two sizes"),
        (grid(top=300.0, sizes=SIZES[:4]), "no peak inside their grid"),
    ],
)
def test_no_band_is_one_sentence(columns: Columns, hint: str) -> None:
    with pytest.raises(SpecError, match=hint):
        fit_band(columns=columns)


def test_a_parameter_that_it_has_not() -> None:
    with pytest.raises(SpecError, match="did you mean 'alpha_left'"):
        fit_band(columns=grid(), fix={"alpha_lef": 1.0})
