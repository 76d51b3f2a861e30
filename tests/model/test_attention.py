"""Fused and explicit attention are one function."""

import pytest
import torch

from repetita.model.attention import Heads, explicit, fused


def heads(n_tokens: int, *, width: int = 8) -> Heads:
    generator = torch.Generator().manual_seed(n_tokens)
    qkv = torch.randn(3, 2, 3, n_tokens, width, generator=generator, dtype=torch.float64)
    return Heads(*(3 * part for part in qkv))


@pytest.mark.parametrize("n_tokens", [1, 2, 17, 64])
def test_fused_equals_explicit_with_gradients(n_tokens: int) -> None:
    given = heads(n_tokens)
    results = []
    for attend in (fused, lambda each: explicit(each).mixed_BHLK):
        leaves = Heads(*(part.clone().requires_grad_() for part in given))
        mixed_BHLK = attend(leaves)
        torch.autograd.backward((mixed_BHLK * torch.arange(8.0)).sum())
        results.append([mixed_BHLK, *(part.grad for part in leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_float32_agrees_too() -> None:
    given = Heads(*(part.float() for part in heads(64)))
    torch.testing.assert_close(fused(given), explicit(given).mixed_BHLK, rtol=1e-5, atol=1e-5)


def test_patterns_are_causal_distributions() -> None:
    pattern_BHLL = explicit(heads(17)).pattern_BHLL
    torch.testing.assert_close(pattern_BHLL.sum(-1), torch.ones(2, 3, 17, dtype=torch.float64))
    assert not pattern_BHLL.triu(1).any()


def test_equal_keys_are_read_equally() -> None:
    given = heads(5)._replace(k_BHLK=torch.zeros(2, 3, 5, 8, dtype=torch.float64))
    expected_LL = torch.tril(torch.ones(5, 5, dtype=torch.float64)) / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(explicit(given).pattern_BHLL, expected_LL.expand(2, 3, 5, 5))
