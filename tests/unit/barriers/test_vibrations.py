"""Hessians against autograd, frequencies with known answers, rigid motion."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms

from surefoot.barriers.vibrations import (
    find_hessian,
    find_vibrations,
    internal_motion,
)
from surefoot.data.convert import to_graph
from surefoot.graph import Graph
from surefoot.motion.lennard_jones import LennardJones
from surefoot.units import BOLTZMANN, DALTON, LIGHT, PLANCK

from .conftest import Formula, leps

STIFF = 60.0  # eV/Å²
BOND = 1.16


def springs(positions: torch.Tensor) -> torch.Tensor:
    """Two bonds of a molecule of three atoms, the first in the middle."""
    middle, *ends = positions.unbind(1)
    lengths = torch.stack([(end - middle).norm(dim=-1) for end in ends])
    return 0.5 * STIFF * (lengths - BOND).square().sum(0)


def wavenumber(curvature: float, mass: float) -> float:
    return float(np.sqrt(curvature / (mass * DALTON)) / (2 * np.pi * LIGHT))


def carbon_dioxide() -> Atoms:
    return Atoms("CO2", positions=[[0, 0, 0], [BOND, 0, 0], [-BOND, 0, 0]])


def test_hessian_equals_that_of_autograd() -> None:
    atoms = Atoms("CHC", positions=[[0, 0, 0], [1.3, 0.1, 0], [2.7, -0.1, 0.2]])
    found = find_hessian(atoms, Formula(leps), 1e-3)
    exact = torch.autograd.functional.hessian(
        lambda x: leps(x.reshape(1, 3, 3)).sum(), torch.tensor(atoms.positions.ravel())
    )
    np.testing.assert_allclose(found, exact.numpy(), atol=1e-3)
    np.testing.assert_array_equal(found, found.T)


def test_hessian_of_fixed_atoms_is_left_out() -> None:
    atoms = Atoms("CHC", positions=[[0, 0, 0], [1.3, 0.1, 0], [2.7, -0.1, 0.2]])
    whole = find_hessian(atoms, Formula(leps))
    atoms.set_constraint(FixAtoms([0]))
    np.testing.assert_allclose(find_hessian(atoms, Formula(leps)), whole[3:, 3:], atol=1e-9)


def test_one_list_serves_all_displaced_structures(rng) -> None:
    """Pairs enter and leave the cutoff with the displacements: what is summed up is exact."""

    class Counted(LennardJones):
        def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool):
            found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
            edges.append(graph.edge_index.shape[1])
            return found

    edges: list[int] = []
    atoms = Atoms("Ar8", positions=2.4 * rng.normal(size=(8, 3)))
    atoms.positions[1] = atoms.positions[0] + [5.0 + 1e-3, 0, 0]  # within a step of the cutoff
    surface = Counted(cutoff=5.0, onset=4.0)
    found = find_hessian(atoms, surface, 2e-3)
    assert len(edges) == 1
    rows = []
    for side in (2e-3, -2e-3):
        moved = atoms.copy()
        moved.positions[1, 0] += side
        rows.append(
            surface(to_graph(moved, 5.0), stress=False, uncertainty=False).forces.flatten().numpy()
        )
    np.testing.assert_allclose(found[3], (rows[1] - rows[0]) / 4e-3, atol=1e-5)


def test_frequencies_of_a_molecule_of_springs() -> None:
    """Three atoms in a line, with masses of carbon dioxide: both stretches in closed form."""
    atoms = carbon_dioxide()
    found = find_vibrations(atoms, Formula(springs), 1e-3)
    oxygen, carbon = 15.999, 12.011
    expected = [wavenumber(STIFF, oxygen), wavenumber(STIFF * (1 + 2 * oxygen / carbon), oxygen)]
    # Four vibrations, two of which bend, against nothing here; five rigid motions are left out.
    assert found.frequencies.shape == (4,)
    np.testing.assert_allclose(found.frequencies[2:], expected, rtol=1e-5)
    assert np.abs(found.frequencies[:2]).max() < 2.0  # of 3000 and more
    # The centre moves in the fast one alone: it holds 2 m_O / (2 m_O + m_C) of its energy.
    assert found.share(2, 0) == pytest.approx(0.0, abs=1e-8)
    assert found.share(3, 0) == pytest.approx(2 * oxygen / (2 * oxygen + carbon), rel=1e-4)
    np.testing.assert_allclose((found.modes**2).sum((1, 2)), 1.0)


@pytest.mark.parametrize(
    ("fixed", "motions"), [([], 6), ([0], 3), ([0, 1], 1), ([0, 1, 2], 0), ([0, 1, 2, 3], 0)]
)
def test_only_motion_under_which_fixed_atoms_stay_is_rigid(rng, fixed, motions) -> None:
    atoms = Atoms("CHOHN", positions=rng.normal(size=(5, 3)))
    atoms.set_constraint(FixAtoms(fixed))
    basis = internal_motion(atoms)
    size = 3 * (5 - len(fixed))
    assert basis.shape == (size, size - motions)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size - motions), atol=1e-12)


def test_linear_and_periodic_structures() -> None:
    assert internal_motion(carbon_dioxide()).shape == (9, 4)
    atoms = carbon_dioxide()
    atoms.set_cell([8, 8, 8])
    atoms.pbc = True
    assert internal_motion(atoms).shape == (9, 6)
    turned = carbon_dioxide()
    turn = np.cross([0.3, 0.5, -0.2], turned.positions).ravel()
    np.testing.assert_allclose(internal_motion(turned).T @ turn, 0.0, atol=1e-12)


def test_energies_of_vibrations() -> None:
    found = find_vibrations(carbon_dioxide(), Formula(springs), 1e-3)
    quanta = PLANCK * LIGHT * found.frequencies
    assert found.zero_point() == pytest.approx(quanta[2:].sum() / 2, rel=1e-3)
    assert found.zero_point(3) == pytest.approx(quanta[3] / 2)
    # At the absolute zero the free energy is the zero-point energy, softer ones being 100 cm⁻¹.
    soft = PLANCK * LIGHT * 100.0 / 2
    assert found.free_energy(1e-2) == pytest.approx(2 * soft + quanta[2:].sum() / 2, rel=1e-6)
    thermal = BOLTZMANN * 300.0
    alone = quanta[3] / 2 + thermal * np.log(1 - np.exp(-quanta[3] / thermal))
    assert found.free_energy(300.0, 3) == pytest.approx(alone)
    assert found.free_energy(300.0) < found.free_energy(1e-2)
