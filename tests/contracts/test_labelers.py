"""Laws of every labeler in LABELERS and of every reader in READERS."""

import json
import pickle
from pathlib import Path
from shutil import which

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from surefoot.data.images import READERS, UnreadableFile
from surefoot.data.read import read_frames
from surefoot.label import LABELERS
from surefoot.label.labeler import LabelingFailed

MOLECULES_ONLY = {"xtb", "pyscf", "xtb_program"}
SMALL: dict[str, dict[str, object]] = {
    "xtb": {},
    "pyscf": {"method": "PBE", "basis": "sto-3g", "grid": 1},
    "ase": {"calculator": "emt"},
    "xtb_program": {"method": "GFN2-xTB"},
}
"""Settings with which a labeler takes little time."""


def write_known(file: Path) -> Path:
    """Labels of the structures of these tests, by EMT."""
    rattled = molecule("CH3")
    rattled.rattle(0.05, seed=0)
    images = [rattled, molecule("CH3"), bulk("Cu", cubic=True)]
    for sign in (1, -1):
        images.append(rattled.copy())
        images[-1].positions[1, 0] += sign * 1e-3
    for atoms in images:
        atoms.calc = EMT()
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
    ase.io.write(file, images, format="extxyz")
    return file


@pytest.fixture(params=sorted(LABELERS))
def labeler(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "known":
        return LABELERS["known"].model_validate(
            {"files": [str(write_known(tmp_path / "known.xyz"))]}
        )
    if request.param == "xtb_program" and which("xtb") is None:
        pytest.skip("the program xtb is not there")
    return LABELERS[request.param].model_validate(SMALL[request.param])


def test_settings_name_method_and_code(labeler) -> None:
    settings = labeler.settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["name"] == labeler.name
    assert settings["code"]
    assert labeler.describe()


def test_forces_are_minus_the_slope_of_the_energy(labeler) -> None:
    atoms = molecule("CH3")
    atoms.rattle(0.05, seed=0)
    forces = labeler.label(atoms, 0, 2).forces
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[1, 0] += sign * 1e-3
        energies.append(labeler.label(moved, 0, 2).energy)
    assert forces[1, 0] == pytest.approx(-(energies[0] - energies[1]) / 2e-3, abs=1e-3)
    assert np.abs(forces.sum(0)).max() < 1e-6


@pytest.mark.parametrize("state", [(0, 1), (0, 3), (1, 2), (0, 0), (0, 12)])
def test_impossible_states_are_refused(labeler, state: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"electron|spin"):
        labeler.label(molecule("CH3"), *state)


def test_a_periodic_frame_is_labelled_or_refused_with_a_reason(labeler) -> None:
    if labeler.name in MOLECULES_ONLY:
        with pytest.raises(LabelingFailed, match=r"(?i)period"):
            labeler.label(bulk("Cu", cubic=True), 0, 1)
    else:
        assert np.isfinite(labeler.label(bulk("Cu", cubic=True), 0, 1).energy)


def test_labelers_travel_to_other_processes(labeler) -> None:
    assert pickle.loads(pickle.dumps(labeler)).settings() == labeler.settings()  # noqa: S301


def test_the_structure_is_left_as_it_was(labeler) -> None:
    atoms = molecule("CH3")
    before = atoms.copy()
    labeler.label(atoms, 0, 2)
    assert atoms == before
    assert atoms.info == before.info


@pytest.mark.parametrize("suffix", sorted(READERS))
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 torn"])
def test_a_damaged_file_is_refused_by_name(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="broken"):
        read_frames([path])
