"""The channel-wise tensor product of neighbours with harmonics, fused with the sum over edges.

    out[i, k, c] = Σ_{e received by i} Σ_m M[e, k, m] w[pair(e), path(k), c] x[sender(e), m, c]

with M[e, (m3, m1)] = √(2 l3 + 1) Σ_m2 C^{l1 l2 l3}[m1, m2, m3] Y[e, m2], without weights. With a
cotangent g of the result this is a form linear in each of (g, M, w, x), and every derivative of it
is the same form without one of the four: one operator closes the family, to any order.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.native import address, kernels, share
from surefoot.blocks.products import ChannelProduct
from surefoot.graph import Graph, gather, pairs_to_edges, segment_sum

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
        return _run_members(GRADIENT, product, graph, (angular, weights, sent[0]))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        angular, weights = ctx.saved_tensors
        static = ctx.product, ctx.graph
        slopes: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[0]:
            slopes[0] = _Form.apply(ANGULAR, *static, grads[0], weights, ctx.sent)
        if ctx.needs_input_grad[1]:
            slopes[1] = _Form.apply(RADIAL, *static, grads[0], angular, ctx.sent)
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
        slope = _Form.apply(SENT, ctx.product, ctx.graph, grads[0], *ctx.others)
        return slope, None, None, None


class _Form(torch.autograd.Function):
    """The form without one factor; its derivatives are the form without another one."""

    @staticmethod
    def forward(
        ctx: Any, slot: int, product: ChannelProduct, graph: Graph, *factors: Tensor
    ) -> Tensor:
        ctx.slot, ctx.product, ctx.graph = slot, product, graph
        ctx.save_for_backward(*factors)
        return _run_members(slot, product, graph, factors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        factors = list(ctx.saved_tensors)
        factors.insert(ctx.slot, grads[0])
        slopes = []
        for slot in range(4):
            if slot == ctx.slot:
                continue
            needed = ctx.needs_input_grad[3 + len(slopes)]
            others = factors[:slot] + factors[slot + 1 :]
            slopes.append(_Form.apply(slot, ctx.product, ctx.graph, *others) if needed else None)
        return None, None, None, *slopes


class _Plan(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("paths", "senders", "receivers", "pairs")),
        *((name, ctypes.c_void_p) for name in ("receiver_offsets", "sender_order")),
        *((name, ctypes.c_void_p) for name in ("sender_offsets", "pair_edges")),
        ("pair_count", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("path_count", "channels", "components")),
        *((name, ctypes.c_int32) for name in ("results", "entries")),
    )


def _run_members(
    slot: int, product: ChannelProduct, graph: Graph, factors: tuple[Tensor, ...]
) -> Tensor:
    if factors[-1].dim() == 3:  # the last of any three is w or x
        return _run(slot, product, graph, factors)
    members = zip(*(factor.unbind(0) for factor in factors), strict=True)
    return torch.stack([_run(slot, product, graph, part) for part in members])


def _run(slot: int, product: ChannelProduct, graph: Graph, factors: tuple[Tensor, ...]) -> Tensor:
    """One derivative of the form by the kernel; factors in the order g, M, w, x without `slot`."""
    library = kernels(*factors)
    if library is None:
        raise RuntimeError("a derivative was asked for where the kernels are not to be used.")
    kept = [factor.contiguous() for factor in factors]
    slots = [other for other in range(4) if other != slot]
    channels = kept[slots.index(RADIAL if slot != RADIAL else SENT)].shape[-1]
    atoms, edges = graph.numbers.shape[0], graph.edge_index.shape[1]
    shapes = {
        GRADIENT: (atoms, product.results, channels),
        ANGULAR: (edges, product.coupling.shape[1]),
        RADIAL: (graph.pair_edges.shape[1], len(product.paths), channels),
        SENT: (atoms, product.components, channels),
    }
    # The kernel reads raw memory: what does not fit would be read past its end.
    for other, factor in zip(slots, kept, strict=True):
        if factor.shape != shapes[other]:
            raise ValueError(f"{tuple(factor.shape)} of a product has to be {shapes[other]}.")
    out = kept[0].new_empty(shapes[slot])
    plan = _Plan(
        paths=product.table.ctypes.data,
        senders=address(graph.edge_index[1]),
        receivers=address(graph.edge_index[0]),
        pairs=address(graph.pair_index),
        receiver_offsets=address(graph.receiver_offsets),
        sender_order=address(graph.sender_order),
        sender_offsets=address(graph.sender_offsets),
        pair_edges=address(graph.pair_edges),
        pair_count=graph.pair_edges.shape[1],
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
