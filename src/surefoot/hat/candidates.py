"""Hydrogens that a radical may take, by distance and by what stands in the way.

The rules are those of KIMMDY's hydrogen-transfer plug-in, written anew from a description of them;
`endpoints` has the positions at which a hydrogen ends. What differs is said at `find_candidates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from surefoot.hat.endpoints import Cone, end_positions
from surefoot.hat.proteins import Topology
from surefoot.hat.residues import is_solvent

REACH = 3.0  # Å, longest way of the hydrogen
CLEARANCE = 0.8  # Å, radius of the cylinder about the way in which no atom may stand
MIDDLE = (0.1, 0.9)  # part of the way that the cylinder covers
RADICALS_APART = 3.0  # Å; two radicals closer than this are left alone


@dataclass(frozen=True, eq=False)
class Candidate:
    """One hydrogen and one place on a radical where it may go.

    Attributes:
        hydrogen: index of the hydrogen.
        donor: index of the atom that it leaves.
        acceptor: index of the radical.
        start: position of the hydrogen, Å.
        end: where it would sit on the radical, Å.
        end_index: number of the end position, from 0.
        angle: donor–hydrogen–acceptor, in degrees.
        clash: whether an atom stands in the way.
        degeneracy: hydrogens on the donor.
    """

    hydrogen: int
    donor: int
    acceptor: int
    start: Float[np.ndarray, "3"]
    end: Float[np.ndarray, "3"]
    end_index: int
    angle: float
    clash: bool
    degeneracy: int

    @property
    def translation(self) -> float:
        """Distance from start to end in Å."""
        return float(np.linalg.norm(self.end - self.start))


def ends_of(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"], radical: int, cone: Cone
) -> Float[np.ndarray, "ends 3"]:
    """Positions a hydrogen may take on a radical of a structure.

    Args:
        topology: of the structure.
        positions: in Å, no molecule torn by the box.
        radical: index of the atom.
        cone: see `end_positions`.

    Raises:
        ValueError: with the atom and the reason, if its bonds leave no place.
    """
    bonded = topology.bonded(radical)
    beyond = np.zeros((0, 3))
    if len(bonded) == 1:
        others = topology.bonded(int(bonded[0]))
        beyond = positions[others[others != radical]]
    try:
        return end_positions(
            int(topology.numbers[radical]), positions[radical], positions[bonded], beyond, cone
        )
    except ValueError as error:
        raise ValueError(f"{topology.label(radical)} can take no hydrogen: {error}.") from error


def find_candidates(
    topology: Topology,
    positions: Float[np.ndarray, "atoms 3"],
    radical: int,
    cone: Cone = "molecule",
) -> list[Candidate]:
    """Hydrogens within 3 Å of an end position of a radical, in the order of their ways' lengths.

    Hydrogens that are bonded to the radical, and those of water, are none. A candidate clashes if
    any atom but the hydrogen lies within 0.8 Å of the middle 80 % of its straight way; clashing
    candidates are returned too, with their flag. KIMMDY leaves them out, does not see solvent, and
    where there are several end positions pairs a hydrogen near one with all, however far.

    Args:
        topology: all atoms near the radical, solvent included.
        positions: in Å, no molecule torn by the box.
        radical: index of the atom that takes the hydrogen up.
        cone: see `end_positions`.

    Raises:
        ValueError: if the radical has no place for a hydrogen.
    """
    ends = ends_of(topology, positions, radical, cone)
    hydrogens = _abstractable(topology, radical)
    if not len(hydrogens):
        return []
    tree = KDTree(positions)
    found: list[Candidate] = []
    for index, end in enumerate(ends):
        apart = np.linalg.norm(positions[hydrogens] - end, axis=1)
        for hydrogen in hydrogens[apart < REACH].tolist():
            (donor,) = topology.bonded(hydrogen).tolist()
            around = topology.bonded(donor)
            found.append(
                Candidate(
                    hydrogen=hydrogen,
                    donor=donor,
                    acceptor=radical,
                    start=positions[hydrogen].copy(),
                    end=end,
                    end_index=index,
                    angle=_angle(positions[[donor, hydrogen, radical]]),
                    clash=_clashes(positions, tree, hydrogen, end),
                    degeneracy=int((topology.numbers[around] == 1).sum()),
                )
            )
    return sorted(found, key=lambda one: (one.translation, one.hydrogen, one.end_index))


def _abstractable(topology: Topology, radical: int) -> Int[np.ndarray, " hydrogens"]:
    """Hydrogens with one bond, neither on the radical nor of solvent."""
    solvent = np.array([is_solvent(residue.name) for residue in topology.residues], bool)
    free = (topology.numbers == 1) & ~solvent[topology.owner] & (topology.degree == 1)
    free[topology.bonded(radical)] = False
    return np.flatnonzero(free)


def _clashes(
    positions: Float[np.ndarray, "atoms 3"],
    tree: KDTree,
    hydrogen: int,
    end: Float[np.ndarray, "3"],
) -> bool:
    """Whether an atom stands in the cylinder about the middle of the way."""
    start = positions[hydrogen]
    way = end - start
    length = float(np.linalg.norm(way))
    if length == 0.0:
        return False
    near = tree.query_ball_point((start + end) / 2, length / 2 + CLEARANCE)
    near = np.array([atom for atom in near if atom != hydrogen], int)
    along = (positions[near] - start) @ way / length**2
    across = np.linalg.norm(positions[near] - start - along[:, None] * way, axis=1)
    inside = (along > MIDDLE[0]) & (along < MIDDLE[1]) & (across < CLEARANCE)
    return bool(inside.any())


def _angle(corners: Float[np.ndarray, "3 3"]) -> float:
    one, two = corners[0] - corners[1], corners[2] - corners[1]
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def too_close(
    vectors: Sequence[Float[np.ndarray, "radicals 3"]],
) -> Bool[np.ndarray, " radicals"]:
    """Radicals that have another one within 3 Å: the two would rather bond.

    Args:
        vectors: for each radical, those to all radicals, in Å.
    """
    apart = np.linalg.norm(np.array(vectors), axis=2)
    np.fill_diagonal(apart, np.inf)
    return apart.min(axis=1, initial=np.inf) < RADICALS_APART
