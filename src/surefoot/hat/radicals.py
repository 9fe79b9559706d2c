"""Small radicals that take a hydrogen atom up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float

from surefoot.hat.peptides import embed, hydrogenated


@dataclass(frozen=True)
class Radical:
    """A closed-shell parent and the place where it lost a hydrogen atom.

    Attributes:
        parent: SMILES of the molecule with the hydrogen.
        acceptor: index of the heavy atom in the SMILES that takes the hydrogen up.
    """

    parent: str
    acceptor: int


@dataclass(frozen=True)
class Acceptor:
    """A radical in space.

    Attributes:
        name: key of `RADICALS`.
        atoms: the radical, in the unrelaxed geometry of its parent.
        index: the atom that takes the hydrogen up.
        vacated: where the hydrogen was, in Å: the end point of a transfer.
    """

    name: str
    atoms: Atoms
    index: int
    vacated: Float[np.ndarray, "3"]


RADICALS: dict[str, Radical] = {
    "methyl": Radical("C", 0),
    "ethyl": Radical("CC", 0),
    "isopropyl": Radical("CCC", 1),
    "hydroxymethyl": Radical("CO", 0),
    "methoxy": Radical("CO", 1),
    "methylthiyl": Radical("CS", 1),
    "aminomethyl": Radical("CN", 0),
    "methylaminyl": Radical("CN", 1),
    "carbamoyl": Radical("C(=O)N", 0),
    "hydroxyl": Radical("O", 0),
    "amidogen": Radical("N", 0),
}
"""Radicals by name: CH3•, CH3CH2•, (CH3)2CH•, •CH2OH, CH3O•, CH3S•, •CH2NH2, CH3NH•, •CONH2, HO•
and H2N•."""


def radical(name: str) -> Radical:
    """The radical of a name.

    Raises:
        ValueError: if there is none, with the names that are allowed.
    """
    if name not in RADICALS:
        raise ValueError(f"There is no radical '{name}'. Allowed are {', '.join(RADICALS)}.")
    return RADICALS[name]


def acceptors(name: str, seed: int) -> list[Acceptor]:
    """The radical made by taking away each of the parent's hydrogens in turn.

    Args:
        name: key of `RADICALS`.
        seed: of the embedding of the parent.

    Raises:
        ValueError: if the name is unknown.
    """
    found = radical(name)
    (parent,) = embed(found.parent, 1, seed)
    bonded = hydrogenated(found.parent).GetAtomWithIdx(found.acceptor).GetNeighbors()
    hydrogens = [atom.GetIdx() for atom in bonded if atom.GetAtomicNum() == 1]
    return [take_hydrogen(name, parent, found.acceptor, index) for index in hydrogens]


def take_hydrogen(name: str, parent: Atoms, acceptor: int, hydrogen: int) -> Acceptor:
    """The radical that is left when a hydrogen atom leaves a molecule.

    Args:
        name: of the radical.
        parent: the closed-shell molecule.
        acceptor: index of the heavy atom that keeps the free electron.
        hydrogen: index of the hydrogen, behind `acceptor`.
    """
    rest = parent.copy()
    vacated = rest.positions[hydrogen].copy()
    del rest[hydrogen]
    return Acceptor(name, rest, acceptor, vacated)
