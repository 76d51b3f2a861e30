from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from repetita.errors import SpecError
from repetita.measure.planted import LookupSubject, PlantedSet
from repetita.measure.probe import EvalSet
from repetita.measure.retained import (
    KINDS,
    RetainedProbe,
    TaggedRetainedProbe,
    anatomy,
    kinds,
    longest_known,
)
from repetita.measure.token_hits import token_hits

SUBJECT = LookupSubject(share="0.37", vocab_size=64)


class Worded(PlantedSet):
    """A planted set that knows its text and its tags."""

    words: ClassVar[list[str]] = [
        "",
        " The",
        " na",
        "tion",
        "'s",
        ",",
        " 18",
        "63",
        "\n",
        '("',
        "is",
        "\ufffd",
    ]

    def text_of(self, token: int) -> str:
        return self.words[token]

    def tags(self, indices: NDArray[np.int64]) -> NDArray[np.int8]:
        return (self.targets[indices] % 5).astype(np.int8)


def whole(targets: object, name: str = "special/0") -> EvalSet:
    return EvalSet.whole(name, sequences=Worded(targets))  # type: ignore[arg-type]


def test_words_begin_go_on_and_are_told_from_digits_and_punctuation() -> None:
    found = kinds(whole([[1, 2, 3, 4, 5, 6, 7, 8, 10, 9, 10, 2, 11, 0, 10, 3]]))[0]
    assert [KINDS[kind] for kind in found] == [
        "word start", "word start", "continuation", "continuation", "punctuation", "digit", "digit",
        "punctuation", "word start", "punctuation", "word start", "word start", "continuation", "none",
        "word start", "continuation",
    ]  # fmt: skip


def slow_longest(row: list[int], texts: list[list[int]], longest: int) -> list[int]:
    """The definition, literally."""
    there = {
        tuple(text[i : i + n])
        for text in texts
        for n in range(1, longest + 1)
        for i in range(len(text) - n + 1)
    }
    best = []
    for i in range(len(row)):
        spans = [row[i - n + 1 : i + 1] for n in range(1, min(longest, i + 1) + 1)]
        best.append(max([len(span) for span in spans if 0 not in span and tuple(span) in there], default=0))
    return best


@pytest.mark.parametrize("longest", [1, 3, 8])
def test_the_longest_known_ngram_is_that_of_the_definition(longest: int) -> None:
    rng = np.random.default_rng(1)
    asked, text = rng.integers(0, 5, (12, 30)), rng.integers(0, 5, (9, 40))
    text[2] = rng.integers(1, 5, 40)
    asked[3, 5:20] = text[2, 11:26]
    found = longest_known(whole(asked), within=whole(text, "train"), longest=longest)
    assert found.tolist() == [slow_longest(row, text.tolist(), longest) for row in asked.tolist()]
    assert found[3, 19] == longest


def test_the_text_may_be_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    asked, text = whole(rng.integers(1, 9, (5, 30))), whole(rng.integers(1, 9, (50, 30)), "train")
    at_once = longest_known(asked, within=text)
    monkeypatch.setattr("repetita.measure.retained._ROWS", 7)
    np.testing.assert_array_equal(longest_known(asked, within=text), at_once)


def test_a_measurement_can_be_taken_apart_again() -> None:
    rng = np.random.default_rng(3)
    sets = {
        "train": whole(rng.integers(1, 12, (9, 20)), "train"),
        "special/0": whole(rng.integers(0, 12, (6, 20))),
    }
    probe = TaggedRetainedProbe(on=("special/0",), max_sequences=4)
    (reading,) = probe.measure(SUBJECT, sets)
    assert reading.items is not None
    kept = anatomy({f"special/0/{name}": array for name, array in reading.items.items()}, on="special/0")
    assert kept is not None
    over = sets["special/0"].sample(4)
    for one, other in zip(kept.hits, token_hits(SUBJECT, over=over), strict=True):
        np.testing.assert_array_equal(one, other)
    assert reading.value == kept.hits.hit.sum() / kept.hits.scored.sum()
    np.testing.assert_array_equal(kept.tag, over.sequences.tags(over.indices))
    np.testing.assert_array_equal(kept.kind, kinds(over))
    np.testing.assert_array_equal(kept.known, longest_known(over, within=sets["train"]))
    assert anatomy({}, on="special/0") is None
    with pytest.raises(SpecError, match="'train', which this run lacks"):
        next(probe.measure(SUBJECT, {"special/0": over}))


def test_without_text_or_tags_there_are_none() -> None:
    plain = {name: EvalSet.whole(name, sequences=PlantedSet([[1, 2, 0]])) for name in ("train", "special/0")}
    (reading,) = RetainedProbe(on=("special/0",)).measure(SUBJECT, plain)
    assert reading.items is not None
    assert not reading.items["tag"].any()
    assert not reading.items["kind"].any()
    assert not RetainedProbe.needs_tags
    assert TaggedRetainedProbe.needs_tags
