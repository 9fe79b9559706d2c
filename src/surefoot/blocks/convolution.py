"""The channel-wise tensor product of neighbours with harmonics, fused with the sum over edges.

    out[i, k, c] = Σ_{e received by i} Σ_m M[e, k, m] w[pair(e), path(k), c] x[sender(e), m, c]

with M[e, (m3, m1)] = √(2 l3 + 1) Σ_m2 C^{l1 l2 l3}[m1, m2, m3] Y[e, m2], without weights. With a
cotangent g of the result this is a form linear in each of (g, M, w, x), and every derivative of it
is the same form without one of the four: one operator closes the family, to any order.

Most of the memory of a model goes to w and M. Where w is a product of two factors, w = H W, the
form is linear in each of (g, Y, H, W, x), and a second operator gives it without one of the five.
It holds w and M, or their cotangents, for one block of pairs at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.couplings import Irrep
from surefoot.blocks.factors import Factors
from surefoot.blocks.forms import Form, without
from surefoot.blocks.native import address, kernels, share
from surefoot.blocks.products import ChannelProduct, channel_product
from surefoot.compilation import operator
from surefoot.graph import Graph, pairs_to_edges
from surefoot.segments import gather, segment_sum

GRADIENT, ANGULAR, RADIAL, SENT = range(4)
"""The factors of the form of four, g, M, w, x."""

HIDDEN, MATRIX = 2, 3
"""In the form of five, g, Y, H, W, x: those in the place of w."""

LEAST_ROWS = 64  # fewer rows than this are not worth a thread of their own
BLOCK = 1024  # pairs whose weights are held at a time


def convolve(
    sent: Float[Tensor, "*members atoms components channels"],
    harmonics: Float[Tensor, "*members edges angular"],
    radial: Float[Tensor, "*members pairs weights"] | Factors,
    graph: Graph,
    product: ChannelProduct,
) -> Float[Tensor, "*members atoms results channels"]:
    """The sum over neighbours of the tensor product of their features with the harmonics.

    Args:
        sent: features of the senders.
        harmonics: of the edges.
        radial: one weight per path and channel, (…, pairs, paths · channels), the same for an edge
            and its reverse; or its factors, which are then multiplied for some pairs at a time,
            here and anew in every derivative: for less memory and more time.
        graph: for its edges.
        product: which irreps meet.
    Returns:
        (…, atoms, results, channels) in the layout of `product.blocks`.
    """
    sizes = (len(product.paths), sent.shape[-1])
    if isinstance(radial, Factors) and kernels(sent, harmonics, radial.hidden) is not None:
        varying = harmonics, radial.hidden
        common: tuple[Tensor, ...] = radial.matrix.unflatten(-1, sizes), sent
    else:
        weights = radial.hidden @ radial.matrix if isinstance(radial, Factors) else radial
        varying = harmonics @ product.coupling.to(harmonics), weights.unflatten(-1, sizes)
        common = (sent,)
        if kernels(*varying, sent) is None:
            return _plain(*varying, sent, graph, product)
    form = partial(_differentiate, product, graph)
    value = _Convolve.apply(form, common, *varying)
    for place, factor in enumerate(common):
        if factor.requires_grad:
            others = (*varying, *common[:place], *common[place + 1 :])
            value = value + _Branch.apply(factor, others, form, 3 + place, value.shape)
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
    """The convolution, with the slopes of M and w or of Y and H; `_Branch` has those of the others.

    Split because neither W nor the features of the first layer know any geometry, so that the
    backward pass of forces does not need their slopes, and an autograd function is not told which
    of its inputs are asked for. What is handed over in a tuple is no input to autograd.
    """

    @staticmethod
    def forward(ctx: Any, form: Form, common: tuple[Tensor, ...], *varying: Tensor) -> Tensor:
        ctx.form, ctx.common = form, common
        ctx.save_for_backward(*varying)
        return form(GRADIENT, *varying, *common)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        angular, radial = ctx.saved_tensors
        slopes: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[2]:
            slopes[0] = without(ctx.form, ANGULAR, grads[0], radial, *ctx.common)
        if ctx.needs_input_grad[3]:
            slopes[1] = without(ctx.form, RADIAL, grads[0], angular, *ctx.common)
        return None, None, *slopes


class _Branch(torch.autograd.Function):
    """Zero, whose slope with respect to one factor is that of the convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        factor: Tensor,
        others: tuple[Tensor, ...],
        form: Form,
        slot: int,
        shape: Sequence[int],
    ) -> Tensor:
        ctx.others, ctx.form, ctx.slot = others, form, slot
        return factor.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return without(ctx.form, ctx.slot, grads[0], *ctx.others), None, None, None, None


