"""Extraction of texts is what a literal greedy loop finds, whatever is decoded to find it."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus.source import Document
from repetita.corpus.tokenizer import ByteTokenizer
from repetita.corpus.windows import OfCorpus, ReadingRule, Windows
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.continuation import (
    WRITES_NOTHING,
    ContinuationProbe,
    matches,
    shortest_prompts,
)
from repetita.measure.extraction import MASKED, NOT_ASKED, continued
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.planted_writers import ChainSubject, RecitingSubject, WritingSubject
from repetita.measure.probe import EvalSet
from repetita.measure.suffixes import texts_of
from repetita.model.live import LiveSubject
from repetita.subject import Rows
from tests.measure.test_extraction import memorizer, text, written

VOCAB = 5
STARTS = st.sampled_from([0, None])
SIZES = {
    "prompt": st.integers(1, 4),
    "suffix": st.integers(1, 6),
    "start": STARTS,
    "seed": st.integers(0, 99),
}


class Reader(WritingSubject):
    """Its next token depends on all that it has read, and on which place that is."""

    def __init__(self, seed: int) -> None:
        self.weights = np.random.default_rng(seed).normal(size=(64, VOCAB, VOCAB))

    def probabilities(self, tokens: Any, /) -> Any:
        # A decaying memory of everything before: two contexts that differ anywhere differ here.
        states = np.zeros((*tokens.shape, VOCAB))
        for i in range(tokens.shape[1]):
            states[:, i] = self.weights[i, tokens[:, i]]
            if i:
                states[:, i] += 0.7 * states[:, i - 1]
        p = np.exp(states)
        return p / p.sum(axis=-1, keepdims=True)


def loop(subject: WritingSubject, prompt: Any, *, n_tokens: int, start: int | None) -> list[int]:
    """A literal greedy loop over one prompt, one token at a time."""
    tokens = ([] if start is None else [start]) + list(prompt)
    for _ in range(n_tokens):
        tokens.append(int(subject.probabilities(np.array([tokens]))[0, -1].argmax()))
    return tokens[len(tokens) - n_tokens :]


def seen(readings: Any) -> tuple[dict[str, Reading], dict[str, Any]]:
    found = {reading.metric: reading for reading in readings}
    kept = [reading.items for reading in found.values() if reading.items is not None]
    assert len(kept) == 1
    return found, dict(kept[0])


def measured(subject: Any, sequences: Any, **fields: Any) -> tuple[dict[str, Reading], dict[str, Any]]:
    over = EvalSet.whole("texts", sequences=sequences)
    return seen(ContinuationProbe(on=("texts",), **fields).measure(subject, {"texts": over}))


@settings(max_examples=60)
@given(**SIZES)
def test_places_are_those_of_a_greedy_loop(prompt: int, suffix: int, start: int | None, seed: int) -> None:
    """Exact prefixes and matches place by place, with decoding begun at whichever wrong token."""
    subject = Reader(seed)
    texts = np.random.default_rng(seed).integers(0, VOCAB, (12, prompt + suffix))
    # Some texts are what the model writes, some go wrong late and go on as it then would.
    for row in range(6):
        texts[row, prompt:] = loop(subject, texts[row, :prompt], n_tokens=suffix, start=start)
        if row > 2:
            texts[row, prompt + row % suffix] = (texts[row, prompt + row % suffix] + 1) % VOCAB
    exact = continued(subject, texts, prompt=prompt, start=start)
    found = matches(subject, texts, prompt=prompt, start=start)
    for row, one in enumerate(texts):
        literal = np.array(loop(subject, one[:prompt], n_tokens=suffix, start=start)) == one[prompt:]
        assert np.array_equal(found[row], literal)
        assert exact[row] == np.append(literal, False).argmin()


@settings(max_examples=60)
@given(**SIZES)
def test_the_shortest_prompt_is_the_first_that_a_loop_goes_on_from(
    prompt: int, suffix: int, start: int | None, seed: int
) -> None:
    subject = Reader(seed)
    texts = np.random.default_rng(seed).integers(0, VOCAB, (4, prompt + suffix))
    texts[0, prompt:] = loop(subject, texts[0, :prompt], n_tokens=suffix, start=start)
    lengths = np.array([prompt + suffix, prompt + suffix, prompt, 1])
    inside = np.arange(prompt + suffix) < lengths[:, None]
    found = shortest_prompts(subject, texts, inside=inside, start=start)
    for one, n, shortest in zip(texts.tolist(), lengths.tolist(), found.tolist(), strict=True):
        works = [
            k
            for k in range(0 if start is not None else 1, n + 1)
            if loop(subject, one[:k], n_tokens=n - k, start=start) == one[k:n]
        ]
        assert shortest == works[0]
    assert found[0] <= prompt


def test_the_text_itself_is_the_guess() -> None:
    """So that a model which can check many tokens at once decodes only what it is wrong of."""
    chain = np.roll(np.eye(VOCAB), 1, axis=1)
    texts = (np.arange(8) + np.arange(3)[:, None]) % VOCAB
    texts[2, 6] = 0
    asked: list[Any] = []

    class Watched(ChainSubject):
        def continue_(self, prompts: Any, /, *, n_tokens: int, guess: Any = None) -> Any:
            asked.append((prompts, n_tokens, guess))
            return super().continue_(prompts, n_tokens=n_tokens)

    found = matches(Watched(chain), texts, prompt=3, start=0)
    assert found.tolist() == [[True] * 5, [True] * 5, [True, True, True, False, True]]
    ((prompts, n_tokens, guess),) = asked
    assert prompts.tolist() == [[0, 0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4]] and n_tokens == 5
    assert np.array_equal(guess, texts[:, 3:])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_recited_texts_are_extractable_from_as_many_tokens_as_are_needed(order: int) -> None:
    """k-extractable exactly for k >= order; of the text's n tokens decoding needs the first `order`."""
    texts = np.random.default_rng(0).permutation(np.arange(1, 121)).reshape(6, 20)
    subject = RecitingSubject(texts[:4], order=order, vocab_size=130, stray=129)
    sizes = {"prompts": (1, 2, 3, 4), "suffixes": (2, 5), "every": 6}
    found, items = measured(subject, PlantedSet(texts), **sizes)
    for k in (1, 2, 3, 4):
        for s in (2, 5):
            assert found[f"extractable_{k}_{s}"].value == (4 / 6 if k >= order else 0)
            assert found[f"memorization_score_{k}_{s}"].value == pytest.approx(4 / 6 if k >= order else 0)
        assert found[f"verbatim_length_{k}"].value == pytest.approx(4 * 5 / 6 if k >= order else 0)
        assert found[f"verbatim_length_{k}"].detail == {
            "start_id": 0, "longest": 5 * (k >= order), "cap": 5, "at_cap": 8 * (k >= order),
        }  # fmt: skip
    assert found["extraction_strength"].value == pytest.approx(4 / 6 * (1 - order / 20))
    assert found["extraction_strength"].n == 6
    assert items["shortest_prompt"].tolist() == [order] * 4 + [20] * 2
    assert sorted(set(items["start"].tolist())) == [4, 10]


