"""Databases of ASE in LMDB: columns, key-value pairs, constraints, and damaged rows."""

import json
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.db.row import atoms2dict
from ase.io.jsonio import encode

from surefoot.data.images import UnreadableFile
from surefoot.data.read import read_frames


def slab():
    atoms = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.set_pbc(True)
    atoms.set_tags([0, 0, 1, 2])
    atoms.set_constraint(FixAtoms([0, 1]))
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    return atoms


def row(**more: object) -> dict:
    """A row as ase-db-backends writes it: plain JSON."""
    atoms = slab()
    found = atoms2dict(atoms)
    found |= {
        "calculator": "emt",
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(apply_constraint=False),
        "ctime": 1.0,
        "mtime": 2.0,
        "user": "",
        **more,
    }
    return json.loads(json.dumps(found, default=lambda value: np.asarray(value).tolist()))


def write(path: Path, entries: dict[str, bytes]) -> Path:
    where = str(path)
    with lmdb.open(where, subdir=False, lock=False) as data, data.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key.encode(), value)
    return path


def packed(content: object) -> bytes:
    return zlib.compress(json.dumps(content).encode())


def test_rows_are_structures_with_all_that_stands_beside_them(tmp_path: Path) -> None:
    rows = {str(n): packed(row(key_value_pairs={"sid": 7, "fid": n})) for n in (10, 9, 1)}
    others = {"nextid": packed(11), "deleted_ids": packed([2]), "metadata": packed({"a": 1})}
    frames = read_frames([write(tmp_path / "a.aselmdb", rows | others)])
    assert [frame.fid for frame in frames] == ["1", "9", "10"]
    atoms = slab()
    for frame in frames:
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        assert frame.forces is not None
        assert np.allclose(frame.forces, atoms.get_forces(apply_constraint=False))
        assert frame.forces[0].any()  # of fixed atoms too
        assert np.allclose(frame.atoms.positions, atoms.positions)
        assert frame.atoms.get_tags().tolist() == [0, 0, 1, 2]
        assert frame.atoms.constraints[0].index.tolist() == [0, 1]
        assert frame.atoms.pbc.all()
        assert frame.group == "sid 7"


def test_data_and_columns_in_the_json_of_ase(tmp_path: Path) -> None:
    """Arrays may be nested lists, or what ASE's own encoder makes of them."""
    held = row(data={"sid": 3, "pos_relaxed": [[0.0, 1.0, 2.0]] * 4})
    held["constraints"] = encode([{"name": "FixAtoms", "kwargs": {"indices": [1]}}])
    (frame,) = read_frames([write(tmp_path / "a.aselmdb", {"1": packed(held)})])
    assert frame.sid == "3"
    assert frame.atoms.arrays["pos_relaxed"].shape == (4, 3)
    assert frame.atoms.constraints[0].index.tolist() == [1]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"1": b"plain"}, "row 1 is no row"),
        ({"1": packed([1, 2])}, "no numbers and positions"),
        ({"1": packed({"numbers": [1]})}, "no numbers and positions"),
        ({"1": packed(row())[:-9]}, "row 1 is no row"),
        ({"1": packed(row(positions=[[0, 0]]))}, "row 1 is no row"),
        ({"1": packed(row(constraints=[{"name": "system", "kwargs": {"command": "true"}}]))},
         "row 1 is no row"),
        ({"1": packed(row(constraints='[{"name": "Hookean", "kwargs": {}}]'))},
         "the constraint 'Hookean'; FixAtoms is read"),
        ({"1": packed(row(constraints=[{"name": "FixAtoms", "kwargs": {"indices": [4]}}]))},
         "atoms that are not there"),
        ({"1": packed(row(data='{"a": {"__ndarray__": [[200000000], "float64", [0]]}}'))},
         "shape is not that of its numbers"),
        ({"1": packed(row(data='{"a": {"__ndarray__": [[2, -1], "float64", []]}}'))},
         "shape is not that of its numbers"),
        ({"1": packed(row(data='{"a": {"__ndarray__": [[1], "object", [0]]}}'))},
         "numbers are read"),
        ({"1": packed(row(data='{"a": {"__ase_objtype__": "atoms"}}'))}, "that is no cell"),
        ({"1": packed(row(forces={"__ndarray__": [[10**9, 3], "float64", [0]]}))},
         "shape is not that of its numbers"),
        ({"1": packed(row(numbers=[8.7] * 4))}, "no whole numbers"),
        ({"1": packed(row()), "01": packed(row())}, "row 1 twice"),
        ({"key": packed(1)}, "it has the key b'key'"),
    ],
)  # fmt: skip
def test_damaged_rows_are_refused(entries: dict[str, bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=words):
        read_frames([write(tmp_path / "a.aselmdb", entries)])


def test_arrays_and_constraints_as_ase_wrote_them(tmp_path: Path) -> None:
    """Its encoder writes shape, type and numbers; older versions named a constraint otherwise."""
    forces = np.arange(12.0).reshape(4, 3)
    held = row(cell={"array": np.eye(3), "__ase_objtype__": "cell"}, forces=forces)
    held["constraints"] = '[{"__name__": "ase.constraints.FixAtoms", "indices": [2]}]'
    held["data"] = encode({"pos_relaxed": forces, "cell": slab().cell})
    text = encode(held | {"cell": slab().cell, "forces": forces}).encode()
    (frame,) = read_frames([write(tmp_path / "a.aselmdb", {"1": zlib.compress(text)})])
    assert frame.forces is not None
    assert np.array_equal(frame.forces, forces)
    assert np.array_equal(frame.atoms.arrays["pos_relaxed"], forces)
    assert np.allclose(frame.atoms.cell.array, slab().cell.array)
    assert frame.atoms.constraints[0].index.tolist() == [2]


def test_rows_that_swell_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surefoot.data.aselmdb.ROW_BYTES", 40_000)
    text = json.dumps(row()).encode() + b" " * 30_000
    path = write(tmp_path / "a.aselmdb", {str(n): zlib.compress(text) for n in range(9)})
    with pytest.raises(UnreadableFile, match="far larger than the file"):
        read_frames([path])


def test_a_row_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surefoot.data.aselmdb.ROW_BYTES", 10_000)
    path = write(tmp_path / "a.aselmdb", {"1": zlib.compress(b" " * 100_000 + b"{}")})
    with pytest.raises(UnreadableFile, match="more than 10000 bytes"):
        read_frames([path])
