"""Capped amino acids Ace-X-NMe: the smallest molecules that look like a residue in a protein."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

CAP = "ACE-CH3", "ACE-C", "ACE-O"
END = "C", "O", "NME-N", "NME-CH3"
BACKBONE = ("N", "CA")


@dataclass(frozen=True)
class Residue:
    """A capped amino acid, neutral, in L form.

    Attributes:
        smiles: the whole molecule from the acetyl cap to the methylamide cap.
        names: names of the heavy atoms in the order of the SMILES, as in the Protein Data Bank;
            those of the caps begin with ACE or NME.
    """

    smiles: str
    names: tuple[str, ...]


def _chain(side_chain: str, *names: str) -> Residue:
    return Residue(f"CC(=O)N[C@@H]({side_chain})C(=O)NC", (*CAP, *BACKBONE, *names, *END))


RESIDUES: dict[str, Residue] = {
    "GLY": Residue("CC(=O)NCC(=O)NC", (*CAP, *BACKBONE, *END)),
    "ALA": _chain("C", "CB"),
    "VAL": _chain("C(C)C", "CB", "CG1", "CG2"),
    "LEU": _chain("CC(C)C", "CB", "CG", "CD1", "CD2"),
    "ILE": _chain("[C@@H](C)CC", "CB", "CG2", "CG1", "CD1"),
    "SER": _chain("CO", "CB", "OG"),
    "THR": _chain("[C@H](O)C", "CB", "OG1", "CG2"),
    "ASN": _chain("CC(=O)N", "CB", "CG", "OD1", "ND2"),
    "GLN": _chain("CCC(=O)N", "CB", "CG", "CD", "OE1", "NE2"),
    "ASP": _chain("CC(=O)O", "CB", "CG", "OD1", "OD2"),
    "GLU": _chain("CCC(=O)O", "CB", "CG", "CD", "OE1", "OE2"),
    "CYS": _chain("CS", "CB", "SG"),
    "MET": _chain("CCSC", "CB", "CG", "SD", "CE"),
    "PHE": _chain("Cc1ccccc1", "CB", "CG", "CD1", "CE1", "CZ", "CE2", "CD2"),
    "PRO": Residue("CC(=O)N1CCC[C@H]1C(=O)NC", (*CAP, "N", "CD", "CG", "CB", "CA", *END)),
}
"""Capped amino acids by three-letter code; ASP and GLU are the neutral acids."""


def residue(name: str) -> Residue:
    """The capped amino acid of a three-letter code.

    Raises:
        ValueError: if there is none, with the codes that are allowed.
    """
    if name not in RESIDUES:
        raise ValueError(f"There is no residue '{name}'. Allowed are {', '.join(RESIDUES)}.")
    return RESIDUES[name]


def conformers(name: str, count: int, seed: int) -> list[Atoms]:
    """Conformers of a capped amino acid, relaxed with the MMFF94 force field.

    Heavy atoms stand in the order of `Residue.names`, hydrogens after them. The same arguments
    give the same conformers.

    Args:
        name: three-letter code, a key of `RESIDUES`.
        count: number of conformers.
        seed: of the embedding, not negative.

    Raises:
        ValueError: if the code is unknown or the embedding fails.
    """
    return embed(residue(name).smiles, count, seed)


def embed(smiles: str, count: int, seed: int) -> list[Atoms]:
    """Three-dimensional structures of a closed-shell molecule by ETKDG (version 3) and MMFF94.

    Args:
        smiles: the molecule; heavy atoms keep its order, hydrogens follow.
        count: number of structures.
        seed: of the embedding, not negative.

    Raises:
        ValueError: if fewer than `count` structures come out.
    """
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    molecule = hydrogenated(smiles)
    settings = rdDistGeom.ETKDGv3()
    # RDKit takes 31 bits, and −1 would mean a new random seed.
    settings.randomSeed = int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)
    settings.numThreads = 1
    made = list(rdDistGeom.EmbedMultipleConfs(molecule, count, settings))
    if len(made) < count:
        raise ValueError(f"{smiles}: only {len(made)} of {count} structures could be embedded.")
    rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, numThreads=1, maxIters=2000)
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    return [Atoms(numbers, molecule.GetConformer(index).GetPositions()) for index in made]


def hydrogenated(smiles: str) -> Any:
    """The RDKit molecule of a SMILES with its hydrogens, behind the heavy atoms."""
    from rdkit import Chem

    return Chem.AddHs(Chem.MolFromSmiles(smiles))
