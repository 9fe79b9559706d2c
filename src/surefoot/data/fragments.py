"""Distances to the nearest atom: atoms that have left their structure, and lengths not in Å."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import vesin
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.frame import Structure
from surefoot.data.read import Frame
from surefoot.units import BOHR

FAR, STRETCHED = 4.0, 2.5
"""Å, and sums of covalent radii, beyond which an atom is alone; solid argon has 3.8 Å and 1.8."""
BONDS = 0.65, 1.5
"""Between which the distance of neighbours lies, in sums of covalent radii, where they bond."""
NOBLE = (2, 10, 18, 36, 54, 86)
REACH = 7.0  # Å in which neighbours are looked for in a cell
SELDOM = 0.1  # of the frames of a file: where it is more, it is meant
SMALLEST = 3  # atoms; curves of pairs go as far as they are meant to


def check_fragments(frames: Sequence[Frame]) -> list[Finding]:
    """Find single atoms far from all others, where few frames of the file have such."""
    files: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        if len(frame.structure) >= SMALLEST:
            files[frame.file].append(frame)
    suspects = []
    for held in files.values():
        found = [one for one in map(_find_alone, held) if one is not None]
        suspects += found if len(found) <= max(1.0, SELDOM * len(held)) else []
    return gather(
        "lone-atom",
        Severity.WARNING,
        suspects,
        f"bonded or not, atoms have another one within {FAR:g} Å, so look whether the structure "
        "came apart on the way (such as in dynamics that were too hot) or lost atoms, and remove "
        "the frame if it was not meant",
    )


def check_lengths(frames: Sequence[Frame]) -> list[Finding]:
    """Find positions whose unit is not Å: bonds of most structures have lengths that none has."""
    found = [(frame, _stretch(frame)) for frame in frames if len(frame.structure) >= SMALLEST]
    stated = [(frame, value) for frame, value in found if np.isfinite(value)]
    middle = float(np.median([value for _, value in stated])) if stated else 1.0
    low, high = BONDS
    if low <= middle <= high:
        return []
    suspects = [
        Suspect(
            frame,
            f"most of its atoms have the nearest other one at {value:.3g} times the sum of the "
            "covalent radii",
            None,
            value,
            abs(float(np.log(value))),
        )
        for frame, value in stated
        if not low <= value <= high
    ]
    return gather(
        "length-unit",
        Severity.ERROR,
        suspects,
        f"in most structures it is between {low:g} and {high:g}, or {1 / BOHR:.3g} with positions "
        "in Bohr, so write positions and cells in Å",
    )


def _stretch(frame: Frame) -> float:
    """Distance to the nearest atom over the sum of covalent radii, of most atoms."""
    atoms = frame.structure
    if not len(np.setdiff1d(atoms.numbers, NOBLE)):
        return np.inf
    distance, other = find_nearest(atoms)
    radii = covalent_radii[atoms.numbers]
    return float(np.median(distance / (radii + radii[other])))


def _find_alone(frame: Frame) -> Suspect | None:
    """The atom that is farthest from all others, if it is alone."""
    atoms = frame.structure
    distance, other = find_nearest(atoms)
    radii = covalent_radii[atoms.numbers]
    limit = np.maximum(FAR, STRETCHED * (radii + radii[other]))
    reach = REACH if atoms.pbc.any() else np.inf
    alone = (distance > limit) & (limit < reach)
    if not alone.any():
        return None
    atom = int(np.argmax(np.where(alone, distance, 0.0)))
    far = float(distance[atom])
    told = f"more than {reach:g}" if np.isinf(far) else f"{far:.3g}"
    symbol = chemical_symbols[atoms.numbers[atom]]
    text = f"atom {atom} ({symbol}) is {told} Å from the nearest other one"
    return Suspect(frame, text, atom, min(far, REACH), min(far, REACH))


def find_nearest(
    atoms: Structure,
) -> tuple[Float[np.ndarray, " atoms"], Int[np.ndarray, " atoms"]]:
    """Distance in Å to the nearest other atom or image, and which it is.

    In a cell none is looked for beyond `REACH`: then the distance is infinite and the atom itself
    named.
    """
    positions = np.ascontiguousarray(atoms.positions, dtype=float)
    if not atoms.pbc.any():
        distances, others = map(np.asarray, KDTree(positions).query(positions, k=2))
        return distances[:, 1], others[:, 1]
    search = vesin.NeighborList(cutoff=REACH, full_list=True)
    i, j, lengths = search.compute(positions, atoms.cell, atoms.pbc, "ijd")
    order = np.argsort(lengths)[::-1]  # the shortest is written last
    distance, other = np.full(len(atoms), np.inf), np.arange(len(atoms))
    distance[i[order]], other[i[order]] = lengths[order], j[order].astype(int)
    return distance, other
