"""The channel-wise tensor product of neighbours with harmonics, fused with the sum over edges.

    out[i, k, c] = Σ_{e received by i} Σ_m M[e, k, m] w[pair(e), path(k), c] x[sender(e), m, c]

with M[e, (m3, m1)] = √(2 l3 + 1) Σ_m2 C^{l1 l2 l3}[m1, m2, m3] Y[e, m2], without weights. With a
cotangent g of the result this is a form linear in each of (g, M, w, x), and every derivative of it
is the same form without one of the four: one operator closes the family, to any order.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.forms import without
from surefoot.blocks.native import address, kernels, share
from surefoot.blocks.products import ChannelProduct
from surefoot.compilation import operator
from surefoot.graph import Graph, pairs_to_edges
from surefoot.segments import gather, segment_sum

GRADIENT, ANGULAR, RADIAL, SENT = range(4)
"""The four factors of the form: g, M, w, x."""

LEAST_ROWS = 64  # fewer rows than this are not worth a thread of their own


def convolve(
    sent: Float[Tensor, "*members atoms components channels"],
    harmonics: Float[Tensor, "*members edges angular"],
    radial: Float[Tensor, "*members pairs weights"],
    graph: Graph,
    product: ChannelProduct,
) -> Float[Tensor, "*members atoms results channels"]:
    """The sum over neighbours of the tensor product of their features with the harmonics.

    Args:
        sent: features of the senders.
        harmonics: of the edges.
        radial: one weight per path and channel, (…, pairs, paths · channels), the same for an edge
            and its reverse.
        graph: for its edges.
        product: which irreps meet.
    Returns:
        (…, atoms, results, channels) in the layout of `product.blocks`.
    """
    coupling = product.coupling.to(harmonics)
    angular = harmonics @ coupling
    weights = radial.unflatten(-1, (len(product.paths), sent.shape[-1]))
    if kernels(sent, angular, weights) is None:
        return _plain(angular, weights, sent, graph, product)
    value = _Convolve.apply(angular, weights, (sent,), product, graph)
    if sent.requires_grad:
        value = value + _SentBranch.apply(sent, (angular, weights), product, graph)
    return value  # type: ignore[no-any-return]


def _plain(
    angular: Tensor, weights: Tensor, sent: Tensor, graph: Graph, product: ChannelProduct
) -> Tensor:
    """The convolution edge by edge in plain torch, differentiable to any order."""
    x = gather(sent, graph.senders, axis=-3)
    w = pairs_to_edges(weights.flatten(-2), graph).unflatten(-1, weights.shape[-2:])
    parts: dict[int, Tensor] = {}
    for path, (start, inputs, first, stride, outputs, entry) in enumerate(product.table.tolist()):
        matrix = angular[..., entry : entry + inputs * outputs].unflatten(-1, (outputs, inputs))
        value = x[..., start : start + inputs, :] * w[..., path : path + 1, :]
        summed = segment_sum(matrix @ value, graph.receivers, axis=-3)
        for m, row in enumerate(summed.unbind(-2)):
            parts[first + m * stride] = row
    return torch.stack([parts[k] for k in range(product.results)], -2)


class _Convolve(torch.autograd.Function):
    """The convolution, with the slopes of M and w; the slope of x comes from `_SentBranch`.

    Split because features of the first layer know no geometry, so that the backward pass of forces
    does not need their slope, and an autograd function is not told which of its inputs are asked
    for. What is handed over in a tuple is no input to autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        angular: Tensor,
        weights: Tensor,
        sent: tuple[Tensor],
        product: ChannelProduct,
        graph: Graph,
    ) -> Tensor:
        ctx.sent, ctx.product, ctx.graph = sent[0], product, graph
        ctx.save_for_backward(angular, weights)
        return _differentiate(product, graph, GRADIENT, angular, weights, sent[0])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        angular, weights = ctx.saved_tensors
        form = partial(_differentiate, ctx.product, ctx.graph)
        slopes: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[0]:
            slopes[0] = without(form, ANGULAR, grads[0], weights, ctx.sent)
        if ctx.needs_input_grad[1]:
            slopes[1] = without(form, RADIAL, grads[0], angular, ctx.sent)
        return *slopes, None, None, None


