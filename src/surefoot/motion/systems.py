"""Systems: many structures as one flat set of atoms, ready to be moved together.

Positions, momenta and cells change with every step and are kept apart from what never does. Masses
are in eV·fs²/Å², so that momentum = mass · velocity and dp/dt = force hold in eV, Å and fs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.data.read import read_state
from surefoot.graph import UNSTATED
from surefoot.neighbors import CoincidentAtoms, find_neighbors
from surefoot.segments import Segments, find_offsets, segment_sum
from surefoot.units import DALTON

CLOSEST = 0.3  # Å; less than half of the shortest bond, H2 with 0.74 Å
SEARCHED = 1.0  # Å; bins of a neighbour list with a tiny cutoff cost more than its pairs
SMALLEST_VOLUME = 1e-3  # Å³ per atom; a hydrogen of metallic hydrogen at 500 GPa has 1.5


class UnfitStructure(ValueError):
    """A structure that can not be moved, with its place and the reason."""


@dataclass(frozen=True, kw_only=True)
class Systems:
    """What does not change while structures move.

    Attributes:
        numbers: (atoms) atomic numbers.
        masses: (atoms) eV·fs²/Å².
        fixed: (atoms) atoms that do not move.
        pbc: (systems, 3).
        charge: (systems) in e; 0 where nobody stated it.
        spin: (systems) 2S+1; `UNSTATED` where nobody stated it.
        owner: (atoms) the system of each atom, sorted.
        ids: (systems) their numbers among the structures that came, kept when others leave.
    """

    numbers: Int[Tensor, " atoms"]
    masses: Float[Tensor, " atoms"]
    fixed: Bool[Tensor, " atoms"]
    pbc: Bool[Tensor, "systems 3"]
    charge: Int[Tensor, " systems"]
    spin: Int[Tensor, " systems"]
    owner: Int[Tensor, " atoms"]
    ids: Int[Tensor, " systems"]

    @property
    def count(self) -> int:
        """Number of systems."""
        return self.ids.shape[0]

    @property
    def atoms(self) -> Segments:
        """Atoms by system."""
        return Segments(index=self.owner, offsets=find_offsets(self.owner, self.count))

    @property
    def atom_counts(self) -> Int[Tensor, " systems"]:
        """Atoms of each system."""
        return torch.bincount(self.owner, minlength=self.count)

    def sum(self, values: Float[Tensor, " atoms"]) -> Float[Tensor, " systems"]:
        """Σ over the atoms of each system."""
        return segment_sum(values, self.atoms, axis=0)

    def select(self, keep: Bool[Tensor, " systems"]) -> Systems:
        """Those systems alone."""
        atoms = keep[self.owner]
        places = torch.cumsum(keep, 0) - 1
        return Systems(
            numbers=self.numbers[atoms],
            masses=self.masses[atoms],
            fixed=self.fixed[atoms],
            pbc=self.pbc[keep],
            charge=self.charge[keep],
            spin=self.spin[keep],
            owner=places[self.owner[atoms]],
            ids=self.ids[keep],
        )


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Where the atoms of systems are.

    Attributes:
        positions: (atoms, 3) Å, float64.
        cell: (systems, 3, 3) Å, rows are vectors; zeros where there is none.
    """

    positions: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "systems 3 3"]

    @property
    def volume(self) -> Float[Tensor, " systems"]:
        """Å³, zero without a cell."""
        return torch.linalg.det(self.cell).abs()


def join_systems(
    structures: Sequence[Atoms], places: Sequence[str] | None = None, first: int = 0
) -> tuple[Systems, Configuration]:
    """Structures as one set of systems.

    Args:
        structures: any ASE structures; `FixAtoms` is kept, other constraints are refused.
        places: how messages name them; `structure 0` and so on where not given.
        first: the number of the first one.
    Raises:
        UnfitStructure: if one can not be moved.
    """
    places = places or [f"structure {first + number}" for number in range(len(structures))]
    for atoms, place in zip(structures, places, strict=True):
        require_fit(atoms, place)
    counts = torch.tensor([len(atoms) for atoms in structures])
    states = [read_state(atoms.info) for atoms in structures]
    systems = Systems(
        numbers=torch.tensor(np.concatenate([a.numbers for a in structures]), dtype=torch.int64),
        masses=torch.tensor(np.concatenate([a.get_masses() for a in structures])) * DALTON,
        fixed=torch.tensor(np.concatenate([find_fixed(a) for a in structures])),
        pbc=torch.tensor(np.array([a.pbc for a in structures])),
        charge=torch.tensor([0 if charge is None else charge for charge, _ in states]),
        spin=torch.tensor([UNSTATED if spin is None else spin for _, spin in states]),
        owner=torch.repeat_interleave(torch.arange(len(structures)), counts),
        ids=torch.arange(first, first + len(structures)),
    )
    configuration = Configuration(
        positions=torch.tensor(np.concatenate([a.positions for a in structures])),
        cell=torch.tensor(np.array([a.cell.array for a in structures])),
    )
    return systems, configuration


