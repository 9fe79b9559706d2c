"""Frames of edges: a rotation that puts an edge on the polar axis, and what it does to harmonics.

In such a frame a turn about the edge takes orders m and −m of a harmonic into each other and leaves
degrees apart. Coefficients with |m| ≤ mmax are therefore kept by order: first m = 0 with degrees
0 … L, then for each order m = 1 … mmax the coefficients of −m and those of +m, degrees m … L each.

A rotation that takes v̂ to the polar axis is fixed up to a turn about it, and no choice of that
turn is smooth on the whole sphere. Two are given here, singular in opposite directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.angular import clebsch_gordan

TILT = (
    (-0.8, 0.6, 0.0),
    (0.48, 0.64, 0.6),
    (0.36, 0.48, -0.8),
)
"""A rotation that puts the singular directions where no bond of a crystal lies by habit."""

LEAST = 1e-3  # 1 + cos of the angle to the polar axis below which a frame is no longer right
OVERLAP = 0.8  # cosines to either side of the equator between which two frames are mixed


@dataclass(frozen=True)
class Frames:
    """Rotations that put edges on the polar axis.

    Attributes:
        rotations: (…, edges, frames, 3, 3).
        weights: (…, edges, frames), one in all, or None for one frame.
    """

    rotations: Float[Tensor, "*members edges frames 3 3"]
    weights: Float[Tensor, "*members edges frames"] | None = None


def count_rows(lmax: int, mmax: int) -> int:
    """Coefficients of degrees up to lmax with |m| ≤ mmax."""
    return sum(2 * min(degree, mmax) + 1 for degree in range(lmax + 1))


def orders(lmax: int, mmax: int) -> tuple[tuple[int, int], ...]:
    """(degree, m) of each coefficient that is kept, by order; see the top of the file."""
    signed = [0, *(m for order in range(1, mmax + 1) for m in (-order, order))]
    return tuple((degree, m) for m in signed for degree in range(abs(m), lmax + 1))


def by_degree(lmax: int, mmax: int) -> tuple[int, ...]:
    """Where each coefficient kept by order stands among the same ones kept by degree."""
    degrees = [
        (degree, m)
        for degree in range(lmax + 1)
        for m in range(-min(degree, mmax), min(degree, mmax) + 1)
    ]
    return tuple(degrees.index(row) for row in orders(lmax, mmax))


def edge_frames(
    vectors: Float[Tensor, "*members edges 3"],
) -> Float[Tensor, "*members edges 2 3 3"]:
    """Two rotations of each edge that take it to the polar axis y: R v = |v| ŷ.

    The first turns by the shortest way in axes that are tilted by `TILT`, and is singular opposite
    to the polar axis there; the second is the first after half a turn, and singular at the polar
    axis. Close to where one is singular its matrix is finite but no rotation.

    Args:
        vectors: (…, edges, 3), none of length zero.
    """
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    tilt, half = _axes(vectors.dtype, vectors.device)
    first = (vectors / lengths) @ tilt.mT
    return torch.stack(
        [_shortest(first) @ tilt, _shortest(first * half) @ (half[:, None] * tilt)], -3
    )


def _shortest(unit: Float[Tensor, "*members edges 3"]) -> Float[Tensor, "*members edges 3 3"]:
    """The shortest turn to the polar axis, by Rodrigues' formula with the sine taken out."""
    x, y, z = unit.unbind(-1)
    over = 1 / (1 + y).clamp(min=LEAST)
    rows = (1 - x * x * over, -x, -x * z * over, x, y, z, -x * z * over, -z, 1 - z * z * over)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def frame_weights(
    vectors: Float[Tensor, "*members edges 3"],
) -> Float[Tensor, "*members edges 2"]:
    """How much each of `edge_frames` counts: smooth, one in all, zero where a frame is singular.

    w_1 = s³ (10 − 15 s + 6 s²), s from 0 to 1 between the cosines ∓`OVERLAP`;  w_2 = 1 − w_1
    """
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    tilt, _ = _axes(vectors.dtype, vectors.device)
    height = (vectors * tilt[1]).sum(-1) / lengths
    s = (0.5 * (height / OVERLAP + 1)).clamp(min=0.0, max=1.0)
    first = s**3 * (10 + s * (6 * s - 15))
    return torch.stack([first, 1 - first], dim=-1)


def nearer_frame(
    vectors: Float[Tensor, "*members edges 3"],
) -> Float[Tensor, "*members edges 3 3"]:
    """The one of `edge_frames` that is far from being singular: for what no turn can change."""
    tilt, _ = _axes(vectors.dtype, vectors.device)
    above = ((vectors * tilt[1]).sum(-1) >= 0)[..., None, None]
    first, second = edge_frames(vectors).unbind(-3)
    return torch.where(above, first, second)


