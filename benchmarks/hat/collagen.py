"""A plain Gly-Pro-Hyp stretch of a collagen triple helix, with hydrogens, and a radical in it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from surefoot.hat.frames import Search, search_frames
from surefoot.hat.protein_files import read_structure
from surefoot.hat.proteins import Snapshot, Topology
from surefoot.hat.regions import around
from surefoot.hat.valence import Radical, read_radical

FILE = "colbuilder_homosapiens_N_HLKNL_C_HLKNL.pdb.gz"
CROSS_LINKS = ["L4Y", "L5Y"]  # bonds by distance
FIRST = 300  # residue from which a stretch is sought
MARGIN = 6.0  # Å beyond the radius of cut-outs: all that these and their caps may need
PLAIN = {"GLY", "PRO", "HYP"}


@dataclass(frozen=True)
class Stretch:
    """A piece of the helix; every atom has a place in it.

    Attributes:
        topology: `source` counts its own atoms.
        positions: in Å.
        radical: an α carbon of glycine that has lost a hydrogen.
        name: of that carbon in the file, such as A:GLY316:CA.
        plain: share of the residues that are Gly, Pro or Hyp.
    """

    topology: Topology
    positions: np.ndarray
    radical: Radical
    name: str
    plain: float

    def as_atoms(self) -> Atoms:
        """With names of residues and atoms, as `surefoot hat candidates` reads them."""
        topology = self.topology
        atoms = Atoms(topology.numbers, self.positions)
        residues = [topology.residue(index) for index in range(len(atoms))]
        atoms.arrays["atom_names"] = np.array(topology.names)
        for column, values in (
            ("residuenames", [one.name for one in residues]),
            ("residuenumbers", [one.number for one in residues]),
            ("chains", [one.chain or "-" for one in residues]),
        ):
            atoms.arrays[column] = np.array(values)
        return atoms


def find_stretch(search: Search, skip: int = 0, names: Sequence[str] = ()) -> Stretch:
    """The plainest of the first glycines whose cut-out is neutral and has all its bonds.

    Args:
        search: radius and caps of the cut-outs that are to fit into it.
        skip: stretches that are left out, the plainest first.
        names: residues that count as plain beside Gly, Pro and Hyp.
    """
    folder = Path(os.environ["SUREFOOT_DATA"]) / "peptides"
    topology, frames = read_structure(folder / FILE, by_distance=CROSS_LINKS)
    alone = replace(frames[0], cell=None)  # one helix, without its images
    found: list[Stretch] = []
    for residue in topology.residues:
        if residue.chain != "A" or residue.name != "GLY" or int(residue.number) < FIRST:
            continue
        one = _cut(topology, alone, str(residue.number), search, PLAIN | set(names))
        if one is not None:
            found.append(one)
        if len(found) > max(2, skip):
            break
    if len(found) <= skip:
        raise SystemExit("no stretch with a neutral cut-out was found.")
    return sorted(found, key=lambda one: -one.plain)[skip]


def _cut(
    topology: Topology, alone: Snapshot, number: str, search: Search, plain: set[str]
) -> Stretch | None:
    radical, hydrogen = read_radical(topology, f"A:GLY{number}:CA-HA2")
    try:
        wide = search.radius + MARGIN
        region = around(topology, alone, radical, hydrogen, wide, rebuild=True)
        count = len(region.positions)
        own = replace(region.topology, source=np.arange(count), atoms_in_file=count)
        taken = Radical(region.radical)
        findings = search_frames(own, displaced(region.positions, 1, 0.0), [(taken, None)], search)
    except ValueError:  # a torn place, or charges that make no doublet
        return None
    charges = [row.cutout.charge for row in findings.rows if row.cutout is not None]
    if not charges or any(charges):
        return None
    share = np.mean([one.name in plain for one in own.residues])
    return Stretch(own, region.positions, taken, own.label(taken.atom), float(share))


def displaced(positions: np.ndarray, frames: int, spread: float) -> Iterator[Snapshot]:
    """Frames of which every coordinate is displaced at random, with this deviation in Å."""
    rng = np.random.default_rng(0)
    for frame in range(frames):
        yield Snapshot(frame, positions + rng.normal(0.0, spread, positions.shape), None)
