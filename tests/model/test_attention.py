"""Fused and explicit attention are one function."""

import pytest
import torch
from torch import Tensor

from repetita.model import attention
from repetita.model.attention import BOTH_WAYS, CAUSAL, Reach, explicit, fused


def heads(n_tokens: int, *, width: int = 8) -> Tensor:
    """Queries, keys and values of two rows and three heads (B L 3 H K)."""
    generator = torch.Generator().manual_seed(n_tokens)
    return 3 * torch.randn(2, n_tokens, 3, 3, width, generator=generator, dtype=torch.float64)


def reaches(n_tokens: int) -> list[Reach]:
    """Causal, both ways, and both ways with the end of the first row as padding."""
    text_BL = torch.ones(2, n_tokens, dtype=torch.bool)
    text_BL[0, (n_tokens + 1) // 2 :] = False
    return [CAUSAL, BOTH_WAYS, Reach(causal=False, keys_B11L=text_BL[:, None, None])]


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("n_tokens", [1, 2, 17, 64, 130])
def test_fused_equals_explicit_with_gradients(n_tokens: int, kind: int) -> None:
    given, reach = heads(n_tokens), reaches(n_tokens)[kind]
    results = []
    for is_fused in (True, False):
        leaf = given.clone().requires_grad_()
        explained = explicit(leaf, reach=reach).mixed_BHLK.transpose(1, 2)
        mixed_BLHK = fused(leaf, reach=reach) if is_fused else explained
        torch.autograd.backward((mixed_BLHK * torch.arange(8.0)).sum())
        results.append((mixed_BLHK, leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [0, 1])
def test_rows_too_long_for_kept_patterns_are_the_same(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given, reach = heads(100).float(), reaches(100)[kind]
    tiled = fused(given, reach=reach)
    monkeypatch.setattr(attention, "TILED_UP_TO", 99)
    torch.testing.assert_close(fused(given, reach=reach), tiled, rtol=1e-5, atol=1e-5)


def test_float32_agrees_too() -> None:
    given = heads(64).float()
    for reach in reaches(64):
        mixed_BHLK = explicit(given, reach=reach).mixed_BHLK
        torch.testing.assert_close(
            fused(given, reach=reach).transpose(1, 2), mixed_BHLK, rtol=1e-4, atol=5e-5
        )


def test_patterns_are_causal_distributions() -> None:
    pattern_BHLL = explicit(heads(17), reach=CAUSAL).pattern_BHLL
    torch.testing.assert_close(pattern_BHLL.sum(-1), torch.ones(2, 3, 17, dtype=torch.float64))
    assert not pattern_BHLL.triu(1).any()


def test_equal_keys_are_read_equally() -> None:
    given = heads(5)
    given[:, :, 1] = 0
    expected_LL = torch.tril(torch.ones(5, 5, dtype=torch.float64)) / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(explicit(given, reach=CAUSAL).pattern_BHLL, expected_LL.expand(2, 3, 5, 5))


def test_padding_is_never_read() -> None:
    pattern_BHLL = explicit(heads(17), reach=reaches(17)[2]).pattern_BHLL
    torch.testing.assert_close(pattern_BHLL.sum(-1), torch.ones(2, 3, 17, dtype=torch.float64))
    assert not pattern_BHLL[0, :, :, 9:].any()
    assert (pattern_BHLL[1] > 0).all() and (pattern_BHLL[0, :, :, :9] > 0).all()
