"""A store that is open, and frames that stay there.

A `StoredFrame` is a `Frame` for everyone who reads frames, and holds no more than its place: lists
of frames, splits and samples stay what they are, at some hundred bytes for each frame.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

from surefoot.data.columns import RefusedStore, read_columns, refuse
from surefoot.data.frame import Frame, Structure
from surefoot.data.read import find_spin_key

LABELS = ("energy", "forces", "stress", "charge", "spin")
PERIODIC = len(LABELS)  # the first of three flags
UNPAIRED = PERIODIC + 3  # the flag of a spin that its file states as a number of electrons
FIXED = 8  # of a held atom, beside 1, 2 and 4 for directions in which it is held


class Store:
    """A store that is open."""

    def __init__(self, place: Path, files: Sequence[str]) -> None:
        """Check that it is whole, and map it.

        Args:
            place: its folder.
            files: what its files are called, for messages.
        Raises:
            RefusedStore: if it is damaged or foreign.
        """
        self.header, self.columns = read_columns(place)
        self.place, self.files = place, files
        if len(files) != len(self.header["files"]):
            raise RefusedStore(
                f"{place}: this store is of {len(self.header['files'])} files and not of "
                f"{len(files)}; remove it, and it is made anew."
            )
        self._last: tuple[int, Atoms] | None = None

    def __len__(self) -> int:
        """How many frames."""
        return self.header["rows"]["frame"]

    def flag(self, row: int, number: int) -> bool:
        """A flag of a frame."""
        return bool(int(self.columns["flags"][row]) >> number & 1)

    def value(self, name: str, row: int) -> Any:
        """What stands in a column for a frame; zero where it was left out."""
        return self.columns[name][row] if name in self.columns else 0

    def name(self, name: str, row: int) -> Any:
        """What a frame points to among the names of the header."""
        return self.header[name][int(self.value(name, row))]

    def rows(self, name: str, row: int) -> np.ndarray | None:
        """What stands in a column for the atoms of a frame, or None where it was left out."""
        if name not in self.columns:
            return None
        first = self.columns["first_atom"]
        return self.columns[name][first[row] : first[row + 1]]

    def structure(self, row: int) -> Structure:
        """Where the atoms of a frame are."""
        first = self.columns["first_atom"]
        own = slice(first[row], first[row + 1])
        numbers = self.columns["numbers"][own].astype(np.int64)
        flags = int(self.columns["flags"][row]) >> PERIODIC
        pbc = np.array([flags & 1, flags & 2, flags & 4], bool)
        cell = self.columns["cell"][row] if "cell" in self.columns else np.zeros((3, 3))
        return Structure(numbers, self.columns["positions"][own], cell, pbc)

    def atoms(self, row: int) -> Atoms:
        """The structure of a frame; whoever asks for one several times in a row gets the same."""
        last = self._last
        if last is None or last[0] != row:
            self._last = last = row, self._make_atoms(row)
        return last[1]

    def info(self, row: int) -> dict[str, Any]:
        """What a file says of a frame besides labels.

        Raises:
            RefusedStore: if it is not what was written, though the sum of the column fits.
        """
        bounds = self.columns["first_text"]
        text = self.columns["text"][bounds[row] : bounds[row + 1]].tobytes()
        try:
            info = json.loads(text)
            if self.flag(row, UNPAIRED):
                info[find_spin_key(info)] = int(self.value("spin", row))
            return dict(info)
        except (ValueError, TypeError, AttributeError, StopIteration, RecursionError) as error:
            raise refuse(self.place, f"what it says of frame {row} can not be read") from error

    def _make_atoms(self, row: int) -> Atoms:
        found = self.structure(row)
        atoms = Atoms(numbers=found.numbers, positions=found.positions, info=self.info(row))
        if found.cell.any() or found.pbc.any():
            atoms.set_cell(found.cell)
            atoms.pbc = found.pbc
        tags, held = self.rows("tags", row), self.rows("held", row)
        if tags is not None and tags.any():
            atoms.set_tags(tags)
        if held is not None and held.any():
            atoms.set_constraint(_release(held))
        return atoms


def _release(held: np.ndarray) -> list[FixAtoms | FixCartesian]:
    """The constraints of a frame from its bits."""
    found: list[FixAtoms | FixCartesian] = []
    if (held & FIXED).any():
        found.append(FixAtoms(mask=(held & FIXED).astype(bool)))
    for bits in np.unique(held % FIXED):
        if bits:
            mask = [bool(bits & 1), bool(bits & 2), bool(bits & 4)]
            found.append(FixCartesian(np.flatnonzero(held % FIXED == bits), mask))
    return found


class StoredFrame(Frame):
    """A frame of a store: its place there and nothing else, read whenever it is looked at."""

    __slots__ = ("row", "store")

    def __init__(self, store: Store, row: int) -> None:
        """Remember the place.

        Args:
            store: open.
            row: its number there.
        """
        object.__setattr__(self, "store", store)
        object.__setattr__(self, "row", row)

    @property
    def on_disk(self) -> bool:
        """It stays there."""
        return True

    @property
    def structure(self) -> Structure:
        """Where its atoms are: arrays that can not be written to."""
        return self.store.structure(self.row)

    @property
    def info(self) -> dict[str, Any]:
        """What its file says of it besides labels."""
        return self.store.info(self.row)

    @property
    def constrained(self) -> bool:
        """Whether any atom is held in any way."""
        held = self.store.rows("held", self.row)
        return held is not None and bool(held.any())

    @property
    def fixed(self) -> np.ndarray:
        """Which atoms are held."""
        held = self.store.rows("held", self.row)
        if held is None:
            return np.zeros(len(self.structure), bool)
        return (held & FIXED).astype(bool)

    @property
    def atoms(self) -> Atoms:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The structure; what is written into it is lost."""
        return self.store.atoms(self.row)

    @property
    def energy(self) -> float | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """In eV."""
        stated = self.store.flag(self.row, LABELS.index("energy"))
        return float(self.store.columns["energy"][self.row]) if stated else None

    @property
    def forces(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(atoms, 3) in eV/Å."""
        if not self.store.flag(self.row, LABELS.index("forces")):
            return None
        forces = self.store.rows("forces", self.row)
        return np.zeros_like(self.structure.positions) if forces is None else forces

    @property
    def stress(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(3, 3) in eV/Å³."""
        if not self.store.flag(self.row, LABELS.index("stress")):
            return None
        return np.broadcast_to(self.store.value("stress", self.row), (3, 3))

    @property
    def charge(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """In e."""
        stated = self.store.flag(self.row, LABELS.index("charge"))
        return int(self.store.value("charge", self.row)) if stated else None

    @property
    def spin(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Multiplicity 2S+1."""
        stated = self.store.flag(self.row, LABELS.index("spin"))
        return int(self.store.value("spin", self.row)) if stated else None

    @property
    def group(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The unit of splits."""
        return self.store.name("groups", self.row)

    @property
    def config_type(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The unit of error tables."""
        return self.store.name("types", self.row)

    @property
    def file(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Path of its file as the user gave it."""
        return self.store.files[int(self.store.value("file", self.row))]

    @property
    def index(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Number in its file."""
        return int(self.store.columns["index"][self.row])

    @property
    def keys(self) -> dict[str, str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The key under which each label was found."""
        return self.store.name("keys", self.row)
