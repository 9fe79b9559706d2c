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

from surefoot.data.read import UnreadableFile, read_frames


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
        ({"key": packed(1)}, "it has the key b'key'"),
    ],
)  # fmt: skip
def test_damaged_rows_are_refused(entries: dict[str, bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=words):
        read_frames([write(tmp_path / "a.aselmdb", entries)])


def test_a_row_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surefoot.data.aselmdb.ROW_BYTES", 10_000)
    path = write(tmp_path / "a.aselmdb", {"1": zlib.compress(b" " * 100_000 + b"{}")})
    with pytest.raises(UnreadableFile, match="more than 10000 bytes"):
        read_frames([path])
