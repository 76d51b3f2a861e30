"""One teacher-forced pass says what greedy decoding would write; planted shares come back."""

from typing import Any

import numpy as np
import pytest
import torch

from repetita.corpus.reading_rule import OfCorpus, ReadingRule
from repetita.corpus.source import Document
from repetita.corpus.tokenizer import ByteTokenizer
from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.extraction import MASKED, NOT_ASKED, ExtractionProbe, continued, exact_prefix
from repetita.measure.planted import BigramSubject, LookupSubject, PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject
from repetita.model.transformer import Transformer
from repetita.subject import Rows

PROBE = ExtractionProbe(on=("train",), prompts=(2, 4), suffix=3, starts=(4, 8))
KINDS = ["head_extractable", "head_exact_prefix", "inside_extractable", "inside_exact_prefix"]
METRICS = [*(f"{kind}_{k}" for k in (2, 4) for kind in KINDS), "exact_in_context"]


def measured(subject: Any, targets: Any, *, probe: ExtractionProbe = PROBE) -> dict[str, Reading]:
    over = EvalSet.whole("train", sequences=PlantedSet(targets))
    readings = list(probe.measure(subject, {"train": over}))
    assert [reading.metric for reading in readings] == METRICS
    return {reading.metric: reading for reading in readings}


def items(found: dict[str, Reading]) -> dict[str, Any]:
    kept = [reading.items for reading in found.values() if reading.items is not None]
    assert len(kept) == 1
    return dict(kept[0])


def text(n: int, *, length: int = 12, vocab: int = 7) -> Any:
    return np.random.default_rng(3).integers(1, vocab, (n, length))


