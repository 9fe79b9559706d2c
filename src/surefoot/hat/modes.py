"""Thermal displacements of a molecule from the normal modes of a labeler's surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from jaxtyping import Float
from scipy.optimize import minimize

from surefoot.label.labeler import Labeler
from surefoot.units import BOLTZMANN

STEP = 0.005  # Å, of the differences of forces
RELAXED = 5e-4  # eV/Å, largest force component at which the relaxation stops
TOLERATED = 5e-3  # eV/Å, likewise of what counts as relaxed where line searches end in noise
STEPS = 500  # of the relaxation
SOFTEST = 0.05  # eV/Å²/u; softer modes (below 117 cm⁻¹) are torsions, which no parabola describes


class NoMinimum(ValueError):
    """A structure that could not be relaxed, or is no minimum."""


@dataclass(frozen=True)
class Thermal:
    """A relaxed molecule and how far heat displaces it.

    Attributes:
        atoms: the minimum.
        spread: displacements are √(k_B T) spread · ξ with ξ standard normal; in Å/√eV.
    """

    atoms: Atoms
    spread: Float[np.ndarray, "coordinates coordinates"]

    def displaced(self, temperature: float, generator: np.random.Generator) -> Atoms:
        """One structure of the classical harmonic ensemble.

        Args:
            temperature: in K.
            generator: source of the random numbers.
        """
        atoms = self.atoms.copy()
        drawn = self.spread @ generator.normal(size=len(self.spread))
        atoms.positions += np.sqrt(BOLTZMANN * temperature) * drawn.reshape(-1, 3)
        return atoms


def relax(atoms: Atoms, labeler: Labeler, charge: int = 0, spin: int = 1) -> Atoms:
    """The nearest minimum of a labeler's surface.

    Args:
        atoms: a molecule.
        labeler: source of energies and forces.
        charge: total charge in e.
        spin: multiplicity 2S+1.

    Raises:
        NoMinimum: if a force of more than 5 meV/Å is left.
        LabelingFailed: if the labeler fails on the way.
    """
    relaxed = atoms.copy()
    function = _surface(relaxed, labeler, charge, spin)
    options = {"maxiter": STEPS, "gtol": RELAXED}
    found = minimize(function, relaxed.positions.ravel(), jac=True, method="BFGS", options=options)
    relaxed.positions = found.x.reshape(-1, 3)
    left = float(np.abs(found.jac).max())
    if left > TOLERATED:
        raise NoMinimum(
            f"{atoms.get_chemical_formula()}: a force of {left:.2g} eV/Å is left after "
            f"{found.nit} steps with {labeler.describe()}; start from a better structure."
        )
    return relaxed


def thermal(atoms: Atoms, labeler: Labeler, charge: int = 0, spin: int = 1) -> Thermal:
    """The ensemble of a relaxed molecule in the harmonic approximation.

    With D = M^{-1/2} (∂²E/∂R²) M^{-1/2} without translations and rotations, spread =
    M^{-1/2} D^{+1/2}, where D^{+} is the inverse on all modes that are stiff enough. As a function
    of the whole matrix it does not depend on signs and order of modes, nor on a choice among modes
    of one frequency, and the same random numbers give the same structure. The mean potential energy
    of a mode is k_B T / 2; the code published with Neubert et al. 2025 draws random parts of a
    total instead, with displacements ten times as large as its temperature says.

    Args:
        atoms: a minimum, from `relax`.
        labeler: source of forces.
        charge: total charge in e.
        spin: multiplicity 2S+1.

    Raises:
        NoMinimum: if a stiff mode points downhill.
        LabelingFailed: if the labeler fails.
    """
    hessian = _hessian(atoms, labeler, charge, spin)
    roots = np.sqrt(np.repeat(atomic_masses[atoms.numbers], 3))
    inside = _without_rigid_motion(atoms.positions, roots)
    values, modes = np.linalg.eigh(inside @ (hessian / np.outer(roots, roots)) @ inside)
    if values[0] < -SOFTEST:
        raise NoMinimum(
            f"{atoms.get_chemical_formula()}: this is no minimum of {labeler.describe()}; relax it "
            "first."
        )
    stiff = values > SOFTEST
    widths = np.zeros_like(values)
    widths[stiff] = values[stiff] ** -0.5
    return Thermal(atoms.copy(), (modes * widths) @ modes.T / roots[:, None])


def _surface(
    atoms: Atoms, labeler: Labeler, charge: int, spin: int
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Energy in eV and its slope in eV/Å as a function of the coordinates in Å."""

    def evaluate(coordinates: np.ndarray) -> tuple[float, np.ndarray]:
        moved = atoms.copy()
        moved.positions = coordinates.reshape(-1, 3)
        labels = labeler.label(moved, charge, spin)
        return labels.energy, -labels.forces.ravel()

    return evaluate


def _hessian(
    atoms: Atoms, labeler: Labeler, charge: int, spin: int
) -> Float[np.ndarray, "coordinates coordinates"]:
    """∂²E/∂R² in eV/Å² by central differences of the forces."""
    function = _surface(atoms, labeler, charge, spin)
    steps = STEP * np.eye(3 * len(atoms))
    place = atoms.positions.ravel()
    rows = [(function(place + step)[1] - function(place - step)[1]) / (2 * STEP) for step in steps]
    hessian = np.array(rows)
    return (hessian + hessian.T) / 2


def _without_rigid_motion(
    positions: Float[np.ndarray, "atoms 3"], roots: Float[np.ndarray, " coordinates"]
) -> Float[np.ndarray, "coordinates coordinates"]:
    """Projector in mass-weighted coordinates onto what neither moves nor turns the molecule."""
    masses = roots[::3] ** 2
    places = positions - masses @ positions / masses.sum()
    moves = [np.tile(axis, len(places)) for axis in np.eye(3)]
    turns = [np.cross(axis, places).ravel() for axis in np.eye(3)]
    rigid = np.array([*moves, *turns]).T * roots[:, None]
    left, sizes, _ = np.linalg.svd(rigid, full_matrices=False)
    left = left[:, sizes > 1e-6 * sizes[0]]  # a linear molecule turns about two axes
    return np.eye(len(roots)) - left @ left.T
