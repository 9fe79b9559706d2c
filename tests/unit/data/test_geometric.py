"""LMDB of torch-geometric's pickles, as OC20 has them: every field, and nothing else."""

import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch

from surefoot.data.images import UnreadableFile
from surefoot.data.read import Keys, describe_labels, read_frames

RECORDS = Path(__file__).parent / "records"
ATOMS = 5


@pytest.fixture
def geometric(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The names of torch-geometric, which is not installed: `Data` and where it keeps things."""
    for name in ("torch_geometric", "torch_geometric.data", "torch_geometric.data.data",
                 "torch_geometric.data.storage"):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for place, name in (("data", "Data"), ("storage", "GlobalStorage")):
        parent = sys.modules[f"torch_geometric.data.{place}"]
        setattr(parent, name, type(name, (), {"__module__": parent.__name__}))
    return sys.modules["torch_geometric.data"]


def make(form: str, fields: dict[str, Any]) -> Any:
    """A `Data` with these fields as version 1 or 2 keeps them."""
    record = sys.modules["torch_geometric.data.data"].Data()
    if form == "1":
        record.__dict__ |= {"x": None, "edge_index": None, "__num_nodes__": ATOMS, **fields}
        return record
    store = sys.modules["torch_geometric.data.storage"].GlobalStorage()
    store.__dict__ |= {"_parent": record, "_mapping": fields}
    record.__dict__ |= {"_store": store, "_edge_attr_cls": None}
    return record


def fields(**more: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    return {
        "pos": 9 * torch.rand(ATOMS, 3, generator=generator),
        "cell": 9 * torch.eye(3)[None],
        "atomic_numbers": torch.tensor([29.0, 29.0, 29.0, 6.0, 8.0]),
        "natoms": ATOMS,
        "tags": torch.tensor([0, 0, 1, 2, 2]),
        "fixed": torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]),
        "edge_index": torch.zeros(2, 40, dtype=torch.int64),
        "cell_offsets": torch.zeros(ATOMS, 3),
        "sid": 17,
        **more,
    }


def write(path: Path, records: dict[str, Any]) -> Path:
    return store(path, {k: pickle.dumps(record, protocol=-1) for k, record in records.items()})


def store(path: Path, values: dict[str, bytes]) -> Path:
    where = str(path)
    with lmdb.open(where, subdir=False, lock=False) as data, data.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)
    return path


@pytest.mark.parametrize("form", ["1", "2"])
@pytest.mark.parametrize("names", [("y", "force"), ("energy", "forces")])
def test_fields_of_s2ef(form: str, names: tuple[str, str], geometric, tmp_path: Path) -> None:
    forces = torch.arange(3.0 * ATOMS).reshape(ATOMS, 3)
    labelled = fields(**{names[0]: -1.25, names[1]: forces}, fid=torch.tensor([4]))
    records = {str(n): make(form, {**labelled, "fid": n}) for n in (10, 9, 2)}
    frames = read_frames([write(tmp_path / "a.lmdb", {**records, "length": 3})])
    assert [frame.fid for frame in frames] == ["2", "9", "10"]  # by number, not by text
    for frame in frames:
        assert frame.energy == -1.25
        assert frame.forces is not None
        assert np.array_equal(frame.forces, forces.numpy())
        assert (frame.sid, frame.group) == ("17", "sid 17")
        atoms = frame.atoms
        assert atoms.numbers.tolist() == [29, 29, 29, 6, 8]
        assert atoms.get_tags().tolist() == [0, 0, 1, 2, 2]
        assert atoms.pbc.all()
        assert np.array_equal(atoms.cell.array, 9 * np.eye(3))
        assert np.array_equal(atoms.positions, labelled["pos"].double().numpy())
        assert atoms.constraints[0].index.tolist() == [0, 1]
        assert "cell_offsets" not in atoms.arrays
        assert not [name for name in atoms.info if name.startswith("_")]
    assert describe_labels(frames).startswith("energy 3/3 (REF_energy), forces 3/3 (REF_forces)")


def test_fields_of_is2re(geometric, tmp_path: Path) -> None:
    """The label of a direct model is the energy of the relaxed structure, under its own key."""
    relaxed = fields(y_init=torch.tensor(1.5), y_relaxed=-0.5, pos_relaxed=torch.ones(ATOMS, 3))
    path = write(tmp_path / "a.lmdb", {"0": make("2", relaxed)})
    (plain,) = read_frames([path])
    assert plain.energy is None
    assert plain.atoms.info["y_init"] == 1.5
    assert np.array_equal(plain.atoms.arrays["pos_relaxed"], np.ones((ATOMS, 3)))
    (direct,) = read_frames([path], Keys(energy="y_relaxed", forces="none"))
    assert direct.energy == -0.5
    assert direct.keys["energy"] == "y_relaxed"


def test_what_else_stands_there(geometric, tmp_path: Path) -> None:
    """Labels that say the same twice, and one number of each atom."""
    charges = torch.linspace(-1, 1, ATOMS)
    held = fields(y=torch.tensor([2.5]), energy=2.5, bader=charges, column=charges[:, None])
    held |= {"natoms": torch.tensor([ATOMS]), "odd": torch.zeros(7)}
    (frame,) = read_frames([write(tmp_path / "a.lmdb", {"0": make("2", held)})])
    assert frame.energy == 2.5
    for name in ("bader", "column"):
        assert np.array_equal(frame.atoms.arrays[name], charges.double().numpy())
    assert "odd" not in {**frame.atoms.arrays, **frame.atoms.info}


@pytest.mark.parametrize("version", ["1.7.2", "2.6.1"])
def test_records_that_torch_geometric_made(version: str, tmp_path: Path) -> None:
    """See records/make.py."""
    value = (RECORDS / f"torch_geometric_{version}.pickle").read_bytes()
    (frame,) = read_frames([store(tmp_path / "a.lmdb", {"0": value})])
    assert (frame.energy, frame.sid, frame.fid) == (-1.25, "123", "7")
    assert frame.forces is not None
    assert frame.forces[:, 2].tolist() == [1.5, -1.5]
    assert frame.atoms.get_chemical_formula() == "CuO"
    assert frame.atoms.positions[1].tolist() == [0.5, 0.25, 2.0]
    assert frame.atoms.constraints[0].index.tolist() == [0]


class Acts:
    """An object whose pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["1", "2"])
