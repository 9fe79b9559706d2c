# SPDX-License-Identifier: GPL-3.0-or-later
"""KIMMDY's topology and trajectory as surefoot's: atoms, residues, bonds, frames with times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from jaxtyping import Float
from surefoot.hat.proteins import ResidueId, Snapshot, Topology
from surefoot.hat.residues import AMINO_ACIDS, canonical
from surefoot.hat.valence import Radical

if TYPE_CHECKING:
    import kimmdy.topology.atomic
    import kimmdy.topology.topology

MASS_OFF = 0.3  # u between the mass of an atom and that of its element
CAPS = ("ACE", "NME", "NMA", "NH2")
SMALLEST_BOX = 2.0  # Å: a shorter edge is a placeholder


def read_topology(
    top: kimmdy.topology.topology.Topology, file: str, atoms_in_file: int
) -> Topology:
    """The reactive molecules of KIMMDY's topology.

    A hydrogen belongs to the residue of the atom that it is bonded to, so one that has moved is in
    its new residue; atoms are ordered by residue, and `source` holds their places in the files.

    Args:
        top: of KIMMDY, atom numbers from 1 without gaps.
        file: its name, for messages.
        atoms_in_file: of the trajectory, solvent included.

    Raises:
        ValueError: if an element can not be told, or a hydrogen has not one bond.
    """
    atoms = list(top.atoms.values())
    place = {atom.nr: index for index, atom in enumerate(atoms)}
    numbers = np.array([_element(atom, file) for atom in atoms])
    owner = np.zeros(len(atoms), int)
    residues: dict[tuple[str, str], int] = {}
    for index, atom in enumerate(atoms):
        holder = atom
        if numbers[index] == 1 and len(atom.bound_to_nrs) == 1:
            holder = top.atoms[atom.bound_to_nrs[0]]
        owner[index] = residues.setdefault((holder.resnr, holder.residue), len(residues))
    order = np.argsort(owner, kind="stable")
    new = np.empty(len(atoms), int)
    new[order] = np.arange(len(atoms))
    bonds = np.array([[place[one], place[two]] for one, two in top.bonds], int).reshape(-1, 2)
    bonds = np.sort(new[bonds], axis=1)
    return Topology(
        file=file,
        numbers=numbers[order],
        names=tuple(atoms[index].atom for index in order),
        owner=owner[order],
        residues=tuple(ResidueId("", number, name) for number, name in residues),
        bonds=bonds,
        degree=np.bincount(bonds.ravel(), minlength=len(atoms)),
        source=np.array([int(atoms[index].nr) - 1 for index in order]),
        atoms_in_file=atoms_in_file,
    )


def _element(atom: kimmdy.topology.atomic.Atom, file: str) -> int:
    """Atomic number, by the name in amino acids, elsewhere by the mass."""
    letter = atom.atom.lstrip("0123456789")[:1].upper()
    if canonical(atom.residue) in AMINO_ACIDS or atom.residue in CAPS:
        if letter in ("H", "C", "N", "O", "S", "P"):
            return atomic_numbers[letter]
    elif atom.mass is not None:
        apart = np.abs(atomic_masses[1:] - float(atom.mass))
        if apart.min() < MASS_OFF:
            return int(apart.argmin()) + 1
    raise ValueError(
        f"{file}: the element of atom {atom.nr}, {atom.residue}{atom.resnr}:{atom.atom}, can not "
        "be told; write its mass into the topology."
    )


def read_radicals(
    top: kimmdy.topology.topology.Topology, topology: Topology
) -> list[tuple[Radical, None]]:
    """The radicals KIMMDY knows of: those of its configuration, or atoms that lack a bond."""
    places = sorted(int(number) - 1 for number in top.radicals)
    return [(Radical(int(np.flatnonzero(topology.source == one)[0])), None) for one in places]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A trajectory of KIMMDY.

    Attributes:
        path: an XTC, TRR or GRO file.
        times: of all frames, ps; that of a GRO file is 0.
        atoms: in each frame.
    """

    path: Path
    times: Float[np.ndarray, " frames"]
    atoms: int

    def snapshots(self, topology: Topology, every: int) -> Iterator[Snapshot]:
        """Each so many frames; their numbers are those in the file."""
        for frame, (positions, box, _) in enumerate(_iterate(self.path)):
            if frame % every == 0:
                yield Snapshot(frame, positions[topology.source].astype(float), _cell(box))

    def span(self, frame: int, every: int) -> tuple[float, float]:
        """From the time of a frame to that of the next one looked at, or of the last one, ps."""
        last = min(frame + every, len(self.times) - 1)
        return float(self.times[frame]), float(self.times[last])


def read_trajectory(path: Path, reactive: int) -> Trajectory:
    """Times and size of a trajectory.

    Args:
        path: an XTC, TRR or GRO file.
        reactive: atoms of the topology; those of the file begin with them.

    Raises:
        ValueError: if the file can not be read, is empty, or has fewer atoms.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    try:
        found = [(len(positions), time) for positions, _, time in _iterate(path)]
    except Exception as error:  # the readers raise whatever their parsers meet
        raise ValueError(f"{path}: can not be read as {path.suffix} ({error}).") from error
    if not found:
        raise ValueError(f"{path}: the trajectory holds no frame.")
    atoms, times = found[0][0], np.array([float(time) for _, time in found])
    if atoms < reactive:
        raise ValueError(
            f"{path}: {atoms} atoms, but the topology has {reactive} in molecules that react; "
            "write them all (compressed-x-grps of the .mdp file)."
        )
    if any(one > two for one, two in pairwise(times.tolist())):
        raise ValueError(f"{path}: the times of its frames do not ascend.")
    return Trajectory(path, times, atoms)


def _iterate(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Positions and box in Å, and time in ps."""
    from biotite.structure.io.gro import GROFile
    from biotite.structure.io.trr import TRRFile
    from biotite.structure.io.xtc import XTCFile

    if path.suffix == ".gro":
        array = GROFile.read(str(path)).get_structure(model=1)
        yield array.coord, array.box, 0.0
        return
    reader = {".xtc": XTCFile, ".trr": TRRFile}[path.suffix]
    yield from reader.read_iter(str(path))


def _cell(box: Any) -> Float[np.ndarray, "3 3"] | None:
    if box is None or np.linalg.norm(box, axis=1).min() < SMALLEST_BOX:
        return None
    return np.asarray(box, float)
