"""Values are frozen, refuse what they do not know in one sentence, and have one name each."""

from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PositiveInt

from repetita.errors import SpecError
from repetita.spec import ExactFraction, Spec, canonical_json, fingerprint, introduced, plain


class Cake(Spec):
    eggs: PositiveInt = 2
    sugar: ExactFraction = Fraction(1, 10)
    shape: Literal["round", "square"] = "round"


class Later(Spec):
    """`Cake`, some releases later."""

    eggs: PositiveInt = 2
    sugar: ExactFraction = Fraction(1, 10)
    shape: Literal["round", "square"] = "round"
    icing: int = introduced(0)


class Table(Spec):
    cakes: tuple[Cake, ...] = ()


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_decimals_and_ratios_are_read_as_written(top: int, bottom: int) -> None:
    assert Cake(sugar=f"{top}/{bottom}").sugar == Fraction(top, bottom)
    assert Cake(sugar=top / 1000).sugar == Fraction(repr(top / 1000))


@pytest.mark.parametrize("written", [0.1, "0.1", "1/10", Fraction(1, 10)])
def test_spellings_of_one_fraction_are_one_value(written: object) -> None:
    cake = Cake(sugar=written)
    assert cake == Cake()
    assert fingerprint(cake) == fingerprint(Cake())


@given(st.builds(Cake, eggs=st.integers(1, 99), sugar=st.fractions(0, 1)))
def test_a_value_survives_being_written_down(cake: Cake) -> None:
    table = Table(cakes=(cake, Cake()))
    assert Table.from_json(canonical_json(table)) == table
    assert cake.edit(eggs=3) == Cake(eggs=3, sugar=cake.sugar)


def test_the_fingerprint_is_of_the_canonical_text() -> None:
    assert canonical_json(Cake()) == '{"eggs":2,"shape":"round","sugar":"1/10"}'
    assert fingerprint(Cake()).startswith("0f1f60a93721a04f")
    assert fingerprint(Cake()) != fingerprint(Cake(eggs=3))


def test_a_field_of_later_does_not_rename_what_was_there_before() -> None:
    assert fingerprint(Later()) == fingerprint(Cake())
    assert fingerprint(Later(icing=1)) != fingerprint(Cake())
    assert plain({"cake": Later(icing=1)}) == {
        "cake": {"eggs": 2, "sugar": "1/10", "shape": "round", "icing": 1}
    }


def test_values_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Cake().eggs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"egs": 3}, "Cake: unknown key 'egs'; did you mean 'eggs'?"),
        ({"eggs": 0}, "Cake: 'eggs' = 0: input should be greater than 0"),
        ({"shape": "heap"}, "Cake: 'shape' = 'heap': input should be 'round' or 'square'"),
        (
            {"shape": "squar"},
            "Cake: 'shape' = 'squar': input should be 'round' or 'square'; did you mean 'square'?",
        ),
        ({"sugar": "much"}, "Cake: 'sugar' = 'much': this is no fraction; write 0.1 or 1/10"),
        ({"sugar": "1/0"}, "Cake: 'sugar' = '1/0': this is no fraction; write 0.1 or 1/10"),
        ({"sugar": float("nan")}, "Cake: 'sugar' = nan: this is no fraction; write 0.1 or 1/10"),
        ({"sugar": True}, "Cake: 'sugar' = True: this is no fraction; write 0.1 or 1/10"),
    ],
)
def test_bad_input_is_one_sentence_that_names_the_fix(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        Cake(**values)
    assert str(caught.value) == sentence


def test_text_that_is_no_object_is_refused() -> None:
    for text in ("{", "[1]", "3"):
        with pytest.raises(SpecError, match="JSON"):
            Cake.from_json(text)
