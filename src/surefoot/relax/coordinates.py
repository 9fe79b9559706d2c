"""What an optimiser moves: atoms, and cells where they are free.

With a free cell the coordinates of a system of n atoms are its atoms x in the first cell C⁰ and
n F, three rows more, with positions r = x F and cell C = C⁰ F. The forces on them are exact,

    −dE/dx = f Fᵀ        −dE/d(nF) = −F⁻ᵀ V (σ + P) / n

so that an optimiser sees one smooth surface, E + P V (Tadmor et al., Phys. Rev. B 59 (1999) 235, as
in ASE's UnitCellFilter).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.motion.surface import Evaluation
from surefoot.motion.systems import Configuration, Systems
from surefoot.relax.rows import Rows


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Coordinates of systems; the rows of a system stand together, those of its cell last.

    Attributes:
        values: (rows, 3) Å.
        rows: by system.
        of_cell: (rows) whether a row is of a cell.
        first_cell: (systems, 3, 3) C⁰.
        pressure: eV/Å³ from outside.
    """

    values: Float[Tensor, "rows 3"]
    rows: Rows
    of_cell: Bool[Tensor, " rows"]
    first_cell: Float[Tensor, "systems 3 3"]
    pressure: float = 0.0

    @property
    def frees_cell(self) -> bool:
        """Whether cells are among the coordinates."""
        return len(self.of_cell) > 0 and bool(self.of_cell[-1])

    def configuration(self) -> Configuration:
        """Where the atoms are."""
        if not self.frees_cell:
            return Configuration(positions=self.values, cell=self.first_cell)
        strain, owner = self._strain(), self.rows.owner[~self.of_cell]
        return Configuration(
            positions=torch.einsum("ax,axy->ay", self.values[~self.of_cell], strain[owner]),
            cell=self.first_cell @ strain,
        )

    def forces(
        self, evaluation: Evaluation, systems: Systems, cell: Float[Tensor, "systems 3 3"]
    ) -> Float[Tensor, "rows 3"]:
        """Minus the slope of E + P V; fixed atoms feel none, with a free cell in fractions of it.

        Args:
            evaluation: at `configuration()`, with stress where cells are free.
            systems: whose coordinates they are.
            cell: (systems, 3, 3) at present.
        Raises:
            ValueError: if cells are free and there is no stress.
        """
        on_atoms = torch.where(systems.fixed[:, None], 0.0, evaluation.forces)
        if not self.frees_cell:
            return on_atoms
        if evaluation.stress is None:
            raise ValueError(
                "this surface gives no stress, without which no cell can be relaxed; relax "
                "positions alone, or on a surface that gives it."
            )
        strain, owner = self._strain(), systems.owner
        volume = torch.linalg.det(cell).abs()[:, None, None]
        stress = evaluation.stress + self.pressure * torch.eye(3, dtype=torch.float64)
        counts = systems.atom_counts[:, None, None]
        on_cell = -volume * torch.linalg.solve(strain.mT, stress) / counts
        values = torch.empty_like(self.values)
        values[~self.of_cell] = torch.einsum("ay,axy->ax", on_atoms, strain[owner])
        values[self.of_cell] = on_cell.reshape(-1, 3)
        return values

    def moved(self, step: Float[Tensor, "rows 3"]) -> Coordinates:
        """The coordinates after a step."""
        return Coordinates(
            values=self.values + step,
            rows=self.rows,
            of_cell=self.of_cell,
            first_cell=self.first_cell,
            pressure=self.pressure,
        )

    def select(self, keep: Bool[Tensor, " systems"]) -> Coordinates:
        """Those of some systems."""
        kept = keep[self.rows.owner]
        places = torch.cumsum(keep, 0) - 1
        return Coordinates(
            values=self.values[kept],
            rows=Rows(owner=places[self.rows.owner[kept]], count=int(keep.sum())),
            of_cell=self.of_cell[kept],
            first_cell=self.first_cell[keep],
            pressure=self.pressure,
        )

    def append(self, other: Coordinates) -> Coordinates:
        """Those of both, one after the other."""
        owner = torch.cat([self.rows.owner, other.rows.owner + self.rows.count])
        return Coordinates(
            values=torch.cat([self.values, other.values]),
            rows=Rows(owner=owner, count=self.rows.count + other.rows.count),
            of_cell=torch.cat([self.of_cell, other.of_cell]),
            first_cell=torch.cat([self.first_cell, other.first_cell]),
            pressure=self.pressure,
        )

    def _strain(self) -> Float[Tensor, "systems 3 3"]:
        """F of each system."""
        counts = torch.bincount(self.rows.owner[~self.of_cell], minlength=self.rows.count)
        return self.values[self.of_cell].reshape(-1, 3, 3) / counts[:, None, None]


def fixed_cells(systems: Systems, start: Configuration) -> Coordinates:
    """Positions alone."""
    return Coordinates(
        values=start.positions,
        rows=Rows(owner=systems.owner, count=systems.count),
        of_cell=torch.zeros(len(systems.owner), dtype=torch.bool),
        first_cell=start.cell,
    )


def free_cells(systems: Systems, start: Configuration, pressure: float) -> Coordinates:
    """Positions and cells.

    Args:
        systems: all with three periodic axes.
        start: positions and C⁰.
        pressure: eV/Å³.
    """
    counts = systems.atom_counts
    owner = torch.repeat_interleave(torch.arange(systems.count), counts + 3)
    ends = (counts + 3).cumsum(0)
    of_cell = torch.arange(len(owner)) >= (ends - 3)[owner]
    values = torch.empty(len(owner), 3, dtype=torch.float64)
    values[~of_cell] = start.positions
    identity = torch.eye(3, dtype=torch.float64) * counts[:, None, None]
    values[of_cell] = identity.reshape(-1, 3)
    return Coordinates(
        values=values,
        rows=Rows(owner=owner, count=systems.count),
        of_cell=of_cell,
        first_cell=start.cell,
        pressure=pressure,
    )
