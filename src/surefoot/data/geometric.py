"""Databases of torch-geometric's `Data` in LMDB, as OC20 and OC22 have them.

One record per key 0, 1, …, each a pickle, and optionally their number under `length`. A record has
`pos`, `cell`, `atomic_numbers`, `tags` (0 below the surface, 1 in it, 2 of the adsorbate), `fixed`,
`energy` (`y` in older files), `forces` (`force`), `sid`, `fid`; those of relaxations `y_init`,
`y_relaxed` and `pos_relaxed`. Edges that were stored along are not read, since neighbours are
searched anew, nor are other tensors that have no number and no vector for each atom. A `charge` or
`spin` is that of the structure, as in every file; marks of ours (`MARKS`) are refused. Nothing in a
pickle is executed: see `pickles.record`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from torch import Tensor

from surefoot.data.lmdb import read_entries
from surefoot.pickles.archive import Malformed
from surefoot.pickles.record import read_record
from surefoot.pickles.unpickle import Record

LENGTH = b"length"
DATA = "torch_geometric.data.data.Data"
CLASSES = frozenset((
    DATA,
    "torch_geometric.data.storage.GlobalStorage",
    "torch_geometric.data.data.DataEdgeAttr",
    "torch_geometric.data.data.DataTensorAttr",
    "torch_geometric.data.graph_store.EdgeAttr",
    "torch_geometric.data.feature_store.TensorAttr",
))  # fmt: skip
STRUCTURE = ("pos", "cell", "atomic_numbers", "natoms", "tags", "fixed", "pbc")
EDGES = ("edge_index", "cell_offsets", "neighbors", "distances", "edge_attr", "offsets")
NAMED = {"y": "REF_energy", "energy": "REF_energy", "force": "REF_forces", "forces": "REF_forces"}
"""Fields that are labels, and where labels stand in frames."""
MARKS = ("predicted_by", "group", "config_type", "subtracted_energy", "relax_status")
"""What `info` says of frames that this package wrote or that a user grouped; no such field is."""
MOST = 118  # atomic number


def read_geometric(path: Path) -> Iterator[Atoms]:
    """Structures of such a database in the order of their numbers.

    Labels go to `REF_energy` and `REF_forces`, `pos_relaxed` and what else has one or three numbers
    per atom to `arrays`, single numbers and text (`sid`, `fid`, `y_init`, `y_relaxed`) to `info`.

    Raises:
        ValueError: if the file is damaged, or a record holds anything but tensors, numbers and
            text.
    """
    stated: Any = None
    records: dict[int, bytes] = {}
    for key, value in read_entries(path):
        if key == LENGTH:
            stated = _unpack(value, "length")
        elif key.isdigit() and len(key) < 20:
            if int(key) in records:
                raise ValueError(f"it has record {int(key)} twice")
            records[int(key)] = value
        else:
            raise ValueError(
                f"it has the key {key[:20]!r}; numbers and 'length' are those of OC20 and OC22"
            )
    if stated is not None and stated != len(records):
        raise ValueError(f"it says that it holds {stated} records, and {len(records)} are there")
    for number, value in sorted(records.items()):
        yield _to_atoms(_unpack(value, f"record {number}"), number)


def _unpack(value: bytes, place: str) -> Any:
    try:
        return read_record(value, CLASSES)
    except Malformed as error:
        raise ValueError(f"{place}: {error}") from error


def _fields(record: Any, number: int) -> dict[str, Any]:
    """The attributes of a `Data`, before and since version 2 of torch-geometric."""
    if not isinstance(record, Record) or record.name != DATA:
        raise ValueError(f"record {number} is no Data of torch-geometric")
    store = record.state.get("_store")
    fields = store.state.get("_mapping") if isinstance(store, Record) else record.state
    if not isinstance(fields, dict):
        raise ValueError(f"record {number} has no attributes")
    # What begins with underscores is torch-geometric's own.
    return {n: v for n, v in fields.items() if isinstance(n, str) and not n.startswith("_")}


def _to_atoms(record: Any, number: int) -> Atoms:
    fields = _fields(record, number)
    positions = _rows(fields, "pos", number)
    count = len(positions)
    _require_agreement(fields, count, number)
    numbers = _numbers(fields, "atomic_numbers", count, number)
    if (numbers != numbers.round()).any() or (numbers < 1).any() or (numbers > MOST).any():
        raise ValueError(f"record {number} has atomic_numbers that are none; 1 to {MOST} are")
    cell = _numbers(fields, "cell", 9, number).reshape(3, 3)
    pbc = _numbers(fields, "pbc", 3, number) if fields.get("pbc") is not None else np.ones(3)
    atoms = Atoms(numbers.astype(int), positions=positions, cell=cell, pbc=pbc.astype(bool))
    if fields.get("tags") is not None:
        tags = _numbers(fields, "tags", count, number)
        if (tags != tags.round()).any():
            raise ValueError(f"record {number} has tags that are no whole numbers")
        atoms.set_tags(tags.astype(int))
    if fields.get("fixed") is not None:
        fixed = _numbers(fields, "fixed", count, number) > 0.5
        if fixed.any():
            atoms.set_constraint(FixAtoms(mask=fixed))
    for name, value in fields.items():
        if name not in (*STRUCTURE, *EDGES) and value is not None:
            _keep(atoms, NAMED.get(name, name), value)
    return atoms


def _require_agreement(fields: dict[str, Any], count: int, number: int) -> None:
    """Refuse fields that contradict each other, or that say what only this package says."""
    if fields.get("natoms") is not None and _numbers(fields, "natoms", 1, number)[0] != count:
        raise ValueError(f"record {number} has {count} positions and another natoms")
    marks = [name for name in MARKS if fields.get(name) is not None]
    if marks:
        raise ValueError(f"record {number} has the field {marks[0]}, which is a mark of surefoot")
    for older, newer in (("y", "energy"), ("force", "forces")):
        if fields.get(older) is not None and fields.get(newer) is not None:
            size = 1 if newer == "energy" else 3 * count
            first, second = (_numbers(fields, name, size, number) for name in (older, newer))
            if not np.array_equal(first, second):
                raise ValueError(f"record {number} has {older} and {newer}, which differ")


def _keep(atoms: Atoms, name: str, value: Any) -> None:
    """A field beside the structure: one number, text, or a number or vector of each atom."""
    if isinstance(value, str | bool | int | float):
        atoms.info.setdefault(name, value)
    elif isinstance(value, Tensor) and value.numel() == 1 and value.dim() < 3:
        atoms.info.setdefault(name, value.item())
    elif isinstance(value, Tensor) and value.shape == (len(atoms), 3):
        atoms.arrays.setdefault(name, value.double().numpy().copy())
    elif isinstance(value, Tensor) and value.shape in ((len(atoms),), (len(atoms), 1)):
        atoms.arrays.setdefault(name, value.flatten().double().numpy().copy())


def _rows(fields: dict[str, Any], name: str, number: int) -> np.ndarray:
    value = fields.get(name)
    if not isinstance(value, Tensor) or value.dim() != 2 or value.shape[1] != 3:
        raise ValueError(f"record {number} has no {name} with three numbers per atom")
    return value.double().numpy()


def _numbers(fields: dict[str, Any], name: str, count: int, number: int) -> np.ndarray:
    """So many numbers in one row."""
    value = fields.get(name)
    value = [value] if isinstance(value, int | float) else value
    if isinstance(value, list | tuple) and all(isinstance(part, int | float) for part in value):
        value = np.array(value, float)
    elif isinstance(value, Tensor):
        value = value.double().numpy().reshape(-1)
    if not isinstance(value, np.ndarray) or value.size != count or not np.isfinite(value).all():
        raise ValueError(f"record {number} has no {name} of {count} finite numbers")
    return value.reshape(count)
