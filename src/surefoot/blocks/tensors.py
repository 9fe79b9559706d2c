"""Symmetric 3×3 tensors of degree 2: made of five components, bounded, and put in the exponent.

Nothing here looks for eigenvalues: their derivatives do not exist where two of them meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.angular import clebsch_gordan

SQUARINGS = 4  # of the exponential
LARGEST = 5.0  # eigenvalue to which the exponential is exact to rounding


def to_matrix(components: Float[Tensor, "*shape 5"]) -> Float[Tensor, "*shape 3 3"]:
    """The traceless symmetric matrix of degree-2 components, of the same norm.

    Q_ab = √5 Σ_m C[a, b, m] q_m with the coupling C of two vectors to degree 2.
    """
    return (components @ _coupling(components.dtype, components.device)).unflatten(-1, (3, 3))


@cache
def _coupling(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "5 9"]:
    # A tensor born in inference mode could never again take part in a derivative.
    with torch.inference_mode(mode=False):
        table = math.sqrt(5) * clebsch_gordan(1, 1, 2).flatten(0, 1).T.contiguous()
        return table.to(dtype=dtype, device=device)


def bound_norm(values: Float[Tensor, "*shape size"], limit: float) -> Float[Tensor, "*shape size"]:
    """Each vector with a norm below a limit, smoothly: q / √(1 + |q|² / limit²)."""
    return values * torch.rsqrt(1.0 + values.square().sum(-1, keepdim=True) / limit**2)


def exponential(matrix: Float[Tensor, "*shape 3 3"]) -> Float[Tensor, "*shape 3 3"]:
    """e^A of symmetric matrices, differentiable to any order.

    e^A = (Σ_{n<12} (A / 2^k)^n / n!)^(2^k), the series in portions of four powers: nine products
    of matrices for k = 4, and nothing that depends on values.

    Args:
        matrix: (…, 3, 3), symmetric, eigenvalues within ±`LARGEST`; beyond, digits are lost.
    """
    first = matrix / 2**SQUARINGS
    second = first @ first
    powers = torch.eye(3, dtype=matrix.dtype, device=matrix.device), first, second, second @ first
    fourth = second @ second
    result = _portion(powers, 8)
    for start in (4, 0):
        result = _portion(powers, start) + fourth @ result
    for _ in range(SQUARINGS):
        result = result @ result
    return result


def _portion(powers: Sequence[Tensor], start: int) -> Tensor:
    """Σ_n A^n / (start + n)!."""
    return sum(
        (power / math.factorial(start + n) for n, power in enumerate(powers) if n),
        powers[0] / math.factorial(start),
    )