def append_systems(first: Systems, second: Systems) -> Systems:
    """The systems of both, one after the other."""
    joined = {
        f.name: torch.cat([getattr(first, f.name), getattr(second, f.name)])
        for f in fields(Systems)
    }
    joined["owner"] = torch.cat([first.owner, second.owner + first.count])
    return Systems(**joined)


def append_configurations(first: Configuration, second: Configuration) -> Configuration:
    """The configurations of both, one after the other."""
    return Configuration(
        positions=torch.cat([first.positions, second.positions]),
        cell=torch.cat([first.cell, second.cell]),
    )


def find_fixed(atoms: Atoms) -> Bool[np.ndarray, " atoms"]:
    """Which atoms `FixAtoms` holds."""
    fixed = np.zeros(len(atoms), bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
    return fixed


def require_fit(atoms: Atoms, place: str) -> None:
    """Refuse a structure with which no motion begins.

    Raises:
        UnfitStructure: in one sentence, if it has no atoms, numbers that are not finite, an atom
            without mass, periodic axes without volume, atoms on top of each other, or a constraint
            other than `FixAtoms`.
    """
    reason = _unfit(atoms)
    if reason is not None:
        raise UnfitStructure(f"{place}: {reason}.")


def _unfit(atoms: Atoms) -> str | None:
    if len(atoms) == 0:
        return "it has no atoms; remove it from the file"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "a position or the cell is not a finite number; correct the file"
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            return (
                f"the constraint {type(constraint).__name__} is not known here; only FixAtoms is, "
                "so remove the other or use ASE's own algorithms with the calculator"
            )
    masses = atoms.get_masses()
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        worst = int(np.argmin(np.where(np.isfinite(masses), masses, -np.inf)))
        return (
            f"atom {worst} ({atoms.symbols[worst]}) has the mass {masses[worst]}; a positive one "
            "in dalton is needed, so state it or leave masses out for those of the elements"
        )
    return _flat_cell(atoms) or _overlap(atoms)


def _flat_cell(atoms: Atoms) -> str | None:
    """What is wrong with a periodic cell; axes that are not periodic do not matter."""
    vectors = atoms.cell.array[atoms.pbc]
    if len(vectors) == 0:
        return None
    extent = float(np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0)))
    if extent < (SMALLEST_VOLUME * len(atoms)) ** (len(vectors) / 3):
        return (
            f"its {len(vectors)} periodic axes span {extent:.3g} Å^{len(vectors)}, so there is no "
            f"room for {len(atoms)} atoms; set the cell, or pbc to False along axes without one"
        )
    return None


def _overlap(atoms: Atoms) -> str | None:
    """The closest pair of atoms where it is closer than any bond."""
    cell = atoms.cell.array
    try:
        edges, shifts = find_neighbors(atoms.positions, cell, atoms.pbc, SEARCHED)
    except CoincidentAtoms as error:
        return str(error).removesuffix(".")
    vectors = atoms.positions[edges[1]] + shifts @ cell - atoms.positions[edges[0]]
    lengths = np.linalg.norm(vectors, axis=1)
    if lengths.min(initial=np.inf) >= CLOSEST:
        return None
    first, second = edges[:, lengths.argmin()]
    return (
        f"atoms {first} and {second} are {lengths.min():.3f} Å apart; at least {CLOSEST} Å is "
        "needed, so correct the positions or the cell"
    )


def to_atoms(
    template: Atoms, positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "3 3"]
) -> Atoms:
    """A copy of a structure with other positions and cell, without calculator."""
    atoms = template.copy()
    atoms.set_constraint()  # or fixed atoms would stay where they are even on purpose
    atoms.set_cell(cell.numpy(), scale_atoms=False)
    atoms.positions = positions.numpy()
    atoms.set_constraint(template.constraints)
    return atoms
