"""Lines carry a checksum that finds any flipped bit."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.errors import DamagedError
from repetita.journal.lines import decode, encode, first_line

HERE = Path("x.jsonl")
TEXT = st.text('a"\\\n\x00\u2028é}', max_size=4)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), json_values, min_size=1), max_size=4))
def test_what_is_encoded_is_decoded(lines: list[dict[str, Any]]) -> None:
    data = first_line("steps") + b"".join(encode(line) for line in lines)
    assert list(decode(data, path=HERE)) == lines
    assert list(decode(data + b'{"half', path=HERE)) == lines


@given(st.data())
def test_any_flipped_bit_is_found_in_its_line(data: st.DataObject) -> None:
    text = first_line("steps") + b"".join(encode({"step": n, "loss": 0.5 + n}) for n in range(3))
    at = data.draw(st.integers(0, len(text) - 2))
    flipped = bytearray(text)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    line = text[:at].count(b"\n") + 1
    with pytest.raises(DamagedError, match=rf"x\.jsonl: line {line} is damaged"):
        list(decode(bytes(flipped), path=HERE))


def test_a_schema_of_the_future_is_refused() -> None:
    with pytest.raises(DamagedError, match="schema 99"):
        list(decode(encode({"schema": 99, "journal": "steps"}), path=HERE))


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError):
        encode({"value": float("nan")})
