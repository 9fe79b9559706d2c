"""Files to ASE structures with what stands beside them: one function per format."""

from __future__ import annotations

import math
import re
import zipfile
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.row import AtomsRow

SQLITE = b"SQLite format 3\0"  # how every such file begins
RESULTS = ("energy", "forces", "stress")
REASON = 300  # characters of what is wrong
SHORTEST = 2  # bytes of the line of an atom
COLUMNS = re.compile(rb":\w:\s*(\w+)")  # of the properties in the comment of a frame
MOST_DIGITS = 6  # of their number
UNPACKED, SWELLING = 2**27, 64  # bytes of zip files: some in any case, and more for each packed one
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""How the header of an array is read, by version."""
ANGSTROM = ("Ang", "Angstrom", "Å")


def read_ase(path: Path) -> list[Atoms]:
    """All images of a file that ASE reads."""
    images = ase.io.read(path, index=":")
    return images if isinstance(images, list) else [images]


def read_xyz(path: Path) -> list[Atoms]:
    """All frames of extended XYZ, whose counts are compared with the file first.

    ASE's reader counts to the number of atoms that a line states, whether lines follow or not, and
    makes as many columns as it is told to.

    Raises:
        ValueError: if a count is more than the file can hold.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while True:
            try:
                count = int(file.readline().decode("utf-8", "replace"))
            except ValueError:
                break  # its end, or what ASE says more about
            comment = file.readline()
            if count > (size - file.tell()) // SHORTEST + 1:
                raise ValueError(f"it states {count:.6g} atoms in a frame, which it can not hold")
            if any(len(columns) > MOST_DIGITS for columns in COLUMNS.findall(comment)):
                raise ValueError("it states more columns for a property than any has")
            for _ in range(count):
                file.readline()
            place = file.tell()
            while file.readline().lstrip().startswith(b"VEC"):
                place = file.tell()
            file.seek(place)
    return read_ase(path)


def say_reason(error: Exception) -> str:
    """What a reader says is wrong, cut where it is too long to read."""
    reason = str(error) or type(error).__name__
    return reason if len(reason) <= REASON else f"{reason[:REASON]}…"


def read_npz(path: Path) -> list[Atoms]:
    """Frames of one molecule in the layout of rMD17 and sGDML.

    Reads `nuclear_charges` or `z` (atoms), `coords` or `R` (frames, atoms, 3), `energies` or `E`
    and `forces` or `F`; pickled content is refused, and arrays that are larger than their entries.
    """
    require_sizes(path)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        numbers = _first(arrays, "nuclear_charges", "z")
        positions = _first(arrays, "coords", "R")
        energies = _first(arrays, "energies", "E")
        forces = _first(arrays, "forces", "F")
    if numbers is None or positions is None:
        raise ValueError("needs nuclear_charges (or z) and coords (or R)")
    frame = (numbers.size, 3)
    if numbers.shape != frame[:1] or not numbers.size or positions.shape[1:] != frame:
        raise ValueError(
            f"its coords have the shape {positions.shape}, and for its {numbers.size} nuclear "
            f"charges (frames, {numbers.size}, 3) is needed"
        )
    for name, labels, shape in (("energies", energies, ()), ("forces", forces, frame)):
        if labels is not None and labels.size != math.prod((len(positions), *shape)):
            raise ValueError(
                f"its {name} have the shape {labels.shape}, which is not that of coords"
            )
    images = []
    for index, coordinates in enumerate(positions):
        atoms = Atoms(numbers.astype(int), positions=coordinates)
        if energies is not None:
            atoms.info["REF_energy"] = float(np.ravel(energies)[index])
        if forces is not None:
            atoms.arrays["REF_forces"] = np.array(forces[index], float)
        images.append(atoms)
    return images


def require_sizes(path: Path) -> None:
    """Refuse a zip file of arrays that would fill the memory: NumPy makes what a header says.

    Raises:
        ValueError: with the name of the entry.
    """
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if sum(info.file_size for info in infos) > UNPACKED + SWELLING * path.stat().st_size:
            raise ValueError("it unpacks to far more than its size; unpack it first if it is meant")
        for info in infos:
            with archive.open(info) as entry:
                version = np.lib.format.read_magic(entry)
                if version not in HEADERS:
                    raise ValueError(f"{info.filename} is in a format of arrays that is not read")
                shape, _, kind = HEADERS[version](entry)
            if math.prod(shape) * kind.itemsize > info.file_size:
                raise ValueError(f"{info.filename} has fewer numbers than its header says")


def _first(arrays: Any, *names: str) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def read_database(path: Path) -> list[Atoms]:
    """Rows of an ASE database, with what ASE's own reader drops: key-value pairs and `data`.

    SchNetPack keeps its labels in `data`, each as an array. What is called energy, forces or stress
    goes to a calculator, as ASE does with such columns of extended XYZ; else one number goes to
    `info`, one row per atom to `arrays`, other arrays to `info`.

    Raises:
        ValueError: if it is no SQLite file, or holds lengths in another unit than Å.
    """
    # ASE makes a database of an empty file, and here nothing may be written.
    with path.open("rb") as file:
        if file.read(len(SQLITE)) != SQLITE:
            raise ValueError("not a database of ASE, which is an SQLite file")
    from ase.db import connect

    database = connect(path, type="db", use_lock_file=False)
    unit = database.metadata.get("_distance_unit", ANGSTROM[0])
    if unit not in ANGSTROM:
        raise ValueError(f"its lengths are in {unit}; Å is needed, so convert the file")
    return [row_to_atoms(row) for row in database.select()]


def row_to_atoms(row: AtomsRow) -> Atoms:
    """A row of a database of ASE with its key-value pairs and `data`; see `read_database`."""
    atoms = row.toatoms()
    results = {} if atoms.calc is None else dict(atoms.calc.results)
    for name, value in {**row.key_value_pairs, **row.data}.items():
        number = _to_number(value)
        if number is None:
            continue
        if name in RESULTS:
            results.setdefault(name, number)
        elif np.ndim(number) == 2 and len(number) == len(atoms):
            atoms.arrays.setdefault(name, number)
        else:
            atoms.info[name] = number
    atoms.calc = SinglePointCalculator(atoms, **results) if results else None
    return atoms


def _to_number(value: Any) -> Any:
    """A number or a float array as it stands in a database; text as it is, None for the rest."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        return None  # nested records: no label and no state
    return array.item() if array.size == 1 and array.ndim < 2 else array.astype(float)
