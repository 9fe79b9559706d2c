"""Systems that are being relaxed together, each with its own age and memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.motion.surface import Surface, require_stress
from surefoot.motion.systems import Configuration, Systems, UnfitStructure, append_systems
from surefoot.relax import Optimizer
from surefoot.relax.coordinates import Coordinates, fixed_cells, free_cells
from surefoot.relax.rows import Memory


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What moves, and how far each system is.

    Attributes:
        systems: those that are not done.
        coordinates: where they are.
        memory: of the optimiser.
        steps: (systems) taken.
        first_energy: (systems) eV where each began; nan before its first evaluation.
        guarded: (systems) checks in a row in which the guard was over its limit.
    """

    systems: Systems
    coordinates: Coordinates
    memory: Memory
    steps: Int[Tensor, " systems"]
    first_energy: Float[Tensor, " systems"]
    guarded: Int[Tensor, " systems"]

    @property
    def count(self) -> int:
        """Number of systems."""
        return self.systems.count

    def select(self, keep: Bool[Tensor, " systems"]) -> Batch:
        """That of some systems."""
        return Batch(
            systems=self.systems.select(keep),
            coordinates=self.coordinates.select(keep),
            memory=self.memory.select(keep, self.coordinates.rows),
            steps=self.steps[keep],
            first_energy=self.first_energy[keep],
            guarded=self.guarded[keep],
        )

    def append(self, new: Batch, optimizer: Optimizer) -> Batch:
        """Both, one after the other."""
        return Batch(
            systems=append_systems(self.systems, new.systems),
            coordinates=self.coordinates.append(new.coordinates),
            memory=optimizer.join(self.memory, new.memory),
            steps=torch.cat([self.steps, new.steps]),
            first_energy=torch.cat([self.first_energy, new.first_energy]),
            guarded=torch.cat([self.guarded, new.guarded]),
        )


def begin(
    systems: Systems, start: Configuration, optimizer: Optimizer, pressure: float | None
) -> Batch:
    """Systems before their first step.

    Args:
        systems: what moves.
        start: where they are.
        optimizer: what will move them.
        pressure: on free cells, eV/Å³; None keeps cells fixed.
    """
    if pressure is None:
        coordinates = fixed_cells(systems, start)
    else:
        coordinates = free_cells(systems, start, pressure)
    whole = torch.zeros(systems.count, dtype=torch.int64)
    return Batch(
        systems=systems,
        coordinates=coordinates,
        memory=optimizer.begin(coordinates.rows),
        steps=whole,
        first_energy=torch.full((systems.count,), torch.nan, dtype=torch.float64),
        guarded=whole,
    )


def require_free(atoms: Atoms, surface: Surface, place: str) -> None:
    """Refuse a structure whose cell can not be relaxed.

    Raises:
        NoStress: if the potential gives no stress.
        UnfitStructure: if it is not periodic along all three axes.
    """
    require_stress(surface, "relax positions alone with `cell: fixed`")
    if not atoms.pbc.all():
        raise UnfitStructure(
            f"{place}: its cell can not be relaxed, since it is not periodic along all three axes; "
            "relax positions alone with `cell: fixed`."
        )


def longest_forces(systems: Systems, forces: Float[Tensor, "atoms 3"]) -> Float[Tensor, " systems"]:
    """The longest force on an atom that may move, eV/Å."""
    lengths = torch.linalg.vector_norm(forces, dim=-1)
    lengths = torch.where(systems.fixed, 0.0, lengths)
    return lengths.new_zeros(systems.count).scatter_reduce(0, systems.owner, lengths, "amax")
