"""Closed-shell molecules by SMILES, with names for their atoms: peptides and all others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Integer

from surefoot.hat.fragments import BACKBONE, BEGINNINGS, ENDS, FRAGMENTS, join
from surefoot.hat.peptides import hydrogenated


@dataclass(frozen=True)
class Compound:
    """A closed-shell molecule; hydrogens follow the heavy atoms of its SMILES.

    Attributes:
        name: unique in a data set.
        smiles: the molecule.
        names: of the heavy atoms in the order of the SMILES; as in the Protein Data Bank in
            peptides, and those of caps begin with ACE, NME or NH2; element and place elsewhere.
        residues: code and number of the amino acid each heavy atom is of, such as HYP3; empty for
            caps and for all atoms of other molecules.
        charge: in e.
        closed: heavy atoms whose hydrogens are never offered.
    """

    name: str
    smiles: str
    names: tuple[str, ...]
    residues: tuple[str, ...]
    charge: int
    closed: frozenset[int] = field(default=frozenset())


class BadMolecule(ValueError):
    """A text that is no closed-shell molecule, or not one alone."""


def peptide(name: str, codes: tuple[str, ...], beginning: str, end: str) -> Compound:
    """The molecule of a chain of amino acids.

    Args:
        name: of the molecule.
        codes: keys of `FRAGMENTS`.
        beginning: key of `BEGINNINGS`.
        end: key of `ENDS`.
    """
    chain = join(codes, beginning, end)
    residues = [""] * len(BEGINNINGS[beginning].names)
    for number, code in enumerate(codes, start=1):
        residues += [f"{code.rstrip('+-')}{number}"] * len(FRAGMENTS[code].names)
    last = residues[-1]
    residues += [last if atom == "OXT" else "" for atom in ENDS[end].names]
    closed = [i for i, atom in enumerate(chain.names) if atom in BACKBONE or "-" in atom]
    return Compound(name, chain.smiles, chain.names, tuple(residues), chain.charge,
                    frozenset(closed))  # fmt: skip


def from_smiles(name: str, smiles: str) -> Compound:
    """A molecule by any SMILES; its heavy atoms are called by element and place, such as C0.

    Args:
        name: of the molecule.
        smiles: of one molecule with all electrons paired and all stereocentres stated.

    Raises:
        BadMolecule: with what is wrong and what is allowed.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():  # what is wrong is told below, with the name of the molecule
        molecule = Chem.MolFromSmiles(smiles)
    place = f"{name} ({smiles})"
    if molecule is None or not molecule.GetNumAtoms():
        raise BadMolecule(
            f"{place}: this is no SMILES that RDKit can read; check brackets, ring numbers and "
            "valences."
        )
    if len(Chem.GetMolFrags(molecule)) > 1:
        raise BadMolecule(f"{place}: this is several molecules; write one, without a dot.")
    if any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
        raise BadMolecule(
            f"{place}: an atom has unpaired electrons; write the molecule with its hydrogen, the "
            "radical is made by taking it away."
        )
    if any(atom.GetAtomicNum() == 0 for atom in molecule.GetAtoms()):
        raise BadMolecule(f"{place}: an atom has no element; name all of them.")
    if any(atom.GetAtomicNum() == 1 for atom in molecule.GetAtoms()):
        raise BadMolecule(
            f"{place}: a hydrogen stands as an atom of its own; leave hydrogens out or write them "
            "inside brackets, such as [NH3+]."
        )
    unstated = [
        str(element.centeredOn)
        for element in Chem.FindPotentialStereo(molecule)
        if element.specified == Chem.StereoSpecified.Unspecified
    ]
    if unstated:
        raise BadMolecule(
            f"{place}: the form of {len(unstated)} stereocentres or double bonds is not stated "
            f"(atom or bond {', '.join(unstated)}); state it by @, @@, / and \\."
        )
    names = tuple(f"{atom.GetSymbol()}{atom.GetIdx()}" for atom in molecule.GetAtoms())
    return Compound(name, smiles, names, ("",) * len(names), Chem.GetFormalCharge(molecule))


def bonds(compound: Compound) -> Integer[np.ndarray, "bonds 2"]:
    """Pairs of bonded atoms, hydrogens included."""
    molecule = hydrogenated(compound.smiles)
    pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    return np.array(pairs, int).reshape(-1, 2)


def bond_distances(compound: Compound) -> Float[np.ndarray, "atoms atoms"]:
    """How many bonds lie between two atoms, hydrogens included."""
    from rdkit.Chem import rdmolops

    return np.asarray(rdmolops.GetDistanceMatrix(hydrogenated(compound.smiles)), float)


def formula(compound: Compound) -> str:
    """The sum formula, such as C6H12N2O2."""
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    return str(CalcMolFormula(hydrogenated(compound.smiles)))


def identity(compound: Compound) -> str:
    """The canonical SMILES: equal for two texts of one molecule."""
    from rdkit import Chem

    return str(Chem.MolToSmiles(Chem.MolFromSmiles(compound.smiles)))
