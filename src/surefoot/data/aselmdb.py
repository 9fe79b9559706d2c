"""Databases of ASE in LMDB (`.aselmdb`), as OC20 and its successors are handed out today.

One record per row under its id, compressed JSON with the columns of ASE's databases, and some keys
that are no rows. Nothing is written, not even a lock.

ASE's own decoder makes arrays as large as the text says they are, and objects of any of its classes
of constraints. Here an array has as many numbers as are there, and a constraint is `FixAtoms`.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.db.row import AtomsRow

from surefoot.data.formats import row_to_atoms
from surefoot.data.lmdb import read_entries

RESERVED = (b"nextid", b"deleted_ids", b"metadata")
ROW_BYTES = 2**28  # of one row, unpacked
SWELLING = 32  # bytes of text per byte of the file, beyond those of one row; numbers have below 10
KINDS = "biuf"  # of arrays: truths and numbers
FIXED = "FixAtoms"
COLUMNS = (
    *("numbers", "positions", "cell", "pbc", "tags", "masses", "momenta", "initial_magmoms"),
    *("initial_charges", "calculator", "unique_id", *all_properties),
)
"""Columns of a row that are looked at, beside key-value pairs, `data` and constraints."""


def read_aselmdb(path: Path) -> Iterator[Atoms]:
    """Structures of such a database in the order of their ids, labels and constraints with them.

    Raises:
        ValueError: if the file is damaged, or a row is none of ASE's.
    """
    rows: dict[int, bytes] = {}
    for key, value in read_entries(path):
        if key in RESERVED:
            continue
        if not key.isdigit() or len(key) > 19:
            raise ValueError(f"it has the key {key[:20]!r}, which no database of ASE has")
        if int(key) in rows:
            raise ValueError(f"it has row {int(key)} twice")
        rows[int(key)] = value
    left = ROW_BYTES + SWELLING * sum(map(len, rows.values()))
    for number, value in sorted(rows.items()):
        try:
            text = _unpack(value)
            left -= len(text)
            if left < 0:
                raise ValueError("all rows together are far larger than the file; made to harm")
            atoms = _to_atoms(text, number)
        except (zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"row {number} is no row of a database of ASE ({error})") from error
        yield atoms


def _unpack(value: bytes) -> bytes:
    unpack = zlib.decompressobj()
    text = unpack.decompress(value, ROW_BYTES)
    if unpack.unconsumed_tail:
        raise ValueError(f"it has more than {ROW_BYTES} bytes")
    return text


def _to_atoms(text: bytes, number: int) -> Atoms:
    row = _decode(text)
    if not isinstance(row, dict) or not {"numbers", "positions"} <= row.keys():
        raise ValueError("it has no numbers and positions")
    plain = {name: _as_array(row[name]) for name in COLUMNS if row.get(name) is not None}
    if plain["numbers"].dtype.kind not in "iu":
        raise ValueError("its atomic numbers are no whole numbers")
    beside = {name: _nested(row, name) for name in ("key_value_pairs", "data")}
    return row_to_atoms(
        AtomsRow(plain | beside | {"id": number, "constraints": list(_constraints(row))})
    )


def _decode(text: str | bytes) -> Any:
    return json.loads(text, object_hook=_to_object)


def _to_object(found: dict[str, Any]) -> Any:
    """What ASE writes as a dict with one marked key: an array, or a cell."""
    if "__ndarray__" in found:
        shape, kind, data = found["__ndarray__"]
        dtype = np.dtype(kind) if isinstance(kind, str) else np.dtype(object)
        if dtype.kind not in KINDS:
            raise ValueError(f"it has an array of {str(kind)[:20]}; numbers are read")
        lengths = shape if isinstance(shape, list) else [shape]
        whole = all(type(length) is int and length >= 0 for length in lengths)
        if not whole or not isinstance(data, list) or math.prod(lengths) != len(data):
            raise ValueError("it has an array whose shape is not that of its numbers")
        return np.array(data, dtype).reshape(lengths)
    if "__complex_ndarray__" in found:
        raise ValueError("it has complex numbers, which no label is")
    if "__ase_objtype__" in found:
        if found["__ase_objtype__"] != "cell" or "array" not in found:
            raise ValueError("it has an object of ASE that is no cell")
        return np.asarray(found["array"], float).reshape(3, 3)
    return found


def _nested(row: dict[str, Any], name: str) -> dict[str, Any]:
    """What stands beside the columns; ASE writes it as text within the text."""
    found = row.get(name)
    found = _decode(found) if isinstance(found, str) else found
    if not isinstance(found, dict | None):
        raise ValueError(f"its {name} is no dict")
    return found or {}


def _constraints(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The atoms that are held, in the present form of ASE and in that with `__name__`.

    Raises:
        ValueError: if it is another constraint, or one of atoms that are not there.
    """
    found = row.get("constraints")
    found = _decode(found) if isinstance(found, str) else found
    if not isinstance(found, list | None):
        raise ValueError("its constraints are no list")
    for one in found or []:
        stated = dict(one)
        name = stated.pop("__name__", None) or stated.get("name")
        if name not in (FIXED, f"ase.constraints.{FIXED}"):
            raise ValueError(f"it has the constraint {str(name)[:40]!r}; {FIXED} is read")
        held = np.asarray(stated.get("kwargs", stated)["indices"])
        count = len(row["numbers"])
        if held.ndim != 1 or (held.size and held.dtype.kind not in "iu"):
            raise ValueError(f"the indices of its {FIXED} are no row of whole numbers")
        if held.size and not -count <= held.min() <= held.max() < count:
            raise ValueError(f"its {FIXED} holds atoms that are not there")
        yield {"name": FIXED, "kwargs": {"indices": held.astype(int).tolist()}}


def _as_array(value: Any) -> Any:
    """A list of numbers as an array; one number or text as it is."""
    return np.array(value) if isinstance(value, list) else value
