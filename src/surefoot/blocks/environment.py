"""Products of the tensors on an atom's rows with the tensors of the atom's environment.

    out_e = Σ_paths w_path √(2 l3 + 1) C(l1, l2, l3) · (x_e ⊗ A_{atom(e)})        channel by channel

The environment A is one for all rows e of an atom, and rows outnumber atoms by far. So A is coupled
first, once per atom, to a matrix M from the components of x to those of the result, and each row is
multiplied by its atom's matrix:

    M_a[i, k] = Σ_{path, j} w_path √(2 l3 + 1) C[i, j, k] A_a[j]
    out_e[k] = Σ_i x_e[i] M_{atom(e)}[i, k]

Per row and channel that is the number of matrix entries, whatever the number of paths.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.blocks.angular import clebsch_gordan
from surefoot.blocks.couplings import Irrep, Irreps, couple_irreps
from surefoot.blocks.dense import lookup
from surefoot.segments import Segments

TILE = 8  # rows of one small matrix product; an atom's last tile is filled up with zeros


@dataclass(frozen=True, eq=False)
class EnvironmentCouplings:
    """Which irreps of rows and environment couple to which, and by what coefficients.

    Attributes:
        inputs: irreps of the rows.
        environment: irreps of the atoms.
        outputs: irreps of the result.
        paths: positions in (inputs, environment, outputs) of each path; the weights are in this
            order: by output, then by input, then by environment.
        path: (environment × inputs × outputs components) the path of each triple of components.
        values: of the same shape, √(2 l3 + 1) C; zero where no path is.
    """

    inputs: Irreps
    environment: Irreps
    outputs: Irreps
    paths: tuple[tuple[int, int, int], ...]
    path: Int[np.ndarray, "environment inputs outputs"]
    values: Float[np.ndarray, "environment inputs outputs"]


@functools.cache
def environment_couplings(
    inputs: Irreps, environment: Irreps, outputs: Irreps
) -> EnvironmentCouplings:
    """All paths from inputs ⊗ environment to outputs, component-normalised; cached.

    Args:
        inputs: irreps of the rows, each with every channel.
        environment: irreps of the atoms.
        outputs: irreps wanted.
    """
    starts = [_starts(irreps) for irreps in (environment, inputs, outputs)]
    path = np.zeros([start[-1] for start in starts], dtype=np.int64)
    values = np.zeros(path.shape)
    paths = []
    for c, third in enumerate(outputs):
        for a, first in enumerate(inputs):
            for b, second in enumerate(environment):
                if third in couple_irreps(first, second):
                    block = np.ix_(
                        *(range(*s[n : n + 2]) for s, n in zip(starts, (b, a, c), strict=True))
                    )
                    path[block] = len(paths)
                    values[block] = _component_coupling(first, second, third)
                    paths.append((a, b, c))
    return EnvironmentCouplings(inputs, environment, outputs, tuple(paths), path, values)


def _starts(irreps: Irreps) -> list[int]:
    return np.cumsum([0, *(irrep.dim for irrep in irreps)]).tolist()


def _component_coupling(
    first: Irrep, second: Irrep, third: Irrep
) -> Float[np.ndarray, "environment inputs outputs"]:
    """√(2 l3 + 1) C: components of unit variance couple to components of unit variance."""
    coupling = clebsch_gordan(first.degree, second.degree, third.degree).numpy()
    return math.sqrt(third.dim) * coupling.transpose(1, 0, 2)


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Sorted rows in groups of `TILE`, each of one atom, so that small matrix products fit.

    Attributes:
        slot: (rows) place of each row among all places of the tiles.
        atom: tiles by atom, sorted.
    """

    slot: Int[Tensor, " rows"]
    atom: Segments


