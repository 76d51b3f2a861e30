"""Products by oneDNN are those of BLAS, values and gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repetita.model import products
from repetita.model.products import linear, product


@pytest.fixture(params=["large", "small"])
def _where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by oneDNN (where there is one) and once without."""
    monkeypatch.setattr(products, "LARGE", 1 if request.param == "large" else 2**60)


def given() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 7, 12), (20, 12), (20,))
    return tuple(torch.randn(s, generator=generator, requires_grad=True) for s in shapes)  # type: ignore[return-value]


@pytest.mark.usefixtures("_where")
@pytest.mark.parametrize("biased", [True, False])
def test_linear_is_torchs(biased: bool) -> None:
    ours, theirs = given(), given()
    results = []
    for function, (x, weight, bias) in ((linear, ours), (F.linear, theirs)):
        y = function(x, weight, bias if biased else None)
        torch.autograd.backward((y * torch.arange(20.0)).square().sum())
        results.append(y)
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    for one, other in zip(ours[: 2 + biased], theirs, strict=False):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-2)


@pytest.mark.usefixtures("_where")
def test_product_takes_transposed_views() -> None:
    x, weight, _ = (part.detach() for part in given())
    flat = x.flatten(0, 1)
    torch.testing.assert_close(product(flat, weight), flat @ weight.T, rtol=1e-5, atol=1e-5)
    turned = weight.T.contiguous().T
    torch.testing.assert_close(product(flat, turned), flat @ weight.T, rtol=1e-5, atol=1e-5)


def test_doubles_and_small_products_stay_with_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("oneDNN was asked")

    monkeypatch.setattr(products, "_onednn", refuse)
    x, weight, bias = given()
    assert linear(x, weight, bias).shape == (3, 7, 20)
    monkeypatch.setattr(products, "LARGE", 1)
    assert linear(x.double(), weight.double(), bias.double()).dtype == torch.float64
    if products.ONEDNN:
        with pytest.raises(AssertionError, match="was asked"):
            linear(x, weight, bias)
