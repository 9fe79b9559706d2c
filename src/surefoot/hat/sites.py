"""Where a molecule can give a hydrogen atom away."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ase import Atoms

from surefoot.hat.peptides import END, hydrogenated, residue

CLOSED = ("N", *END)
"""Backbone atoms whose hydrogens are not offered, besides those of the caps."""


@dataclass(frozen=True)
class Site:
    """One hydrogen that may leave.

    Attributes:
        name: of the heavy atom it sits on, for example CA or CB.
        donor: index of that heavy atom.
        hydrogen: index of the hydrogen.
    """

    name: str
    donor: int
    hydrogen: int


@dataclass(frozen=True)
class Donor:
    """A molecule with the hydrogen that is to leave it.

    Attributes:
        name: of the molecule, for example a three-letter code.
        atoms: its structure, closed shell.
        site: the hydrogen.
    """

    name: str
    atoms: Atoms
    site: Site


def residue_sites(name: str, elements: Collection[str] = ("C",)) -> list[Site]:
    """Hydrogens of the α carbon and of the side chain of a capped amino acid.

    Hydrogens of the caps and of backbone nitrogens are never sites.

    Args:
        name: three-letter code.
        elements: symbols of the heavy atoms whose hydrogens count.

    Returns:
        Sites in the order of the heavy atoms, for every conformer of the residue.

    Raises:
        ValueError: if the code is unknown.
    """
    found = residue(name)
    molecule = hydrogenated(found.smiles)
    sites = []
    for index, atom_name in enumerate(found.names):
        atom = molecule.GetAtomWithIdx(index)
        closed = atom_name in CLOSED or "-" in atom_name
        if closed or atom.GetSymbol() not in elements:
            continue
        sites += [
            Site(atom_name, index, neighbor.GetIdx())
            for neighbor in atom.GetNeighbors()
            if neighbor.GetAtomicNum() == 1
        ]
    return sites
