"""HDF5 of MACE, old and new, and conformers whose forces may be gradients."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from surefoot.data.consistency import check_forces_against_energies
from surefoot.data.file_units import FileUnits
from surefoot.data.hdf5 import AS_WRITTEN, NEGATED
from surefoot.data.images import UnreadableFile
from surefoot.data.read import Keys, describe_labels, read_frames
from surefoot.units import HARTREE

POSITIONS = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])
FORCES = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])


def add(group: h5py.Group, number: int, labels: dict, *, nested: bool = True) -> h5py.Group:
    """A configuration as MACE writes it; what is None is the text None."""
    one = group.create_group(f"config_{number}")
    one["atomic_numbers"] = np.array([1, 8])
    one["positions"] = POSITIONS + number
    one["cell"] = np.eye(3) * 9.0
    one["pbc"] = np.array([True, True, False])
    one["config_type"] = "wire"
    place = one.create_group("properties") if nested else one
    for name, value in labels.items():
        place[name] = "None" if value is None else value
    return one


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "file.h5"


def test_configurations_by_number_with_absent_labels(path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("config_batch_0")
        for number in range(12):  # by name, 10 would come before 2
            labels = {"energy": float(number), "forces": FORCES * number, "virials": None}
            add(group, number, labels | {"total_charge": 1.0, "total_spin": 2.0})
        last = add(file.create_group("config_batch_1"), 0, {"energy": -1.0, "forces": FORCES})
        weights = last.create_group("property_weights")
        weights["energy"], weights["forces"] = 1.0, 0.0
    frames = read_frames([path])
    assert [frame.energy for frame in frames] == [*range(12), -1.0]
    np.testing.assert_array_equal(frames[10].forces, FORCES * 10)
    np.testing.assert_array_equal(frames[10].atoms.positions, POSITIONS + 10)
    assert frames[-1].forces is None  # a weight of zero is MACE's way to say that there are none
    assert (frames[3].charge, frames[3].spin, frames[3].config_type) == (1, 2, "wire")
    assert frames[3].atoms.pbc.tolist() == [True, True, False]
    assert "stress 0/13" in describe_labels(frames)


def test_older_configurations_without_properties(path) -> None:
    with h5py.File(path, "w") as file:
        stress = np.diag([0.1, 0.2, 0.3])
        labels = {"energy": -2.0, "forces": FORCES, "stress": stress, "stress_weight": 1.0}
        add(file.create_group("config_batch_0"), 0, labels, nested=False)
    (frame,) = read_frames([path])
    assert frame.energy == -2.0
    np.testing.assert_array_equal(frame.stress, stress)


@pytest.fixture
def conformers(path) -> Path:
    """As in COMP6."""
    with h5py.File(path, "w") as file:
        group = file.create_group("s66x8/mol00")
        group["species"] = np.array([b"H", b"O"])
        group["coordinates"] = np.stack([POSITIONS, POSITIONS + 1.0])
        group["energies"] = np.array([-75.0, -75.1])
        group["forces"] = np.stack([FORCES, 2 * FORCES]).astype(np.float32)
    return path


def test_forces_that_may_be_gradients_are_not_guessed(conformers) -> None:
    with pytest.raises(UnreadableFile, match=f"{NEGATED}.*{AS_WRITTEN}"):
        read_frames([conformers])


@pytest.mark.parametrize(("key", "sign"), [(NEGATED, -1.0), (AS_WRITTEN, 1.0)])
def test_stated_sign(conformers, key, sign) -> None:
    frames = read_frames([conformers], Keys(forces=key), FileUnits(energy="Hartree"))
    np.testing.assert_allclose(frames[1].forces, sign * 2 * FORCES * HARTREE, rtol=1e-6)
    assert frames[0].energy == pytest.approx(-75.0 * HARTREE)
    assert frames[0].atoms.get_chemical_symbols() == ["H", "O"]


def test_conformers_without_forces(conformers) -> None:
    assert [frame.forces for frame in read_frames([conformers], Keys(forces="none"))] == [None] * 2


@pytest.mark.data
def test_forces_of_comp6_are_gradients(data_folder) -> None:
    """The work along its own scans says so."""
    path = data_folder / "comp6" / "s66x8_wb97x6-31gd.h5"
    codes = {}
    for key in (NEGATED, AS_WRITTEN):
        frames = read_frames([path], Keys(forces=key), FileUnits(energy="Hartree"))[:80]
        codes[key] = [finding.code for finding in check_forces_against_energies(frames)]
    assert codes == {AS_WRITTEN: ["forces-sign"], NEGATED: []}


@pytest.mark.parametrize(
    ("link", "told"),
    [
        (h5py.ExternalLink("/etc/passwd", "/"), "a link to another place"),
        (h5py.SoftLink("/config_batch_0"), "a link to another place"),
    ],
)
def test_links_are_not_followed(path, link, told) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("config_batch_0")["config_0"] = link
    with pytest.raises(UnreadableFile, match=told):
        read_frames([path])


def test_arrays_far_larger_than_the_file(path) -> None:
    with h5py.File(path, "w") as file:
        one = add(file.create_group("config_batch_0"), 0, {})
        del one["positions"]
        one.create_dataset(
            "positions", (10**9, 3), dtype="f8", chunks=(10**6, 3)
        )  # nothing is stored
    with pytest.raises(UnreadableFile, match="fits the file"):
        read_frames([path])


@pytest.mark.parametrize("name", ["other", "config_batch_x"])
def test_other_layouts(path, name) -> None:
    with h5py.File(path, "w") as file:
        file.create_group(name)
    with pytest.raises(UnreadableFile, match=r"neither configurations|a number should end"):
        read_frames([path])


def test_species_and_coordinates_that_do_not_fit(conformers) -> None:
    with h5py.File(conformers, "a") as file:
        del file["s66x8/mol00/species"]
        file["s66x8/mol00/species"] = np.array([b"H", b"H", b"O"])
    with pytest.raises(UnreadableFile, match="3 species"):
        read_frames([conformers])
