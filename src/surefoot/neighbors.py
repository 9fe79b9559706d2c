"""Positions, cell and cutoff to edges: one function, vesin behind it where it can be.

Every pair (receiver i, sender j, shift S) with 0 < |r_j + S·cell − r_i| < cutoff appears once in
each direction, images of an atom itself included; cells may be smaller than the cutoff and skewed,
and each axis may be periodic or not. Atoms at one place are refused: nothing that divides by their
distance would be a number. The cost is linear in the atoms, except for long wires (one
periodic axis), where the engine is slower than that.
"""

from __future__ import annotations

import itertools

import numpy as np
import vesin
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

GAP = 10  # cutoffs without an atom along an axis that is not periodic
LARGEST = 1e9  # Å, of positions and cell vectors
PAIRS, PAIRS_OF_ATOM = 10_000_000, 2000
"""What a structure may have of them, and more for each atom: water has 700 within 12 Å."""
IMAGES = 1e3  # of a cell along one axis
LONG = 500.0  # Å, beyond which trees search
CELLS = 1e5  # that the engine looks through at most
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
        ValueError: if a periodic axis has no cell vector, the cutoff is not positive, a number is
            not finite, or the cell is so small that atoms would have neighbours without end.
    """
    if not cutoff > 0:
        raise ValueError(f"the cutoff is {cutoff} Å; it must be positive.")
    if len(positions) < 1:
        return np.zeros((2, 0), np.int64), np.zeros((0, 3), np.int64)
    _refuse_nonsense(positions, cell, pbc)
    box, widths = _complete_cell(cell, pbc)
    if len(widths):
        _refuse_crowds(len(positions), widths, cutoff)
    positions = _without_gaps(np.asarray(positions, np.float64), box, pbc, cutoff)
    search = _search_cells if _fits_engine(positions, box, pbc, cutoff) else _search_tree
    first, second, shifts, lengths = search(positions, box, pbc, cutoff)
    _refuse_coincident(first, second, lengths)
    pairs = np.stack([first, second]).astype(np.int64)
    shifts = shifts.astype(np.int64)
    return np.concatenate([pairs, pairs[::-1]], axis=1), np.concatenate([shifts, -shifts])


Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""First and second atom of each pair, the shift of the second, and their distance."""


def _search_cells(positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float) -> Found:
    """Each pair once, by the engine."""
    # One thread: the order of the edges, and with it every sum, is the same in every run.
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=False, sorted=True, n_threads=1)
    first, second, shifts, lengths = calculator.compute(
        points=np.ascontiguousarray(positions, np.float64),
        box=box,
        periodic=np.asarray(pbc, bool),
        quantities="ijSd",
    )
    return first, second, shifts, lengths


def _fits_engine(positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float) -> bool:
    """Whether the engine finds pairs here: in very long or flat boxes it divides by zero.

    It looks through cells as long as the cutoff. Where they are more than `CELLS` it makes them
    longer, so that their numbers keep their ratios and give `CELLS` together, and rounds down:
    along a short axis none is left. What else ends it in boxes that are long is not known.
    """
    free = np.eye(3) if not pbc.any() else box[~pbc]
    sides = np.ptp(positions @ free.T, axis=0)
    lengths = np.concatenate([sides, np.linalg.norm(box[pbc], axis=1)])
    if lengths.max() > LONG:
        return False
    if pbc.any():
        sides = 1 / np.linalg.norm(np.linalg.inv(box), axis=0)
    x, y, z = np.maximum(np.trunc(sides / cutoff), 1.0)
    if x * y * z <= CELLS:
        return True
    fewest = np.cbrt(CELLS / (x / y * (y / z) ** 2))
    return bool(min(fewest, y / z * np.trunc(fewest), x / z * np.trunc(fewest)) > 1 + 1e-6)


