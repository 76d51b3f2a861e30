"""What is fixed stays, what is tied is one, and nonsense is said in one sentence."""

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.fit.parameters import Parameter, space

KNOWN = (
    Parameter("E", "floor", -5.0, 2.0, log=True),
    Parameter("A", "coefficient", -5.0, 5.0, log=True, exponent="alpha", centre=10.0),
    Parameter("B", "coefficient", -5.0, 5.0, log=True, exponent="beta", centre=20.0),
    Parameter("alpha", "exponent", 0.0, 4.0),
    Parameter("beta", "exponent", 0.0, 4.0),
)


def test_a_coefficient_moves_with_its_exponent() -> None:
    """The search's coordinate is the term at the points' centre: A / N^alpha there."""
    where = space(KNOWN)
    assert where.owner == ("E", "A", "B", "alpha", "beta")
    found = where.natural(np.array([0.0, 1.0, 2.0, 0.5, 0.25]))
    assert float(found["A"]) == pytest.approx(np.exp(1.0 + 0.5 * 10))
    assert float(found["B"]) == pytest.approx(np.exp(2.0 + 0.25 * 20))


@pytest.mark.parametrize(
    "fix", [{"A": 400.0}, {"alpha": 0.3}, {"A": 400.0, "alpha": 0.3}, {"E": 1.7, "B": 2000.0}, {"E": 0.0}]
)
def test_what_is_fixed_stays(fix: dict[str, float]) -> None:
    where = space(KNOWN, fix=fix)
    assert len(where.owner) == 5 - len(fix)
    for phi in np.random.default_rng(0).normal(size=(4, len(where.owner))):
        found = where.natural(phi)
        for name, value in fix.items():
            assert float(found[name]) == pytest.approx(value)


def test_a_law_that_is_given_whole_is_one_point() -> None:
    where = space(KNOWN, fix={"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.3, "beta": 0.4})
    assert where.owner == ()
    assert where.inside(np.zeros((3, 5))).shape == (1, 0)
    found = where.natural(np.empty(0))
    assert [float(value) for value in found.values()] == pytest.approx([1.7, 400.0, 2000.0, 0.3, 0.4])


def test_what_is_tied_is_one() -> None:
    where = space(KNOWN, tie=["alpha=beta", "B=A"])
    assert where.owner == ("E", "A = B", "alpha = beta")
    found = where.natural(np.array([0.0, 6.0, 0.3]))
    assert found["alpha"] == found["beta"] == 0.3
    assert float(found["A"]) == float(found["B"]) == pytest.approx(np.exp(6.0))


def test_points_are_brought_inside_and_counted_once() -> None:
    where = space(KNOWN, fix={"alpha": 0.5}, tie=[])
    eta = np.array([[0.0, 6.0, 21.0, 9.0, 1.0], [0.0, 6.0, 21.0, 0.1, 1.0], [9.0, 6.0, 21.0, 0.5, 9.0]])
    found = where.inside(eta)
    assert len(found) == 2, "the first two differ in what is fixed"
    assert np.all(found >= where.box[0]) and np.all(found <= where.box[1])
    assert where.eta(found)[0].tolist() == pytest.approx([0.0, 6.0, 21.0, 0.5, 1.0])


def test_absent_parameters_are_none_of_the_law() -> None:
    lacking = {"E": 0.0, "B": 0.0, "beta": 1.0}
    assert space(KNOWN, absent=lacking).owner == ("A", "alpha")
    with pytest.raises(SpecError, match="cannot fix 'B'"):
        space(KNOWN, absent=lacking, optional=["E"], fix={"B": 2.0})
    where = space(KNOWN, absent=lacking, optional=["E"], fix={"E": 2.0})
    assert float(where.natural(np.zeros(2))["E"]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("fix", "tie", "hint"),
    [
        ({"gamma": 1.0}, [], "cannot fix 'gamma': the law has no such parameter"),
        ({"alpah": 1.0}, [], "did you mean 'alpha'"),
        ({"A": -1.0}, [], "cannot fix A at -1: give a finite number that is not negative"),
        ({"alpha": float("nan")}, [], "finite number"),
        ({}, ["alpha"], "join two parameters"),
        ({}, ["alpha=alpha"], "join two parameters"),
        ({}, ["alpha=gamma"], "cannot tie 'gamma'"),
        ({}, ["alpha=A"], "alpha can be tied to beta"),
        ({}, ["E=A"], "E can be tied to nothing"),
        ({"beta": 0.3}, ["alpha=beta"], "fix it or tie it, not both"),
    ],
)
def test_nonsense_is_one_sentence(fix: dict[str, float], tie: list[str], hint: str) -> None:
    with pytest.raises(SpecError, match=hint):
        space(KNOWN, fix=fix, tie=tie)


def test_what_has_no_effect_does_not_set_points_apart() -> None:
    known = [one._replace(term={"alpha": "A", "beta": "B"}.get(one.name, "")) for one in KNOWN]
    where = space(known)
    here = np.array([0.0, 3.0, where.box[0][2], 0.3, 0.3])
    assert where.idle(here).tolist() == [False, False, False, False, True]
    assert where.distance(here, here + np.array([0, 0, 0, 0, 2.0])) == 0
    assert where.distance(here, here + np.array([0, 0, 20.0, 0, 2.0])) > 0
    assert space(known, fix={"B": 0.0}).idle(here[[0, 1, 3, 4]]).tolist() == [False, False, False, True]


def test_terms_that_are_hardly_there_do_not_set_points_apart() -> None:
    where = space(KNOWN)
    absent = np.array([-5.0, 3.0, 3.0, 0.3, 0.3])
    assert where.distance(absent, absent + np.array([1.0, 0, 0, 0, 0.001])) == pytest.approx(0.001)
    assert where.distance(absent, absent + np.array([0, 1.5, 0, 0, 0])) == pytest.approx(1.5)
