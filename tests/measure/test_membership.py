"""Membership scores equal a literal computation text by text, however texts were cut into windows."""

import zlib
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from repetita.corpus.reading_rule import OfCorpus, ReadingRule
from repetita.corpus.source import Document
from repetita.corpus.tokenizer import ByteTokenizer
from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.fit.separation import by_score
from repetita.measure.membership import (
    NO_NUMBER,
    MembershipProbe,
    lowest,
    reference_readings,
)
from repetita.measure.planted import BigramSubject, PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet
from repetita.subject import Moments, Rows, Scores

V = 257
TEXTS = ("Anna saw ANNA.", "the the the the the the the", "Q", "zebra Crossing")


class Chain(BigramSubject):
    """A Markov chain that says what it expects."""

    def moments(self, rows: Rows, /) -> Moments:
        p = self.transitions[rows.tokens]
        log_p = np.log(p)
        mean = (p * log_p).sum(-1)
        sd = np.sqrt((p * (log_p - mean[..., None]) ** 2).sum(-1))
        own = np.take_along_axis(log_p, rows.targets[..., None], 2)[..., 0]
        return Moments(*(np.where(rows.scored, x, 0).astype(np.float32) for x in (own, mean, sd)))


def chain(seed: int) -> Chain:
    return Chain(np.random.default_rng(seed).dirichlet(np.full(V, 0.5), V) * 0.999 + 0.001 / V)


def read(*texts: str, window: int = 64, mask: int | None = None, name: str = "texts") -> EvalSet:
    documents = [Document(text, f"text{i}", "", None) for i, text in enumerate(texts)]
    tokenizing = OfCorpus(ByteTokenizer(), mask_id=mask)
    windows = Windows(documents, tokenizing=tokenizing, rule=ReadingRule(window=window))
    return EvalSet.whole(name, sequences=windows)


def literal(subject: Chain, text: str, share: Fraction) -> dict[str, float]:
    def log_probs(text: str) -> list[tuple[float, float]]:
        found, before = [], 0
        for token in ByteTokenizer().encode(text).tolist():
            p = subject.transitions[before]
            mean = sum(q * np.log(q) for q in p)
            sd = np.sqrt(sum(q * (np.log(q) - mean) ** 2 for q in p))
            found.append((np.log(p[token]), (np.log(p[token]) - mean) / sd))
            before = token
        return found

    own = log_probs(text)
    n = max(1, int(len(own) * share))
    loss, lower = (-np.mean([x for x, _ in log_probs(one)]) for one in (text, text.lower()))
    found = {
        "loss": -loss,
        "zlib": len(zlib.compress(text.encode())) / loss,
        "lowercase": lower / loss,
        "min_k_20": np.mean(sorted(x for x, _ in own)[:n]),
        "min_k_plus_20": np.mean(sorted(z for _, z in own)[:n]),
    }
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("window", [4, 64])
def test_scores_are_those_of_a_literal_loop(window: int) -> None:
    """The chain forgets all but the last token, which each window reads: cutting changes nothing."""
    subject, over = chain(0), read(*TEXTS, window=window)
    found = {
        reading.metric: reading
        for reading in MembershipProbe(on=("texts",)).measure(subject, {"texts": over})
    }
    items = found["loss"].items
    assert items is not None
    expected = [literal(subject, text, Fraction(1, 5)) for text in TEXTS]
    assert set(found) == set(expected[0])
    for name, reading in found.items():
        np.testing.assert_allclose(items[name], [one[name] for one in expected], rtol=1e-4)
        assert reading.value == pytest.approx(np.mean([one[name] for one in expected]), rel=1e-4)
        assert reading.n == 4 and reading.detail is not None and reading.detail["proxy"].startswith("a proxy")
    assert items["n_scored"].tolist() == items["bytes"].tolist() == [len(text) for text in TEXTS]
    # A text without a capital letter is its own lower case.
    assert items["lowercase"][1] == 1


def test_a_subject_that_does_not_describe_lacks_one_score() -> None:
    sets = {"texts": read(*TEXTS)}
    found = {r.metric: r for r in MembershipProbe(on=("texts",)).measure(UniformSubject(vocab_size=4), sets)}
    assert found["loss"].value == pytest.approx(-np.log(4))
    assert found["min_k_20"].value == pytest.approx(-np.log(4))
    assert found["lowercase"].value == pytest.approx(1)
    assert found["min_k_plus_20"].value is None


