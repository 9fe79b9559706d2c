"""Which structures are good enough to be labelled, and why others are not."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float, Integer
from pydantic import Field
from scipy.spatial.distance import pdist, squareform

from surefoot.hat.transfer import IN_THE_WAY, RIVAL, Transfer, nearest_bystander
from surefoot.settings import Settings

TOO_CLOSE = "two atoms are too close"
STRETCHED = "a bond is stretched"
TOO_HIGH = "energy outside the window"
UNLABELLED = "the labeler failed"
TOO_FAR = "the hydrogen would move too far"
NEW_BOND = "bonds changed in the relaxation"
BONDED = 1.2  # times the sum of covalent radii, below which atoms that were apart count as bonded


class Limits(Settings):
    """What a structure has to keep; Neubert et al. 2025 but for `longest`."""

    closest: float = Field(default=0.5, gt=0, description="Å; no two atoms are closer")
    stretch: float = Field(
        default=1.25, gt=1, description="no bond is longer, in parts of its relaxed length"
    )
    clearance: float = Field(
        default=1.7,
        ge=0,
        description="Å; between atoms of two molecules, but for the moving hydrogen, the donor and "
        "the acceptor",
    )
    hydrogen_clearance: float = Field(
        default=0.8,
        gt=0,
        description="Å; of the moving hydrogen to all atoms but its two partners, on its whole way",
    )
    window: float = Field(
        default=5.0,
        gt=0,
        description="eV; of a displaced molecule to its lowest conformer, and of a configuration "
        "to its start, on the labeler",
    )
    longest: float = Field(
        default=3.0,
        gt=0,
        description="Å; the hydrogen moves no farther: beyond, the atom in mid-air is no doublet",
    )
    tries: int = Field(
        default=50, gt=0, description="displaced molecules tried for one transfer, and positions"
    )


def fault_of_displaced(
    atoms: Atoms,
    relaxed: Atoms,
    bonds: Integer[np.ndarray, "bonds 2"],
    limits: Limits,
) -> str | None:
    """Why a displaced molecule is not taken; None if it is.

    Args:
        atoms: the molecule.
        relaxed: the same at rest.
        bonds: pairs of bonded atoms.
        limits: what has to be kept.
    """
    if closest(atoms) <= limits.closest:
        return TOO_CLOSE
    ratio = lengths(atoms, bonds) / lengths(relaxed, bonds)
    return STRETCHED if ratio.size and ratio.max() > limits.stretch else None


def fault_of_intramolecular(
    transfer: Transfer, bonded: Integer[np.ndarray, " others"], limits: Limits
) -> str | None:
    """Why a transfer within one molecule is not taken; None if it is.

    Args:
        transfer: its radical.
        bonded: the other hydrogens of the donor atom; none may be closer to the end.
        limits: what has to be kept.
    """
    if transfer.translation > limits.longest:
        return TOO_FAR
    if nearest_bystander(transfer) < limits.hydrogen_clearance:
        return IN_THE_WAY
    to_end = np.linalg.norm(transfer.atoms.positions[bonded] - transfer.end, axis=1)
    return RIVAL if (to_end < transfer.translation).any() else None


def fault_of_frame(atoms: Atoms, transfer: Transfer, limits: Limits) -> str | None:
    """Why a configuration of a transfer is not taken, geometry alone; None if it is.

    Args:
        atoms: the configuration, atoms in the order of the transfer.
        transfer: what it is of.
        limits: what has to be kept.
    """
    if closest(atoms) <= limits.closest:
        return TOO_CLOSE
    apart = np.linalg.norm(atoms.positions - atoms.positions[transfer.hydrogen], axis=1)
    apart[[transfer.hydrogen, transfer.donor, transfer.acceptor]] = np.inf
    return IN_THE_WAY if apart.min() < limits.hydrogen_clearance else None


def fault_of_relaxed(
    atoms: Atoms, before: Atoms, bonds: Integer[np.ndarray, "bonds 2"], stretch: float
) -> str | None:
    """Whether a relaxation has broken or made a bond; None if it has not.

    Args:
        atoms: the relaxed structure.
        before: where it began.
        bonds: pairs of atoms that are bonded there.
        stretch: a bond longer than this, in parts of its length before, is broken.
    """
    if len(bonds) and (lengths(atoms, bonds) > stretch * lengths(before, bonds)).any():
        return NEW_BOND
    known = {(min(pair), max(pair)) for pair in bonds.tolist()}
    had = known | set(map(tuple, touching(before).tolist()))
    return NEW_BOND if set(map(tuple, touching(atoms).tolist())) - had else None


def touching(atoms: Atoms) -> Integer[np.ndarray, "pairs 2"]:
    """Pairs of atoms close enough to be bonded, the smaller index first."""
    radii = covalent_radii[atoms.numbers]
    near = squareform(pdist(atoms.positions)) < BONDED * (radii[:, None] + radii)
    return np.argwhere(np.triu(near, 1))


def closest(atoms: Atoms) -> float:
    """The smallest distance of two atoms in Å; infinite where there is one only."""
    return float(pdist(atoms.positions).min()) if len(atoms) > 1 else float("inf")


def lengths(atoms: Atoms, bonds: Integer[np.ndarray, "bonds 2"]) -> Float[np.ndarray, " bonds"]:
    """Lengths of bonds in Å."""
    return np.linalg.norm(atoms.positions[bonds[:, 0]] - atoms.positions[bonds[:, 1]], axis=1)
