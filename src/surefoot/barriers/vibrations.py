"""Hessians from forces in batches, and harmonic vibrations without rigid motion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from surefoot.graph import Graph, collate, edge_vectors
from surefoot.motion.skin import NeighborLists
from surefoot.motion.slices import take_pairs
from surefoot.motion.surface import Surface
from surefoot.motion.systems import find_fixed, join_systems
from surefoot.units import BOLTZMANN, DALTON, LIGHT, PLANCK

TOGETHER = 128  # displaced copies in a batch
RANK = 1e-6  # of the largest singular value; a linear molecule turns about two axes only
LOWEST = 100.0  # cm⁻¹


@dataclass(frozen=True, kw_only=True)
class Vibrations:
    """Harmonic vibrations of a structure.

    Attributes:
        frequencies: (modes) cm⁻¹, ascending; imaginary ones are negative.
        modes: (modes, atoms, 3) mass-weighted, of norm 1; displacements are these over the roots of
            the masses.
    """

    frequencies: Float[np.ndarray, " modes"]
    modes: Float[np.ndarray, "modes atoms 3"]

    def share(self, mode: int, atom: int) -> float:
        """The part of a mode's kinetic energy that is in one atom."""
        return float((self.modes[mode, atom] ** 2).sum())

    def zero_point(self, imaginary: int = 0) -> float:
        """Σ h ν / 2 in eV.

        Args:
            imaginary: how many of the lowest are left out, 1 of a saddle point.
        """
        return float(PLANCK * LIGHT * np.maximum(self.frequencies[imaginary:], 0.0).sum() / 2)

    def free_energy(self, temperature: float, imaginary: int = 0, lowest: float = LOWEST) -> float:
        """Σ h ν / 2 + k_B T ln(1 − exp(−h ν / k_B T)) in eV.

        Args:
            temperature: K.
            imaginary: how many of the lowest are left out, 1 of a saddle point.
            lowest: softer vibrations count as this, cm⁻¹, since as oscillators they would have
                entropies without bound (Ribeiro et al., J. Phys. Chem. B 115 (2011) 14556).
        """
        quanta = PLANCK * LIGHT * np.maximum(self.frequencies[imaginary:], lowest)
        thermal = BOLTZMANN * temperature
        return float((quanta / 2 + thermal * np.log(-np.expm1(-quanta / thermal))).sum())


def find_vibrations(atoms: Atoms, surface: Surface, step: float = 0.01) -> Vibrations:
    """Harmonic vibrations of a stationary structure.

    With D = M^−½ (∂²E/∂R²) M^−½ on what neither moves nor turns the structure, ν = √λ / 2π.

    Args:
        atoms: the structure; `FixAtoms` holds.
        surface: what it moves on.
        step: Å, of the differences of forces.
    """
    hessian = find_hessian(atoms, surface, step)
    free = free_atoms(atoms)
    roots = np.sqrt(np.repeat(atoms.get_masses()[free] * DALTON, 3))
    basis = internal_motion(atoms, roots)
    reduced = basis.T @ (hessian / np.outer(roots, roots)) @ basis
    values, vectors = np.linalg.eigh(reduced)
    modes = np.zeros((len(values), len(atoms), 3))
    modes[:, free] = (basis @ vectors).T.reshape(len(values), -1, 3)
    frequencies = np.sign(values) * np.sqrt(np.abs(values)) / (2 * math.pi * LIGHT)
    return Vibrations(frequencies=frequencies, modes=modes)


def free_atoms(atoms: Atoms) -> np.ndarray:
    """Indices of atoms that may move."""
    return np.flatnonzero(~find_fixed(atoms))


def internal_motion(
    atoms: Atoms, roots: Float[np.ndarray, " coordinates"] | None = None
) -> Float[np.ndarray, "coordinates modes"]:
    """An orthonormal basis of what neither moves nor turns a structure as a whole.

    Only rigid motion under which fixed atoms stay is taken out: none where three of them are not on
    a line. Periodic structures do not turn.

    Args:
        atoms: the structure.
        roots: (coordinates) roots of masses, for mass-weighted coordinates; 1 where not set.
    """
    free = free_atoms(atoms)
    masses = np.ones(len(free)) if roots is None else roots[::3] ** 2
    centre = masses @ atoms.positions[free] / masses.sum()
    places = atoms.positions - centre
    moves = [np.tile(axis, (len(atoms), 1)) for axis in np.eye(3)]
    turns = [] if atoms.pbc.any() else [np.cross(axis, places) for axis in np.eye(3)]
    rigid = np.stack([*moves, *turns], axis=-1)  # (atoms, 3, motions)
    held = np.delete(rigid, free, axis=0).reshape(-1, rigid.shape[-1])
    rigid = rigid[free].reshape(3 * len(free), -1)
    if len(held):
        _, sizes, right = np.linalg.svd(held)
        sizes = np.pad(sizes, (0, len(right) - len(sizes)))
        rigid = rigid @ right[sizes <= RANK * sizes.max()].T
    if rigid.shape[1] == 0:
        return np.eye(3 * len(free))
    weighted = rigid if roots is None else rigid * roots[:, None]
    left, sizes, _ = np.linalg.svd(weighted, full_matrices=True)
    return left[:, int((sizes > RANK * sizes.max()).sum()) :]


def find_hessian(
    atoms: Atoms, surface: Surface, step: float = 0.01
) -> Float[np.ndarray, "coordinates coordinates"]:
    """∂²E/∂R² of the atoms that may move, eV/Å², by central differences of the forces.

    All displaced structures are batches on one neighbour list.

    Args:
        atoms: the structure.
        surface: its forces.
        step: Å; the error grows with its square, and noise of forces shrinks with it.
    """
    systems, start = join_systems([atoms])
    wide = NeighborLists(systems, surface.cutoff + 2 * step, 0.0).graph(start)
    rows = []
    for atom in free_atoms(atoms):
        for axis in range(3):
            for side in (step, -step):
                moved = start.positions.clone()
                moved[atom, axis] += side
                rows.append(moved)
    forces = torch.cat(
        [
            surface(
                _copies(wide, rows[at : at + TOGETHER], surface.cutoff),
                stress=False,
                uncertainty=False,
            ).forces.reshape(-1, len(atoms), 3)
            for at in range(0, len(rows), TOGETHER)
        ]
    )
    forces = forces[:, free_atoms(atoms)].reshape(len(rows), -1)
    hessian = ((forces[1::2] - forces[::2]) / (2 * step)).numpy()
    return (hessian + hessian.T) / 2


def _copies(wide: Graph, positions: Sequence[Tensor], cutoff: float) -> Graph:
    """Copies of one structure with its pairs, each at its own positions."""
    joined = collate([wide] * len(positions))
    joined = replace(joined, positions=torch.cat(list(positions)))
    vectors = edge_vectors(joined)[joined.pair_edges[0]]
    return take_pairs(joined, vectors.square().sum(-1) < cutoff**2)
