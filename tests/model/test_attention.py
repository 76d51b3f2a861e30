"""Fused and explicit attention are one function."""

import pytest
import torch

from repetita.model.attention import BOTH_WAYS, CAUSAL, Heads, Reach, explicit, fused


def heads(n_tokens: int, *, width: int = 8) -> Heads:
    generator = torch.Generator().manual_seed(n_tokens)
    qkv = torch.randn(3, 2, 3, n_tokens, width, generator=generator, dtype=torch.float64)
    return Heads(*(3 * part for part in qkv))


def reaches(n_tokens: int) -> list[Reach]:
    """Causal, both ways, and both ways with the end of the first row as padding."""
    text_BL = torch.ones(2, n_tokens, dtype=torch.bool)
    text_BL[0, (n_tokens + 1) // 2 :] = False
    return [CAUSAL, BOTH_WAYS, Reach(causal=False, keys_B11L=text_BL[:, None, None])]


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("n_tokens", [1, 2, 17, 64])
def test_fused_equals_explicit_with_gradients(n_tokens: int, kind: int) -> None:
    given, reach = heads(n_tokens), reaches(n_tokens)[kind]
    results = []
    for is_fused in (True, False):
        leaves = Heads(*(part.clone().requires_grad_() for part in given))
        mixed_BHLK = fused(leaves, reach=reach) if is_fused else explicit(leaves, reach=reach).mixed_BHLK
        torch.autograd.backward((mixed_BHLK * torch.arange(8.0)).sum())
        results.append([mixed_BHLK, *(part.grad for part in leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_float32_agrees_too() -> None:
    given = Heads(*(part.float() for part in heads(64)))
    for reach in reaches(64):
        fused_BHLK, explicit_BHLK = fused(given, reach=reach), explicit(given, reach=reach).mixed_BHLK
        torch.testing.assert_close(fused_BHLK, explicit_BHLK, rtol=1e-5, atol=1e-5)


def test_patterns_are_causal_distributions() -> None:
    pattern_BHLL = explicit(heads(17), reach=CAUSAL).pattern_BHLL
    torch.testing.assert_close(pattern_BHLL.sum(-1), torch.ones(2, 3, 17, dtype=torch.float64))
    assert not pattern_BHLL.triu(1).any()


def test_equal_keys_are_read_equally() -> None:
    given = heads(5)._replace(k_BHLK=torch.zeros(2, 3, 5, 8, dtype=torch.float64))
    expected_LL = torch.tril(torch.ones(5, 5, dtype=torch.float64)) / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(explicit(given, reach=CAUSAL).pattern_BHLL, expected_LL.expand(2, 3, 5, 5))


def test_padding_is_never_read() -> None:
    pattern_BHLL = explicit(heads(17), reach=reaches(17)[2]).pattern_BHLL
    torch.testing.assert_close(pattern_BHLL.sum(-1), torch.ones(2, 3, 17, dtype=torch.float64))
    assert not pattern_BHLL[0, :, :, 9:].any()
    assert (pattern_BHLL[1] > 0).all() and (pattern_BHLL[0, :, :, :9] > 0).all()
