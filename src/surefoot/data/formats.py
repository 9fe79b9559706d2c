"""Files to ASE structures with what stands beside them: one function per format."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.row import AtomsRow
from ase.io.formats import filetype

from surefoot.wording import cut

SQLITE = b"SQLite format 3\0"  # how every such file begins
RESULTS = ("energy", "forces", "stress")
REASON = 300  # characters of what is wrong
SHORTEST = 2  # bytes of the line of an atom
COLUMNS = re.compile(r"(?=:[RISL]:\s*\+?([\d_]+))")  # of properties in the comment of a frame
MOST_DIGITS = 6  # of their number
COUNTS = 5, 7  # lines of POSCAR of which one has the numbers of atoms: the sixth or the seventh
ANGSTROM = ("Ang", "Angstrom", "Å")


def read_ase(path: Path) -> Iterator[Atoms]:
    """All images of a file that ASE reads.

    Raises:
        ValueError: if a file of VASP states more atoms than it can hold.
    """
    if filetype(str(path)) == "vasp":
        _require_counts(path)
    yield from ase.io.iread(path, index=":")


def _require_counts(path: Path) -> None:
    """ASE's reader of POSCAR makes as many atoms as it is told to."""
    with path.open("rb") as file:
        for line in itertools.islice(file, *COUNTS):
            counts = [int(word) for word in line.split() if word.isdigit()]
            if sum(counts) > path.stat().st_size // SHORTEST:
                raise ValueError(f"it states {sum(counts):.6g} atoms, which it can not hold")


def read_xyz(path: Path) -> Iterator[Atoms]:
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
            comment = file.readline().decode("utf-8", "replace")
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
    yield from read_ase(path)


def say_reason(error: Exception) -> str:
    """What a reader says is wrong, cut where it is too long to read."""
    return cut(str(error) or type(error).__name__, REASON)


def read_database(path: Path) -> Iterator[Atoms]:
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
    for row in database.select():
        yield row_to_atoms(row)


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
