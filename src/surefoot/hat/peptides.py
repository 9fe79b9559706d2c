"""Capped amino acids Ace-X-NMe: the smallest molecules that look like a residue in a protein."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from surefoot.hat.fragments import FRAGMENTS, Fragment, join

RESIDUES: dict[str, Fragment] = {
    code: join((code,), "ACE", "NME") for code, found in FRAGMENTS.items() if not found.charge
}
"""Capped amino acids by code, the whole molecule; ASP, GLU, LYS and ARG are neutral."""


def residue(name: str) -> Fragment:
    """The neutral capped amino acid of a code.

    Raises:
        ValueError: if there is none, with the codes that are allowed.
    """
    if name not in RESIDUES:
        raise ValueError(f"There is no residue '{name}'. Allowed are {', '.join(RESIDUES)}.")
    return RESIDUES[name]


def conformers(name: str, count: int, seed: int) -> list[Atoms]:
    """Conformers of a capped amino acid, relaxed with the MMFF94 force field.

    Heavy atoms stand in the order of `residue(name).names`, hydrogens after them. The same
    arguments give the same conformers.

    Args:
        name: code, a key of `RESIDUES`.
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