class _Plan(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("paths", "senders", "receivers", "pairs")),
        *((name, ctypes.c_void_p) for name in ("receiver_offsets", "sender_order")),
        *((name, ctypes.c_void_p) for name in ("sender_offsets", "pair_edges", "edges")),
        *((name, ctypes.c_int64) for name in ("pair_count", "edge_count", "first_pair")),
        *((name, ctypes.c_int32) for name in ("path_count", "channels", "components")),
        *((name, ctypes.c_int32) for name in ("results", "entries")),
    )


EDGES = (
    *("edge_index", "pair_index", "receiver_offsets"),
    *("sender_order", "sender_offsets", "pair_edges"),
)
"""What of a graph the kernels read."""

KERNELS = ("convolution_out", "convolution_angular", "convolution_radial", "convolution_sender")
"""Those that find g, M, w and x: `KERNELS[slot]`."""

SCALARS = channel_product(*[(Irrep(0, 1),)] * 3)

_products: dict[str, ChannelProduct] = {}  # an operator is told a product by its name


def _differentiate(product: ChannelProduct, graph: Graph, slot: int, *factors: Tensor) -> Tensor:
    """One derivative of the form of as many factors, in their order without `slot`, and one."""
    _products[product.name] = product
    edges = [getattr(graph, name) for name in EDGES]
    form = _form if len(factors) == 3 else _streamed
    return form(slot, product.name, *factors, *edges)  # type: ignore[no-any-return]


def _sizes(
    product: ChannelProduct, edges: Sequence[Tensor], slot: int, factors: Sequence[Tensor]
) -> list[tuple[int, ...]]:
    """The shapes of g, M, w and x or of g, Y, H, W and x, by the factors without `slot`."""
    atoms, pairs = edges[2].shape[0] - 1, edges[-1].shape[1]
    edge_count, channels = edges[0].shape[1], factors[-1].shape[-1]
    ends = (atoms, product.results, channels), (atoms, product.components, channels)
    angular, entries = product.coupling.shape
    weights = len(product.paths), channels
    if len(factors) == 3:
        return [ends[0], (edge_count, entries), (pairs, *weights), ends[1]]
    width = factors[2].shape[-3] if slot == HIDDEN else factors[HIDDEN - (slot < HIDDEN)].shape[-1]
    return [ends[0], (edge_count, angular), (pairs, width), (width, *weights), ends[1]]


def _operator(name: str, count: int, run: Callable[..., Tensor]) -> Callable[..., Any]:
    """The form without one of its factors, of which `count` others are given, as an operator."""

    def run_members(slot: int, name: str, *tensors: Tensor) -> Tensor:
        product, factors, edges = _products[name], tensors[:count], tensors[count:]
        if factors[-1].dim() == 3:  # whichever it is of w, W and x
            return run(slot, product, edges, factors)
        members = zip(*(factor.unbind(0) for factor in factors), strict=True)
        return torch.stack([run(slot, product, edges, part) for part in members])

    def empty(slot: int, name: str, *tensors: Tensor) -> Tensor:
        product, factors, edges = _products[name], tensors[:count], tensors[count:]
        size = _sizes(product, edges, slot, factors)[slot]
        return factors[-1].new_empty((*factors[-1].shape[:-3], *size))

    names = [f"factor{place}" for place in range(count)]
    arguments = ", ".join(f"Tensor {name}" for name in (*names, *EDGES))
    return operator(f"{name}(int slot, str product, {arguments}) -> Tensor", run_members, empty)


def _fit(
    slot: int, product: ChannelProduct, edges: Sequence[Tensor], factors: Sequence[Tensor]
) -> tuple[ctypes.CDLL, _Plan, list[Tensor]]:
    """The kernels, what they are told, and all factors; that of `slot` has no values yet."""
    library = kernels(*factors)
    if library is None:
        raise RuntimeError("a derivative was asked for where the kernels are not to be used.")
    whole = [factor.contiguous() for factor in factors]
    sizes = _sizes(product, edges, slot, whole)
    whole.insert(slot, whole[0].new_empty(sizes[slot]))
    # The kernel reads raw memory: what does not fit would be read past its end.
    for factor, size in zip(whole, sizes, strict=True):
        if factor.shape != size:
            raise ValueError(f"{tuple(factor.shape)} of a product has to be {size}.")
    plan = _plan(product, edges, whole[-1].shape[-1])
    return library, plan, whole


