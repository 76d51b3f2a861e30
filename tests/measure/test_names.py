"""Tokens that go on with a name are found by kind, and their probabilities are those of the subject."""

import math
from typing import ClassVar

import numpy as np
import pytest

from repetita.corpus.tokenizer import ByteTokenizer
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.names import OTHER, NamesProbe, texts
from repetita.measure.passages import KINDS, SHORT, Passage
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet
from repetita.subject import Rows, Scores

TEXT = Passage(
    name="fox", text="Reynard met a Reynardian; Reynards hid, Reynard's too. Reynard?", names=("Reynard",)
)


class Bytes(PlantedSet):
    def encode(self, text: str, /) -> np.ndarray:
        return ByteTokenizer().encode(text).astype(np.int64)


class Copier(UniformSubject):
    """Sure of a token (probability 0.9) that followed the same three tokens before, else of nothing."""

    mask_id: ClassVar[int | None] = None

    def score(self, rows: Rows, /) -> Scores:
        loss = np.full(rows.targets.shape, math.log(self.vocab_size), np.float32)
        for row, (tokens, targets) in enumerate(
            zip(rows.tokens.tolist(), rows.targets.tolist(), strict=True)
        ):
            seen: set[tuple[int, ...]] = set()
            for at in range(2, len(tokens)):
                key = (*tokens[at - 2 : at + 1], targets[at])
                if key in seen:
                    loss[row, at] = -math.log(0.9)
                seen.add(key)
        return Scores(loss, np.zeros_like(rows.scored))


def sets(length: int = 128) -> dict[str, EvalSet]:
    targets = np.random.default_rng(0).integers(1, 257, (10, length))
    return {"test": EvalSet.whole("test", sequences=Bytes(targets))}


def readings(probe: NamesProbe, subject: UniformSubject, *, length: int = 128) -> dict[str, Reading]:
    return {one.metric: one for one in probe.measure(subject, sets(length))}


def test_later_occurrences_are_copied_and_the_first_is_not() -> None:
    found = readings(NamesProbe(passages=(TEXT,)), Copier(vocab_size=257))
    assert found["name_probability_first"].value == pytest.approx(1 / 257)
    for kind in ("exact", "inflected", "embedded"):
        value, n = found[f"name_probability_{kind}"].value, found[f"name_probability_{kind}"].n
        # Of six letters after the first, "Re" and " Rey" begin what was not read thrice.
        assert value is not None
        assert 0.4 < value < 0.9
        assert n == {"exact": 6, "inflected": 12, "embedded": 6}[kind]


def test_every_token_has_its_text_loss_and_kind() -> None:
    one = readings(NamesProbe(passages=(TEXT,)), Copier(vocab_size=257))["passage_loss"]
    assert one.detail is not None
    assert "".join(one.detail["tokens"]) == TEXT.text
    assert one.detail["shown"] == one.detail["of"] == len(TEXT.text)
    marked = [
        letter for letter, kind in zip(one.detail["tokens"], one.detail["kinds"], strict=True) if kind > 0
    ]
    assert "".join(marked) == "eynard" * 4
    assert set(one.detail["kinds"]) == {OTHER, *range(len(KINDS))}
    assert one.value == pytest.approx(sum(one.detail["losses"]) / one.n, rel=1e-4)


def test_a_long_passage_is_shown_from_its_beginning() -> None:
    found = readings(NamesProbe(passages=(TEXT,)), UniformSubject(vocab_size=257), length=24)
    one = found["passage_loss"]
    assert one.detail is not None
    assert (one.n, one.detail["shown"], one.detail["of"]) == (24, 24, len(TEXT.text))
    assert found["name_probability_inflected"].value is None
    assert found["name_probability_embedded"].value == pytest.approx(1 / 257)


def test_a_lossy_tokenizer_has_losses_but_no_names() -> None:
    class Lossy(Bytes):
        def scored_bytes(self, rows: Rows, /) -> np.ndarray:
            return np.zeros(len(rows.targets), np.int64)

    lossy = {"test": EvalSet.whole("test", sequences=Lossy(np.ones((4, 128), np.int64)))}
    found = {one.metric: one for one in NamesProbe(passages=(TEXT,)).measure(Copier(vocab_size=257), lossy)}
    assert found["passage_loss"].value is not None
    assert found["passage_loss"].detail is not None
    assert found["passage_loss"].detail["tokens"] is None
    assert "tokenizer" in str(found["name_probability_exact"].detail)


def test_a_masked_model_is_not_asked() -> None:
    class Masked(UniformSubject):
        mask_id: ClassVar[int | None] = 300

    found = readings(NamesProbe(passages=(TEXT,)), Masked(vocab_size=257))
    assert {one.value for one in found.values()} == {None}


def test_characters_that_tokens_share_are_replaced_in_both() -> None:
    assert texts("a\u00e9b", token_bytes=np.array([1, 1, 1, 1])) == ["a", "\ufffd", "\ufffd", "b"]


def test_what_has_no_effect_is_refused() -> None:
    with pytest.raises(SpecError, match="same name"):
        NamesProbe(passages=(SHORT, SHORT))
    with pytest.raises(SpecError, match="max_sequences has no effect"):
        NamesProbe(max_sequences=3)
