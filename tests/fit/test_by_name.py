"""`fit_law` finds planted laws in any kind of table, and says what is wrong with one that it cannot read."""

import numpy as np
import polars as pl
import pytest

from repetita.errors import SpecError
from repetita.fit.by_name import LAWS, LawName, fit_law
from repetita.fit.forgetting import FORMS
from repetita.fit.laws import fit_power_law

SIZES = np.geomspace(1e3, 1e6, 12)
NOISE = np.random.default_rng(7).normal(0, 0.01, (5, 12))
STEPS = np.geomspace(1, 1000, 12)


def test_a_power_law_is_the_one_of_the_module() -> None:
    loss = 12.0 * SIZES**-0.1 * np.exp(NOISE[0])
    found = fit_law("power", table=pl.DataFrame({"size": SIZES, "loss": loss}), x="size", y="loss")
    direct = fit_power_law(SIZES, y=loss)
    assert found.values["exponent"] == direct.estimates()["exponent"]
    assert list(found.values) == ["coefficient", "exponent"]
    assert found.values["exponent"].holds(0.1)
    assert (found.n, found.formula) == (12, "loss = coefficient * size^-exponent")
    assert np.allclose(found.predict(SIZES), direct.predict(SIZES))


def test_an_offset_is_found() -> None:
    table = {"size": SIZES, "loss": 2.0 + 40.0 * SIZES**-0.4 * np.exp(NOISE[1] / 4)}
    found = fit_law("power-with-offset", table=table, x="size", y="loss")
    assert found.values["offset"].holds(2.0)
    assert found.formula.startswith("loss = offset + ")


def rows(law: LawName) -> list[dict[str, float]]:
    """Three seeds of a decay with floor 0.2, height 0.6 and rate 0.5 (exponential: 0.05)."""
    shapes = {
        "exponential-decay": 0.2 + 0.6 * np.exp(-0.05 * STEPS),
        "power-decay": 0.2 + 0.6 * STEPS**-0.5,
        "power-to-zero-decay": 0.6 * STEPS**-0.5,
        "logarithmic-decay": 0.6 - 0.05 * np.log(STEPS),
    }
    return [
        {"steps": float(x), "memory": float(y + shift), "seed": seed}
        for seed in range(3)
        for x, y, shift in zip(STEPS, shapes[law], NOISE[seed] / 10, strict=True)
    ]


@pytest.mark.parametrize("law", LAWS[2:])
def test_a_forgetting_curve_by_seed(law: LawName) -> None:
    found = fit_law(law, table=rows(law)[::-1], x="steps", y="memory")
    assert found.n == 3
    floored = law in ("exponential-decay", "power-decay")
    assert ("floor" in found.values) == floored
    if floored:
        assert found.values["floor"].holds(0.2)
        assert found.values["floor"].half_width is not None
    assert found.values["height"].value == pytest.approx(0.6, rel=0.02)
    rate = 0.05 if law in ("exponential-decay", "logarithmic-decay") else 0.5
    assert found.values["rate"].value == pytest.approx(rate, rel=0.05)


def test_one_curve_needs_no_column_of_seeds() -> None:
    one = [{name: row[name] for name in ("steps", "memory")} for row in rows("power-decay")[:12]]
    found = fit_law("power-decay", table=[*one, {"steps": 2000.0, "memory": None}], x="steps", y="memory")
    assert (found.n, found.values["floor"].n) == (1, 1)


def test_every_form_has_a_name() -> None:
    assert {f"{form}-decay" for form in FORMS} == set(LAWS[2:])


@pytest.mark.parametrize(
    ("law", "table", "hint"),
    [
        ("powr", {"size": [1], "loss": [1]}, "did you mean 'power'"),
        ("power", {"size": [1], "los": [1]}, "no column 'loss'; did you mean 'los'"),
        ("power", {"size": ["a"], "loss": [1]}, "'size' holds something that is no number"),
        ("power", {"size": [1], "loss": [1]}, "got 1"),
        ("power-decay", {"size": [None], "loss": [1]}, "no row has both size and loss"),
        ("power-decay", {"size": [1, 2], "loss": [1, 1], "seed": [0, 1]}, "at different size"),
    ],
)
def test_mistakes_are_one_sentence(law: LawName, table: dict[str, list[object]], hint: str) -> None:
    with pytest.raises(SpecError, match=hint):
        fit_law(law, table=table, x="size", y="loss")
