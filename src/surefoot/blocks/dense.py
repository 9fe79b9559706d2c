"""Weight trees, dense layers, activations and species tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.segments import add_rows

Weights = dict[str, Tensor]
"""Dotted parameter name → tensor; stacked members have one more leading axis everywhere."""

Activation = Literal["shifted_softplus", "silu", "tanh"]


def shifted_softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x) − ln 2: a smooth ramp that is zero at zero (Schütt et al. 2017, eq. 2)."""
    return torch.nn.functional.softplus(x) - math.log(2.0)


SILU_SCALE = 1.6765324703310907
"""1 / √⟨silu(z)²⟩ over standard normal z: makes the SiLU of such values have unit variance."""


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "shifted_softplus": shifted_softplus,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
}

SLOPES: dict[Activation, Callable[[Tensor, Tensor], Tensor]] = {
    "shifted_softplus": lambda slope, x: torch.ops.aten.softplus_backward(slope, x, 1.0, 20.0),
    "silu": torch.ops.aten.silu_backward,
    "tanh": lambda slope, x: slope * (1 - torch.tanh(x).square()),
}
"""(slope of the result, x) → slope of x, where nothing is differentiated again."""


def init_silent(generator: torch.Generator, inputs: int, width: int, outputs: int) -> Weights:
    """A network `hidden`, `out` whose last map is zero: fresh, it gives zeros. Float64."""
    out = init_linear(generator, width, outputs)
    out["weight"].zero_()
    return under("hidden", init_linear(generator, inputs, width)) | under("out", out)


def init_linear(
    generator: torch.Generator, inputs: int, outputs: int, *, bias: bool = True
) -> Weights:
    """Glorot-uniform weights (inputs, outputs) and zero biases, float64.

    Weights are stored input first, so that `x @ weight` needs no transpose.
    """
    bound = math.sqrt(6.0 / (inputs + outputs))
    uniform = torch.rand((inputs, outputs), generator=generator, dtype=torch.float64)
    weights = {"weight": bound * (2 * uniform - 1)}
    if bias:
        weights["bias"] = torch.zeros(outputs, dtype=torch.float64)
    return weights


def init_table(
    generator: torch.Generator, species: int, channels: int
) -> Float[Tensor, "species channels"]:
    """Standard normal entries: one row of features per element."""
    return torch.randn((species, channels), generator=generator, dtype=torch.float64)


def linear(x: Float[Tensor, "*members rows inputs"], weights: Weights) -> Tensor:
    """Linear map x W + b, for one set of weights or for a leading axis of members."""
    product = x @ weights["weight"]
    bias = weights.get("bias")
    return product if bias is None else product + bias.unsqueeze(-2)


def init_network(generator: torch.Generator, widths: Sequence[int]) -> Weights:
    """Standard normal matrices between layers of these widths, float64, without biases."""
    return {
        f"layer{index}": torch.randn(shape, generator=generator, dtype=torch.float64)
        for index, shape in enumerate(pairwise(widths))
    }


def network(x: Float[Tensor, "*members rows inputs"], weights: Weights) -> Tensor:
    """A network whose values keep unit variance: x ← silu(x W / √inputs) c, the last layer linear.

    The weights are of order one and are divided here, so that an optimiser's step means the same
    in layers of any width. c is `SILU_SCALE`, applied to the next layer's weights.
    """
    scale = 1.0
    for index in range(len(weights)):
        if index:
            x, scale = torch.nn.functional.silu(x), SILU_SCALE
        matrix = weights[f"layer{index}"]
        x = x @ (matrix * (scale / math.sqrt(matrix.shape[-2])))
    return x


def lookup(
    table: Float[Tensor, "*members species channels"], species: Int[Tensor, " rows"]
) -> Float[Tensor, "*members rows channels"]:
    """The table's row of each species."""
    return _Lookup.apply(table, species)  # type: ignore[no-any-return]


class _Lookup(torch.autograd.Function):
    """Rows of a table; its derivative adds up what is asked of a row."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.index, ctx.count = index, table.shape[-2]
        return table.index_select(-2, index)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Added.apply(grads[0], ctx.index, ctx.count), None


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, count: int) -> Tensor:
        ctx.index = index
        return add_rows(rows, index, count, -2)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Lookup.apply(grads[0], ctx.index), None, None


def under(prefix: str, weights: Weights) -> Weights:
    """The same tree one level down: every name gets the prefix."""
    return {f"{prefix}.{name}": value for name, value in weights.items()}


def branch(weights: Weights, prefix: str) -> Weights:
    """The part of a tree below a prefix."""
    start = prefix + "."
    return {name[len(start) :]: value for name, value in weights.items() if name.startswith(start)}


def stack(members: Sequence[Weights]) -> Weights:
    """Trees of equal shape as one tree with a leading member axis."""
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


def unstack(weights: Weights) -> list[Weights]:
    """The members of a stacked tree."""
    count = next(iter(weights.values())).shape[0]
    return [{name: value[m] for name, value in weights.items()} for m in range(count)]


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """The tree in another precision."""
    return {name: value.to(dtype) for name, value in weights.items()}
