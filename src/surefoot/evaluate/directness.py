"""What forces lack that are no slope of an energy: how much they miss rotations, and a potential.

Both take a function from positions to forces, so they know no model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Forces = Callable[[np.ndarray], np.ndarray]
"""(atoms, 3) Å → (atoms, 3) eV/Å."""


def rotation_error(
    forces: Forces, positions: Float[np.ndarray, "atoms 3"], rotations: Float[np.ndarray, "n 3 3"]
) -> float:
    """Root mean square of |F(R x) − R F(x)| over rotations and atoms, as a share of that of |F|.

    Args:
        forces: of a structure.
        positions: (atoms, 3) Å.
        rotations: (n, 3, 3) acting on columns.
    """
    before = forces(positions)
    off = [forces(positions @ turn.T) - before @ turn.T for turn in rotations]
    return float(np.sqrt(np.mean(np.square(off)) / np.mean(np.square(before))))


def jacobian_asymmetry(
    forces: Forces, positions: Float[np.ndarray, "atoms 3"], step: float = 1e-4
) -> float:
    """‖J − Jᵀ‖ / 2‖J‖ of the Jacobian J = dF/dr: 0 for a gradient, about 0.7 for random entries.

    Source: Bigi et al., arXiv:2412.11569. By central differences, 6 evaluations per atom.

    Args:
        forces: of a structure.
        positions: (atoms, 3) Å.
        step: Å.
    """
    size = positions.size
    jacobian = np.empty((size, size))
    for column in range(size):
        move = np.zeros(size)
        move[column] = step
        move = move.reshape(positions.shape)
        change = forces(positions + move) - forces(positions - move)
        jacobian[:, column] = change.ravel() / (2 * step)
    return float(np.linalg.norm(jacobian - jacobian.T) / (2 * np.linalg.norm(jacobian)))