def wigner_blocks(
    rotations: Float[Tensor, "*edges 3 3"], lmax: int, mmax: int
) -> Float[Tensor, "*edges entries"]:
    """The rows |m| ≤ mmax of D with Y(R v) = D(R) Y(v), differentiable to any order.

    Only a row m of degree l − 1 and the polar axis couple to row m of degree l, |m| < l,

        D^l[m] = (D^(l−1)[m] ⊗ R[y]) C / C[m, y, m]

    and the rows ±l come from the rows ±(l − 1) and the two other axes. The cost is that of
    2 mmax + 1 sets of harmonics.

    Args:
        rotations: (…, 3, 3) that act on columns (x, y, z).
        lmax: highest degree, 0 to 11.
        mmax: highest order that is kept; what is above lmax does not matter.
    Returns:
        (…, entries): the blocks of degree 0 … lmax one after the other, each with its rows by m,
        2 l + 1 numbers to a row.
    """
    rows = rotations.new_ones((*rotations.shape[:-2], 1, 1))
    polar = rotations[..., None, 1, :]
    blocks = [rows.flatten(-2)]
    for degree in range(1, lmax + 1):
        table, scale, outer = _climb(degree, mmax, rotations.dtype, rotations.device)
        climbed = ((rows.unsqueeze(-1) * polar.unsqueeze(-2)).flatten(-2) @ table) * scale
        if degree <= mmax:
            ends = rows if degree == 1 else torch.stack([rows[..., 0, :], rows[..., -1, :]], -2)
            product = ends[..., :, None, :, None] * rotations[..., None, ::2, None, :]
            low, high = (outer @ (product.flatten(-2).flatten(-3, -2) @ table)).split(1, dim=-2)
            climbed = torch.cat([low, climbed, high], dim=-2)
        rows = climbed
        blocks.append(rows.flatten(-2))
    return torch.cat(blocks, dim=-1)


Turn = tuple[tuple[float, float], tuple[float, float]]
"""A matrix of two rows."""


@cache
def turn_table(order: int, taps: int, mirrors: int) -> tuple[Turn, ...]:
    """What turns about the polar axis, and mirrors that hold it, do to orders −m and m.

    (y_−m, y_m) of a copy is matrix · (y_−m, y_m): for a turn by φ the cosine of m φ on the diagonal
    and ∓ its sine beside it; a mirror first changes the sign of −m.

    Args:
        order: m, 1 or more.
        taps: evenly spaced turns, the first by nothing.
        mirrors: 1 for the turns alone, 2 for these and then their mirror images.
    Returns:
        taps · mirrors matrices; each is orthogonal, and zeros are zero to the bit.
    """
    turned, flipped = [], []
    for tap in range(taps):
        angle = 2 * math.pi * (order * tap % taps) / taps
        cosine, sine = (x if abs(x) > 1e-15 else 0.0 for x in (math.cos(angle), math.sin(angle)))
        turned.append(((cosine, -sine), (sine, cosine)))
        flipped.append(((-cosine, -sine), (-sine, cosine)))
    return (*turned, *flipped)[: taps * mirrors]


@cache
def _axes(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The tilt, and the diagonal of half a turn about x."""
    with torch.inference_mode(mode=False):
        tilt = torch.tensor(TILT, dtype=torch.float64)
        return tilt.to(dtype=dtype, device=device), tilt.new_tensor([1, -1, -1]).to(dtype).to(
            device
        )


@cache
def _climb(
    degree: int, mmax: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """From the rows of degree − 1 to those of a degree.

    Returns:
        The coupling (products, components) of degree − 1 and 1 to degree; 1 / C[m, y, m] of each
        row |m| < degree that is kept (rows, 1); and by what the products of rows ±(degree − 1)
        with the axes x and z make rows ∓ and ± degree (2, products).
    """
    with torch.inference_mode(mode=False):
        coupling = clebsch_gordan(degree - 1, 1, degree)
        last = min(degree - 1, mmax)
        m = torch.arange(-last, last + 1)
        scale = 1 / coupling[m + degree - 1, 1, m + degree]
        ends = coupling[[0] if degree == 1 else [0, -1]][:, ::2][..., [0, -1]]
        outer = (2 * degree + 1) * ends.flatten(0, 1).mT
        tables = coupling.flatten(0, 1), scale.unsqueeze(-1), outer
        found = [table.to(dtype=dtype, device=device).contiguous() for table in tables]
        return found[0], found[1], found[2]