def tile_rows(segments: Segments) -> Tiles:
    """The tiles of sorted rows: at most `TILE` − 1 places per atom stay empty."""
    offsets, index = segments.offsets, segments.index
    ends = ((offsets.diff() + TILE - 1) // TILE).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends])
    rows = torch.arange(index.shape[0], device=index.device)
    atoms = torch.arange(segments.count, device=index.device)
    return Tiles(
        slot=rows + (TILE * starts[:-1] - offsets[:-1])[index],
        atom=Segments(index=torch.repeat_interleave(atoms, starts.diff()), offsets=starts),
    )


def couple_environment(
    rows: Float[Tensor, "*members rows components channels"],
    environment: Float[Tensor, "*members atoms second channels"],
    weights: Float[Tensor, "*members paths channels"],
    couplings: EnvironmentCouplings,
    tiles: Tiles,
) -> Float[Tensor, "*members rows outputs channels"]:
    """The tensor product of each row with its atom's environment; see the top of the file.

    Args:
        rows: x (…, rows, components, channels), sorted by atom.
        environment: A (…, atoms, components, channels).
        weights: w (…, paths, channels).
        couplings: the paths.
        tiles: of the rows, by `tile_rows`.
    """
    path = torch.as_tensor(couplings.path, device=rows.device)
    values = torch.as_tensor(couplings.values, device=rows.device).to(rows.dtype)
    table = lookup(weights, path.flatten()) * values.reshape(-1, 1)
    second, inputs, outputs = path.shape
    # Copies: batched products of operands without a contiguous axis fall back to a slow loop.
    table = table.mT.contiguous().unflatten(-1, (second, inputs * outputs))
    matrices = (environment.movedim(-1, -3).contiguous() @ table).movedim(-3, -2)
    return multiply_rows(rows, matrices.unflatten(-1, (inputs, outputs)), tiles)


def multiply_rows(
    rows: Float[Tensor, "*members rows inputs channels"],
    matrices: Float[Tensor, "*members atoms channels inputs outputs"],
    tiles: Tiles,
) -> Float[Tensor, "*members rows outputs channels"]:
    """Each row times its atom's matrix, channel by channel.

    out_e[k] = Σ_i x_e[i] M_{atom(e)}[i, k]

    The hot loop of the product. Only rows and matrices are kept for the backward pass, never a
    product per row; derivatives of any order are the same product, and its partner, a sum over
    the rows of an atom of x ⊗ g.
    """
    return _Multiply.apply(rows, matrices, tiles)  # type: ignore[no-any-return]


class _Multiply(torch.autograd.Function):
    """Rows times matrices; its derivatives are itself with transposed matrices, and `_Outer`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrices: Tensor, tiles: Tiles) -> Tensor:
        ctx.save_for_backward(rows, matrices)
        ctx.tiles = tiles
        picked = matrices.index_select(-4, tiles.atom.index)
        products = (_to_tiles(rows, tiles) @ picked).movedim(-3, -1)
        return products.flatten(-4, -3).index_select(-3, tiles.slot)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, matrices = ctx.saved_tensors
        to_rows = _Multiply.apply(grads[0], matrices.mT, ctx.tiles)
        return to_rows, _Outer.apply(rows, grads[0], ctx.tiles), None


class _Outer(torch.autograd.Function):
    """Sum over an atom's rows of x ⊗ g; its derivatives are products of rows and matrices."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, tiles: Tiles) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.tiles = tiles
        products = _to_tiles(left, tiles).mT @ _to_tiles(right, tiles)
        shape = list(products.shape)
        shape[-4] = tiles.atom.count
        return products.new_zeros(shape).index_add_(-4, tiles.atom.index, products)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        left, right = ctx.saved_tensors
        to_left = _Multiply.apply(right, grads[0].mT, ctx.tiles)
        return to_left, _Multiply.apply(left, grads[0], ctx.tiles), None


def _to_tiles(rows: Tensor, tiles: Tiles) -> Tensor:
    """(…, rows, I, U) → (…, tiles, U, TILE, I), zeros in empty places."""
    *members, _, components, channels = rows.shape
    count = tiles.atom.index.shape[0]
    places = rows.new_zeros((*members, count * TILE, components, channels))
    places.index_copy_(-3, tiles.slot, rows)
    return places.unflatten(-3, (count, TILE)).movedim(-1, -3)
