"""Networks as two factors: their product is the network, with all derivatives, by blocks."""

import pytest
import torch
from torch import Tensor

from surefoot.blocks import factors
from surefoot.blocks.dense import Weights, init_network, network, stack
from surefoot.blocks.factors import factorise

WIDTHS = (4, 6, 5, 7)


@pytest.fixture(params=[1, 3, 1000], ids=lambda size: f"{size} rows", autouse=True)
def _block(request, monkeypatch) -> None:
    monkeypatch.setattr(factors, "BLOCK", request.param)


def make(generator: torch.Generator, members: int | None, widths=WIDTHS) -> tuple[Tensor, Weights]:
    """Rows and weights."""
    shape = () if members is None else (members,)
    x = torch.randn((*shape, 10, widths[0]), generator=generator, dtype=torch.float64)
    if members is None:
        return x, init_network(generator, widths)
    return x, stack([init_network(generator, widths) for _ in range(members)])


def multiplied(x: Tensor, weights: Weights) -> Tensor:
    found = factorise(x, weights)
    return found.hidden @ found.matrix


def slopes(function, x: Tensor, weights: Weights, *, learn: bool) -> list[Tensor]:
    """Value, slope by x, and the slopes of that slope's square."""
    x = x.clone().requires_grad_()
    leaves = {name: value.clone().requires_grad_(learn) for name, value in weights.items()}
    value = function(x, leaves)
    (slope,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
    wanted = [x, *leaves.values()] if learn else [x]
    return [value, slope, *torch.autograd.grad(slope.square().sum(), wanted)]


@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize("widths", [WIDTHS, (4, 6, 7), (4, 7)])
@pytest.mark.parametrize("learn", [False, True])
def test_the_product_is_the_network(generator, members, widths, learn) -> None:
    x, weights = make(generator, members, widths)
    found = slopes(multiplied, x, weights, learn=learn)
    for one, other in zip(found, slopes(network, x, weights, learn=learn), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_slope_that_is_not_differentiated_again(generator) -> None:
    x, weights = make(generator, None)
    x.requires_grad_()
    along = torch.randn(10, WIDTHS[-1], generator=generator, dtype=torch.float64)
    (found,) = torch.autograd.grad(multiplied(x, weights), x, along)
    (expected,) = torch.autograd.grad(network(x, weights), x, along)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    assert not multiplied(x.detach(), weights).requires_grad


def test_no_rows(generator) -> None:
    x, weights = make(generator, None)
    assert multiplied(x[:0], weights).shape == (0, WIDTHS[-1])
