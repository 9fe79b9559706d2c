"""Filters by blocks of pairs: the same sums as of all filters, and the same slopes."""

import pytest
import torch
from torch import Tensor

from surefoot.blocks import filters
from surefoot.blocks.dense import (
    ACTIVATIONS,
    SLOPES,
    Activation,
    Weights,
    init_linear,
    stack,
    under,
)
from surefoot.blocks.filters import convolve_filters, make_filters, may_stream, stream_filters
from surefoot.data.convert import to_graph
from surefoot.graph import Graph

pytestmark = pytest.mark.usefixtures("compiled")

FUNCTIONS, CHANNELS = 6, 11  # some channels fill no vector


@pytest.fixture
def graph(small_structures) -> Graph:
    return to_graph(small_structures["ethanol"], 3.0)


def make(
    generator: torch.Generator, graph: Graph, members: int | None
) -> tuple[list[Tensor], Weights]:
    """Features, radial functions and envelope; and layers with biases."""
    shape = () if members is None else (members,)
    pairs = graph.pair_edges.shape[1]
    sizes = (len(graph.numbers), CHANNELS), (pairs, FUNCTIONS), (pairs, 1)
    inputs = [
        torch.randn((*shape, *size), generator=generator, dtype=torch.float64) for size in sizes
    ]

    def layers() -> Weights:
        fresh = under("filter1", init_linear(generator, FUNCTIONS, CHANNELS))
        fresh |= under("filter2", init_linear(generator, CHANNELS, CHANNELS))
        return {n: v + torch.randn(v.shape, generator=generator).double() for n, v in fresh.items()}

    return inputs, layers() if members is None else stack([layers() for _ in range(members)])


@pytest.mark.parametrize(("block", "threads"), [(5, 1), (1000, 2)])
@pytest.mark.parametrize("members", [None, 3])
def test_value_slopes_and_their_slopes(
    generator, graph, members, block, threads, monkeypatch
) -> None:
    monkeypatch.setattr(filters, "BLOCK", block)
    inputs, weights = make(generator, graph, members)
    activation: Activation = "shifted_softplus"

    def whole(sent: Tensor, basis: Tensor, envelope: Tensor) -> Tensor:
        return convolve_filters(sent, make_filters(basis, envelope, weights, activation), graph)

    def streamed(sent: Tensor, basis: Tensor, envelope: Tensor) -> Tensor:
        return stream_filters(sent, basis, envelope, weights, activation, graph)

    found = []
    torch.set_num_threads(threads)
    try:
        for function in (whole, streamed):
            leaves = [x.clone().requires_grad_() for x in inputs]
            value = function(*leaves)
            first = torch.autograd.grad(value.square().sum(), leaves, retain_graph=True)
            again = torch.autograd.grad(value.square().sum(), leaves, create_graph=True)
            second = torch.autograd.grad([x.square().sum() for x in again], leaves)
            found.append([value, *first, *again, *second])
    finally:
        torch.set_num_threads(1)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * float(one.detach().abs().max()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes_of_activations(activation, generator) -> None:
    x = torch.randn(50, generator=generator, dtype=torch.float64).mul_(8).requires_grad_()
    along = torch.randn(50, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(ACTIVATIONS[activation](x), x, along)
    torch.testing.assert_close(SLOPES[activation](along, x.detach()), expected)


def test_when_filters_are_not_streamed(generator, graph) -> None:
    """Where somebody learns the weights, and where splines stand in their place."""
    (sent, *_), weights = make(generator, graph, None)
    assert may_stream(sent, weights)
    assert not may_stream(sent, weights | {"filter.table": sent})
    weights["filter2.bias"].requires_grad_()
    assert not may_stream(sent, weights)
    assert not may_stream(sent.float(), weights)