def test_a_trained_transformer_writes_what_was_found() -> None:
    """On a model that knows some of its text by heart, against a loop over its own logits."""
    targets = text(8)
    model = memorizer(targets, steps=60, positions="rotary")
    sizes = {"prompts": (2, 4), "suffixes": (3, 6), "starts": (4, 6)}
    found, items = measured(LiveSubject(model), PlantedSet(targets), **sizes)
    differ = 0
    for number, start, exact, matched in zip(
        *(items[name].tolist() for name in ("sequence", "start", "exact_4", "matched_4_6")), strict=True
    ):
        made = written(model, targets[number, start - 4 : start], n_tokens=6)
        right = np.array(made) == targets[number, start : start + 6]
        assert (exact, matched) == (np.append(right, False).argmin(), right.sum())
        differ += matched - exact
    assert differ > 0
    assert 0 < found["extractable_4_3"].value < 1  # type: ignore[operator]
    for row, shortest in zip(targets, items["shortest_prompt"].tolist(), strict=True):
        assert written(model, row[:shortest], n_tokens=12 - shortest) == row[shortest:].tolist()
        if shortest:
            assert written(model, row[: shortest - 1], n_tokens=13 - shortest) != row[shortest - 1 :].tolist()


def test_texts_are_read_whole_and_behind_their_own_start() -> None:
    """Windows of a reading rule cut no suffix, and what stands before a prompt is what the rule says."""
    tokenizing = OfCorpus(ByteTokenizer())
    tokenizing.bos_id = 256  # no id of these texts
    texts = [
        Document(one, str(i), "", None) for i, one in enumerate(["abcdefghijklmnopqrst", "0123456789", "xyz"])
    ]
    read: list[Any] = []

    class Watched(RecitingSubject):
        def score(self, rows: Rows, /) -> Any:
            read.append(rows.tokens[rows.scored.any(axis=1), 0])
            return super().score(rows)

    known = tokenizing.encode_all([texts[0].text])[0].ids
    subject = Watched(known, order=2, vocab_size=257, stray=1)
    sizes = {"prompts": (2,), "suffixes": (3,)}
    windows = Windows(texts, tokenizing=tokenizing, rule=ReadingRule(window=8))
    assert len(windows) > 3
    found, items = measured(subject, windows, **sizes)
    assert items["sequence"].tolist() == [0] * 6 + [1] * 2
    assert items["start"].tolist() == [2, 5, 8, 11, 14, 17, 2, 5]
    assert items["exact_2"].tolist() == [3] * 6 + [0] * 2
    assert set(np.concatenate(read).tolist()) == {256}
    # A text is asked for whole as far as it is read at once: 8 of 20 and of 10 tokens, 3 of 3.
    assert items["tokens"].tolist() == [8, 8, 3]
    assert items["shortest_prompt"].tolist() == [2, 8, 3]
    assert found["extraction_strength"].detail == {"start_id": 256, "cut": 2}
    read.clear()
    bare = Windows(texts, tokenizing=tokenizing, rule=ReadingRule(window=8, bos="never"))
    found, items = measured(subject, bare, **sizes)
    assert items["exact_2"].tolist() == [3] * 6 + [0] * 2
    assert items["tokens"].tolist() == [9, 9, 3]
    assert 256 not in np.concatenate(read)
    assert found["extraction_strength"].detail == {"start_id": None, "cut": 2}
    assert bare.encode("a")[0] in np.concatenate(read)


