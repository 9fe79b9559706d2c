from importlib.util import find_spec

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from surefoot.label.labeler import LabelingFailed
from surefoot.label.pyscf import Pyscf
from surefoot.units import BOHR, HARTREE

QUICK = Pyscf(method="PBE", basis="sto-3g", grid=1)


def hydroxyl() -> Atoms:
    return Atoms("OH", [[0.0, 0.0, 0.0], [0.3, 0.5, 0.8]])


@pytest.mark.parametrize(
    "labeler",
    [
        Pyscf(method="BMK", grid=1, convergence=1e-10),
        Pyscf(method="r2SCAN", basis="sto-3g", grid=2, integrals="exact", convergence=1e-10),
        Pyscf(method="B3LYP", basis="def2-SVP", grid=0, convergence=1e-10),
    ],
)
def test_forces_are_minus_the_gradient_of_the_energy(labeler: Pyscf) -> None:
    forces = labeler.label(hydroxyl(), 0, 2).forces
    energies = []
    for sign in (1, -1):
        moved = hydroxyl()
        moved.positions[1, 2] += sign * 2e-3
        energies.append(labeler.label(moved, 0, 2).energy)
    # On these grids forces without the motion of the grid are off by far more.
    assert forces[1, 2] == pytest.approx(-(energies[0] - energies[1]) / 4e-3, abs=2e-4)
    np.testing.assert_allclose(forces[0], -forces[1], atol=1e-8)


def test_a_published_energy() -> None:
    # Hartree-Fock in a minimal basis, from the programming exercises of T. D. Crawford's group.
    places = np.array([[0, -0.143225816552, 0], [1.638036840407, 1.136548822547, 0],
                       [-1.638036840407, 1.136548822547, 0]])  # fmt: skip
    labels = Pyscf(method="HF", basis="sto-3g", integrals="exact", grid=0).label(
        Atoms("OH2", places * BOHR), 0, 1
    )
    assert labels.energy / HARTREE == pytest.approx(-74.942079928192, abs=1e-6)


def test_charge_and_spin_reach_the_calculation() -> None:
    states = [(0, 2), (0, 4), (1, 1), (-1, 1)]
    labels = [QUICK.label(molecule("CH3"), *state) for state in states]
    doublet, quartet, cation, anion = (one.energy for one in labels)
    assert quartet > doublet + 5
    assert cation > doublet + 5
    assert abs(anion - doublet) < 8  # a minimal basis has no room for the electron
    spins = [one.spin_squared for one in labels]
    np.testing.assert_allclose(np.array(spins, float), [0.75, 3.75, 0, 0], atol=0.02)


def test_a_bond_that_breaks_ends_as_two_atoms() -> None:
    # From the symmetric solution no step leads there: it has to be seen as unstable.
    labeler = Pyscf(method="BMK", grid=1)
    apart = labeler.label(Atoms("H2", [[0, 0, 0], [0, 0, 4.0]]), 0, 1)
    assert apart.energy == pytest.approx(2 * labeler.label(Atoms("H"), 0, 2).energy, abs=0.02)
    assert apart.spin_squared == pytest.approx(1.0, abs=0.02)


def test_labels_do_not_depend_on_what_was_calculated_before() -> None:
    stretched = hydroxyl()
    stretched.positions[1] *= 1.7
    fresh = QUICK.label(stretched, 0, 2)
    QUICK.label(hydroxyl(), 0, 2)
    again = QUICK.label(stretched, 0, 2)
    assert again.energy == fresh.energy
    np.testing.assert_array_equal(again.forces, fresh.forces)


def test_newton_takes_over_where_cycles_do_not_end() -> None:
    usual = QUICK.label(molecule("H2O"), 0, 1).energy
    few = Pyscf(method="PBE", basis="sto-3g", grid=1, max_cycles=3)
    assert few.label(molecule("H2O"), 0, 1).energy == pytest.approx(usual, abs=1e-5)
    with pytest.raises(LabelingFailed, match="SCF not converged in 1 cycles"):
        Pyscf(method="PBE", basis="sto-3g", grid=1, max_cycles=1).label(molecule("H2O"), 0, 1)


