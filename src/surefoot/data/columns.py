"""Frames as columns of plain numbers: what a store consists of, how it is written and checked.

Each column is a file of little-endian numbers, one row for each frame or each atom, and a header in
JSON tells their types, shapes and SHA-256. Nothing in it can be executed, and every length is
compared with the file before it is mapped. Columns that would be all zero are left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from ase.data import chemical_symbols

from surefoot.data.images import hash_content

HEADER = "header.json"
KIND, FORMAT = "store of frames", 1
NAMES: Mapping[str, type] = MappingProxyType({"groups": str, "types": str, "keys": dict})
"""Lists of the header that columns of the same name point into, and what is in them."""


@dataclass(frozen=True)
class Column:
    """One kind of number.

    Attributes:
        dtype: of numpy, with its byte order.
        of: what has a row: a frame, an atom, a byte of text, or the bounds of all frames.
        shape: of a row.
        optional: whether it is left out where it would be all zero.
    """

    dtype: str
    of: str = "frame"
    shape: tuple[int, ...] = ()
    optional: bool = False

    @cached_property
    def width(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "flags": Column("<u2"),
        "energy": Column("<f8"),
        "charge": Column("<i8", optional=True),
        "spin": Column("<i8", optional=True),
        "stress": Column("<f8", shape=(3, 3), optional=True),
        "cell": Column("<f8", shape=(3, 3), optional=True),
        "file": Column("<u4", optional=True),
        "index": Column("<u8"),
        "groups": Column("<u4"),
        "types": Column("<u4", optional=True),
        "keys": Column("<u4", optional=True),
        "first_atom": Column("<i8", of="bound"),
        "first_text": Column("<i8", of="bound"),
        "text": Column("u1", of="byte"),
        "numbers": Column("u1", of="atom"),
        "positions": Column("<f8", of="atom", shape=(3,)),
        "forces": Column("<f8", of="atom", shape=(3,), optional=True),
        "tags": Column("<i4", of="atom", optional=True),
        "held": Column("u1", of="atom", optional=True),
    }
)


class RefusedStore(ValueError):
    """A folder that is no whole store, with the reason."""


class ColumnWriter:
    """Columns that grow in a folder."""

    def __init__(self, folder: Path) -> None:
        """Begin with nothing.

        Args:
            folder: empty.
        """
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self.rows: dict[str, int] = dict.fromkeys(("frame", "atom", "byte"), 0)

    def add(self, row: Mapping[str, Any], text: bytes) -> None:
        """Put a frame behind the others.

        Args:
            row: numbers of each column; those of optional ones that are zero may be missing.
            text: its bytes.
        Raises:
            ValueError: if a number does not fit its column.
        """
        bounds = {"first_atom": self.rows["atom"], "first_text": self.rows["byte"]}
        for name, value in {**row, **bounds}.items():
            self._put(name, np.asarray(value))
        self._put("text", np.frombuffer(text, np.uint8))
        self.rows["frame"] += 1
        self.rows["atom"] += len(row["positions"])
        self.rows["byte"] += len(text)

    def _put(self, name: str, value: np.ndarray) -> None:
        column = COLUMNS[name]
        if column.optional and not value.any():
            return
        try:
            exact = value.astype(column.dtype)
        except OverflowError:
            exact = np.zeros(0)
        if not np.array_equal(exact, value, equal_nan=value.dtype.kind == "f"):
            raise ValueError(f"{name} is {value.ravel()[:3]}, which the store has no place for")
        if name not in self._files:
            self._files[name] = (self._folder / name).open("w+b")
        file = self._files[name]
        begin = self.rows["frame" if column.of == "bound" else column.of] * COLUMNS[name].width
        if file.tell() != begin:
            file.seek(begin)  # what was skipped reads as zero
        file.write(exact.tobytes())

    def change(self, first: int, changes: Mapping[str, np.ndarray]) -> None:
        """Replace what stands in some columns from one frame to the last.

        Args:
            first: of the frames.
            changes: new rows by the name of the column.
        """
        for name, rows in changes.items():
            column = COLUMNS[name]
            if name not in self._files:
                self._files[name] = (self._folder / name).open("w+b")
            file = self._files[name]
            file.seek(first * np.dtype(column.dtype).itemsize)
            file.write(rows.astype(column.dtype).tobytes())

    def read(self, name: str, first: int) -> np.ndarray:
        """What stands in a column of numbers from one frame to the last."""
        count = self.rows["frame"] - first
        dtype = np.dtype(COLUMNS[name].dtype)
        if name not in self._files:
            return np.zeros(count, dtype)
        file = self._files[name]
        place = file.tell()
        file.seek(first * dtype.itemsize)
        held = np.frombuffer(file.read(count * dtype.itemsize), dtype)
        file.seek(place)
        return np.concatenate([held, np.zeros(count - len(held), dtype)])

    def finish(self, header: Mapping[str, Any]) -> None:
        """Write the last bounds, bring everything to the disk, then the header.

        Args:
            header: what else it says.
        """
        self._put("first_atom", np.asarray(self.rows["atom"]))
        self._put("first_text", np.asarray(self.rows["byte"]))
        columns: dict[str, Any] = {}
        for name, file in self._files.items():
            size = _count(name, self.rows) * COLUMNS[name].width
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            columns[name] = {"bytes": size, "sha256": hash_content(self._folder / name)}
        self._files = {}
        whole = {"kind": KIND, "format": FORMAT, **header, "rows": self.rows, "columns": columns}
        text = json.dumps({**whole, "sha256": _digest(whole)})
        with (self._folder / HEADER).open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Let go of all files, whole or not."""
        for file in self._files.values():
            file.close()


