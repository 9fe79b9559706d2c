import os
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from surefoot.label import LABELERS
from surefoot.label.labeler import LabelingFailed
from surefoot.label.xtb import Xtb

DATA = os.environ.get("SUREFOOT_DATA")


def methyl() -> Atoms:
    atoms = molecule("CH3")
    atoms.positions += np.random.default_rng(0).normal(0.0, 0.05, atoms.positions.shape)
    return atoms


@pytest.mark.parametrize("method", ["GFN2-xTB", "GFN1-xTB"])
def test_forces_are_minus_the_gradient_of_the_energy(method: str) -> None:
    labeler = Xtb(method=method, accuracy=0.01)  # type: ignore[arg-type]
    atoms = methyl()
    step = 1e-3
    expected = np.zeros_like(atoms.positions)
    for index in np.ndindex(*expected.shape):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[index] += sign * step
            energies.append(labeler.label(moved, 0, 2).energy)
        expected[index] = -(energies[0] - energies[1]) / (2 * step)
    forces = labeler.label(atoms, 0, 2).forces
    assert np.abs(forces).max() > 0.5
    np.testing.assert_allclose(forces, expected, atol=1e-4)


def test_charge_and_spin_reach_the_calculation() -> None:
    states = [(0, 2), (0, 4), (1, 1), (-1, 1)]
    doublet, quartet, cation, anion = (Xtb().label(methyl(), *s).energy for s in states)
    assert quartet - doublet == pytest.approx(16, abs=4)
    assert cation - doublet > 8
    assert -5 < anion - doublet < 2


def test_the_atom_and_the_unit_of_energy() -> None:
    assert Xtb().label(Atoms("H"), 0, 2).energy == pytest.approx(-0.393483 * 27.211386, abs=1e-4)


def test_settings_name_method_and_version() -> None:
    settings = LABELERS["xtb"](method="GFN1-xTB").settings()
    assert settings["name"] == "xtb"
    assert settings["method"] == "GFN1-xTB"
    assert settings["code"].startswith("tblite ")
    assert Xtb().describe().startswith("GFN2-xTB (tblite ")


def test_settings_reach_the_calculation() -> None:
    cold = Xtb().label(methyl(), 0, 4).energy
    assert Xtb(electronic_temperature=20000).label(methyl(), 0, 4).energy < cold - 0.01


def test_a_calculation_that_does_not_converge_fails() -> None:
    with pytest.raises(LabelingFailed, match="SCF not converged in 1 cycles"):
        Xtb(max_iterations=1).label(methyl(), 0, 2)


def test_frames_it_can_not_take_are_refused() -> None:
    periodic = methyl()
    periodic.set_cell(np.eye(3) * 10)
    periodic.pbc = (True, False, False)
    with pytest.raises(LabelingFailed, match="periodic"):
        Xtb().label(periodic, 0, 2)
    lost = methyl()
    lost.positions[0, 0] = np.nan
    with pytest.raises(LabelingFailed, match="not finite"):
        Xtb().label(lost, 0, 2)
    with pytest.raises(LabelingFailed, match="Too close"):
        Xtb().label(Atoms("H2"), 0, 1)
    with pytest.raises(ValueError, match="odd number of electrons"):
        Xtb().label(methyl(), 0, 1)


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="SUREFOOT_DATA does not name the data sets")
def test_published_labels_are_reproduced() -> None:
    path = Path(str(DATA)) / "hat_peptide" / "hat_pes_learning_demo.extxyz"
    images = ase.io.read(path, ":")
    kinds = {"nms": 1, "radical_inter": 2, "radical_intra": 2, "hat_inter": 2, "hat_intra": 2}
    for kind, spin in kinds.items():
        atoms = next(image for image in images if image.info["config_type"] == kind)
        labels = Xtb().label(atoms, 0, spin)
        assert labels.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
        np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=1e-3)
