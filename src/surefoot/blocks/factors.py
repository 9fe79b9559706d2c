"""Networks whose last layer is left as a product, and whose hidden values are made by blocks.

    N(x) = H W,    H = silu(… silu(x W₀) …)

Where no derivative by the weights can be asked for, nothing but x is kept for the derivative by x:
each block of rows goes through the network again, and what is between its layers is as long as a
block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import SILU_SCALE, Weights
from surefoot.compilation import operator

BLOCK = 1024  # rows


@dataclass(frozen=True)
class Factors:
    """A product of two matrices that is left to be multiplied.

    Attributes:
        hidden: H, what the rows have of their own.
        matrix: W, the same for all rows.
    """

    hidden: Float[Tensor, "*members rows width"]
    matrix: Float[Tensor, "*members width outputs"]


def factorise(x: Float[Tensor, "*members rows inputs"], weights: Weights) -> Factors:
    """The factors of what `network` gives.

    Args:
        x: as there.
        weights: as there.
    """
    *matrices, last = (
        matrix * ((SILU_SCALE if index else 1.0) / math.sqrt(matrix.shape[-2]))
        for index, matrix in enumerate(weights[f"layer{n}"] for n in range(len(weights)))
    )
    if not matrices:
        return Factors(x, last)
    if any(matrix.requires_grad for matrix in matrices):
        return Factors(_plain(x, matrices), last)
    return Factors(_Hidden.apply(x, tuple(matrices)), last)


def _plain(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    return torch.nn.functional.silu(_layers(x, matrices)[-1])


def _layers(x: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    """The values of each layer before the activation."""
    values = [x @ matrices[0]]
    for matrix in matrices[1:]:
        values.append(torch.nn.functional.silu(values[-1]) @ matrix)
    return values


class _Hidden(torch.autograd.Function):
    """Hidden values of a network whose matrices are constants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrices: tuple[Tensor, ...]) -> Tensor:
        ctx.matrices = matrices
        ctx.save_for_backward(x)
        return _hidden(x, list(matrices))  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return _hidden_slope(grads[0], x, list(ctx.matrices)), None
        # The slope is to be differentiated itself.
        slope = torch.autograd.grad(_plain(x, ctx.matrices), x, grads[0], create_graph=True)
        return *slope, None


def _run(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    out = x.new_empty((*x.shape[:-1], matrices[-1].shape[-1]))
    for first in range(0, x.shape[-2], BLOCK):
        block = x[..., first : first + BLOCK, :]
        out[..., first : first + BLOCK, :] = _plain(block, matrices)
    return out


def _run_slope(slope: Tensor, x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    out = torch.empty_like(x)
    for first in range(0, x.shape[-2], BLOCK):
        layers = _layers(x[..., first : first + BLOCK, :], matrices)
        down = slope[..., first : first + BLOCK, :]
        for values, matrix in zip(reversed(layers), reversed(matrices), strict=True):
            down = torch.ops.aten.silu_backward(down, values) @ matrix.mT
        out[..., first : first + BLOCK, :] = down
    return out


_hidden = operator(
    "hidden(Tensor x, Tensor[] matrices) -> Tensor",
    _run,
    lambda x, matrices: x.new_empty((*x.shape[:-1], matrices[-1].shape[-1])),
    device="CompositeExplicitAutograd",  # any
)
_hidden_slope = operator(
    "hidden_slope(Tensor slope, Tensor x, Tensor[] matrices) -> Tensor",
    _run_slope,
    lambda _, x, __: torch.empty_like(x),
    device="CompositeExplicitAutograd",
)