class _SentBranch(torch.autograd.Function):
    """Zero, whose slope with respect to x is that of the convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        sent: Tensor,
        others: tuple[Tensor, Tensor],
        product: ChannelProduct,
        graph: Graph,
    ) -> Tensor:
        ctx.others, ctx.product, ctx.graph = others, product, graph
        return sent.new_zeros(()).expand(*sent.shape[:-2], product.results, sent.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        form = partial(_differentiate, ctx.product, ctx.graph)
        slope = without(form, SENT, grads[0], *ctx.others)
        return slope, None, None, None


class _Plan(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("paths", "senders", "receivers", "pairs")),
        *((name, ctypes.c_void_p) for name in ("receiver_offsets", "sender_order")),
        *((name, ctypes.c_void_p) for name in ("sender_offsets", "pair_edges")),
        ("pair_count", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("path_count", "channels", "components")),
        *((name, ctypes.c_int32) for name in ("results", "entries")),
    )


EDGES = (
    *("edge_index", "pair_index", "receiver_offsets"),
    *("sender_order", "sender_offsets", "pair_edges"),
)
"""What of a graph the kernels read."""

_products: dict[str, ChannelProduct] = {}  # an operator is told a product by its name


def _differentiate(product: ChannelProduct, graph: Graph, slot: int, *factors: Tensor) -> Tensor:
    """One derivative of the form; factors in the order g, M, w, x without `slot`."""
    _products[product.name] = product
    edges = [getattr(graph, name) for name in EDGES]
    return _form(slot, product.name, *factors, *edges)  # type: ignore[no-any-return]


def _sizes(
    product: ChannelProduct, edges: tuple[Tensor, ...], channels: int
) -> tuple[tuple[int, ...], ...]:
    """The shapes of g, M, w and x."""
    index, _, offsets, *_, pairs = edges
    atoms = offsets.shape[0] - 1
    return (
        (atoms, product.results, channels),
        (index.shape[1], product.coupling.shape[1]),
        (pairs.shape[1], len(product.paths), channels),
        (atoms, product.components, channels),
    )


def _empty(slot: int, name: str, *tensors: Tensor) -> Tensor:
    last, edges = tensors[2], tensors[3:]  # the last of any three factors is w or x
    size = _sizes(_products[name], edges, last.shape[-1])[slot]
    return last.new_empty((*last.shape[:-3], *size))


def _run_members(slot: int, name: str, a: Tensor, b: Tensor, c: Tensor, *edges: Tensor) -> Tensor:
    product = _products[name]
    if c.dim() == 3:
        return _run(slot, product, edges, (a, b, c))
    members = zip(a.unbind(0), b.unbind(0), c.unbind(0), strict=True)
    return torch.stack([_run(slot, product, edges, part) for part in members])


_form = operator(
    "convolution(int slot, str product, Tensor a, Tensor b, Tensor c, "
    + ", ".join(f"Tensor {name}" for name in EDGES)
    + ") -> Tensor",
    _run_members,
    _empty,
)


def _run(
    slot: int, product: ChannelProduct, edges: tuple[Tensor, ...], factors: tuple[Tensor, ...]
) -> Tensor:
    """The kernel for one set of weights."""
    library = kernels(*factors)
    if library is None:
        raise RuntimeError("a derivative was asked for where the kernels are not to be used.")
    index, pair_index, receiver_offsets, sender_order, sender_offsets, pair_edges = edges
    kept = [factor.contiguous() for factor in factors]
    channels = kept[-1].shape[-1]
    sizes = _sizes(product, edges, channels)
    slots = [other for other in range(4) if other != slot]
    # The kernel reads raw memory: what does not fit would be read past its end.
    for other, factor in zip(slots, kept, strict=True):
        if factor.shape != sizes[other]:
            raise ValueError(f"{tuple(factor.shape)} of a product has to be {sizes[other]}.")
    out = kept[0].new_empty(sizes[slot])
    receivers, senders = index.unbind()
    plan = _Plan(
        paths=product.table.ctypes.data,
        senders=address(senders),
        receivers=address(receivers),
        pairs=address(pair_index),
        receiver_offsets=address(receiver_offsets),
        sender_order=address(sender_order),
        sender_offsets=address(sender_offsets),
        pair_edges=address(pair_edges),
        pair_count=pair_edges.shape[1],
        path_count=len(product.paths),
        channels=channels,
        components=product.components,
        results=product.results,
        entries=product.coupling.shape[1],
    )
    kernel = {
        GRADIENT: library.convolution_out,
        ANGULAR: library.convolution_angular,
        RADIAL: library.convolution_radial,
        SENT: library.convolution_sender,
    }[slot]
    places = [address(factor) for factor in kept] + [address(out)]
    bound = ctypes.c_int64

    def work(begin: int, end: int) -> None:
        kernel(ctypes.byref(plan), *places, bound(begin), bound(end))

    share(out.shape[0], LEAST_ROWS, work)
    return out
