"""What forces lack that are no slope of an energy: how much they miss rotations, and a potential.

All take a function from positions and cells to forces, so they know no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Forces = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(n, atoms, 3) Å and (n, 3, 3) Å, rows are vectors → (n, atoms, 3) eV/Å, of n structures."""


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """One structure as these measures move it.

    Attributes:
        positions: (atoms, 3) Å.
        cell: (3, 3) Å, rows are vectors; zeros where there is none.
        free: (atoms) whose forces count: nobody learns those of atoms that are held.
    """

    positions: Float[np.ndarray, "atoms 3"]
    cell: Float[np.ndarray, "3 3"]
    free: Bool[np.ndarray, " atoms"]

    @property
    def size(self) -> int:
        """Numbers among the positions of free atoms."""
        return 3 * int(self.free.sum())


def random_rotations(generator: np.random.Generator, count: int) -> Float[np.ndarray, "n 3 3"]:
    """Proper and improper rotations in turns, all orientations equally likely."""
    matrices = np.linalg.qr(generator.normal(size=(count, 3, 3)))[0]
    # QR leaves signs to the algorithm: signs at random make all orientations alike.
    matrices *= generator.choice([-1.0, 1.0], size=(count, 1, 3))
    wanted = (-1.0) ** np.arange(count)
    return matrices * (wanted * np.linalg.det(matrices)).round()[:, None, None]


def rotation_error(
    forces: Forces, structure: Arrangement, rotations: Float[np.ndarray, "n 3 3"]
) -> float:
    """Root mean square of |F(R x) − R F(x)| over rotations and free atoms, as a share of |F|.

    Args:
        forces: of this structure, wherever its atoms are.
        structure: x.
        rotations: (n, 3, 3) acting on columns.
    """
    turns = np.concatenate([np.eye(3)[None], rotations]).transpose(0, 2, 1)
    found = forces(structure.positions @ turns, structure.cell @ turns)[:, structure.free]
    before = found[0]
    off = found[1:] - before @ turns[1:]
    return _root_share(np.mean(np.square(off)), np.mean(np.square(before)))


def jacobian_asymmetry(
    forces: Forces,
    structure: Arrangement,
    generator: np.random.Generator,
    probes: int = 16,
    step: float = 1e-3,
) -> float:
    """‖J − Jᵀ‖ / 2‖J‖ of the Jacobian J = dF/dr: 0 for a gradient, about 0.7 for random entries.

    From J along some orthonormal directions v of all n coordinates, by central differences:

        ‖J‖² = n ⟨|J v|²⟩        ‖J − Jᵀ‖² = n (n − 1) ⟨(v · J w − w · J v)²⟩

    over directions and over pairs of them; with n of them that is exact. Coordinates are those of
    free atoms.

    Args:
        forces: of this structure, wherever its atoms are.
        structure: where J is taken.
        generator: of the directions.
        probes: directions, of which there are no more than coordinates; 2 evaluations each.
        step: Å, length of a step in all coordinates together.
    Source: Bigi et al., arXiv:2412.11569. Differs: random directions in place of all coordinates.
    """
    size = structure.size
    count = min(max(probes, 2), size)
    directions = np.linalg.qr(generator.normal(size=(size, count)))[0].T
    moves = np.zeros((count, *structure.positions.shape))
    moves[:, structure.free] = step * directions.reshape(count, -1, 3)
    places = np.concatenate([structure.positions + moves, structure.positions - moves])
    found = forces(places, np.broadcast_to(structure.cell, (2 * count, 3, 3)))
    found = found[:, structure.free]
    slopes = (found[:count] - found[count:]).reshape(count, size) / (2 * step)
    table = slopes @ directions.T  # v · J w, w by row
    whole = size * np.mean(np.sum(np.square(slopes), axis=1))
    pairs = np.square(table - table.T).sum() / (count * (count - 1))
    return _root_share(size * (size - 1) * pairs, 4 * whole)


def _root_share(part: float, whole: float) -> float:
    """√(part / whole); NaN of nothing, as where all forces are zero."""
    return math.sqrt(part / whole) if whole > 0 else math.nan


@dataclass(frozen=True, kw_only=True)
class Directness:
    """Both measures over some structures, as root mean squares.

    Attributes:
        structures: how many.
        rotation_error: of random proper and improper rotations, a share of the rms force.
        jacobian_asymmetry: 0 for a gradient.
    """

    structures: int
    rotation_error: float
    jacobian_asymmetry: float


def measure_directness(
    structures: list[tuple[Forces, Arrangement]],
    generator: np.random.Generator,
    rotations: int = 8,
) -> Directness:
    """What forces lack that are no slope of an energy.

    Args:
        structures: each with the function that gives its forces; of more than one atom.
        generator: of rotations and directions.
        rotations: of each structure.
    """
    turns = random_rotations(generator, rotations)
    missed = [rotation_error(forces, structure, turns) for forces, structure in structures]
    lost = [jacobian_asymmetry(forces, structure, generator) for forces, structure in structures]
    return Directness(
        structures=len(structures),
        rotation_error=math.sqrt(np.mean(np.square(missed))),
        jacobian_asymmetry=math.sqrt(np.mean(np.square(lost))),
    )
