import numpy as np
import pytest

from repetita.journal.records import Reading
from repetita.measure.memorization import MemorizationProbe
from repetita.measure.planted import BigramSubject, LookupSubject, PlantedSet
from repetita.measure.probe import EvalSet
from repetita.subject import Subject


def memorized(subject: Subject, sequences: PlantedSet) -> Reading:
    sets = {"train": EvalSet.whole("train", sequences=sequences)}
    (reading,) = MemorizationProbe(on=("train",)).measure(subject, sets)
    return reading


@pytest.mark.parametrize("share", ["0", "0.01", "0.37", "0.5", "0.99", "1"])
def test_a_lookup_subject_that_knows_a_share_has_that_m_exactly(share: str) -> None:
    targets = np.random.default_rng(0).integers(1, 64, (130, 100))
    reading = memorized(LookupSubject(share=share, vocab_size=64), PlantedSet(targets))
    assert reading.value == float(share)
    assert reading.items is not None
    assert set(reading.items["hits"].tolist()) == {round(100 * float(share))}


def test_m_counts_scored_tokens_only() -> None:
    targets = np.random.default_rng(0).integers(1, 64, (40, 100))
    targets[:, 50:] = 0
    reading = memorized(LookupSubject(share="0.4", vocab_size=64), PlantedSet(targets))
    assert (reading.value, reading.n) == (0.4, 2000)


def test_a_bigram_subject_has_its_accuracy_as_m() -> None:
    p = np.random.default_rng(3).dirichlet(np.ones(5), 5)
    p[:, 0] = 0  # targets of id 0 are not scored, so the chain must not visit it
    chain = BigramSubject(p / p.sum(1, keepdims=True))
    reading = memorized(chain, PlantedSet(chain.sample(400, length=100, seed=2)))
    assert reading.value == pytest.approx(chain.accuracy, abs=0.01)


def test_an_empty_set_has_no_m() -> None:
    assert memorized(LookupSubject(share=1, vocab_size=9), PlantedSet(np.zeros((0, 4)))).value is None
