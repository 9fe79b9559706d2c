"""Trajectories on disk: chunks that are there whole or not at all.

HDF5: every chunk of frames is a file of its own in `parts`, written under another name and moved;
`trajectory.h5` beside it is a small index of virtual datasets that shows all parts as one, written
at the end and whenever there are an eighth more parts than it knows: a long run writes it a few
dozen times, and not once for every chunk, which would cost the square of their number. The state of
the run has a sum over what counts, so that it goes on from nothing else.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import numpy as np
import torch
from torch import Tensor

from surefoot.motion.surface import OF_ATOMS, Evaluation
from surefoot.motion.systems import Systems
from surefoot.sealed import require_signed, sign, sum_up
from surefoot.train.checkpoint import RefusedFile, write_atomically
from surefoot.units import DALTON

INDEX, PARTS = "trajectory.h5", "parts"
SMALL, SWELLING = 2**24, 1100  # bytes that are read in any case, and of each that is packed
BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError)
"""What h5py and NumPy raise where a file is damaged."""
BEHIND = 8
"""The share of its parts, as one of so many, that the index of a run that goes on may not show."""
UNITS = {
    "time": "fs",
    "positions": "Å",
    "velocities": "Å/fs",
    "cell": "Å",
    "energy": "eV",
    "kinetic_energy": "eV",
    "conserved": "eV",
    "temperature": "K",
    "forces": "eV/Å",
    "stress": "eV/Å³",
    "energy_uncertainty": "eV",
    "forces_uncertainty_norm": "eV/Å",
    "bias_energy": "eV",
    "bias_forces": "eV/Å",
    "bias_stress": "eV/Å³",
    "masses": "Da",
    "target_temperature": "K",
}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """All systems that move at one step.

    Attributes:
        step: of the run.
        time: fs.
        systems: those that move.
        positions: (atoms, 3) Å.
        momenta: (atoms, 3) eV·fs/Å.
        cell: (systems, 3, 3) Å.
        evaluation: with uncertainties where the surface has them.
        measured: (systems) each: kinetic_energy, temperature, conserved.
        bias: what pulled the atoms beside the potential, as JSON; empty where nothing did.
    """

    step: int
    time: float
    systems: Systems
    positions: Tensor
    momenta: Tensor
    cell: Tensor
    evaluation: Evaluation
    measured: dict[str, Tensor]
    bias: str = ""


FRAME_ALONE = ("step", "time")
FRAME_ATOMS = ("positions", "velocities", *OF_ATOMS)
FIXED_ATOMS = ("numbers", "masses", "fixed", "system_of_atom")
"""Datasets with one value per frame, with rows per atom, and those of atoms that never change; the
others have rows per system."""

Marks = dict[str, int]
"""How much of each file counts, for the state of a run."""
Sums = dict[str, str]
"""SHA-256 of what counts, likewise; empty in states of older versions."""


@runtime_checkable
class Writer(Protocol):
    """Where chunks of frames go."""

    def write(self, frames: Sequence[Frame]) -> None:
        """Put a chunk on the disk, whole or not at all."""
        ...

    def marks(self) -> Marks:
        """How much counts now."""
        ...

    def sums(self) -> Sums:
        """What tells whether that is still as it was written."""
        ...

    def cut(self, marks: Marks, sums: Sums) -> None:
        """Forget what was written after these marks; refuse what is not as it was written."""
        ...

    def finish(self) -> None:
        """Show all that was written."""
        ...


@dataclass
class HdfWriter:
    """Chunks as files of HDF5, and an index that shows them as one.

    A system that has left the run has nan in later frames.

    Attributes:
        folder: of the run.
        systems: all systems of the run.
        temperatures: (systems) K, what was asked for.
        bias: what pulled the atoms beside the potential, as JSON; empty where nothing did.
        shapes: of the datasets of each chunk so far, by name.
        indexed: how many of them the index shows.
        total: SHA-256 over those of all parts so far.
    """

    folder: Path
    systems: Systems
    temperatures: Tensor
    bias: str = ""
    shapes: list[dict[str, tuple[int, ...]]] = field(default_factory=list)
    indexed: int = 0
    total: Any = field(default_factory=hashlib.sha256)

    def write(self, frames: Sequence[Frame]) -> None:
        """Put a chunk on the disk, whole or not at all."""
        data = _stack(frames, self.systems)
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            for name, value in data.items():
                file.create_dataset(name, data=value, compression="gzip", compression_opts=1)
        whole = sign(content.getvalue())
        write_atomically(self._part(len(self.shapes)), whole)
        self.total.update(hashlib.sha256(whole).digest())
        self.shapes.append({name: value.shape for name, value in data.items()})
        if len(self.shapes) - self.indexed > self.indexed // BEHIND:
            self._write_index()

    def marks(self) -> Marks:
        """How many parts count now."""
        return {"parts": len(self.shapes)}

    def sums(self) -> Sums:
        """The sum over all parts."""
        return {PARTS: self.total.hexdigest()}

    def cut(self, marks: Marks, sums: Sums) -> None:
        """Forget later parts.

        Raises:
            RefusedFile: if one that counts is missing or damaged.
        """
        count = marks.get(PARTS, 0)
        self.shapes.clear()
        self.total = hashlib.sha256()
        for number in range(count):
            self._take(self._part(number))
        if sums.get(PARTS, self.total.hexdigest()) != self.total.hexdigest():
            raise RefusedFile(
                f"{self.folder / PARTS}: one of the first {count} parts of the trajectory is not "
                "as this run has written it; put it back, or begin a new run."
            )
        for path in (self.folder / PARTS).glob("*.h5"):
            if not path.stem.isdigit() or int(path.stem) >= count:
                path.unlink()
        self.indexed = 0
        if count == 0:
            (self.folder / INDEX).unlink(missing_ok=True)
        else:
            self._write_index()

    def _take(self, path: Path) -> None:
        """Count a part that is there."""
        if not path.is_file():
            raise RefusedFile(
                f"{path}: this part of the trajectory is missing; put it back, or begin a new run."
            )
        self.total.update(sum_up(path).digest())
        try:
            require_signed(path)
            with h5py.File(path) as file:
                self.shapes.append({name: file[name].shape for name in file})  # type: ignore[union-attr]
        except BROKEN as error:
            raise RefusedFile(
                f"{path}: this part of the trajectory is damaged ({error}); put it back, or begin "
                "a new run."
            ) from error

    def finish(self) -> None:
        """Write the index over all parts."""
        if self.indexed < len(self.shapes):
            self._write_index()

    def _part(self, number: int) -> Path:
        return self.folder / PARTS / f"{number:06d}.h5"

    def _write_index(self) -> None:
        names = dict.fromkeys(name for part in self.shapes for name in part)
        content = io.BytesIO()
        with h5py.File(content, "w", libver="latest") as file:
            for name in names:
                self._index(file, name)
            self._describe(file)
        write_atomically(self.folder / INDEX, sign(content.getvalue()))
        self.indexed = len(self.shapes)

    def _index(self, file: Any, name: str) -> None:
        """One dataset over all parts; nan where a part has none of the name."""
        counts = [part["step"][0] for part in self.shapes]
        shape = next(part[name] for part in self.shapes if name in part)
        kind = "i8" if name == "step" else "f8"
        layout = h5py.VirtualLayout(shape=(sum(counts), *shape[1:]), dtype=kind)
        start = 0
        for number, count in enumerate(counts):
            if name in self.shapes[number]:
                source = f"{PARTS}/{number:06d}.h5"
                whole = self.shapes[number][name]
                layout[start : start + count] = h5py.VirtualSource(source, name, shape=whole)
            start += count
        dataset = file.create_virtual_dataset(name, layout, fillvalue=np.nan if kind == "f8" else 0)
        if name in UNITS:
            dataset.attrs["unit"] = UNITS[name]

    def _describe(self, file: Any) -> None:
        systems = self.systems
        fixed = {
            "numbers": systems.numbers,
            "masses": systems.masses / DALTON,
            "fixed": systems.fixed,
            "system_of_atom": systems.owner,
            "pbc": systems.pbc,
            "charge": systems.charge,
            "spin": systems.spin,
            "target_temperature": self.temperatures,
        }
        for name, value in fixed.items():
            dataset = file.create_dataset(name, data=value.numpy())
            if name in UNITS:
                dataset.attrs["unit"] = UNITS[name]
        if self.bias:
            file.attrs["bias"] = self.bias


def _stack(frames: Sequence[Frame], systems: Systems) -> dict[str, np.ndarray]:
    """Frames as arrays over all systems of the run; nan where one has left or nobody was asked."""
    rows = [_columns(frame) for frame in frames]
    data = {
        "step": np.array([frame.step for frame in frames], np.int64),
        "time": np.array([frame.time for frame in frames]),
    }
    shapes = {name: value.shape[1:] for row in rows for name, value in row.items()}
    for name, shape in shapes.items():
        of_atoms = name in FRAME_ATOMS
        count = len(systems.owner) if of_atoms else systems.count
        whole = np.full((len(frames), count, *shape), np.nan)
        for number, (frame, row) in enumerate(zip(frames, rows, strict=True)):
            if name not in row:
                continue
            here = torch.isin(systems.ids, frame.systems.ids)
            chosen = here[systems.owner] if of_atoms else here
            whole[number, chosen.numpy()] = row[name]
        data[name] = whole
    return data


def _columns(frame: Frame) -> dict[str, np.ndarray]:
    velocities = frame.momenta / frame.systems.masses[:, None]
    own = {"positions": frame.positions, "velocities": velocities, "cell": frame.cell}
    values = {**own, **frame.measured, **frame.evaluation.given()}
    return {name: value.numpy() for name, value in values.items()}


def read_trajectory(folder: Path, system: int) -> dict[str, np.ndarray]:
    """The frames of one system of a run that was written as HDF5, until it left.

    Args:
        folder: of the run.
        system: its number.
    Returns:
        Arrays by name with the frame as first axis; and what does not change, such as `numbers`.
    Raises:
        ValueError: if there is no such system, or the index or a part is damaged.
    """
    files = [folder / INDEX, *sorted((folder / PARTS).glob("*.h5"))]
    most = SMALL + SWELLING * sum(path.stat().st_size for path in files)
    path = files[0]
    try:
        for path in files:
            require_signed(path)
        with h5py.File(folder / INDEX) as file:
            if sum(file[name].nbytes for name in file) > most:  # type: ignore[union-attr]
                raise ValueError("it states far more numbers than its parts can hold")
            data = {str(name): np.asarray(file[name]) for name in file}
            moving = {str(name) for name in file if file[name].is_virtual}  # type: ignore[union-attr]
        mine = data["system_of_atom"] == system
        chosen = _choose(data, moving, system, mine)
    except BROKEN as error:
        raise ValueError(
            f"{path}: it can not be read ({error}); put it back, or begin a new run. A run that is "
            f"resumed writes {INDEX} anew."
        ) from error
    if not mine.any():
        raise ValueError(f"{folder}: there is no system {system}; they are numbered from 0.")
    return chosen


def _choose(
    data: Mapping[str, np.ndarray], moving: Collection[str], system: int, mine: np.ndarray
) -> dict[str, np.ndarray]:
    """What is of one system.

    Args:
        data: of all systems.
        moving: names of what has frames.
        system: its number.
        mine: (atoms) which are its own.
    """
    if not mine.any():
        return {}
    there = np.isfinite(data["energy"][:, system])
    found = {}
    for name, value in data.items():
        if name in FRAME_ALONE:
            found[name] = value[there]
        elif name in moving:
            found[name] = value[there][:, mine if name in FRAME_ATOMS else system]
        else:
            found[name] = value[mine] if name in FIXED_ATOMS else value[system]
    return found
