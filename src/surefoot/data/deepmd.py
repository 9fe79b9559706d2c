"""Folders of DeePMD-kit (`deepmd/npy`, also mixed), as dpdata writes them from many programs.

    type.raw        kind of each atom, from 0        type_map.raw    symbol of each kind
    nopbc           where there is no cell           set.000, …      arrays of numpy, by frame:
        coord (frames, 3·atoms)  box (frames, 9)  energy (frames)  force (frames, 3·atoms)
        virial (frames, 9)  real_atom_types (frames, atoms): the kinds, where they differ (mixed)

Energies are in eV, lengths in Å; a virial is −volume · stress, as elsewhere. Atoms of kind −1 are
padding of mixed folders. dpdata is not needed, and pickled content is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from jaxtyping import Int

from surefoot.data.npz import require_size

TYPES = "type.raw"
"""The file by which such a folder is known."""
SYMBOLS = "type_map.raw"
OPEN = "nopbc"
PADDING = -1


def read_deepmd(folder: Path) -> Iterator[Atoms]:
    """Frames of all sets of such a folder, in the order of their names.

    Raises:
        ValueError: if symbols or positions are missing, shapes do not fit together, or an array is
            larger than its file.
    """
    elements = _read_elements(folder)
    kinds = np.atleast_1d(np.loadtxt(folder / TYPES, dtype=int))
    if not len(kinds):
        raise ValueError(f"{TYPES} names no atoms")
    sets = sorted(part for part in folder.glob("set.*") if part.is_dir())
    if not sets:
        raise ValueError("it has no folders set.000 and so on")
    for part in sets:
        yield from _read_set(part, kinds, elements, periodic=not (folder / OPEN).exists())


def _read_elements(folder: Path) -> Int[np.ndarray, " kinds"]:
    """The atomic number of each kind."""
    path = folder / SYMBOLS
    if not path.is_file():
        raise ValueError(f"it has no {SYMBOLS}, so nobody knows which elements its atoms are")
    symbols = path.read_text().split()
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise ValueError(f"{SYMBOLS} holds '{unknown[0][:20]}', which is no element")
    return np.array([atomic_numbers[symbol] for symbol in symbols])


def _read_set(
    part: Path, kinds: np.ndarray, elements: np.ndarray, *, periodic: bool
) -> Iterator[Atoms]:
    coordinates = _load(part, "coord", None, 3 * len(kinds))
    if coordinates is None:
        raise ValueError(f"{part.name} has no coord.npy")
    count = len(coordinates)
    boxes = _load(part, "box", count, 9) if periodic else None
    if periodic and boxes is None:
        raise ValueError(f"{part.name} has no box.npy, and there is no file {OPEN}")
    energies, virials = _load(part, "energy", count, 1), _load(part, "virial", count, 9)
    forces = _load(part, "force", count, 3 * len(kinds))
    mixed = _load(part, "real_atom_types", count, len(kinds))
    mixed = np.broadcast_to(kinds, (count, len(kinds))) if mixed is None else mixed.astype(int)
    if (mixed.max(initial=PADDING) >= len(elements)) or mixed.min(initial=0) < PADDING:
        raise ValueError(f"{part.name} has kinds of atoms that {SYMBOLS} does not name")
    for index in range(count):
        real = mixed[index] != PADDING
        atoms = Atoms(
            elements[mixed[index][real]],
            positions=coordinates[index].reshape(-1, 3)[real],
            cell=None if boxes is None else boxes[index].reshape(3, 3),
            pbc=boxes is not None,
        )
        if energies is not None:
            atoms.info["REF_energy"] = float(energies[index, 0])
        if forces is not None:
            atoms.arrays["REF_forces"] = forces[index].reshape(-1, 3)[real].astype(float)
        if virials is not None:
            atoms.info["REF_virial"] = virials[index].reshape(3, 3).astype(float)
        yield atoms


def _load(part: Path, name: str, frames: int | None, width: int) -> np.ndarray | None:
    """An array with so many numbers for each frame; None where there is none."""
    path = part / f"{name}.npy"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        require_size(file, path.stat().st_size, f"{part.name}/{path.name}")
    array = np.load(path, allow_pickle=False)
    count = len(array) if frames is None and array.ndim else frames or 0
    if array.dtype.kind not in "biuf" or array.size != count * width:
        raise ValueError(
            f"{part.name}/{path.name} has shape {array.shape} of {array.dtype}; numbers of shape "
            f"({'frames' if frames is None else frames}, {width}) are needed"
        )
    return array.reshape(count, width)
