"""Archives of numpy: frames of one molecule or cell as rMD17, sGDML and NequIP have them.

| array | names | shape |
|---|---|---|
| atomic numbers | `nuclear_charges`, `z`, `atomic_numbers` | (atoms) or (frames, atoms) |
| positions | `coords`, `R`, `pos`, `positions` | (frames, atoms, 3) |
| energies | `energies`, `E`, `energy`, `total_energy` | as many numbers as frames |
| forces | `forces`, `F`, `force` | (frames, atoms, 3) |
| cell | `cell` | (3, 3) or (frames, 3, 3) |
| periodic axes | `pbc` | (3) or (frames, 3) |

As in NequIP, a cell without `pbc` is periodic along each vector that is not zero. Units are those
of the config; what a file says of its own is not read. Pickled content is refused.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms
from jaxtyping import Shaped

NUMBERS = ("nuclear_charges", "z", "atomic_numbers")
POSITIONS = ("coords", "R", "pos", "positions")
ENERGIES = ("energies", "E", "energy", "total_energy")
FORCES = ("forces", "F", "force")
CELL, PERIODIC = ("cell",), ("pbc",)
ARRAYS = (*NUMBERS, *POSITIONS, *ENERGIES, *FORCES, *CELL, *PERIODIC)
READ = frozenset(entry for name in ARRAYS for entry in (name, f"{name}.npy"))
"""Entries that are read: numpy finds an array with and without the suffix."""
UNPACKED, SWELLING = 2**27, 64  # bytes of zip files: some in any case, and more for each packed one
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""How the header of an array is read, by version."""


def read_npz(path: Path) -> Iterator[Atoms]:
    """Frames of an archive, with energies in `info` and forces in `arrays`.

    Raises:
        ValueError: if numbers or positions are missing, shapes do not fit together, or arrays are
            larger than their entries.
    """
    require_sizes(path)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        numbers, positions = _first(arrays, NUMBERS), _first(arrays, POSITIONS)
        energies, forces = _first(arrays, ENERGIES), _first(arrays, FORCES)
        cells, periodic = _first(arrays, CELL), _first(arrays, PERIODIC)
    if numbers is None or positions is None:
        raise ValueError("needs nuclear_charges (or z) and coords (or R)")
    count, atoms = _require_frames(positions)
    numbers = _spread("atomic numbers", numbers, (count, atoms))
    cells = _spread("cell", np.zeros((3, 3)) if cells is None else cells, (count, 3, 3))
    periodic = np.any(cells, axis=-1) if periodic is None else _spread("pbc", periodic, (count, 3))
    if energies is not None and energies.size != count:
        raise ValueError(f"there are {energies.size} energies for {count} frames")
    if forces is not None and forces.shape != positions.shape:
        raise ValueError(f"forces have shape {forces.shape}, and positions {positions.shape}")
    for index, coordinates in enumerate(positions):
        frame = Atoms(
            numbers[index].astype(int),
            positions=coordinates,
            cell=cells[index],
            pbc=periodic[index].astype(bool),
        )
        if energies is not None:
            frame.info["REF_energy"] = float(np.ravel(energies)[index])
        if forces is not None:
            frame.arrays["REF_forces"] = np.array(forces[index], float)
        yield frame


def require_sizes(path: Path) -> None:
    """Refuse a zip file whose arrays would fill the memory: NumPy makes what a header says.

    Entries that nobody reads may be anything.

    Raises:
        ValueError: with the name of the entry.
    """
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if sum(info.file_size for info in infos) > UNPACKED + SWELLING * path.stat().st_size:
            raise ValueError("it unpacks to far more than its size; unpack it first if it is meant")
        for info in infos:
            if info.filename not in READ:
                continue  # nobody makes an array of it
            with archive.open(info) as entry:
                require_size(entry, info.file_size, info.filename)


def require_size(entry: BufferedIOBase | IO[bytes], size: int, name: str) -> None:
    """Refuse an array that has fewer numbers than its header says.

    Args:
        entry: its bytes, from the beginning.
        size: how many there are.
        name: for the message.
    Raises:
        ValueError: with the name.
    """
    version = np.lib.format.read_magic(entry)
    if version not in HEADERS:
        raise ValueError(f"{name} is in a format of arrays that is not read")
    shape, _, kind = HEADERS[version](entry)
    if math.prod(shape) * kind.itemsize > size:
        raise ValueError(f"{name} has fewer numbers than its header says")


def _first(arrays: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _require_frames(positions: np.ndarray) -> tuple[int, int]:
    if positions.ndim != 3 or positions.shape[2] != 3 or not positions.shape[1]:
        raise ValueError(f"positions have shape {positions.shape}; (frames, atoms, 3) is needed")
    return positions.shape[0], positions.shape[1]


def _spread(
    name: str, array: np.ndarray, shape: tuple[int, ...]
) -> Shaped[np.ndarray, "frames ..."]:
    """What is stated once, for each frame."""
    if array.shape not in (shape, shape[1:]):
        raise ValueError(f"{name} have shape {array.shape}; {shape[1:]} or {shape} is needed")
    return np.broadcast_to(array, shape)
