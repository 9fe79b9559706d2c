"""What a protein is: atoms with their residues and bonds, and where they are in a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class ResidueId:
    """A residue as its file names it: chain, number with insertion code, and name."""

    chain: str
    number: str
    name: str

    def __str__(self) -> str:
        return f"{self.chain}:{self.name}{self.number}" if self.chain else self.name + self.number


@dataclass(frozen=True, eq=False)
class Topology:
    """What a structure is, wherever its atoms are.

    Attributes:
        file: as it was named.
        numbers: atomic numbers.
        names: of the atoms.
        owner: index of the residue of each atom, ascending.
        residues: in the order of the file.
        bonds: pairs of atoms, lower index first.
        degree: bonds of each atom, those to atoms that are not here included.
        source: index of each atom in the file; −1 for atoms that were added.
        atoms_in_file: all of them, those included that are left out here.
        notes: sentences about what was guessed or left out.
    """

    file: str
    numbers: Int[np.ndarray, " atoms"]
    names: tuple[str, ...]
    owner: Int[np.ndarray, " atoms"]
    residues: tuple[ResidueId, ...]
    bonds: Int[np.ndarray, "bonds 2"]
    degree: Int[np.ndarray, " atoms"]
    source: Int[np.ndarray, " atoms"]
    atoms_in_file: int
    notes: tuple[str, ...] = ()

    def residue(self, atom: int) -> ResidueId:
        """The residue of an atom."""
        return self.residues[self.owner[atom]]

    def label(self, atom: int) -> str:
        """An atom as messages and tables name it, such as A:GLY30:CA."""
        return f"{self.residue(atom)}:{self.names[atom]}"

    def bonded(self, atom: int) -> Int[np.ndarray, " bonded"]:
        """The atoms an atom is bonded to, ascending."""
        first, second = self.bonds.T
        return np.sort(np.concatenate([second[first == atom], first[second == atom]]))

    def take(self, atoms: Int[np.ndarray, " kept"]) -> Topology:
        """The same with some of the atoms, ascending, and the bonds among them."""
        new = np.full(len(self.numbers), -1)
        new[atoms] = np.arange(len(atoms))
        bonds = new[self.bonds]
        kept, owner = np.unique(self.owner[atoms], return_inverse=True)
        return Topology(
            file=self.file,
            numbers=self.numbers[atoms],
            names=tuple(self.names[atom] for atom in atoms),
            owner=owner,
            residues=tuple(self.residues[residue] for residue in kept),
            bonds=bonds[(bonds >= 0).all(axis=1)],
            degree=self.degree[atoms],
            source=self.source[atoms],
            atoms_in_file=self.atoms_in_file,
            notes=self.notes,
        )


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where the atoms are.

    Attributes:
        frame: number in the file, from 0.
        positions: of the atoms of a topology, in Å.
        cell: rows are the periodic box in Å; None without one.
    """

    frame: int
    positions: Float[np.ndarray, "atoms 3"]
    cell: Float[np.ndarray, "3 3"] | None
