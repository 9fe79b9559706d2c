"""Trajectories as extended XYZ: a file for each system, whose length that counts the state names.

Every chunk is appended and synchronised; what a killed run has written beyond that length is cut
off when it goes on.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import torch
from ase import Atoms

from surefoot.md.trajectory import Frame, Marks, Sums
from surefoot.motion.frames import with_results
from surefoot.motion.systems import to_atoms
from surefoot.sealed import sum_up
from surefoot.train.checkpoint import RefusedFile
from surefoot.units import DALTON


@dataclass
class XyzWriter:
    """Chunks appended to one file of extended XYZ for each system.

    Attributes:
        folder: of the run.
        structures: as they came, for what does not move.
        made_by: goes into `predicted_by`.
        totals: SHA-256 of each file so far.
    """

    folder: Path
    structures: Sequence[Atoms]
    made_by: str
    totals: dict[str, Any] = field(default_factory=dict)

    def write(self, frames: Sequence[Frame]) -> None:
        """Put a chunk on the disk; it counts once the state of the run names its length."""
        before, sums = self.marks(), self.sums()
        try:
            self._append(frames)
        except OSError:
            self.cut(before, sums)
            raise

    def _append(self, frames: Sequence[Frame]) -> None:
        texts: dict[int, io.StringIO] = {}
        for frame in frames:
            for number, system in enumerate(frame.systems.ids.tolist()):
                atoms = to_structure(frame, number, self.structures[system], self.made_by)
                ase.io.write(texts.setdefault(system, io.StringIO()), atoms, format="extxyz")
        for system, text in texts.items():
            path, content = self._path(system), text.getvalue().encode()
            with path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self.totals.setdefault(path.name, hashlib.sha256()).update(content)

    def marks(self) -> Marks:
        """How long each file is."""
        paths = [self._path(system) for system in range(len(self.structures))]
        return {path.name: path.stat().st_size for path in paths if path.exists()}

    def sums(self) -> Sums:
        """The sum of each file."""
        return {name: total.hexdigest() for name, total in self.totals.items()}

    def cut(self, marks: Marks, sums: Sums) -> None:
        """Cut off what was written later.

        Raises:
            RefusedFile: if a file is shorter than it was, or another one.
        """
        for system in range(len(self.structures)):
            path = self._path(system)
            length, mark = path.stat().st_size if path.exists() else 0, marks.get(path.name, 0)
            if length < mark:
                raise RefusedFile(
                    f"{path}: it has {length} bytes where the run had written {mark}; put the file "
                    "back, or begin a new run."
                )
            if not length:
                continue
            total = self.totals[path.name] = sum_up(path, mark)
            if sums.get(path.name, total.hexdigest()) != total.hexdigest():
                raise RefusedFile(
                    f"{path}: it is not as the run has written it; put the file back, or begin a "
                    "new run."
                )
            if length > mark:
                os.truncate(path, mark)

    def finish(self) -> None:
        """Nothing: files show what they hold."""

    def _path(self, system: int) -> Path:
        return self.folder / f"system-{system:04d}.xyz"


def to_structure(frame: Frame, number: int, template: Atoms, made_by: str) -> Atoms:
    """One system of a frame as an ASE structure with momenta and results.

    Args:
        frame: of the run.
        number: of the system in the frame.
        template: the structure as it came.
        made_by: goes into `predicted_by`.
    """
    chosen = torch.arange(frame.systems.count) == number
    atoms = chosen[frame.systems.owner]
    moved = to_atoms(template, frame.positions[atoms], frame.cell[number])
    # ASE's momenta are in Da · √(eV/Da).
    velocities = frame.momenta[atoms] / frame.systems.masses[atoms, None] * DALTON**0.5
    moved.set_momenta(velocities.numpy() * moved.get_masses()[:, None], apply_constraint=False)
    moved = with_results(moved, frame.evaluation.select(chosen, atoms), made_by)
    moved.info |= {"step": frame.step, "time": frame.time}
    for name, values in frame.measured.items():
        moved.info[name] = float(values[number])
    if frame.bias:
        moved.info["bias"] = frame.bias
    return moved
