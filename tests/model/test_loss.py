"""The chunked loss equals torch's cross-entropy in values and gradients, and never holds all logits."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from repetita.model import loss
from repetita.model.loss import chunk_tokens, objective, scored_cross_entropy

N, D, V = 105, 8, 1500


@pytest.fixture(params=[2**10, 2**40], ids=["many chunks", "one chunk"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.CHUNK_VALUES, "cpu", request.param)
    return


def problem(dtype: torch.dtype = torch.float32, *, spread: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "states_ND": (torch.randn(N, D, generator=generator, dtype=dtype) * spread).requires_grad_(),
        "weight_VD": torch.randn(V, D, generator=generator, dtype=dtype).requires_grad_(),
        "targets_N": torch.randint(V, (N,), generator=generator),
    }


def ask(given: dict[str, Tensor], *, scale: float = 1.0) -> loss.Objective:
    return objective(
        given["states_ND"], weight_VD=given["weight_VD"], targets_N=given["targets_N"], scale=scale
    )


def score(given: dict[str, Tensor]) -> loss.TokenScores:
    return scored_cross_entropy(
        given["states_ND"], weight_VD=given["weight_VD"], targets_N=given["targets_N"]
    )


def reference(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Loss a token by torch's own function, and the logits."""
    logits_NV = given["states_ND"] @ given["weight_VD"].T
    return F.cross_entropy(logits_NV, given["targets_N"], reduction="none"), logits_NV


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_values_and_gradients_are_torchs(spread: float) -> None:
    given, twin = problem(torch.float64, spread=spread), problem(torch.float64, spread=spread)
    ours = ask(given, scale=0.01)
    theirs_N, logits_NV = reference(twin)
    torch.testing.assert_close(ours.loss_N.double(), theirs_N.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.value.double(), theirs_N.sum() * 0.01, rtol=1e-6, atol=1e-6)
    assert torch.equal(ours.hit_N, logits_NV.argmax(-1) == twin["targets_N"])
    torch.autograd.backward(3 * ours.value)
    torch.autograd.backward(3 * theirs_N.sum() * 0.01)
    for name in ("states_ND", "weight_VD"):
        torch.testing.assert_close(given[name].grad, twin[name].grad, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("chunked")
def test_scoring_and_training_agree_to_the_bit() -> None:
    given = problem()
    trained, scored = ask(given), score(given)
    assert torch.equal(trained.loss_N, scored.loss_N)
    assert torch.equal(trained.hit_N, scored.hit_N)
    assert scored.loss_N.dtype == torch.float32 and not scored.loss_N.requires_grad


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_likeliest_id_is_told_where_asked_for(spread: float) -> None:
    """Ties, here of all ids, go to the lowest one."""
    given = problem(spread=spread)
    told = scored_cross_entropy(
        given["states_ND"], weight_VD=given["weight_VD"], targets_N=given["targets_N"], predict=True
    )
    plain = score(given)
    assert torch.equal(told.loss_N, plain.loss_N) and torch.equal(told.hit_N, plain.hit_N)
    assert told.predicted_N is not None and plain.predicted_N is None
    assert torch.equal(told.predicted_N, reference(given)[1].argmax(-1))
    assert torch.equal(told.predicted_N == given["targets_N"], told.hit_N)


def test_float32_loss_is_exact_where_a_target_is_hopeless_or_certain() -> None:
    """Losses of hundreds of nats stay finite; a certain target costs nothing."""
    given = problem(spread=200.0)
    theirs_N, _ = reference(given)
    ours = score(given)
    assert float(theirs_N.detach().max()) > 500
    torch.testing.assert_close(ours.loss_N, theirs_N.detach(), rtol=1e-5, atol=1e-4)
    assert (ours.loss_N >= 0).all()


def test_some_hits() -> None:
    given = problem()
    given["targets_N"] = (given["states_ND"] @ given["weight_VD"].T).argmax(-1)
    assert score(given).hit_N.all()
    given["targets_N"] = (given["targets_N"] + 1) % V
    assert not score(given).hit_N.any()


def test_tie_goes_to_the_lowest_id() -> None:
    given = problem()
    weight_VD = given["weight_VD"].detach().clone()
    weight_VD[700] = weight_VD[900] = weight_VD[1200] = 10 * given["states_ND"][0].detach()
    given["weight_VD"] = weight_VD
    for target, hit in ((700, True), (900, False), (1200, False), (3, False)):
        given["targets_N"][0] = target
        assert bool(score(given).hit_N[0]) is hit


def test_nothing_scored() -> None:
    given = problem()
    given["states_ND"], given["targets_N"] = torch.zeros(0, D, requires_grad=True), torch.zeros(0).long()
    ours = ask(given)
    torch.autograd.backward(ours.value)
    assert float(ours.value.detach()) == 0 and not len(ours.loss_N)
    assert given["weight_VD"].grad is not None and not given["weight_VD"].grad.any()


def test_not_finite_is_not_hidden() -> None:
    given = problem()
    with torch.no_grad():
        given["states_ND"][0, 0] = torch.nan
    assert not torch.isfinite(ask(given).value)
    assert not score(given).hit_N[0]


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the most values that any tensor made inside had."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.values = max(self.values, *made, 0)
        return out


def test_largest_tensor_is_one_chunk() -> None:
    n_tokens, vocab = 20_000, 2000
    states_ND = torch.randn(n_tokens, 4).requires_grad_()
    weight_VD = torch.randn(vocab, 4).requires_grad_()
    targets_N = torch.randint(vocab, (n_tokens,))
    chunk = chunk_tokens(vocab) * vocab
    assert chunk * 50 < n_tokens * vocab
    with Largest() as training:  # type: ignore[no-untyped-call]
        ours = objective(states_ND, weight_VD=weight_VD, targets_N=targets_N, scale=1.0)
        torch.autograd.backward(ours.value)
    with Largest() as scoring:  # type: ignore[no-untyped-call]
        scored_cross_entropy(states_ND, weight_VD=weight_VD, targets_N=targets_N)
    assert training.values == scoring.values == chunk


def test_chunk_is_a_budget_of_logits() -> None:
    assert chunk_tokens(1024) * 1024 == loss.CHUNK_VALUES["cpu"]
    assert chunk_tokens(10**9) == loss.LEAST_CHUNK
    assert chunk_tokens(1024, device="cuda") > chunk_tokens(1024, device="mps") == chunk_tokens(1024)