def test_what_a_sure_model_expects_is_no_surprise() -> None:
    """A standard deviation of 0 gives 0, not a division by it."""

    class Sure(UniformSubject):
        def moments(self, rows: Rows, /) -> Moments:
            zero = np.zeros(rows.scored.shape, np.float32)
            return Moments(zero, zero, zero)

    found = {
        r.metric: r
        for r in MembershipProbe(on=("texts",)).measure(Sure(vocab_size=4), {"texts": read("ab", "c")})
    }
    assert found["min_k_plus_20"].value == 0
    # Ratios over a loss of 0 are no number, and say so.
    assert found["zlib"].value is None and found["zlib"].detail == NO_NUMBER


def test_a_masked_model_is_asked_behind_masks() -> None:
    class Masked(UniformSubject):
        mask_id = 257

        def score(self, rows: Rows, /) -> Scores:
            assert (rows.tokens[rows.scored] == 257).all()
            return super().score(rows)

    over = read("abcdefghij", "kl", mask=257, window=6)
    found = {
        r.metric: r for r in MembershipProbe(on=("texts",)).measure(Masked(vocab_size=4), {"texts": over})
    }
    items = found["loss"].items
    assert items is not None and items["n_scored"].tolist() == [10, 2]
    np.testing.assert_allclose(items["nats"], np.log(4) * np.array([10, 2]), rtol=1e-5)


def test_known_members_are_told_apart_from_texts_never_seen() -> None:
    """Texts of the chain against texts of another one: the loss finds all, what reads no model finds none."""
    subject, other = chain(1), chain(2)
    printable = np.zeros(V)
    printable[1 + ord("a") : 2 + ord("z")] = 1

    def texts(of: Chain) -> list[str]:
        p = of.transitions * printable
        letters = BigramSubject(p / p.sum(1, keepdims=True))
        return [bytes((row - 1).tolist()).decode() for row in letters.sample(40, length=30, seed=3)]

    sets = {
        "seen": read(*texts(subject), name="seen"),
        "unseen": read(*texts(other), name="unseen"),
    }
    probe = MembershipProbe(on=("seen", "unseen"))
    items = {r.on: r.items for r in probe.measure(subject, sets) if r.metric == "loss" and r.items}
    found = {one.score: one for one in by_score(items["seen"], others=items["unseen"])}
    assert list(found) == [
        "loss", "zlib", "lowercase", "min_k_20", "min_k_plus_20", "blind_bytes", "blind_zlib"
    ]  # fmt: skip
    loss = found["loss"].auc
    assert loss.value == loss.high == 1 and loss.low is not None and loss.low > 0.9
    assert found["loss"].found.value == 1
    assert found["lowercase"].auc.value == 0.5  # No capitals: all are 1.
    assert found["blind_bytes"].auc.value == 0.5
    assert [one.reads_model for one in found.values()] == [True] * 5 + [False] * 2


def test_the_second_model_is_compared_on_whole_texts() -> None:
    sets = {"texts": read("abcd", "ab")}
    probe = MembershipProbe(on=("texts",))

    def items(vocab: int, over: EvalSet) -> dict[str, Any]:
        return dict(next(iter(probe.measure(UniformSubject(vocab_size=vocab), {"texts": over}))).items or {})

    own, reference = items(4, sets["texts"]), items(16, sets["texts"])
    (reading,) = reference_readings(own, reference=reference, on="texts")
    assert reading.value == pytest.approx(2) and reading.n == 2
    assert reading.items is not None
    rows = by_score(own | dict(reading.items), others=own | {"reference": np.zeros(2)})
    assert {row.score: row.auc.value for row in rows}["reference"] == 1
    with pytest.raises(SpecError, match="read different texts"):
        list(reference_readings(own, reference=items(16, read("abcde", "ab")), on="texts"))


def test_the_lowest_share_is_rounded_down_but_one_at_least() -> None:
    values = np.array([5.0, 1.0, 3.0, 7.0, 2.0])
    text = np.array([0, 0, 0, 2, 2])
    assert lowest(values, text=text, n_texts=3, share=Fraction(2, 3))[[0, 2]].tolist() == [2, 2]
    assert lowest(values, text=text, n_texts=3, share=Fraction(1, 9))[[0, 2]].tolist() == [1, 2]
    assert np.isnan(lowest(values, text=text, n_texts=3, share=Fraction(1))[1])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"on": ("a",), "max_sequences": 3}, "would cut texts apart"),
        ({"on": ("a",), "shares": ("0",)}, "not all within"),
        ({"on": ("a",), "shares": ("0.2", "0.2")}, "do not rise"),
    ],
)
def test_fields_without_sense_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        MembershipProbe(**fields)


def test_sets_that_are_not_texts_say_so() -> None:
    sets = {"rows": EvalSet.whole("rows", sequences=PlantedSet([[1, 2]]))}
    with pytest.raises(SpecError, match="'rows' has sequences and no texts"):
        list(MembershipProbe(on=("rows",)).measure(UniformSubject(vocab_size=4), sets))