def test_what_can_not_be_calculated_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match=r"does not know the functional 'nonsense'.*BMK"):
        Pyscf(method="nonsense").settings()
    with pytest.raises(ValueError, match="has a dispersion correction in its name; write it apart"):
        Pyscf(method="B3LYP-D3BJ").settings()
    with pytest.raises(LabelingFailed, match=r"BMK/sto-3g .*Au"):
        Pyscf(basis="sto-3g").label(Atoms("Au"), 0, 2)
    periodic = hydroxyl()
    periodic.pbc = True
    with pytest.raises(LabelingFailed, match="periodic"):
        QUICK.label(periodic, 0, 2)


def hydrogen_iodide(length: float) -> Atoms:
    return Atoms("IH", [[0, 0, 0], [0, 0, length]])


def test_inner_electrons_of_heavy_atoms_are_a_potential_where_the_basis_means_it() -> None:
    labeler = Pyscf(method="PBE", basis="def2-SVP", grid=0)
    given = hydrogen_iodide(1.6)
    electrons = labeler._molecule(given, 0, 1).nelectron
    assert electrons == given.numbers.sum() - labeler.cores(given.numbers)["I"]
    # The bond is 1.609 Å long (Huber and Herzberg 1979).
    pulls = [labeler.label(hydrogen_iodide(length), 0, 1).forces[1, 2] for length in (1.5, 1.75)]
    assert pulls[0] > 1
    assert pulls[1] < -0.5


def test_elements_with_all_their_electrons_have_no_core() -> None:
    assert Pyscf().cores(molecule("CH3").numbers) == {}
    assert Pyscf(basis="sto-3g").cores(np.array([53])) == {}
    assert Pyscf(basis="sto-3g")._molecule(hydrogen_iodide(1.6), 0, 1).nelectron == 54
    assert set(Pyscf().cores(np.array([1, 36, 37, 79]))) == {"Rb", "Au"}


@pytest.mark.parametrize(
    ("basis", "atoms"),
    [("qavgvszps", "OH2"), ("ccecp-ccpvdz", "OH2"), ("gth-dzvp", "OH2"), ("bfd-vdz", "IH")],
)
def test_a_basis_for_a_core_that_is_not_there_is_refused(basis: str, atoms: str) -> None:
    given = Atoms(atoms, np.eye(3)[: len(Atoms(atoms))])
    with pytest.raises(LabelingFailed, match=f"the basis {basis} is not for . with all its"):
        Pyscf(method="PBE", basis=basis, grid=0).label(given, 0, 1)


@pytest.mark.skipif(find_spec("pyscf.dispersion") is not None, reason="the correction is there")
def test_a_correction_that_is_not_installed_is_asked_for() -> None:
    with pytest.raises(ValueError, match="pip install pyscf-dispersion"):
        Pyscf(method="PBE", dispersion="d3bj").settings()


@pytest.mark.skipif(find_spec("pyscf.dispersion") is None, reason="pyscf-dispersion is not there")
def test_dispersion_pulls_atoms_together() -> None:
    pair = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.2]])
    plain = Pyscf(method="PBE", basis="sto-3g", grid=1)
    corrected = plain.model_copy(update={"dispersion": "d3bj"})
    gained = corrected.label(pair, 0, 1), plain.label(pair, 0, 1)
    assert -0.02 < gained[0].energy - gained[1].energy < -0.002
    assert gained[0].forces[1, 2] < gained[1].forces[1, 2]
    assert corrected.describe().startswith("PBE-D3(BJ)/sto-3g")
    assert "pyscf-dispersion" in corrected.settings()["code"]


def test_settings_name_method_basis_and_version() -> None:
    settings = Pyscf().settings()
    assert (settings["method"], settings["basis"], settings["grid"]) == ("BMK", "def2-SVP", 3)
    assert settings["code"].startswith("pyscf 2")
    assert Pyscf(method="B3LYP").describe().startswith("B3LYP/def2-SVP (pyscf 2")
