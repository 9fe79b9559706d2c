"""Folders of DeePMD-kit: plain and mixed, with and without a cell, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from surefoot.data.images import UnreadableFile, hash_source
from surefoot.data.read import read_frames

ATOMS, FRAMES = 3, 2
CELL = np.array([[6.0, 0.0, 0.0], [1.0, 7.0, 0.0], [0.0, 0.0, 8.0]])


@pytest.fixture
def arrays(rng) -> dict[str, np.ndarray]:
    return {
        "coord": rng.uniform(1, 5, (FRAMES, 3 * ATOMS)),
        "box": np.repeat(CELL.reshape(1, 9), FRAMES, axis=0),
        "energy": rng.normal(size=FRAMES),
        "force": rng.normal(size=(FRAMES, 3 * ATOMS)),
        "virial": np.repeat(np.diag([1.0, 2.0, 3.0]).reshape(1, 9), FRAMES, axis=0),
    }


def write(folder: Path, arrays: dict[str, np.ndarray], kinds: str = "0 1 1") -> Path:
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("\n".join(kinds.split()))
    (folder / "type_map.raw").write_text("O\nH\n")
    for name, array in arrays.items():
        np.save(folder / "set.000" / f"{name}.npy", array)
    return folder


def test_frames_with_a_cell(tmp_path, arrays) -> None:
    frames = read_frames([write(tmp_path / "water", arrays)])
    for index, frame in enumerate(frames):
        assert frame.atoms.get_chemical_symbols() == ["O", "H", "H"]
        np.testing.assert_array_equal(frame.atoms.positions.ravel(), arrays["coord"][index])
        np.testing.assert_array_equal(frame.forces.ravel(), arrays["force"][index])
        assert frame.energy == arrays["energy"][index]
        # A virial is −V σ.
        np.testing.assert_allclose(
            frame.stress * frame.atoms.cell.volume, -np.diag([1.0, 2.0, 3.0]), atol=1e-12
        )
        assert frame.atoms.pbc.all()


def test_sets_follow_each_other(tmp_path, arrays) -> None:
    folder = write(tmp_path / "water", arrays)
    other = folder / "set.001"
    other.mkdir()
    for name, array in arrays.items():
        np.save(other / f"{name}.npy", array[:1] + 1.0)
    frames = read_frames([folder])
    assert len(frames) == FRAMES + 1
    assert frames[-1].energy == arrays["energy"][0] + 1.0


def test_mixed_molecules_without_a_cell(tmp_path, arrays) -> None:
    for name in ("box", "virial"):
        arrays.pop(name)
    arrays["real_atom_types"] = np.array([[1, 0, 1], [0, 1, -1]])
    folder = write(tmp_path / "mixed", arrays, "0 0 0")
    (folder / "nopbc").touch()
    first, second = read_frames([folder])
    assert first.atoms.get_chemical_symbols() == ["H", "O", "H"]
    assert second.atoms.get_chemical_symbols() == ["O", "H"]  # the last is padding
    np.testing.assert_array_equal(second.forces.ravel(), arrays["force"][1, :6])
    assert not second.atoms.pbc.any()


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("coord", np.zeros((FRAMES, 4)), r"coord\.npy has shape \(2, 4\)"),
        ("force", np.zeros((1, 3 * ATOMS)), r"force\.npy has shape \(1, 9\)"),
        ("energy", np.zeros(7), r"energy\.npy has shape \(7,\)"),
        ("real_atom_types", np.full((FRAMES, ATOMS), 2), r"kinds of atoms that type_map\.raw does"),
        ("coord", np.array([{}], dtype=object), "pickle"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, name, array, told) -> None:
    with pytest.raises(UnreadableFile, match=told):
        read_frames([write(tmp_path / "water", arrays | {name: array})])


@pytest.mark.parametrize(
    ("missing", "told"),
    [("type_map.raw", "nobody knows which elements"), ("set.000/box.npy", r"no box\.npy")],
)
def test_parts_that_are_missing(tmp_path, arrays, missing, told) -> None:
    folder = write(tmp_path / "water", arrays)
    (folder / missing).unlink()
    with pytest.raises(UnreadableFile, match=told):
        read_frames([folder])


def test_unknown_element(tmp_path, arrays) -> None:
    folder = write(tmp_path / "water", arrays)
    (folder / "type_map.raw").write_text("O\nQq\n")
    with pytest.raises(UnreadableFile, match="'Qq', which is no element"):
        read_frames([folder])


def test_the_hash_is_that_of_all_files(tmp_path, arrays) -> None:
    folder, same = write(tmp_path / "one", arrays), write(tmp_path / "two", arrays)
    before = hash_source(folder)
    assert hash_source(same) == before
    np.save(folder / "set.000" / "energy.npy", arrays["energy"] + 1.0)
    assert hash_source(folder) != before


def test_what_dpdata_writes(tmp_path, rng) -> None:
    """The program that such folders come from."""
    dpdata = pytest.importorskip("dpdata")
    atoms = Atoms("OH2", positions=rng.uniform(1, 4, (3, 3)), cell=CELL, pbc=True)
    forces, virial = rng.normal(size=(1, 3, 3)), rng.normal(size=(1, 3, 3))
    system = dpdata.LabeledSystem(
        data={
            "atom_names": ["O", "H"],
            "atom_numbs": [1, 2],
            "atom_types": np.array([0, 1, 1]),
            "orig": np.zeros(3),
            "cells": CELL[None],
            "coords": atoms.positions[None],
            "energies": np.array([-3.5]),
            "forces": forces,
            "virials": virial,
        }
    )
    for form in ("deepmd/npy", "deepmd/npy/mixed"):
        folder = tmp_path / form.replace("/", "-")
        system.to(form, str(folder))
        found = [path.parent for path in folder.rglob("type.raw")]
        (frame,) = read_frames(found)
        assert frame.atoms.get_chemical_symbols() == ["O", "H", "H"]
        np.testing.assert_allclose(frame.atoms.positions, atoms.positions, atol=1e-5)
        np.testing.assert_allclose(frame.forces, forces[0], atol=1e-5)
        np.testing.assert_allclose(frame.stress * atoms.cell.volume, -virial[0], atol=1e-5)
        assert frame.energy == pytest.approx(-3.5)
