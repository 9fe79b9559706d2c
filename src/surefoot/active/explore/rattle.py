"""Rattling: every atom displaced by a normal vector, for what no dynamics would find soon."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ase import Atoms
from pydantic import Field

from surefoot.active.explore.explorer import Scene, draw_starts
from surefoot.settings import Settings

TRIES = 20


class Rattle(Settings):
    """Displaced copies of labelled structures.

    Attributes:
        count: structures.
        width: standard deviation of each component, Å; drawn between zero and this.
        strain: standard deviation of each component of the strain of periodic cells.
        closest: share of the sum of covalent radii below which two atoms are too close.
    """

    name: Literal["rattle"] = "rattle"
    count: int = Field(default=100, ge=1, description="structures")
    width: float = Field(default=0.1, gt=0, description="largest standard deviation, Å")
    strain: float = Field(default=0.0, ge=0, description="of periodic cells, standard deviation")
    closest: float = Field(
        default=0.6, gt=0, lt=1, description="of the sum of covalent radii; closer is refused"
    )

    def explore(self, scene: Scene) -> list[Atoms]:
        """Structures in the order in which their beginnings were drawn; some may find no place."""
        found = []
        for start in draw_starts(scene, self.count):
            for _ in range(TRIES):
                atoms = self._displace(start, scene.generator)
                if is_sound(atoms, self.closest):
                    found.append(atoms)
                    break
        return found

    def _displace(self, start: Atoms, generator: np.random.Generator) -> Atoms:
        atoms = start.copy()
        if self.strain > 0 and atoms.pbc.all():
            strain = generator.normal(0.0, self.strain, (3, 3))
            atoms.set_cell(atoms.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        width = self.width * generator.uniform()
        # Fixed atoms stay: their constraint takes the displacement away.
        atoms.set_positions(atoms.positions + generator.normal(0.0, width, (len(atoms), 3)))
        return atoms


def is_sound(atoms: Atoms, closest: float) -> bool:
    """Whether no two atoms are closer than a share of the sum of their covalent radii."""
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    radii = covalent_radii[atoms.numbers]
    longest = 2 * closest * float(radii.max())
    first, second, distance = neighbor_list("ijd", atoms, longest, self_interaction=False)
    return bool((distance >= closest * (radii[first] + radii[second])).all())
