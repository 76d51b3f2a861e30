"""A guess at what is written changes nothing but how much is read for it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repetita.model.answering import Answering, Readout
from repetita.model.config import ModelConfig
from repetita.model.foreign import Foreign
from repetita.model.live import Own
from repetita.model.memory import Batches
from repetita.model.transformer import Transformer
from repetita.model.writing import FIRST
from repetita.subject import Tokens
from tests.model.strangers import V, stranger

CPU = torch.device("cpu")
N, PROMPT, T = 8, 5, 14
KINDS = ["own", "gpt2", "gpt_neox", "llama", "mistral", "opt", "gemma2", "gpt_oss", "bloom"]


def readout(kind: str) -> Readout:
    if kind != "own":
        return Foreign(stranger(kind), device=CPU)
    model = Transformer(ModelConfig(n_layer=2, n_head=2, d_model=16, vocab_size=V, context=64), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.6 * torch.randn(parameter.shape, generator=generator))
    return Own(model)


def subject(kind: str) -> Answering:
    return Answering(readout(kind), batches=Batches(CPU))


def prompts() -> Tokens:
    return np.random.default_rng(0).integers(3, V, (N, PROMPT))


def wrong_at(written: Tokens, places: list[int | None]) -> Tokens:
    """What is written with another token at one place of each row."""
    guess = written.copy()
    for row, place in enumerate(places):
        if place is not None:
            guess[row, place] = (guess[row, place] + 1) % V
    return guess


GUESSES: dict[str, list[int | None]] = {
    "right": [None] * N,
    "wrong at once": [0] * N,
    "wrong last": [T - 1] * N,
    "wrong late": [FIRST, FIRST + 1, T - 2, T - 3, FIRST, None, T - 1, T - 2],
    "wrong anywhere": [0, None, FIRST - 1, FIRST, 1, T - 1, T - 2, None],
}


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("kind", KINDS)
def test_no_guess_changes_what_is_written(kind: str) -> None:
    asked = subject(kind)
    written = asked.continue_(prompts(), n_tokens=T)
    assert len(np.unique(written)) > 2, "a model that says one thing only would show nothing"
    for name, places in GUESSES.items():
        found = asked.continue_(prompts(), n_tokens=T, guess=wrong_at(written, places))
        assert np.array_equal(found, written), name
    for n_tokens in (1, FIRST, FIRST + 1):
        for place in (0, None):
            guess = wrong_at(written[:, :n_tokens], [0, *[place] * (N - 1)])
            found = asked.continue_(prompts(), n_tokens=n_tokens, guess=guess)
            assert np.array_equal(found, written[:, :n_tokens])
    random = np.random.default_rng(1).integers(0, V, (N, T))
    assert np.array_equal(asked.continue_(prompts(), n_tokens=T, guess=random), written)


def sizes(kind: str, places: list[int | None]) -> list[tuple[int, int]]:
    """What is read of a guess that is wrong at these places: rows and tokens of each pass."""
    asked = subject(kind)
    guess = wrong_at(asked.continue_(prompts(), n_tokens=T), places)
    model: Any = asked.readout.model  # type: ignore[attr-defined]
    read: list[tuple[int, int]] = []

    def note(_: Any, given: tuple[Tensor, ...]) -> None:
        read.append((given[0].shape[0], given[0].shape[1]))

    embedding = next(part for part in model.modules() if isinstance(part, torch.nn.Embedding))
    handle = embedding.register_forward_pre_hook(note)
    asked.continue_(prompts(), n_tokens=T, guess=guess)
    handle.remove()
    return read


def test_a_cache_spares_reading_again() -> None:
    """Each token is read once, whatever is wrong, but for the rest of guesses whose begin was right."""
    first = [(N, PROMPT), *[(N, 1)] * (FIRST - 1)]
    rest = T - FIRST
    assert sizes("gpt2", [None] * N) == [*first, (N, rest)]
    assert sizes("gpt2", [T - 1] * N) == [*first, (N, rest)]
    assert sizes("gpt2", [0] * N) == [*first, *[(N, 1)] * rest]
    assert sizes("gpt2", [0, FIRST, *[None] * (N - 2)]) == [*first, (N - 1, rest), *[(2, 1)] * rest]


def test_without_a_cache_only_what_follows_the_first_wrong_token_is_written_by_itself() -> None:
    whole = (N, PROMPT + T - 1)
    assert sizes("own", [None] * N) == sizes("own", [T - 1] * N) == [whole]
    behind = [(2, PROMPT + T - 3), (2, PROMPT + T - 2), (2, PROMPT + T - 1)]
    assert sizes("own", [T - 3, T - 2, *[None] * (N - 2)]) == [whole, *behind]