def memorizer(targets: Any, *, steps: int, positions: str) -> Transformer:
    """A small model some way into knowing these rows by heart."""
    config = ModelConfig(
        n_layer=2, d_model=32, n_head=2, vocab_size=7, context=12, position=positions,
    )  # fmt: skip
    model = Transformer(config, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    targets_BL = torch.tensor(targets)
    tokens_BL = torch.cat([torch.zeros(len(targets), 1, dtype=torch.long), targets_BL[:, :-1]], dim=1)
    for _ in range(steps):
        logits = model.hidden(tokens_BL) @ model.output_weight.T
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets_BL.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


@torch.no_grad()
def written(model: Transformer, prompt: Any, *, n_tokens: int) -> list[int]:
    """A literal greedy loop: the most likely token is appended and read again."""
    tokens = [0, *prompt.tolist()]
    for _ in range(n_tokens):
        logits = model.hidden(torch.tensor([tokens]))[0, -1] @ model.output_weight.T
        tokens.append(int(logits.argmax()))
    return tokens[1 + len(prompt) :]


def first_wrong(made: list[int], true: Any) -> int:
    return next((i for i, (one, other) in enumerate(zip(made, true, strict=True)) if one != other), len(made))


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("steps", [0, 30, 200])
def test_a_pass_is_a_greedy_loop(steps: int, positions: str) -> None:
    """Tokens before the first wrong one are equal, in a random model and in one that knows most by heart."""
    targets = text(8)
    model = memorizer(targets, steps=steps, positions=positions)
    found = items(measured(LiveSubject(model), targets))
    exact = 0
    for k in PROBE.prompts:
        for row, prefix in zip(targets, found[f"head_{k}"].tolist(), strict=True):
            assert prefix == first_wrong(written(model, row[:k], n_tokens=3), row[k : k + 3])
    for w, start in enumerate(PROBE.starts):
        for k in PROBE.prompts:
            for row, prefix in zip(targets, found[f"inside_{k}"][:, w].tolist(), strict=True):
                made = written(model, row[start - k : start], n_tokens=3)
                assert prefix == first_wrong(made, row[start : start + 3])
                exact += prefix == 3
        # With all that was before it as prompt the context is whole: memorized is extractable.
        whole = continued(LiveSubject(model), targets[:, : start + 3], prompt=start)
        assert np.array_equal(whole, found["context"][:, w])
    assert exact == 0 if steps == 0 else 2 < exact < 30


def test_what_two_tokens_decide_is_extractable_with_two() -> None:
    """A chain that always goes on in the same way is written from any prompt, a uniform guess never."""
    chain = np.zeros((5, 5))
    chain[[0, 1, 2, 3, 4], [1, 2, 3, 4, 1]] = 1
    targets = 1 + (np.arange(12) + np.arange(6)[:, None]) % 4
    found = measured(BigramSubject(chain), targets)
    assert [reading.value for reading in found.values()] == [1, 3, 1, 3] * 2 + [1]
    assert [reading.n for reading in found.values()] == [6, 6, 12, 12] * 2 + [12]
    nothing = measured(UniformSubject(vocab_size=5), targets)
    assert [reading.value for reading in nothing.values()] == [0] * 9


def test_planted_text_is_told_from_the_rest() -> None:
    """Of ten rows four follow the chain that the subject knows: four tenths of the suffixes come back."""
    chain = np.zeros((5, 5))
    chain[[0, 1, 2, 3, 4], [1, 2, 3, 4, 1]] = 1
    known = 1 + (np.arange(12) + np.arange(4)[:, None]) % 4
    other = 1 + (-np.arange(12) + np.arange(6)[:, None]) % 4
    broken = known[:1].copy()
    broken[0, 9] = broken[0, 8]  # the second token of the second suffix is not what the chain says
    found = measured(BigramSubject(chain), np.concatenate([known, other, broken]))
    assert found["inside_extractable_2"].value == pytest.approx(9 / 22)
    assert found["head_extractable_2"].value == pytest.approx(5 / 11)
    assert found["inside_exact_prefix_2"].value == pytest.approx((9 * 3 + 1) / 22)
    kept = items(found)
    assert kept["inside_4"].tolist() == [[3, 3]] * 4 + [[0, 0]] * 6 + [[3, 1]]
    assert kept["sequence"].tolist() == list(range(11))
    assert kept["n_scored"].tolist() == [12] * 11


@pytest.mark.parametrize("share", [0, 0.37, 0.8, 1])
def test_exact_prefixes_are_those_of_the_hits(share: float) -> None:
    targets = text(100)
    subject = LookupSubject(share=share, vocab_size=7)
    kept = items(measured(subject, targets))
    over = PlantedSet(targets).rows(np.arange(100))
    hits = subject.score(over).hit
    assert kept["hits"].tolist() == hits.sum(1).tolist()
    for w, start in enumerate(PROBE.starts):
        expected = [next((i for i, hit in enumerate([*row, False]) if not hit), 3) for row in
                    hits[:, start : start + 3].tolist()]  # fmt: skip
        assert kept["context"][:, w].tolist() == expected


def test_suffixes_across_a_separator_are_not_asked_for() -> None:
    targets = text(3)
    targets[0, 5] = 0  # inside the first suffix and the prompt of the second
    targets[1, 10:] = 0  # padding from inside the second suffix on
    targets[2, 0] = 0  # at the far end of the longest prompt of the first suffix
    found = measured(LookupSubject(share=1, vocab_size=7), targets)
    assert (items(found)["inside_2"] == NOT_ASKED).tolist() == [[True, True], [False, True], [True, False]]
    assert (items(found)["head_4"] == NOT_ASKED).tolist() == [True, False, True]
    assert (items(found)["head_2"] == NOT_ASKED).tolist() == [False, False, True]
    assert found["inside_extractable_2"].n == 2
    empty = measured(LookupSubject(share=1, vocab_size=7), np.zeros((2, 12)))
    assert {reading.value for reading in empty.values()} == {None}


def test_items_are_kept_where_no_head_is_asked_for() -> None:
    targets = text(3)
    targets[:, 1] = 0
    found = measured(UniformSubject(vocab_size=7), targets)
    assert found["head_extractable_2"].n == 0
    assert found["inside_extractable_2"].n == 3
    assert (items(found)["inside_2"][:, 1] != NOT_ASKED).all()


def test_a_masked_subject_is_not_asked() -> None:
    class Masked:
        mask_id = 6

        def score(self, rows: Rows) -> Any:
            raise AssertionError

    found = measured(Masked(), text(3))
    assert {(reading.value, reading.n) for reading in found.values()} == {(None, 0)}
    assert all(reading.detail == MASKED for reading in found.values())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"starts": (3, 8)}, "has no prompt of 4 tokens before it"),
        ({"starts": (8, 4)}, "do not rise"),
        ({"prompts": (4, 2), "starts": (4,)}, "do not rise"),
        ({"starts": (4, 10)}, "ends beyond a sequence of 12"),
    ],
)
def test_windows_that_cannot_be_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        measured(UniformSubject(vocab_size=7), text(2), probe=PROBE.edit(**values))


def test_the_price_is_every_token_read() -> None:
    read = 0

    class Counting(UniformSubject):
        def score(self, rows: Rows, /) -> Any:
            nonlocal read
            read += rows.tokens[:, 1:].size + len(rows.tokens)
            return super().score(rows)

    measured(Counting(vocab_size=7), text(9))
    over = EvalSet.whole("train", sequences=PlantedSet(text(9)))
    assert PROBE.cost_tokens({"train": over}) == read
    assert exact_prefix(np.array([[True, False, True], [True, True, True]])).tolist() == [1, 3]


def test_texts_that_windows_cut_are_not_asked_about() -> None:
    """Without a start token each prompt would be a token longer than it is said to be."""
    read = Windows(
        [Document("some text of two windows", "", "", None)],
        tokenizing=OfCorpus(ByteTokenizer()),
        rule=ReadingRule(window=16, bos="never"),
    )
    with pytest.raises(SpecError, match="use ContinuationProbe"):
        list(PROBE.measure(UniformSubject(vocab_size=257), {"train": EvalSet.whole("train", sequences=read)}))
