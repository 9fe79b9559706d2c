"""Positions, cell and cutoff to edges: one function, vesin behind it.

Every pair (receiver i, sender j, shift S) with 0 < |r_j + S·cell − r_i| < cutoff appears once in
each direction, images of an atom itself included; cells may be smaller than the cutoff and skewed,
and each axis may be periodic or not. Atoms at one place are refused: nothing that divides by their
distance would be a number. The cost is linear in the atoms, except for long wires (one
periodic axis), where the engine is slower than that.
"""

from __future__ import annotations

import numpy as np
import vesin
from jaxtyping import Bool, Float, Int

COINCIDENT = 1e-6  # Å; squares of smaller distances are lost in single precision


class CoincidentAtoms(ValueError):
    """Two atoms of a structure are at one place."""


def find_neighbors(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, " 3"],
    cutoff: float,
) -> tuple[Int[np.ndarray, "2 edges"], Int[np.ndarray, "edges 3"]]:
    """All neighbours within the cutoff, each pair in both directions.

    Args:
        positions: (atoms, 3) Å.
        cell: (3, 3) Å, rows are vectors; vectors of axes that are not periodic do not matter.
        pbc: (3) which axes are periodic.
        cutoff: Å.
    Returns:
        edge_index (2, edges): row 0 receivers, row 1 senders; edge_shift (edges, 3). The second
        half of the edges are the first half reversed, in the same order.
    Raises:
        CoincidentAtoms: if two atoms are at one place, naming both.
        ValueError: if a periodic axis has no cell vector, or the cutoff is not positive.
    """
    if not cutoff > 0:
        raise ValueError(f"the cutoff is {cutoff} Å; it must be positive.")
    if len(positions) < 1:
        return np.zeros((2, 0), np.int64), np.zeros((0, 3), np.int64)
    box = _complete_cell(cell, pbc)
    # One thread: the order of the edges, and with it every sum, is the same in every run.
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=False, sorted=True, n_threads=1)
    first, second, shifts, lengths = calculator.compute(
        points=np.ascontiguousarray(positions, np.float64),
        box=box,
        periodic=np.asarray(pbc, bool),
        quantities="ijSd",
    )
    _refuse_coincident(first, second, lengths)
    pairs = np.stack([first, second]).astype(np.int64)
    shifts = shifts.astype(np.int64)
    return np.concatenate([pairs, pairs[::-1]], axis=1), np.concatenate([shifts, -shifts])


def _refuse_coincident(first: np.ndarray, second: np.ndarray, lengths: np.ndarray) -> None:
    closest = lengths.min(initial=np.inf)
    if closest > COINCIDENT:
        return
    one, other = sorted((int(first[lengths.argmin()]), int(second[lengths.argmin()])))
    raise CoincidentAtoms(
        f"atoms {one} and {other} are {closest:.3f} Å apart; correct the positions or the cell, or "
        "remove one of them."
    )


def _complete_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """A cell of full rank: axes that are not periodic get vectors normal to the others."""
    box = np.array(cell, np.float64)
    for axis in range(3):
        if pbc[axis] and not np.linalg.norm(box[axis]) > 0:
            raise ValueError(
                f"axis {axis} is periodic but its cell vector is zero; "
                "set the cell or pbc of this axis to False."
            )
    if not pbc.any():
        return np.zeros((3, 3))
    periodic = box[pbc]
    if np.linalg.matrix_rank(periodic) < len(periodic):
        raise ValueError(f"the periodic cell vectors {periodic.tolist()} are linearly dependent.")
    # Rows of `normals` beyond the rank span what is normal to all periodic vectors.
    normals = np.linalg.svd(periodic)[2][len(periodic) :]
    box[~pbc] = normals
    return box
