"""Structures that are evaluated together, in one batch, while some of them leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from ase import Atoms
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.motion.skin import SKIN, NeighborLists, NoNeighbors
from surefoot.motion.surface import Surface
from surefoot.motion.systems import Configuration, join_systems


class Together:
    """Structures with their neighbour lists; positions are the caller's.

    Args:
        structures: `FixAtoms` holds.
        surface: what they are evaluated on.
        skin: of neighbour lists, Å.
    """

    def __init__(self, structures: Sequence[Atoms], surface: Surface, skin: float = SKIN) -> None:
        self.surface = surface
        self.systems, start = join_systems(structures)
        self.start, self._cell = start.positions, start.cell
        self._lists = NeighborLists(self.systems, surface.cutoff, skin)

    def evaluate(
        self, positions: Float[Tensor, "atoms 3"]
    ) -> tuple[Float[Tensor, " systems"], Float[Tensor, "atoms 3"]]:
        """Energies in eV and forces in eV/Å, zero on fixed atoms.

        Both are nan of a structure that has collapsed; the others do not notice.

        Args:
            positions: (atoms, 3) Å of all structures that are left.
        """
        now = Configuration(positions=positions, cell=self._cell)
        try:
            graph = self._lists.graph(now)
        except NoNeighbors:
            return self._one_by_one(positions)
        found = self.surface(graph, stress=False, uncertainty=False)
        return found.energy, torch.where(self.systems.fixed[:, None], 0.0, found.forces)

    def _one_by_one(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        energies = torch.full((self.systems.count,), torch.nan, dtype=torch.float64)
        forces = torch.full_like(positions, torch.nan)
        for number in range(self.systems.count):
            alone = torch.arange(self.systems.count) == number
            atoms = alone[self.systems.owner]
            one = self.systems.select(alone)
            now = Configuration(positions=positions[atoms], cell=self._cell[alone])
            try:
                graph = NeighborLists(one, self.surface.cutoff, 0.0).graph(now)
            except NoNeighbors:
                continue
            found = self.surface(graph, stress=False, uncertainty=False)
            energies[number] = found.energy[0]
            forces[atoms] = torch.where(one.fixed[:, None], 0.0, found.forces)
        return energies, forces

    def select(self, keep: Bool[Tensor, " systems"]) -> None:
        """Forget all other structures."""
        if keep.all() or not keep.any():
            return
        chosen = self.systems.select(keep)
        self.systems = replace(chosen, ids=torch.arange(chosen.count))
        self._cell = self._cell[keep]
        self._lists.select(keep)
