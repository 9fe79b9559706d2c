"""Protein files: structures with residues and bonds, and trajectories.

PDB, GRO, XTC, TRR and DCD are read by biotite, extended XYZ by ASE. Coordinates are in Å.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float, Int

from surefoot.data.adsorption import unpack
from surefoot.data.images import UnreadableFile, read_images
from surefoot.hat.connect import residue_bonds
from surefoot.hat.proteins import ResidueId, Snapshot, Topology
from surefoot.hat.residues import AMINO_ACIDS, IONS, WATER, canonical

STRUCTURES = (".pdb", ".gro", ".xyz", ".extxyz")
TRAJECTORIES = (".xtc", ".trr", ".dcd")
SMALLEST_BOX = 2.0  # Å: a shorter edge is a placeholder
UNNAMED = "UNK"  # name of residues without one
VIRTUAL = ("MW", "EP", "EPW", "LP", "LP1", "LP2", "M")  # sites of water models that are no atoms


@dataclass(frozen=True, eq=False)
class _Table:
    """A structure file before its bonds are known; coordinates of all its models."""

    symbols: list[str]
    names: list[str]
    residues: list[tuple[str, str, str]]
    altlocs: list[str]
    recorded: list[tuple[int, int]]
    models: Float[np.ndarray, "models atoms 3"]
    cells: list[Float[np.ndarray, "3 3"] | None]


def read_structure(
    path: str | Path, altloc: str | None = None, by_distance: Collection[str] = ()
) -> tuple[Topology, list[Snapshot]]:
    """A protein file and its frames: a PDB or GRO file, or extended XYZ with residue names.

    Args:
        path: file; a `.gz` suffix is unpacked first.
        altloc: letter of the alternate location that is taken, where the file has some.
        by_distance: names of residues whose bonds are guessed from distances.

    Raises:
        ValueError: if the file can not be read, holds alternate locations and none is chosen, or
            bonds of a residue are not known.
    """
    table = _read(Path(path))
    kept, notes = _choose(table, altloc, str(path))
    numbers = np.array([atomic_numbers[table.symbols[atom]] for atom in kept], int)
    names = tuple(table.names[atom] for atom in kept)
    keys = [table.residues[atom] for atom in kept]
    changes = [True, *(one != two for one, two in pairwise(keys))]
    owner = np.cumsum(changes) - 1
    residues = tuple(ResidueId(*key) for key, new in zip(keys, changes, strict=True) if new)
    new = np.full(len(table.names), -1)
    new[kept] = np.arange(len(kept))
    recorded = new[np.array(table.recorded, int).reshape(-1, 2)]
    recorded = recorded[(recorded >= 0).all(axis=1)]
    snapshots = [
        Snapshot(frame, model[kept].astype(float), cell)
        for frame, (model, cell) in enumerate(zip(table.models, table.cells, strict=True))
    ]
    first = snapshots[0]
    if not np.isfinite(first.positions).all():
        raise ValueError(f"{path}: a position is no number.")
    try:
        bonds, guessed = residue_bonds(
            numbers, names, owner, [residue.name for residue in residues], recorded,
            first.positions, first.cell, by_distance,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if guessed:
        notes.append(f"bonds of {', '.join(sorted(guessed))} are guessed from distances")
    degree = np.bincount(bonds.ravel(), minlength=len(numbers))
    topology = Topology(str(path), numbers, names, owner, residues, bonds, degree, kept,
                        len(table.names), tuple(notes))  # fmt: skip
    return topology, snapshots


def read_trajectory(path: str | Path, topology: Topology) -> Iterator[Snapshot]:
    """The frames of a trajectory one after another, as few in memory as can be.

    Args:
        path: XTC, TRR, DCD, or a file that `read_structure` reads.
        topology: of the structure that belongs to it.

    Raises:
        ValueError: if it can not be read, is empty, or has another number of atoms.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableFile(f"{path}: there is no such file.")
    if path.suffix.lower() in TRAJECTORIES:
        frames = _iterate(path)
    else:
        table = _read(path)
        frames = zip(table.models, table.cells, strict=True)
    count = 0
    for frame, (positions, cell) in enumerate(frames):
        if len(positions) != topology.atoms_in_file:
            raise ValueError(
                f"{path}, frame {frame}: {len(positions)} atoms, but {topology.file} has "
                f"{topology.atoms_in_file}; give the structure that it was written with."
            )
        count += 1
        yield Snapshot(frame, positions[topology.source].astype(float), cell)
    if not count:
        raise ValueError(f"{path}: the trajectory holds no frame; give one that has some.")


