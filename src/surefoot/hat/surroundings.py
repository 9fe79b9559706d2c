"""Relaxed surroundings of a hydrogen between two atoms: these three stand still."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from ase import Atoms
from scipy.optimize import minimize

from surefoot.label.labeler import Labeler


def relax_around(
    atoms: Atoms, held: Collection[int], labeler: Labeler, state: tuple[int, int], steps: int
) -> Atoms:
    """Some steps downhill on a labeler's surface with some atoms at rest.

    It need not end in a minimum: what is wanted are surroundings that have answered to the atom.

    Args:
        atoms: a molecule.
        held: indices of atoms that stand still.
        labeler: source of energies and forces.
        state: total charge in e and multiplicity 2S+1.
        steps: of L-BFGS at most.

    Raises:
        LabelingFailed: if the labeler fails on the way.
    """
    free = np.setdiff1d(np.arange(len(atoms)), list(held))
    moved = atoms.copy()

    def evaluate(coordinates: np.ndarray) -> tuple[float, np.ndarray]:
        moved.positions[free] = coordinates.reshape(-1, 3)
        labels = labeler.label(moved, *state)
        return labels.energy, -labels.forces[free].ravel()

    begin = atoms.positions[free].ravel()
    options = {"maxiter": steps}
    found = minimize(evaluate, begin, jac=True, method="L-BFGS-B", options=options)
    moved.positions[free] = found.x.reshape(-1, 3)
    return moved