def _plan(product: ChannelProduct, edges: Sequence[Tensor], channels: int) -> _Plan:
    """What the kernels are told of a product and the edges of a graph, in the order of `EDGES`."""
    index, pair_index, receiver_offsets, sender_order, sender_offsets, pair_edges = edges
    receivers, senders = index.unbind()
    return _Plan(
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


def _work(kernel: Any, plan: _Plan, slot: int, factors: Sequence[Tensor]) -> Callable[..., None]:
    """A kernel that finds the factor of `slot` from the others, for a range of what it counts."""
    places = [address(factor) for factor in (*factors[:slot], *factors[slot + 1 :], factors[slot])]

    def work(begin: int, end: int) -> None:
        kernel(ctypes.byref(plan), *places, ctypes.c_int64(begin), ctypes.c_int64(end))

    return work


def _run(
    slot: int, product: ChannelProduct, edges: Sequence[Tensor], factors: Sequence[Tensor]
) -> Tensor:
    """The form of four without one, for one set of weights."""
    library, plan, whole = _fit(slot, product, edges, factors)
    work = _work(getattr(library, KERNELS[slot]), plan, slot, whole)
    share(whole[slot].shape[0], LEAST_ROWS, work)
    return whole[slot]


def _stream(
    slot: int, product: ChannelProduct, edges: Sequence[Tensor], factors: Sequence[Tensor]
) -> Tensor:
    """The form of five without one, for one set of weights, by blocks of pairs."""
    library, plan, whole = _fit(slot, product, edges, factors)
    out, pair_edges = whole[slot].zero_(), edges[-1]
    g, harmonics, hidden, matrix, sent = whole
    matrix, coupling = matrix.flatten(1), product.coupling.to(sent)
    seen = (GRADIENT, ANGULAR, RADIAL, RADIAL, SENT)[slot]  # what the kernel finds
    blocks = PairBlocks(library, plan, pair_edges)
    most = min(BLOCK, plan.pair_count)
    spaces = sent.new_empty((most, matrix.shape[1])), sent.new_empty((2 * most, plan.entries))
    for rows, chosen in blocks.walk(BLOCK):
        weights, angular = spaces[0][: len(chosen) // 2], spaces[1][: len(chosen)]
        if seen == RADIAL:
            weights.zero_()
        else:
            torch.mm(hidden[rows], matrix, out=weights)
        if seen == ANGULAR:
            angular.zero_()
        else:
            torch.mm(harmonics.index_select(0, chosen), coupling, out=angular)
        blocks.run(seen, g, angular, weights, sent)
        if slot == ANGULAR:
            out.index_copy_(0, chosen, angular @ coupling.T)
        elif slot == HIDDEN:
            torch.mm(weights, matrix.T, out=out[rows])
        elif slot == MATRIX:
            matrix.addmm_(hidden[rows].T, weights)
    return out


@dataclass
class PairBlocks:
    """The loops of the form of four over the edges of one block of pairs after the other.

    Attributes:
        library: the kernels.
        plan: of the product and the graph; a block leaves its edges there.
        pair_edges: (2, pairs) of the graph.
    """

    library: ctypes.CDLL
    plan: _Plan
    pair_edges: Tensor

    def walk(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """The pairs of each block, and its edges in the order of their receivers."""
        plan = self.plan
        for first in range(0, plan.pair_count, size):
            rows = slice(first, first + size)
            chosen = self.pair_edges[:, rows].flatten().sort().values
            plan.first_pair, plan.edges, plan.edge_count = first, address(chosen), len(chosen)
            yield rows, chosen

    def run(self, slot: int, *factors: Tensor) -> None:
        """Add what the block gives to the factor of `slot`; M and w are those of the block."""
        work = _work(getattr(self.library, f"{KERNELS[slot]}_block"), self.plan, slot, factors)
        if slot == ANGULAR:
            share(self.plan.edge_count, LEAST_ROWS, work)
        else:
            lanes = ctypes.c_int32.in_dll(self.library, "lanes").value
            share(-(-self.plan.channels // lanes), 1, work)


def scalar_blocks(edges: Sequence[Tensor], like: Tensor) -> PairBlocks:
    """The loops where all is a scalar: features, harmonics and result.

    Args:
        edges: what `EDGES` names.
        like: features; of their channels and precision.
    """
    library = kernels(like)
    if library is None:
        raise RuntimeError("blocks of pairs were asked for where the kernels are not to be used.")
    return PairBlocks(library, _plan(SCALARS, edges, like.shape[-1]), edges[-1])


_form = _operator("convolution", 3, _run)
_streamed = _operator("streamed_convolution", 4, _stream)