def count_frames(path: str | Path, topology: Topology) -> int:
    """The number of frames of a trajectory, without reading them where that can be.

    Raises:
        ValueError: if it can not be read.
    """
    path = Path(path)
    if path.suffix.lower() not in TRAJECTORIES:
        return sum(1 for _ in read_trajectory(path, topology))
    if not path.is_file():
        raise UnreadableFile(f"{path}: there is no such file.")
    try:
        with _reader(path).traj_type()(str(path), "r") as file:
            return len(file)
    except Exception as error:  # the readers raise whatever their parsers meet
        raise _unreadable(path, error) from error


def _reader(path: Path) -> Any:
    from biotite.structure.io.dcd import DCDFile
    from biotite.structure.io.trr import TRRFile
    from biotite.structure.io.xtc import XTCFile

    return {".xtc": XTCFile, ".trr": TRRFile, ".dcd": DCDFile}[path.suffix.lower()]


def _unreadable(path: Path, error: Exception) -> UnreadableFile:
    reason = str(error) or type(error).__name__
    if path.stat().st_size == 0:
        reason = "it is empty"
    return UnreadableFile(f"{path}: can not be read as {path.suffix} ({reason}).")


def _iterate(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        for positions, cell, _ in _reader(path).read_iter(str(path)):
            yield positions, _box(cell)
    except Exception as error:  # the readers raise whatever their parsers meet
        raise _unreadable(path, error) from error


def _read(path: Path) -> _Table:
    plain = path.with_suffix("") if path.suffix in (".gz", ".xz") else path
    kind = plain.suffix.lower()
    if kind not in STRUCTURES:
        raise UnreadableFile(
            f"{path}: a structure with residues is a PDB, a GRO or an extended XYZ file "
            f"({', '.join(STRUCTURES)}), .gz behind it or not."
        )
    if kind in (".xyz", ".extxyz"):
        return _from_images(path)
    if not path.is_file():
        raise UnreadableFile(f"{path}: there is no such file.")
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = unpack(path, Path(folder))
            table = _read_pdb(file) if kind == ".pdb" else _read_gro(file)
        except Exception as error:  # the readers raise whatever their parsers meet
            reason = str(error) or type(error).__name__
            raise UnreadableFile(f"{path}: can not be read as {kind} ({reason}).") from error
    if not table.names:
        raise UnreadableFile(f"{path}: it holds no atoms.")
    return table


def _read_pdb(path: Path) -> _Table:
    from biotite.structure.io.pdb import PDBFile

    lines = [_with_occupancy(line) for line in path.read_text(errors="replace").splitlines()]
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of guessed elements
        file = PDBFile.read(io.StringIO("\n".join(lines)))
        array = file.get_structure(altloc="all", extra_fields=["atom_id"])
    symmetry = next((line[55:66].strip() for line in lines if line.startswith("CRYST1")), "")
    box = array.box if symmetry in ("", "P 1", "P1") else None
    place = {int(number): index for index, number in enumerate(array.atom_id)}
    recorded = []
    for line in lines:
        if line.startswith("CONECT"):
            serials = [line[start : start + 5].strip() for start in range(6, 31, 5)]
            ids = [int(serial) for serial in serials if serial.isdigit()]
            recorded += [
                (place[ids[0]], place[other])
                for other in ids[1:]
                if ids[0] in place and other in place and other != ids[0]
            ]
    return _from_array(array, [str(one).strip() for one in array.altloc_id], recorded, box)


def _with_occupancy(line: str) -> str:
    """The line of an atom with numbers in the columns that some programs leave empty."""
    if not line.startswith(("ATOM", "HETATM")):
        return line
    line = line.ljust(80)
    number = line[22:26] if line[22:26].strip() else "   1"
    tail = line[54:66] if line[54:60].strip() and line[60:66].strip() else "  1.00  0.00"
    return line[:22] + number + line[26:54] + tail + line[66:]


def _read_gro(path: Path) -> _Table:
    from biotite.structure.io.gro import GROFile

    file = GROFile.read(str(path))
    # As many atoms are made as a line states, whether lines follow or not.
    counts = [int(line) for line in file.lines if line.strip().isdigit()]
    if max(counts, default=0) > len(file.lines):
        raise ValueError(f"it states {max(counts)} atoms, and has {len(file.lines)} lines")
    array = file.get_structure()
    return _from_array(array, [""] * array.array_length(), [], array.box)


def _from_array(
    array: Any, altlocs: list[str], recorded: list[tuple[int, int]], boxes: Any
) -> _Table:
    models = np.asarray(array.coord)
    cells = [_box(None if boxes is None else boxes[model]) for model in range(len(models))]
    rows = zip(array.chain_id, array.res_id, array.ins_code, array.res_name, strict=True)
    residues = [
        (str(c).strip(), f"{n}{str(i).strip()}", str(r).strip() or UNNAMED) for c, n, i, r in rows
    ]
    names = [str(name).strip() for name in array.atom_name]
    symbols = [
        _symbol(str(element).strip(), name, key[2])
        for element, name, key in zip(array.element, names, residues, strict=True)
    ]
    return _Table(symbols, names, residues, altlocs, recorded, models, cells)


def _from_images(path: Path) -> _Table:
    images = read_images(path)
    first = images[0]
    names = first.arrays.get("atom_names", first.arrays.get("atomtypes"))
    missing = [key for key in ("residuenames", "residuenumbers") if key not in first.arrays]
    if names is None or missing:
        raise UnreadableFile(
            f"{path}: atoms carry no {(missing or ['atom_names'])[0]}; extended XYZ needs columns "
            "residuenames, residuenumbers and atom_names (and chains, if there are several)."
        )
    if any(len(image) != len(first) for image in images):
        raise UnreadableFile(f"{path}: frames have different numbers of atoms.")
    chains = first.arrays.get("chains", [""] * len(first))
    rows = zip(chains, first.arrays["residuenumbers"], first.arrays["residuenames"], strict=True)
    residues = [(str(c).strip(), str(n).strip(), str(r).strip()) for c, n, r in rows]
    cells = [_box(image.cell.array) if image.pbc.all() else None for image in images]
    models = np.array([image.positions for image in images])
    text = [str(name).strip() for name in names]
    symbols = list(first.get_chemical_symbols())
    return _Table(symbols, text, residues, [""] * len(first), [], models, cells)


def _box(cell: Any) -> Float[np.ndarray, "3 3"] | None:
    """A box with room in it; placeholders such as 1 Å × 1 Å × 1 Å are none."""
    if cell is None:
        return None
    box = np.asarray(cell, float)
    if not np.isfinite(box).all() or np.linalg.norm(box, axis=1).min() < SMALLEST_BOX:
        return None
    return box


def _symbol(element: str, name: str, residue: str) -> str:
    """The element of an atom: as the file says, else from its name; X for a virtual site."""
    if residue.upper() in WATER and name.upper() in VIRTUAL:
        return "X"
    letters = name.lstrip("0123456789")
    if canonical(residue) in AMINO_ACIDS or residue.upper() in WATER | {"ACE", "NME", "NMA"}:
        own = element.capitalize()
        return own if own in ("H", "C", "N", "O", "S", "Se", "P") else _first_letter(letters)
    found = element.capitalize()
    if found in atomic_numbers and found in chemical_symbols:
        return found
    if residue.upper() in IONS:
        guess = "".join(one for one in residue if one.isalpha()).capitalize()
        guess = {"Sod": "Na", "Cla": "Cl", "Pot": "K", "Cal": "Ca", "Ces": "Cs"}.get(guess, guess)
        return guess if guess in atomic_numbers else "X"
    return _first_letter(letters)


def _first_letter(name: str) -> str:
    """The element that a name begins with, if there is one of a letter."""
    return name[:1].upper() if name[:1].upper() in atomic_numbers else "X"


def _choose(
    table: _Table, altloc: str | None, path: str
) -> tuple[Int[np.ndarray, " kept"], list[str]]:
    """Atoms of one alternate location, without virtual sites."""
    letters = sorted({one for one in table.altlocs if one not in ("", ".")})
    if letters and altloc is None:
        where = next(i for i, one in enumerate(table.altlocs) if one == letters[0])
        chain, number, name = table.residues[where]
        raise ValueError(
            f"{path}: {ResidueId(chain, number, name)}:{table.names[where]} and others stand at "
            f"alternate locations ({', '.join(letters)}); choose one with --altloc."
        )
    if altloc is not None and letters and altloc not in letters:
        raise ValueError(
            f"{path}: there is no alternate location '{altloc}'; there are {', '.join(letters)}."
        )
    kept = [
        index
        for index, (one, symbol) in enumerate(zip(table.altlocs, table.symbols, strict=True))
        if one in ("", ".", altloc) and symbol != "X"
    ]
    notes = [f"alternate location {altloc} of {', '.join(letters)}"] if letters else []
    unknown = sum(symbol == "X" for symbol in table.symbols)
    if unknown:
        notes.append(f"{unknown} sites that are no atoms are left out")
    return np.array(kept, int), notes
