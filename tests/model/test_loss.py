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

B, L, D, V = 3, 50, 8, 1500


@pytest.fixture(params=[2**10, 2**40], ids=["many chunks", "one chunk"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.CHUNK_VALUES, "cpu", request.param)
    return


def problem(dtype: torch.dtype = torch.float32, *, spread: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden_BLD": (torch.randn(B, L, D, generator=generator, dtype=dtype) * spread).requires_grad_(),
        "weight_VD": torch.randn(V, D, generator=generator, dtype=dtype).requires_grad_(),
        "targets_BL": torch.randint(V, (B, L), generator=generator),
        "scored_BL": torch.rand(B, L, generator=generator) < 0.7,
    }


def ask(given: dict[str, Tensor], *, scale: float = 1.0) -> loss.Objective:
    rest = {name: given[name] for name in ("weight_VD", "targets_BL", "scored_BL")}
    return objective(given["hidden_BLD"], **rest, scale=scale)


def score(given: dict[str, Tensor]) -> loss.TokenScores:
    rest = {name: given[name] for name in ("weight_VD", "targets_BL", "scored_BL")}
    return scored_cross_entropy(given["hidden_BLD"], **rest)


def reference(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Loss a token (0 where not scored) by torch's own function, and the logits."""
    logits_BLV = given["hidden_BLD"] @ given["weight_VD"].T
    loss_BL = F.cross_entropy(logits_BLV.flatten(0, 1), given["targets_BL"].flatten(), reduction="none")
    return loss_BL.view(B, L) * given["scored_BL"], logits_BLV


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_values_and_gradients_are_torchs(spread: float) -> None:
    given, twin = problem(torch.float64, spread=spread), problem(torch.float64, spread=spread)
    ours = ask(given, scale=0.01)
    theirs_BL, logits_BLV = reference(twin)
    torch.testing.assert_close(ours.loss_BL.double(), theirs_BL.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.value.double(), theirs_BL.sum() * 0.01, rtol=1e-6, atol=1e-6)
    expected_BL = (logits_BLV.argmax(-1) == twin["targets_BL"]) & twin["scored_BL"]
    assert torch.equal(ours.hit_BL, expected_BL)
    torch.autograd.backward(3 * ours.value)
    torch.autograd.backward(3 * theirs_BL.sum() * 0.01)
    for name in ("hidden_BLD", "weight_VD"):
        torch.testing.assert_close(given[name].grad, twin[name].grad, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("chunked")
def test_scoring_and_training_agree_to_the_bit() -> None:
    given = problem()
    trained, scored = ask(given), score(given)
    assert torch.equal(trained.loss_BL, scored.loss_BL)
    assert torch.equal(trained.hit_BL, scored.hit_BL)
    assert scored.loss_BL.dtype == torch.float32 and not scored.loss_BL.requires_grad


def test_float32_loss_is_exact_where_a_target_is_hopeless_or_certain() -> None:
    """Losses of hundreds of nats stay finite; a certain target costs nothing."""
    given = problem(spread=200.0)
    theirs_BL, _ = reference(given)
    ours = score(given)
    assert float(theirs_BL.detach().max()) > 500
    torch.testing.assert_close(ours.loss_BL, theirs_BL.detach(), rtol=1e-5, atol=1e-4)
    assert (ours.loss_BL >= 0).all()


def test_some_hits() -> None:
    given = problem()
    given["targets_BL"] = (given["hidden_BLD"] @ given["weight_VD"].T).argmax(-1)
    assert torch.equal(score(given).hit_BL, given["scored_BL"])
    given["targets_BL"] = (given["targets_BL"] + 1) % V
    assert not score(given).hit_BL.any()


def test_tie_goes_to_the_lowest_id() -> None:
    given = problem()
    weight_VD = given["weight_VD"].detach().clone()
    weight_VD[700] = weight_VD[900] = weight_VD[1200] = 10 * given["hidden_BLD"][0, 0].detach()
    given["weight_VD"] = weight_VD
    given["scored_BL"] = torch.ones(B, L, dtype=torch.bool)
    for target, hit in ((700, True), (900, False), (1200, False), (3, False)):
        given["targets_BL"][0, 0] = target
        assert bool(score(given).hit_BL[0, 0]) is hit


def test_unscored_positions_cost_nothing_whatever_they_hold() -> None:
    given, clean = problem(), problem()
    given["targets_BL"] = given["targets_BL"].masked_fill(~given["scored_BL"], -100)
    with torch.no_grad():
        given["hidden_BLD"][~given["scored_BL"]] = torch.nan
    ours, theirs = ask(given), ask(clean)
    torch.autograd.backward(ours.value)
    torch.autograd.backward(theirs.value)
    assert torch.equal(ours.loss_BL, theirs.loss_BL)
    assert not ours.loss_BL[~given["scored_BL"]].any() and not ours.hit_BL[~given["scored_BL"]].any()
    hidden_grad, weight_grad = given["hidden_BLD"].grad, given["weight_VD"].grad
    assert hidden_grad is not None and weight_grad is not None
    assert torch.equal(weight_grad, clean["weight_VD"].grad)  # type: ignore[arg-type]
    assert torch.equal(hidden_grad, clean["hidden_BLD"].grad)  # type: ignore[arg-type]
    assert not hidden_grad[~given["scored_BL"]].any()


def test_nothing_scored() -> None:
    given = problem()
    given["scored_BL"] = torch.zeros(B, L, dtype=torch.bool)
    ours = ask(given)
    torch.autograd.backward(ours.value)
    assert float(ours.value.detach()) == 0 and not ours.loss_BL.any()
    assert given["weight_VD"].grad is not None and not given["weight_VD"].grad.any()


def test_not_finite_is_not_hidden() -> None:
    given = problem()
    given["scored_BL"][0, 0] = True
    with torch.no_grad():
        given["hidden_BLD"][0, 0, 0] = torch.nan
    assert not torch.isfinite(ask(given).value)
    assert not score(given).hit_BL[0, 0]


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the most values that any tensor made inside had."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.values = max(self.values, *made, 0)
        return out


def test_largest_tensor_is_one_chunk() -> None:
    n_rows, vocab = 40, 5000
    hidden_BLD = torch.randn(n_rows, 128, 4).requires_grad_()
    weight_VD = torch.randn(vocab, 4).requires_grad_()
    targets_BL = torch.randint(vocab, (n_rows, 128))
    scored_BL = torch.ones(n_rows, 128, dtype=torch.bool)
    chunk = chunk_tokens(vocab) * vocab
    assert chunk * 50 < n_rows * 128 * vocab
    with Largest() as training:  # type: ignore[no-untyped-call]
        ours = objective(
            hidden_BLD, weight_VD=weight_VD, targets_BL=targets_BL, scored_BL=scored_BL, scale=1.0
        )
        torch.autograd.backward(ours.value)
    with Largest() as scoring:  # type: ignore[no-untyped-call]
        scored_cross_entropy(hidden_BLD, weight_VD=weight_VD, targets_BL=targets_BL, scored_BL=scored_BL)
    assert training.values == scoring.values == chunk


def test_chunk_is_a_budget_of_logits() -> None:
    assert chunk_tokens(1024) * 1024 == loss.CHUNK_VALUES["cpu"]
    assert chunk_tokens(10**9) == loss.LEAST_CHUNK
    assert chunk_tokens(1024, device="cuda") > chunk_tokens(1024, device="mps") == chunk_tokens(1024)
