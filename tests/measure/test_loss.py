import math
from typing import Any

import numpy as np
import pytest

from repetita.journal.records import Reading
from repetita.measure.loss import LossProbe, index_edges
from repetita.measure.planted import BigramSubject, PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet
from repetita.subject import Rows, Scores, Subject


def measured(subject: Subject, sequences: PlantedSet, **options: Any) -> dict[str, Reading]:
    sets = {"test": EvalSet.whole("test", sequences=sequences)}
    return {r.metric: r for r in LossProbe(on=("test",), **options).measure(subject, sets)}


def test_uniform_gives_ln_v_and_its_bits_a_byte() -> None:
    targets = np.random.default_rng(0).integers(1, 100, (70, 10))
    token_bytes = np.arange(100) % 4 + 1
    found = measured(UniformSubject(vocab_size=100), PlantedSet(targets, token_bytes=token_bytes))
    assert found["loss"].value == pytest.approx(math.log(100), rel=1e-6)
    assert found["loss"].n == 700
    assert found["bits_per_byte"].value == pytest.approx(
        700 * math.log2(100) / token_bytes[targets].sum(), rel=1e-6
    )


def test_items_sum_to_the_loss() -> None:
    bigram = BigramSubject(np.random.default_rng(3).dirichlet(np.ones(6), 6))
    loss = measured(bigram, PlantedSet(bigram.sample(30, length=20, seed=1)))["loss"]
    assert loss.items is not None
    assert loss.items["loss_sum"].sum() / loss.items["n_scored"].sum() == pytest.approx(loss.value)
    assert loss.items["sequence"].tolist() == list(range(30))


def test_an_empty_set_is_not_applicable() -> None:
    found = measured(UniformSubject(vocab_size=9), PlantedSet(np.zeros((0, 5))), by_index="binned")
    assert {reading.value for reading in found.values()} == {None}
    assert found["loss"].n == 0
    assert measured(UniformSubject(vocab_size=9), PlantedSet(np.zeros((3, 5))))["loss"].value is None


def test_no_bytes_means_no_bits_a_byte() -> None:
    found = measured(UniformSubject(vocab_size=9), PlantedSet([[1, 2]], token_bytes=np.zeros(9)))
    assert found["bits_per_byte"].value is None
    assert found["loss"].value is not None


@pytest.mark.parametrize(
    ("length", "edges"), [(1, [0, 1]), (2, [0, 1, 2]), (6, [0, 1, 2, 4, 6]), (8, [0, 1, 2, 4, 8])]
)
def test_bins_double_and_end_at_the_length(length: int, edges: list[int]) -> None:
    assert index_edges(length) == edges


def test_the_curve_over_the_index_and_the_in_context_score() -> None:
    class Falling(UniformSubject):
        """Loss 3 - index / 100."""

        def score(self, rows: Rows) -> Scores:
            scores = super().score(rows)
            curve = 3 - np.arange(rows.targets.shape[1]) / 100
            return scores._replace(loss=np.where(rows.scored, curve, 0).astype(np.float32))

    found = measured(Falling(vocab_size=5), PlantedSet(np.ones((9, 100))), by_index="binned")["loss_by_index"]
    assert found.items is not None
    np.testing.assert_allclose(
        np.asarray(found.items["loss"], np.float64), 3 - np.arange(100) / 100, rtol=1e-6
    )
    assert found.value == pytest.approx(-(94.5 - 9.5) / 100, rel=1e-4)
    assert found.detail is not None
    assert found.detail["edges"] == [0, 1, 2, 4, 8, 16, 32, 64, 100]
    assert found.detail["loss"][3] == pytest.approx(3 - 0.055, rel=1e-5)
    assert found.detail["n"] == [9, 9, 18, 36, 72, 144, 288, 324]