def _search_tree(positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float) -> Found:
    """The same by trees of the atoms and of their images, sorted by atoms and shifts."""
    box = box if pbc.any() else np.eye(3)
    inverse = np.linalg.inv(box)
    cells = np.where(pbc, np.floor(positions @ inverse), 0.0)
    inside = positions - cells @ box
    fractions, margin = inside @ inverse, cutoff * np.linalg.norm(inverse, axis=0)
    reach = np.where(pbc, np.ceil(margin), 0.0).astype(int)
    owners, offsets = [], []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        moved = fractions + shift
        near = ~pbc | ((moved > -margin) & (moved < 1 + margin))
        chosen = np.flatnonzero(near.all(1))
        owners.append(chosen)
        offsets.append(np.tile(shift, (len(chosen), 1)))
    owner, offset = np.concatenate(owners), np.concatenate(offsets)
    images = KDTree(inside[owner] + offset @ box)
    pairs = KDTree(inside).sparse_distance_matrix(images, cutoff, output_type="ndarray")
    first, second = pairs["i"], owner[pairs["j"]]
    shifts = (offset[pairs["j"]] - cells[second] + cells[first]).astype(np.int64)
    leading = np.sign(shifts) @ np.array([9, 3, 1])  # that of the first number that is not zero
    once = ((first < second) | ((first == second) & (leading > 0))) & (pairs["v"] < cutoff)
    first, second, shifts, lengths = first[once], second[once], shifts[once], pairs["v"][once]
    order = np.lexsort((*shifts.T[::-1], second, first))
    return first[order], second[order], shifts[order], lengths[order]


def _refuse_nonsense(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
    sane = (np.abs(positions) < LARGEST).all(1)
    if not sane.all():
        raise ValueError(
            f"a position of atom {int(np.flatnonzero(~sane)[0])} is not finite, or beyond "
            f"{LARGEST:g} Å."
        )
    if not (np.abs(cell[pbc]) < LARGEST).all():
        raise ValueError(f"a cell vector is not finite, or longer than {LARGEST:g} Å.")


def _refuse_crowds(atoms: int, widths: np.ndarray, cutoff: float) -> None:
    """Refuse cells whose images would fill the memory: their atoms are at one place, nearly.

    Args:
        atoms: how many.
        widths: singular values of the periodic vectors, Å, in descending order.
        cutoff: Å.
    """
    volume = float(np.prod(widths))
    ball = (1.0, 2 * cutoff, np.pi * cutoff**2, 4 / 3 * np.pi * cutoff**3)[len(widths)]
    crowded = atoms**2 * ball > volume * (PAIRS + PAIRS_OF_ATOM * atoms)
    if crowded or not cutoff < IMAGES * widths[-1]:
        raise ValueError(
            f"the cell is {widths[-1]:.3g} Å thin, and its {atoms} atoms would have neighbours "
            "without end; correct the cell, whose lengths are in Å."
        )


def _without_gaps(
    positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float
) -> np.ndarray:
    """Positions with the same neighbours and no empty space that is longer than it need be.

    The engine looks through all of it, and its counts overflow where an atom has flown off.
    """
    free = np.eye(3) if not pbc.any() else box[~pbc]
    for axis in free:
        along = positions @ axis
        if np.ptp(along) < GAP * cutoff:
            continue
        order = np.argsort(along, kind="stable")
        steps = np.diff(along[order])
        if steps.max(initial=0.0) < GAP * cutoff:
            continue
        moved = np.zeros_like(along)
        moved[order[1:]] = np.cumsum(np.minimum(steps, 2 * cutoff))
        positions = positions - np.outer(along, axis) + np.outer(moved, axis)
    return positions


def _refuse_coincident(first: np.ndarray, second: np.ndarray, lengths: np.ndarray) -> None:
    closest = lengths.min(initial=np.inf)
    if closest > COINCIDENT:
        return
    one, other = sorted((int(first[lengths.argmin()]), int(second[lengths.argmin()])))
    raise CoincidentAtoms(
        f"atoms {one} and {other} are {closest:.3f} Å apart; correct the positions or the cell, or "
        "remove one of them."
    )


def _complete_cell(cell: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cell of full rank, and the singular values of its periodic vectors.

    Axes that are not periodic get vectors normal to the others.
    """
    box = np.array(cell, np.float64)
    for axis in range(3):
        if pbc[axis] and not np.linalg.norm(box[axis]) > 0:
            raise ValueError(
                f"axis {axis} is periodic but its cell vector is zero; "
                "set the cell or pbc of this axis to False."
            )
    if not pbc.any():
        return np.zeros((3, 3)), np.zeros(0)
    periodic = box[pbc]
    _, widths, directions = np.linalg.svd(periodic)
    if widths[-1] <= widths[0] * 3 * np.finfo(np.float64).eps:
        raise ValueError(f"the periodic cell vectors {periodic.tolist()} are linearly dependent.")
    # Rows beyond the rank span what is normal to all periodic vectors.
    box[~pbc] = directions[len(periodic) :]
    return box, widths
