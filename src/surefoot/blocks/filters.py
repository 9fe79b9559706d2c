"""Continuous-filter convolutions that hold one number per pair and channel, and no more.

    out_i = Σ_j x_j ∘ w_ij,    w = e N(b),    N(b) = a(b W₁ + c₁) W₂ + c₂

with radial functions b, an envelope e and an activation a. Blocks of pairs get their filters, and
the loops of `convolution.py` run over their edges. The backward pass is given N, whose last product
costs most, and makes the hidden layer anew. What passes through a block stays in the cache of the
processor, so that beside less memory it is less time too, from some hundred atoms on.

The weights are constants here: there is no slope of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.convolution import EDGES, GRADIENT, RADIAL, scalar_blocks
from surefoot.blocks.dense import ACTIVATIONS, SLOPES, Activation, Weights, branch, linear
from surefoot.blocks.native import kernels
from surefoot.compilation import operator
from surefoot.graph import Graph, pairs_to_edges
from surefoot.segments import gather, segment_sum

BLOCK = 1024  # pairs
LAYERS = ("filter1.weight", "filter1.bias", "filter2.weight", "filter2.bias")


def make_filters(
    basis: Float[Tensor, "*members pairs functions"],
    envelope: Float[Tensor, "*members pairs 1"],
    weights: Weights,
    activation: Activation,
) -> Float[Tensor, "*members pairs channels"]:
    """Filters w of each pair.

    Args:
        basis: b.
        envelope: e.
        weights: of the layers `filter1` and `filter2`.
        activation: a.
    """
    hidden = ACTIVATIONS[activation](linear(basis, branch(weights, "filter1")))
    return linear(hidden, branch(weights, "filter2")) * envelope


def convolve_filters(
    sent: Float[Tensor, "*members atoms channels"],
    filters: Float[Tensor, "*members pairs channels"],
    graph: Graph,
) -> Float[Tensor, "*members atoms channels"]:
    """The sum over neighbours of features times filters, Σ_j x_j ∘ w_ij.

    Args:
        sent: x.
        filters: w, the same for an edge and its reverse.
        graph: for its edges.
    """
    messages = gather(sent, graph.senders) * pairs_to_edges(filters, graph)
    return segment_sum(messages, graph.receivers)


def may_stream(sent: Tensor, weights: Weights) -> bool:
    """Whether there are kernels for these features, and weights that nobody differentiates.

    Weights that hold a table of splines have no network, and nothing is saved.
    """
    layers = [weights[name] for name in LAYERS if "filter.table" not in weights]
    constant = not any(layer.requires_grad for layer in layers)
    return bool(layers) and constant and kernels(sent, *layers) is not None


def stream_filters(
    sent: Float[Tensor, "*members atoms channels"],
    basis: Float[Tensor, "*members pairs functions"],
    envelope: Float[Tensor, "*members pairs 1"],
    weights: Weights,
    activation: Activation,
    graph: Graph,
) -> Float[Tensor, "*members atoms channels"]:
    """The same sum, of filters that are made for some pairs at a time.

    Args:
        sent: x.
        basis: as of `make_filters`.
        envelope: likewise.
        weights: likewise; constants.
        activation: likewise.
        graph: for its edges.
    """
    layers = tuple(weights[name] for name in LAYERS)
    return _Streamed.apply(sent, basis, envelope, layers, activation, graph)  # type: ignore[no-any-return]


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sent: Tensor,
        basis: Tensor,
        envelope: Tensor,
        layers: tuple[Tensor, ...],
        activation: Activation,
        graph: Graph,
    ) -> Tensor:
        ctx.layers, ctx.activation, ctx.graph = layers, activation, graph
        edges = [getattr(graph, name) for name in EDGES]
        value, networks = _value(sent, basis, envelope, list(layers), activation, *edges)
        ctx.save_for_backward(sent, basis, envelope, networks)
        return value  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        *inputs, networks = ctx.saved_tensors
        if torch.is_grad_enabled():  # the slope is to be differentiated itself
            # What is sent may know of the basis from layers before, which this slope does not.
            inputs = tuple(x.view_as(x) for x in inputs)
            weights: Weights = dict(zip(LAYERS, ctx.layers, strict=True))
            filters = make_filters(inputs[1], inputs[2], weights, ctx.activation)
            value = convolve_filters(inputs[0], filters, ctx.graph)
            needed = [x for x, need in zip(inputs, ctx.needs_input_grad, strict=False) if need]
            found = iter(torch.autograd.grad(value, needed, grads[0], create_graph=True))
            slopes = [next(found) if need else None for need in ctx.needs_input_grad[:3]]
        else:
            edges = [getattr(ctx.graph, name) for name in EDGES]
            slopes = _slopes(grads[0], *inputs, networks, list(ctx.layers), ctx.activation, *edges)
        return *slopes, None, None, None


def _members(run: Any, tensors: Sequence[Tensor], layers: Sequence[Tensor], *rest: Any) -> Any:
    """What each member gives, along a first axis."""
    if tensors[0].dim() == 2:
        return run(*tensors, layers, *rest)
    each = zip(zip(*tensors, strict=True), zip(*layers, strict=True), strict=True)
    found = [run(*one, part, *rest) for one, part in each]
    if isinstance(found[0], Tensor):
        return torch.stack(found)
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def _hidden(basis: Tensor, layers: Sequence[Tensor]) -> Tensor:
    return torch.addmm(layers[1], basis, layers[0])


def _run(
    sent: Tensor,
    basis: Tensor,
    envelope: Tensor,
    layers: Sequence[Tensor],
    activation: Activation,
    edges: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    sent = sent.contiguous()
    out, ones = torch.zeros_like(sent), sent.new_ones((2 * BLOCK, 1))
    networks = sent.new_empty((len(basis), sent.shape[-1]))
    blocks = scalar_blocks(edges, sent)
    for rows, _ in blocks.walk(BLOCK):
        hidden = ACTIVATIONS[activation](_hidden(basis[rows], layers))
        network = torch.addmm(layers[3], hidden, layers[2], out=networks[rows])
        blocks.run(GRADIENT, out, ones, network * envelope[rows], sent)
    return out, networks


def _run_slopes(
    along: Tensor,
    sent: Tensor,
    basis: Tensor,
    envelope: Tensor,
    networks: Tensor,
    layers: Sequence[Tensor],
    activation: Activation,
    edges: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    along, sent = along.contiguous(), sent.contiguous()
    by_sent, by_basis = torch.zeros_like(sent), torch.empty_like(basis)
    by_envelope, ones = torch.empty_like(envelope), sent.new_ones((2 * BLOCK, 1))
    blocks = scalar_blocks(edges, sent)
    for rows, _ in blocks.walk(BLOCK):
        before = _hidden(basis[rows], layers)
        network = networks[rows]
        slope = torch.zeros_like(network)
        blocks.run(RADIAL, along, ones, slope, sent)
        torch.sum(slope * network, -1, keepdim=True, out=by_envelope[rows])
        # An edge and its reverse are both in the block: what goes back is what comes.
        blocks.run(GRADIENT, by_sent, ones, network * envelope[rows], along)
        down = slope.mul_(envelope[rows]) @ layers[2].T
        torch.mm(SLOPES[activation](down, before), layers[0].T, out=by_basis[rows])
    return by_sent, by_basis, by_envelope


_value = operator(
    "filtered(Tensor sent, Tensor basis, Tensor envelope, Tensor[] layers, str activation, "
    f"{', '.join(f'Tensor {name}' for name in EDGES)}) -> (Tensor, Tensor)",
    lambda sent, basis, envelope, layers, activation, *edges: _members(
        _run, (sent, basis, envelope), layers, activation, edges
    ),
    lambda sent, basis, *_: (
        sent.new_empty(sent.shape),
        sent.new_empty((*basis.shape[:-1], sent.shape[-1])),
    ),
)
_slopes = operator(
    "filtered_slopes(Tensor along, Tensor sent, Tensor basis, Tensor envelope, Tensor networks, "
    f"Tensor[] layers, str activation, {', '.join(f'Tensor {name}' for name in EDGES)}) "
    "-> (Tensor, Tensor, Tensor)",
    lambda along, sent, basis, envelope, networks, layers, activation, *edges: _members(
        _run_slopes, (along, sent, basis, envelope, networks), layers, activation, edges
    ),
    lambda _, *three: tuple(x.new_empty(x.shape) for x in three[:3]),
)
