"""Databases of ASE in LMDB (`.aselmdb`), as OC20 and its successors are handed out today.

One record per row under its id, compressed JSON with the columns of ASE's databases, and some keys
that are no rows. Nothing is written, not even a lock.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db.row import AtomsRow

from surefoot.data.formats import row_to_atoms
from surefoot.data.lmdb import read_entries

RESERVED = (b"nextid", b"deleted_ids", b"metadata")
ROW_BYTES = 2**28  # of one row, unpacked


def read_aselmdb(path: Path) -> list[Atoms]:
    """Structures of such a database in the order of their ids, labels and constraints with them.

    Raises:
        ValueError: if the file is damaged, or a row is none of ASE's.
    """
    rows = []
    for key, value in read_entries(path):
        if key in RESERVED:
            continue
        if not key.isdigit() or len(key) > 19:
            raise ValueError(f"it has the key {key[:20]!r}, which no database of ASE has")
        rows.append((int(key), value))
    return [_to_atoms(value, number) for number, value in sorted(rows)]


def _to_atoms(value: bytes, number: int) -> Atoms:
    try:
        unpack = zlib.decompressobj()
        text = unpack.decompress(value, ROW_BYTES)
        if unpack.unconsumed_tail:
            raise ValueError(f"it has more than {ROW_BYTES} bytes")
        row = json.loads(text)
        if not isinstance(row, dict) or not {"numbers", "positions"} <= row.keys():
            raise ValueError("it has no numbers and positions")
        return row_to_atoms(AtomsRow(_as_arrays(row) | {"id": number}))
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"row {number} is no row of a database of ASE ({error})") from error


def _as_arrays(row: dict[str, Any]) -> dict[str, Any]:
    """Lists of numbers as arrays; what is nested or is text stays as it is."""
    plain = {"key_value_pairs": {}, "data": {}, **row}
    return {
        name: np.array(value) if isinstance(value, list) and name != "constraints" else value
        for name, value in plain.items()
    }