def test_what_a_record_would_run_is_refused(form: str, geometric, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    bad = make(form, fields(extra=Acts(f"touch {proof}")))
    path = write(tmp_path / "a.lmdb", {"0": make(form, fields()), "1": bad})
    with pytest.raises(UnreadableFile, match=r"a.lmdb.*record 1: names posix.system"):
        read_frames([path])
    assert not proof.exists()


def test_what_the_record_of_the_length_would_run_is_refused(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    path = write(tmp_path / "a.lmdb", {"length": Acts(f"touch {proof}")})
    with pytest.raises(UnreadableFile, match=r"posix\.system"):
        read_frames([path])
    assert not proof.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pos": torch.zeros(ATOMS, 2)}, "no pos with three numbers per atom"),
        ({"pos": None}, "no pos"),
        ({"tags": torch.zeros(3)}, "no tags of 5 finite numbers"),
        ({"atomic_numbers": torch.zeros(4)}, "no atomic_numbers of 5"),
        ({"cell": torch.full((1, 3, 3), torch.nan)}, "no cell of 9 finite numbers"),
        ({"fixed": "all"}, "no fixed of 5"),
        ({"atomic_numbers": torch.tensor([29.0, 29.0, 29.0, 6.0, 8.7])}, "atomic_numbers that are"),
        ({"atomic_numbers": torch.tensor([29, 29, 29, 6, 119])}, "atomic_numbers that are none"),
        ({"tags": torch.tensor([0, 0, 1, 2, 1.5])}, "tags that are no whole"),
        ({"natoms": 4}, "5 positions and another natoms"),
        ({"natoms": torch.tensor([6])}, "5 positions and another natoms"),
        ({"y": 1.0, "energy": 2.0}, "y and energy, which differ"),
        ({"force": torch.zeros(ATOMS, 3), "forces": torch.ones(ATOMS, 3)}, "force and forces"),
        ({"predicted_by": "us"}, "the field predicted_by, which is a mark"),
        ({"group": 1}, "the field group"),
    ],
)
def test_records_that_are_no_structures(change, words: str, geometric, tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb", {"0": make("2", fields(**change))})
    with pytest.raises(UnreadableFile, match=f"record 0 has {words}"):
        read_frames([path])


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"0": {"pos": 1}}, "record 0 is no Data"),
        ({"0": {"pos": 1}, "length": 7}, "says that it holds 7 records, and 1 are there"),
        ({"first": 1}, "it has the key b'first'"),
        ({"1": {"pos": 1}, "01": {"pos": 1}}, "it has record 1 twice"),
    ],
)
def test_databases_of_something_else(records, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=words):
        read_frames([write(tmp_path / "a.lmdb", records)])
