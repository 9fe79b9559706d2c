"""Small molecules that give a hydrogen atom away, with the kinds of bonds that peptides have."""

from __future__ import annotations

from ase import Atoms

from surefoot.hat.peptides import embed, hydrogenated
from surefoot.hat.sites import Site

MOLECULES: dict[str, str] = {
    "methane": "C",
    "ethane": "CC",
    "methanol": "CO",
    "methanethiol": "CS",
    "methylamine": "CN",
    "formamide": "C(=O)N",
    "water": "O",
    "ammonia": "N",
}
"""SMILES by name."""


def molecule(name: str, seed: int) -> Atoms:
    """One conformer of a molecule, relaxed with the MMFF94 force field.

    Args:
        name: key of `MOLECULES`.
        seed: of the embedding, not negative.

    Raises:
        ValueError: if the name is unknown, with those that are allowed.
    """
    (atoms,) = embed(_smiles(name), 1, seed)
    return atoms


def molecule_sites(name: str, element: str) -> list[Site]:
    """Hydrogens of a molecule on heavy atoms of one element, named by it and its place.

    Args:
        name: key of `MOLECULES`.
        element: symbol of the heavy atom, such as N.

    Raises:
        ValueError: if the name is unknown, or the molecule has no such hydrogen.
    """
    found = hydrogenated(_smiles(name))
    sites = [
        Site(f"{element}{atom.GetIdx()}", atom.GetIdx(), neighbor.GetIdx())
        for atom in found.GetAtoms()
        if atom.GetSymbol() == element
        for neighbor in atom.GetNeighbors()
        if neighbor.GetAtomicNum() == 1
    ]
    if not sites:
        raise ValueError(f"{name} has no hydrogen on an atom of {element}.")
    return sites


def _smiles(name: str) -> str:
    if name not in MOLECULES:
        raise ValueError(f"There is no molecule '{name}'. Allowed are {', '.join(MOLECULES)}.")
    return MOLECULES[name]
