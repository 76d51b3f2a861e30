"""A batch that does not fit is halved, written down, and changes no answer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from repetita.errors import SpecError
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject
from repetita.model.memory import Batches, free_bytes, out_of_memory
from repetita.model.transformer import Transformer
from repetita.subject import Rows

CPU = torch.device("cpu")


def limited(
    most: int, *, seen: list[int] | None = None, error: type[Exception] | None = None
) -> Callable[[slice], None]:
    def work(part: slice) -> None:
        n = part.stop - part.start
        if n > most:
            raise (error or torch.OutOfMemoryError)("CUDA out of memory")
        if seen is not None:
            seen.extend(range(part.start, part.stop))

    return work


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_batches_are_halved_until_they_fit(error: type[Exception]) -> None:
    batches, seen = Batches(CPU, rows=16), list[int]()
    batches.each(21, length=8, work=limited(3, seen=seen, error=error))
    assert seen == list(range(21)), "every row once, in order"
    assert batches.rows == 2 and len(batches.halvings) == 3
    assert batches.halvings[0].startswith("a batch of 16 rows of 8 tokens did not fit")
    batches.each(4, length=8, work=limited(3, seen=seen))
    assert len(batches.halvings) == 3, "what did not fit is not tried again"


def test_a_row_that_does_not_fit_is_an_error_of_one_sentence() -> None:
    with pytest.raises(SpecError, match="one row of 8 tokens does not fit into the memory of cpu; give"):
        Batches(CPU, tokens=64).each(5, length=8, work=limited(0))


def test_other_errors_are_not_swallowed() -> None:
    def broken(_: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Batches(CPU).each(5, length=8, work=broken)
    assert not out_of_memory(ValueError("out of memory"))


def test_a_subject_recovers_and_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transformer(ModelConfig(n_layer=1, d_model=16, n_head=2, vocab_size=40, context=10), seed=0)
    ids = np.random.default_rng(0).integers(1, 40, (9, 10))
    rows = Rows(ids, ids, np.ones((9, 10), dtype=bool))
    whole, states = LiveSubject(model).score(rows), model.states

    def small(tokens: torch.Tensor, *, at_N: torch.Tensor) -> torch.Tensor:
        if len(tokens) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return states(tokens, at_N=at_N)

    monkeypatch.setattr(model, "states", small)
    subject = LiveSubject(model)
    found = subject.score(rows)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-5)
    assert np.array_equal(found.hit, whole.hit)
    assert len(subject.batches.halvings) == 1
    assert subject.batches.tokens == 40


def test_a_large_allocation_is_known_when_it_fails() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**62, dtype=torch.uint8)
    assert out_of_memory(error.value)


def test_free_memory_is_counted() -> None:
    assert free_bytes(CPU) > 2**20
