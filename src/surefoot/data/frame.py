"""A frame: one structure with the labels found beside it, in eV and Å, and the place it came from.

So every later complaint can name file and frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.symbols import Symbols
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, slots=True)
class Structure:
    """Where atoms are, and nothing else; as many atoms as its length says.

    Attributes:
        numbers: (atoms).
        positions: (atoms, 3) Å, float64.
        cell: (3, 3) Å, rows are vectors.
        pbc: (3).
    """

    numbers: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]
    cell: Float[np.ndarray, "3 3"]
    pbc: Bool[np.ndarray, " 3"]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def formula(self) -> str:
        """As ASE writes it."""
        return Symbols(self.numbers).get_chemical_formula()


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One structure, its labels in eV and Å (None where absent), and where it came from.

    Attributes:
        atoms: the structure, without calculator; its tags and `FixAtoms` are kept.
        energy: in eV: of the whole structure, or beyond a reference that was subtracted.
        forces: (atoms, 3) in eV/Å.
        stress: (3, 3) in eV/Å³, tensile positive.
        charge: total charge in e as stated by the file.
        spin: multiplicity 2S+1 as stated by the file, in `atoms.info` too.
        group: the unit of splits, folds, bootstraps and block intervals.
        config_type: the unit of error tables; `IsolatedAtom` marks reference atoms.
        file: path of the file as the user gave it.
        index: number of the frame in its file, from 0.
        keys: the key under which each label was found; `calculator` for ASE's own results; for a
            spin that is not a multiplicity in the file, what it is there and how that is known.
    """

    atoms: Atoms
    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    charge: int | None = None
    spin: int | None = None
    group: str
    config_type: str
    file: str
    index: int
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def on_disk(self) -> bool:
        """Whether it stays there, and is read anew each time it is looked at."""
        return False

    @property
    def structure(self) -> Structure:
        """Where its atoms are; cheap where it is on disk."""
        atoms = self.atoms
        return Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)

    @property
    def info(self) -> dict[str, Any]:
        """What the file says of it besides labels."""
        return self.atoms.info

    @property
    def constrained(self) -> bool:
        """Whether any atom is held in any way."""
        return bool(self.atoms.constraints)

    @property
    def fixed(self) -> Bool[np.ndarray, " atoms"]:
        """Which atoms are held (`FixAtoms`), so that their forces count nowhere."""
        held = np.zeros(len(self.atoms), bool)
        for constraint in self.atoms.constraints:
            if isinstance(constraint, FixAtoms):
                held[constraint.index] = True
        return held

    @property
    def sid(self) -> str | None:
        """The system of OC20 that it belongs to, if the file names one."""
        return str(self.info["sid"]) if "sid" in self.info else None

    @property
    def fid(self) -> str | None:
        """Its number in the trajectory of that system, if the file names one."""
        return str(self.info["fid"]) if "fid" in self.info else None

    @property
    def place(self) -> str:
        """The frame as messages name it."""
        return f"{self.file}, frame {self.index}"