def read_columns(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the columns, mapped into memory; those that were left out are missing.

    Raises:
        RefusedStore: with the folder and what is wrong.
    """
    try:
        header = _read_header(folder)
        columns = {
            name: _map(folder, name, stated, header["rows"])
            for name, stated in header["columns"].items()
        }
        _require_whole(header, columns)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise refuse(folder, reason) from error
    return header, columns


def refuse(folder: Path, reason: str) -> RefusedStore:
    """The error for a store that is damaged.

    Args:
        folder: of the store.
        reason: what is wrong with it.
    """
    return RefusedStore(
        f"{folder}: this is no whole store of frames ({reason}); remove it, and it is made anew "
        "from the files."
    )


def _read_header(folder: Path) -> dict[str, Any]:
    header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise ValueError(f"{HEADER} was not written by surefoot")
    if header.get("format") != FORMAT:
        raise ValueError(f"it is in format {header.get('format')}, and {FORMAT} is read here")
    stated = header.pop("sha256", None)
    if stated != _digest(header):
        raise ValueError(f"{HEADER} does not match its checksum")
    counts = [header["rows"][of] for of in ("frame", "atom", "byte")]
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError(f"rows in {HEADER} are no counts")
    return header


def _map(folder: Path, name: str, stated: Mapping[str, Any], rows: Mapping[str, int]) -> np.ndarray:
    if name not in COLUMNS:
        raise ValueError(f"it has a column '{name[:40]}' that is not known")
    column, path = COLUMNS[name], folder / name
    size = path.stat().st_size
    for due in (stated["bytes"], _count(name, rows) * column.width):
        if size != due:
            raise ValueError(f"{name} has {size} bytes, and should have {due}")
    if hash_content(path) != stated["sha256"]:
        raise ValueError(f"{name} does not match its checksum")
    shape = (_count(name, rows), *column.shape)
    if not size:
        return np.zeros(shape, column.dtype)
    # A plain array on the map: slices of a memmap cost ten times as much.
    return np.memmap(path, column.dtype, "r", shape=shape).view(np.ndarray)


def _require_whole(header: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> None:
    """Bounds rise from nothing to the end, names are there, and atoms are of elements."""
    missing = [n for n, column in COLUMNS.items() if not column.optional and n not in columns]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    for name, of in (("first_atom", "atom"), ("first_text", "byte")):
        bounds = columns[name]
        if bounds[0] != 0 or bounds[-1] != header["rows"][of] or (np.diff(bounds) < 0).any():
            raise ValueError(f"{name} does not rise from 0 to {header['rows'][of]}")
    for name, kind in {**NAMES, "files": str}.items():
        column, held = columns.get("file" if name == "files" else name), header[name]
        if not isinstance(held, list) or not all(isinstance(one, kind) for one in held):
            raise ValueError(f"{name} in {HEADER} is no list of names")
        if header["rows"]["frame"] and (0 if column is None else column.max()) >= len(held):
            raise ValueError(f"a frame is of {name} that are not there")
    if columns["numbers"].max(initial=0) >= len(chemical_symbols):
        raise ValueError(f"it has the element {columns['numbers'].max()}, which there is not")


def _count(name: str, rows: Mapping[str, int]) -> int:
    of = COLUMNS[name].of
    return rows["frame"] + 1 if of == "bound" else rows[of]


def _digest(header: Mapping[str, Any]) -> str:
    text = json.dumps(header, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
