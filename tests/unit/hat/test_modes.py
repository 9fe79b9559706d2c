from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from surefoot.hat.modes import NoMinimum, relax, thermal
from surefoot.label.labeler import Labels
from surefoot.label.xtb import Xtb
from surefoot.units import BOLTZMANN

STIFFNESS, LENGTH = 30.0, 1.1  # eV/Å², Å


@dataclass
class Bond:
    """E = k (r − r0)² / 2 of two atoms, turned over where k is negative."""

    stiffness: float = STIFFNESS
    name: str = "bond"

    def settings(self) -> dict[str, Any]:
        return {}

    def describe(self) -> str:
        return "a spring"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        assert (charge, spin) == (0, 1)
        way = atoms.positions[1] - atoms.positions[0]
        stretch = np.linalg.norm(way) - LENGTH
        pull = self.stiffness * stretch * way / np.linalg.norm(way)
        return Labels(0.5 * self.stiffness * stretch**2, np.array([pull, -pull]))


def pair(length: float) -> Atoms:
    return Atoms("CO", [[0, 0, 0], [0, 0.6 * length, 0.8 * length]])


def test_relaxation_ends_in_the_minimum() -> None:
    relaxed = relax(pair(1.3), Bond())
    assert relaxed.get_distance(0, 1) == pytest.approx(LENGTH, abs=1e-4)


def test_a_bond_is_stretched_as_heat_says_and_nothing_else_moves() -> None:
    ensemble = thermal(pair(LENGTH), Bond())
    generator = np.random.default_rng(0)
    temperature = 300.0
    images = [ensemble.displaced(temperature, generator) for _ in range(4000)]
    way = np.array([0, 0.6, 0.8])
    bonds = np.array([atoms.positions[1] - atoms.positions[0] for atoms in images])
    width = np.sqrt(BOLTZMANN * temperature / STIFFNESS)
    assert (bonds @ way).std() == pytest.approx(width, rel=0.05)
    assert np.abs(np.cross(bonds, way)).max() < 1e-10
    masses = images[0].get_masses()
    centres = np.array([masses @ atoms.positions for atoms in images])
    assert np.ptp(centres, axis=0).max() < 1e-10


def test_each_mode_has_its_share_of_energy() -> None:
    labeler = Xtb()
    water = relax(molecule("H2O"), labeler)
    ensemble = thermal(water, labeler)
    generator = np.random.default_rng(0)
    lowest = labeler.label(water, 0, 1).energy
    temperature = 50.0
    drawn = [ensemble.displaced(temperature, generator) for _ in range(1000)]
    gained = np.mean([labeler.label(atoms, 0, 1).energy for atoms in drawn]) - lowest
    assert gained == pytest.approx(3 * BOLTZMANN * temperature / 2, rel=0.1)


def test_the_same_random_numbers_give_the_same_structure_whatever_the_modes_are_called() -> None:
    methane = relax(molecule("CH4"), Xtb())
    turned = methane.copy()
    order = [0, 2, 3, 1, 4]
    turned.positions = methane.positions[order]  # a symmetric molecule: the frequencies coincide
    ensembles = thermal(methane, Xtb()), thermal(turned, Xtb())
    drawn = np.random.default_rng(1).normal(size=(5, 3))
    one = (ensembles[0].spread @ drawn.ravel()).reshape(-1, 3)
    other = (ensembles[1].spread @ drawn[order].ravel()).reshape(-1, 3)
    np.testing.assert_allclose(other, one[order], atol=1e-5)


def test_what_is_no_minimum_is_refused() -> None:
    with pytest.raises(NoMinimum, match="CO: this is no minimum of a spring; relax it"):
        thermal(pair(LENGTH), Bond(-STIFFNESS))
    with pytest.raises(NoMinimum, match=r"a force of .* is left after .* steps with a spring"):
        relax(pair(1.3), Bond(-STIFFNESS))
