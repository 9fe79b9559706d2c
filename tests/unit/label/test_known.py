from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from surefoot.label.known import Known
from surefoot.label.labeler import LabelingFailed


@pytest.fixture
def file(tmp_path: Path, rng: np.random.Generator) -> Path:
    images = []
    for number in range(3):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0.0, 0.1, (3, 3))
        atoms.info["REF_energy"] = -10.0 - number
        atoms.arrays["REF_forces"] = rng.normal(size=(3, 3))
        images.append(atoms)
    path = tmp_path / "known.xyz"
    ase.io.write(path, images)
    return path


def test_labels_are_those_of_the_structure(file: Path) -> None:
    labeler = Known(files=(str(file),))
    for number, atoms in enumerate(ase.io.read(file, ":")):
        labels = labeler.label(Atoms(atoms.numbers, atoms.positions + 1e-6), 0, 1)
        assert labels.energy == -10.0 - number
        np.testing.assert_allclose(labels.forces, atoms.arrays["REF_forces"], atol=1e-7)


def test_other_structures_are_not_known(file: Path) -> None:
    labeler = Known(files=(str(file),))
    first = ase.io.read(file, 0)
    first.positions[0, 0] += 1e-2
    with pytest.raises(LabelingFailed, match="no file of known labels"):
        labeler.label(first, 0, 1)


def test_a_state_that_the_file_states_counts(file: Path) -> None:
    atoms = ase.io.read(file, 0)
    atoms.info |= {"charge": 1, "spin": 2}
    ase.io.write(file, atoms)
    labeler = Known(files=(str(file),))
    assert labeler.label(atoms, 1, 2).energy == -10.0
    with pytest.raises(LabelingFailed, match="in this state"):
        labeler.label(atoms, 0, 1)


def test_labels_belong_to_the_content_of_the_file(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.xyz"
    other.write_bytes(file.read_bytes())
    assert Known(files=(str(file),)).settings() == Known(files=(str(other),)).settings()
    other.write_bytes(file.read_bytes() * 2)
    third = tmp_path / "third.xyz"
    third.write_bytes(other.read_bytes())
    assert Known(files=(str(file),)).settings() != Known(files=(str(third),)).settings()


def test_energies_without_forces_are_no_labels(file: Path) -> None:
    atoms = ase.io.read(file, 0)
    del atoms.arrays["REF_forces"]
    ase.io.write(file, atoms)
    with pytest.raises(LabelingFailed, match="no energy or no forces"):
        Known(files=(str(file),)).label(atoms, 0, 1)


def test_no_rounding_comes_between_two_files(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.positions[:] = np.round(atoms.positions, 4) + 4.9999999e-5  # at the edge of a step
    atoms.info["REF_energy"] = -10.0
    atoms.arrays["REF_forces"] = np.zeros((3, 3))
    ase.io.write(tmp_path / "known.xyz", atoms)
    labeler = Known(files=(str(tmp_path / "known.xyz"),))
    assert labeler.label(Atoms(atoms.numbers, atoms.positions + 2e-8), 0, 1).energy == -10.0
