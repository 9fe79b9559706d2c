"""Where a molecule can give a hydrogen atom away."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ase import Atoms

from surefoot.hat.compounds import Compound, peptide
from surefoot.hat.peptides import hydrogenated, residue


@dataclass(frozen=True)
class Site:
    """One hydrogen that may leave.

    Attributes:
        name: of the heavy atom it sits on, for example CA or CB.
        donor: index of that heavy atom.
        hydrogen: index of the hydrogen.
        residue: code and number of the amino acid it is of, such as HYP3; empty elsewhere.
    """

    name: str
    donor: int
    hydrogen: int
    residue: str = ""


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

    Args:
        name: code of a neutral amino acid.
        elements: symbols of the heavy atoms whose hydrogens count.

    Returns:
        Sites in the order of the heavy atoms, for every conformer of the residue.

    Raises:
        ValueError: if the code is unknown.
    """
    residue(name)
    return compound_sites(peptide(name, (name,), "ACE", "NME"), elements)


def compound_sites(compound: Compound, elements: Collection[str]) -> list[Site]:
    """The hydrogens that a molecule can give away, or become a radical by losing.

    Those of caps, termini and backbone nitrogens are not among them.

    Args:
        compound: the molecule.
        elements: symbols of the heavy atoms whose hydrogens count.

    Returns:
        Sites in the order of the heavy atoms, for every conformer of the molecule.
    """
    molecule = hydrogenated(compound.smiles)
    found = []
    for index, name in enumerate(compound.names):
        atom = molecule.GetAtomWithIdx(index)
        if index in compound.closed or atom.GetSymbol() not in elements:
            continue
        found += [
            Site(name, index, neighbor.GetIdx(), compound.residues[index])
            for neighbor in atom.GetNeighbors()
            if neighbor.GetAtomicNum() == 1
        ]
    return found
