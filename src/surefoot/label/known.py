"""Labels that are known already, taken from files: of earlier calculations, and of others."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from pydantic import Field

from surefoot.data.file_units import FileUnits
from surefoot.data.read import Frame, Keys, read_frames
from surefoot.label.labeler import LabelingFailed, Labels, check_state
from surefoot.settings import Settings

SAME = 1e-4  # Å; positions of a file that is written anew are rounded


class Known(Settings):
    """Labels of structures that stand in files.

    Attributes:
        files: with energies and forces.
        keys: where labels stand in them.
        units: of the labels.
        method: what made them, in words, for those who read the labels.
    """

    name: Literal["known"] = "known"
    files: tuple[str, ...] = Field(min_length=1)
    keys: Keys = Keys()
    units: FileUnits = FileUnits()
    method: str = "labels known before"

    def settings(self) -> dict[str, Any]:
        """All settings, with hashes of the files in place of their paths."""
        hashes = [_hash_file(name) for name in self.files]
        own = self.model_dump(mode="json", exclude={"files"})
        return {**own, "files": hashes, "code": "labels from files"}

    def describe(self) -> str:
        """What made the labels, and where they stand."""
        return f"{self.method} ({', '.join(Path(name).name for name in self.files)})"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        """The labels that stand beside this structure.

        Args:
            atoms: with the same order of atoms and the same positions to 1e-4 Å as in a file.
            charge: total charge in e; files that state another one do not count.
            spin: multiplicity 2S+1, likewise.

        Raises:
            LabelingFailed: if no file holds the structure, or no labels stand beside it.
            ValueError: if charge and spin do not fit the electrons.
        """
        check_state(atoms.numbers, charge, spin)
        read = _read(self.files, self.keys.model_dump_json(), self.units.model_dump_json())
        frames, places = read.get(_kind(atoms), ([], np.zeros((0, 1, 3))))
        away = np.abs(places - _places(atoms)).max((1, 2))
        for index in np.argsort(away, kind="stable")[: np.sum(away < SAME)]:
            frame = frames[index]
            if frame.charge in (None, charge) and frame.spin in (None, spin):
                if frame.energy is None or frame.forces is None:
                    raise LabelingFailed(f"{frame.place} has no energy or no forces")
                return Labels(frame.energy, frame.forces)
        raise LabelingFailed("no file of known labels holds this structure in this state")


@functools.lru_cache(maxsize=4)
def _read(
    files: tuple[str, ...], keys: str, units: str
) -> dict[tuple[int, ...], tuple[list[Frame], np.ndarray]]:
    """Frames and where their atoms are, by the order of elements; read once in each process."""
    found: dict[tuple[int, ...], list[Frame]] = {}
    read = read_frames(files, Keys.model_validate_json(keys), FileUnits.model_validate_json(units))
    for frame in read:
        found.setdefault(_kind(frame.atoms), []).append(frame)
    return {
        kind: (frames, np.stack([_places(frame.atoms) for frame in frames]))
        for kind, frames in found.items()
    }


def _kind(atoms: Atoms) -> tuple[int, ...]:
    return (*atoms.numbers.tolist(), *atoms.pbc.tolist())


def _places(atoms: Atoms) -> np.ndarray:
    """Positions and the vectors of the cell that repeat it; compared, since no rounding is safe."""
    return np.vstack([atoms.positions, np.array(atoms.cell) * atoms.pbc[:, None]])


@functools.lru_cache(maxsize=64)
def _hash_file(name: str) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()
