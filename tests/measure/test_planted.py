import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.measure.planted import BigramSubject, LookupSubject, PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet, full_pass


def chain(v: int = 7, seed: int = 0) -> BigramSubject:
    p = np.random.default_rng(seed).dirichlet(np.full(v, 0.5), v)
    p[:, 0] = 0
    return BigramSubject(p / p.sum(1, keepdims=True))


def test_bigram_loss_on_its_own_text_is_its_entropy_rate() -> None:
    bigram = chain()
    taken = full_pass(
        bigram, over=EvalSet.whole("x", sequences=PlantedSet(bigram.sample(500, length=100, seed=1)))
    )
    assert taken.loss == pytest.approx(bigram.entropy_rate, abs=0.01)
    assert bigram.stationary @ bigram.transitions == pytest.approx(bigram.stationary)


def test_a_uniform_chain_is_the_uniform_subject() -> None:
    p = np.full((6, 6), 1 / 6)
    assert BigramSubject(p).entropy_rate == pytest.approx(np.log(6))
    rows = PlantedSet([[1, 2, 3]]).rows(np.array([0]))
    np.testing.assert_allclose(
        BigramSubject(p).score(rows).loss, UniformSubject(vocab_size=6).score(rows).loss
    )


def test_lookup_loss_has_its_closed_form() -> None:
    targets = np.random.default_rng(0).integers(1, 64, (64, 50))
    subject = LookupSubject(share="0.3", vocab_size=64, confidence=0.8)
    taken = full_pass(subject, over=EvalSet.whole("x", sequences=PlantedSet(targets)))
    assert taken.loss == pytest.approx(subject.loss, rel=1e-6)


def test_lookup_knowledge_depends_on_the_sequence_and_not_on_the_batch() -> None:
    targets = np.random.default_rng(0).integers(1, 64, (64, 50))
    sequences, subject = PlantedSet(targets), LookupSubject(share="0.3", vocab_size=64)
    together = subject.score(sequences.rows(np.arange(64))).hit
    alone = np.vstack([subject.score(sequences.rows(np.array([i]))).hit for i in range(64)])
    np.testing.assert_array_equal(together, alone)
    assert len({tuple(row) for row in together.tolist()}) > 5


def test_rows_are_targets_behind_a_start_token() -> None:
    rows = PlantedSet([[5, 6, 0]]).rows(np.array([0]))
    assert rows.tokens.tolist() == [[0, 5, 6]]
    assert rows.scored.tolist() == [[True, True, False]]


def test_bad_planted_values_are_refused() -> None:
    with pytest.raises(SpecError):
        LookupSubject(share=2, vocab_size=9)
    with pytest.raises(SpecError):
        BigramSubject([[0.5, 0.4], [0.5, 0.5]])