def test_one_long_text_makes_no_room_for_all_others() -> None:
    """Each suffix is where it is in its text, and memory follows the texts, not the longest times their
    number."""
    long = "0123456789" * 4_000
    texts = [Document(one, str(i), "", None) for i, one in enumerate([*("abcdefgh",) * 62, long, "xyz"])]
    windows = Windows(texts, tokenizing=OfCorpus(ByteTokenizer()), rule=ReadingRule(window=16))
    over = EvalSet.whole("texts", sequences=windows)
    probe = ContinuationProbe(on=("texts",), prompts=(1, 3), suffixes=(4,), every=2)
    tracemalloc.start()
    parts, cut = list(probe.asked(over)), [some.tokens.shape for some in texts_of(over)]
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert cut == [(64, 16)]
    asked = [np.concatenate(column) for column in zip(*parts, strict=True)]
    assert len(asked[0]) == 62 + len(range(3, 40_000 - 3, 2))
    for number, start, tokens in zip(*(column[::61] for column in asked), strict=True):
        assert np.array_equal(tokens, windows.encode(texts[number].text[start - 3 : start + 4]))


def test_suffixes_across_a_separator_are_not_asked_for() -> None:
    targets = text(3)
    targets[0, 5] = 0
    targets[1, 10:] = 0
    found, items = measured(
        ChainSubject(np.full((7, 7), 1 / 7)), PlantedSet(targets), prompts=(2,), suffixes=(3,), starts=(4, 8)
    )
    assert list(zip(items["sequence"].tolist(), items["start"].tolist(), strict=True)) == [
        (0, 8), (1, 4), (2, 4), (2, 8),
    ]  # fmt: skip
    assert (items["shortest_prompt"] == NOT_ASKED).tolist() == [True, False, False]
    assert found["extraction_strength"].n == 2
    nothing, _ = measured(ChainSubject(np.eye(7)), PlantedSet(np.zeros((2, 12))), prompts=(2,), suffixes=(3,))
    assert {reading.value for reading in nothing.values()} == {None}


def test_what_a_subject_lacks_is_said() -> None:
    class Masked:
        mask_id = 6

        def score(self, rows: Rows) -> Any:
            raise AssertionError

    over = EvalSet.whole("texts", sequences=PlantedSet(text(3)))
    probe = ContinuationProbe(on=("texts",), prompts=(2,), suffixes=(3,))
    assert {(one.value, str(one.detail)) for one in probe.measure(Masked(), {"texts": over})} == {
        (None, str(MASKED))
    }
    found, _ = seen(probe.measure(UniformSubject(vocab_size=7), {"texts": over}))
    assert found["memorization_score_2_3"].detail == WRITES_NOTHING
    assert [name for name, one in found.items() if one.value is None] == ["memorization_score_2_3"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"starts": (3, 8)}, "has no prompt of 4 tokens before it"),
        ({"starts": (8, 4)}, "do not rise"),
        ({"prompts": (4, 2)}, "do not rise"),
        ({"starts": (4,), "every": 2}, "no effect beside starts"),
        ({"prompts": (10,)}, "exceed the 12 that are read at once"),
    ],
)
def test_suffixes_that_cannot_be_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        measured(
            UniformSubject(vocab_size=7), PlantedSet(text(2)), **{"prompts": (4,), "suffixes": (3,)} | values
        )


def test_the_price_is_every_token_that_is_asked_about() -> None:
    read = 0

    class Counting(UniformSubject):
        def score(self, rows: Rows, /) -> Any:
            nonlocal read
            read += rows.tokens.size
            return super().score(rows)

    sizes: dict[str, Any] = {"prompts": (2, 4), "suffixes": (3,)}
    measured(Counting(vocab_size=7), PlantedSet(text(9)), **sizes)
    over = EvalSet.whole("texts", sequences=PlantedSet(text(9)))
    assert ContinuationProbe(on=("texts",), **sizes).cost_tokens({"texts": over}) == read
