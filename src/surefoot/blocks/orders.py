"""Networks on the coefficients of an edge in its own frame, kept by order (see `frames`).

A turn about the edge takes coefficients of orders −m and m into each other; those of m = 0 stay.
`tapped` is any network, evaluated on turned copies of its input, whose answers are turned back and
averaged: it knows no symmetry, and gets it from the average up to what so few copies leave over.
`circular` is made of maps that commute with every turn (Passaro and Zitnick 2023): between
coefficients of one order, and of m = 0 through networks of any kind.

Coefficients are (…, edges, rows, channels); rows of one signed order are neighbours, so each map of
an order is one product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from surefoot.blocks.dense import SILU_SCALE, Weights, branch, linear, under
from surefoot.blocks.frames import count_rows, turn_table


@dataclass(frozen=True)
class Layout:
    """Which coefficients there are, and in how many copies a network sees them.

    Attributes:
        lmax: highest degree.
        mmax: highest order, at most lmax.
        taps: evenly spaced turns about the edge.
        mirrors: 2 where the mirror image of each turn is a copy too, otherwise 1.
    """

    lmax: int
    mmax: int
    taps: int = 1
    mirrors: int = 1

    @property
    def rows(self) -> int:
        """Coefficients of one channel."""
        return count_rows(self.lmax, self.mmax)

    @property
    def copies(self) -> int:
        """Turned and mirrored inputs; one where nothing turns."""
        return self.taps * self.mirrors if self.mmax else 1

    def sizes(self, channels: int) -> list[int]:
        """Numbers in m = 0 and in both signs of each order above, for so many channels."""
        pairs = [2 * (self.lmax + 1 - m) * channels for m in range(1, self.mmax + 1)]
        return [(self.lmax + 1) * channels, *pairs]

    def split(
        self, x: Float[Tensor, "*members edges rows channels"]
    ) -> tuple[Tensor, list[Tensor]]:
        """Order 0 as (…, edges, numbers), each order above as (…, edges, 2, numbers)."""
        flat = x.flatten(-2)
        zero, *above = flat.split(self.sizes(x.shape[-1]), dim=-1)
        return zero, [part.unflatten(-1, (2, part.shape[-1] // 2)) for part in above]


def init_dense(
    generator: torch.Generator, inputs: int, outputs: int, *, gain: float = 1.0, bias: bool = True
) -> Weights:
    """Uniform weights of variance gain² / inputs and zero biases, float64.

    Inputs of mean square 1 / gain² then give results of mean square one.
    """
    uniform = torch.rand((inputs, outputs), generator=generator, dtype=torch.float64)
    weights = {"weight": gain * (3 / inputs) ** 0.5 * (2 * uniform - 1)}
    return weights | ({"bias": torch.zeros(outputs, dtype=torch.float64)} if bias else {})


def init_tapped(
    generator: torch.Generator, layout: Layout, channels: int, hidden: int, edge: int
) -> Weights:
    """Fresh weights of `tapped` in float64.

    Args:
        generator: the only source of randomness.
        layout: of the coefficients.
        channels: of the result; the input has twice as many.
        hidden: width of the network.
        edge: numbers that describe the edge.
    """
    layers = {
        "gate": (edge, hidden, SILU_SCALE),
        "inwards": (2 * layout.rows * channels, hidden, 1.0),
        "hidden": (hidden, hidden, SILU_SCALE**2),
        "outwards": (hidden, layout.rows * channels, SILU_SCALE),
    }
    weights: Weights = {}
    for name, (*sizes, gain) in layers.items():
        weights |= under(name, init_dense(generator, *sizes, gain=gain))
    return weights


def tapped(
    x: Float[Tensor, "*members edges rows double"],
    gate: Float[Tensor, "*members edges hidden"],
    weights: Weights,
    layout: Layout,
) -> Float[Tensor, "*members edges rows channels"]:
    """The average of a network over turned copies of its input, turned back.

    y = 1/K Σ_k g_k⁻¹ silu(W₃ silu(W₂ (silu(W₁ g_k x) ∘ gate)))

    with biases. W₁ acts before the copies are made: it maps both signs of an order by what it has
    for both, and each copy is a combination of these four.

    Args:
        x: coefficients of sender and receiver, as channels side by side.
        gate: one number per hidden channel, the same for all copies.
        weights: `inwards`, `hidden` and `outwards`, input first; rows of `inwards` are by
            coefficient, then channel, columns of `outwards` likewise.
        layout: of the coefficients, and the copies.
    """
    hidden = _enter(x, branch(weights, "inwards"), layout)
    hidden = silu(hidden) * gate.unsqueeze(-2)
    hidden = silu(_apply(hidden, branch(weights, "hidden")))
    out = branch(weights, "outwards")
    if layout.copies == 1:
        return silu(_apply(hidden, out)).squeeze(-2).unflatten(-1, (layout.rows, -1))
    channels = out["bias"].shape[-1] // layout.rows
    # Weights are split, and not what they make, which is a hundred times as large.
    maps = zip(*(out[n].split(layout.sizes(channels), -1) for n in ("weight", "bias")), strict=True)
    zero, *above = (silu(_apply(hidden, {"weight": weight, "bias": bias})) for weight, bias in maps)
    results = [zero.mean(-2)]
    for order, part in enumerate(above, start=1):
        values = part.unflatten(-1, (2, part.shape[-1] // 2)).flatten(-3, -2).unbind(-2)
        table = turn_table(order, layout.taps, layout.mirrors)
        for sign in (0, 1):
            factors = [copy[other][sign] / layout.copies for copy in table for other in (0, 1)]
            results.append(_combine(factors, values))
    return torch.cat(results, dim=-1).unflatten(-1, (layout.rows, channels))


def _combine(factors: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """Σ f v, without the terms whose factor is zero: half of them, with four taps."""
    first, *others = [(f, v) for f, v in zip(factors, values, strict=True) if f != 0.0]
    total = first[0] * first[1]
    for factor, value in others:
        total = torch.add(total, value, alpha=factor)
    return total


def _enter(
    x: Tensor, weights: Weights, layout: Layout
) -> Float[Tensor, "*members edges copies hidden"]:
    """W₁ g_k x + b of all copies.

    With x = (x_−m, x_m) and a turn of cosine c and sine s it is, order by order,

        W g x = c (W_− x_− + W_+ x_+) + s (W_+ x_− − W_− x_+)

    so two products serve all turns; mirrors, which change the sign of x_−, need two more.
    """
    if layout.copies == 1:
        return linear(x.flatten(-2), weights).unsqueeze(-2)
    zero, above = layout.split(x)
    maps = weights["weight"].split(layout.sizes(x.shape[-1]), dim=-2)
    first = linear(zero, {**weights, "weight": maps[0]})
    factors: list[list[float]] = [[1.0] for _ in range(layout.copies)]
    parts = [first]
    for order, (values, matrix) in enumerate(zip(above, maps[1:], strict=True), start=1):
        low, high = matrix.chunk(2, dim=-2)
        wide = [(low, high), (high, -low), (-low, high), (-high, -low)][: 2 * layout.mirrors]
        columns = torch.cat([torch.cat(pair, dim=-2) for pair in wide], dim=-1)
        parts += (values.flatten(-2) @ columns).chunk(2 * layout.mirrors, dim=-1)
        for copy, (upper, lower) in enumerate(turn_table(order, layout.taps, 1) * layout.mirrors):
            place = 2 * (copy // layout.taps)
            given = [0.0] * (2 * layout.mirrors)
            given[place : place + 2] = upper[0], lower[0]
            factors[copy] += given
    return torch.stack([_combine(row, parts) for row in factors], dim=-2)


def _apply(x: Float[Tensor, "*members edges copies inputs"], weights: Weights) -> Tensor:
    shape = x.shape[-3:-1]
    return linear(x.flatten(-3, -2), weights).unflatten(-2, shape)


def init_circular(
    generator: torch.Generator, layout: Layout, channels: int, hidden: int, edge: int
) -> Weights:
    """Fresh weights of `circular` in float64; arguments as of `init_tapped`."""
    orders = layout.mmax + 1
    inputs = [2 * channels * (layout.lmax + 1 - m) for m in range(orders)]
    weights = {
        **under("gate", init_dense(generator, edge, orders * hidden)),
        **under("inwards0", init_dense(generator, inputs[0], hidden)),
        **under("hidden", init_dense(generator, hidden, orders * hidden)),
        **under("outwards0", init_dense(generator, hidden, inputs[0] // 2)),
    }
    for m in range(1, orders):
        inwards = init_dense(generator, inputs[m], hidden, bias=False)
        outwards = init_dense(generator, hidden, inputs[m] // 2, gain=SILU_SCALE**2, bias=False)
        weights |= under(f"inwards{m}", inwards) | under(f"outwards{m}", outwards)
    return weights


def circular(
    x: Float[Tensor, "*members edges rows double"],
    gate: Float[Tensor, "*members edges gates"],
    weights: Weights,
    layout: Layout,
) -> Float[Tensor, "*members edges rows channels"]:
    """A network that commutes with turns about the edge and with mirrors that hold it.

    h_m = (W_m x_m) ∘ gate_m,  n = W silu(h_0) + b,  y_0 = V_0 silu(n_0),  y_m = V_m (h_m ∘ σ(n_m))

    Both signs of an order see one map, so they are never mixed: that is what a mirror asks for.

    Args:
        x: coefficients of sender and receiver, as channels side by side.
        gate: (mmax + 1) · hidden numbers of the edge.
        weights: of `init_circular`.
        layout: of the coefficients.
    """
    zero, above = layout.split(x)
    by_order = gate.chunk(layout.mmax + 1, dim=-1)
    hidden = silu(linear(zero, branch(weights, "inwards0")) * by_order[0])
    first, *gates = linear(hidden, branch(weights, "hidden")).chunk(layout.mmax + 1, dim=-1)
    results = [linear(silu(first), branch(weights, "outwards0"))]
    for m, values in enumerate(above, start=1):
        inner = _apply(values, branch(weights, f"inwards{m}"))
        inner = inner * (by_order[m] * gates[m - 1].sigmoid()).unsqueeze(-2)
        results.append(_apply(inner, branch(weights, f"outwards{m}")).flatten(-2))
    return torch.cat(results, dim=-1).unflatten(-1, (layout.rows, x.shape[-1] // 2))
