"""The neighbourhood of an atom in a periodic box: whole residues, whole molecules, one image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from surefoot.hat.connect import minimum_image
from surefoot.hat.hydrogens import add_hydrogens, rebuild_carbonyls
from surefoot.hat.proteins import Snapshot, Topology
from surefoot.hat.valence import Radical


@dataclass(frozen=True, eq=False)
class Region:
    """All that is near a radical in one frame, hydrogens added, molecules whole.

    Attributes:
        topology: of it; the radical has lost its hydrogen.
        positions: in Å.
        radical: index of the radical.
        near: residues with any atom within the radius.
        added: hydrogens that were added.
        moved: oxygens that were put in place.
    """

    topology: Topology
    positions: Float[np.ndarray, "atoms 3"]
    radical: int
    near: Bool[np.ndarray, " residues"]
    added: int
    moved: int


def displacements(snapshot: Snapshot, atom: int) -> Float[np.ndarray, "atoms 3"]:
    """Vectors in Å from an atom to the nearest image of each atom."""
    return minimum_image(snapshot.positions - snapshot.positions[atom], snapshot.cell)


def refuse_wide(snapshot: Snapshot, radius: float, place: str) -> None:
    """Refuse a radius within which an atom would meet two images of another.

    Args:
        snapshot: its cell is looked at.
        radius: in Å.
        place: file and frame, for the message.

    Raises:
        ValueError: if it is half the smallest height of the box or more.
    """
    if snapshot.cell is None:
        return
    heights = 1.0 / np.linalg.norm(np.linalg.inv(snapshot.cell), axis=0)
    if radius >= heights.min() / 2:
        raise ValueError(
            f"{place}: a radius of {radius:g} Å is more than half the height of the box, "
            f"{heights.min() / 2:.2f} Å, so that atoms would meet images of themselves; choose a "
            "smaller --radius."
        )


def residues_within(
    topology: Topology, vectors: Float[np.ndarray, "atoms 3"], radius: float
) -> Bool[np.ndarray, " residues"]:
    """Residues with any atom within a radius.

    Args:
        topology: of the structure.
        vectors: from the centre to each atom, in Å.
        radius: in Å.
    """
    near = np.zeros(len(topology.residues), bool)
    near[topology.owner[np.linalg.norm(vectors, axis=1) <= radius]] = True
    return near


def with_bonded(
    topology: Topology, residues: Bool[np.ndarray, " residues"]
) -> Bool[np.ndarray, " residues"]:
    """Residues and those they are bonded to."""
    ends = topology.owner[topology.bonds]
    grown = residues.copy()
    grown[ends[residues[ends].any(axis=1)].ravel()] = True
    return grown


def make_whole(topology: Topology, snapshot: Snapshot, center: int) -> Float[np.ndarray, "atoms 3"]:
    """Positions of all atoms with no molecule torn by the box, beside one of them.

    Each connected piece is put together bond by bond, from the atom that is nearest to the center
    and stands at its nearest image.

    Args:
        topology: of the piece of the structure to be put together.
        snapshot: its positions and cell.
        center: index of the atom that stays where it is.
    """
    if snapshot.cell is None:
        return snapshot.positions
    count = len(topology.numbers)
    graph = _graph(topology.bonds, count)
    pieces, label = connected_components(graph, directed=False)
    apart = np.linalg.norm(displacements(snapshot, center), axis=1)
    order = np.argsort(apart, kind="stable")
    seeds = np.full(pieces, -1)
    for atom in order[::-1]:
        seeds[label[atom]] = atom
    jumps = np.stack([np.full(pieces, center), seeds], axis=1)
    bonds = np.vstack([topology.bonds, jumps[seeds != center]])
    visited, before = breadth_first_order(_graph(bonds, count), center, directed=False)
    steps = np.zeros((count, 3))
    followed = visited[1:]
    steps[followed] = minimum_image(
        snapshot.positions[followed] - snapshot.positions[before[followed]], snapshot.cell
    )
    whole = snapshot.positions.copy()
    for atom in followed:
        whole[atom] = whole[before[atom]] + steps[atom]
    return whole


def _graph(bonds: Int[np.ndarray, "bonds 2"], count: int) -> csr_array:
    ones = np.ones(len(bonds), np.int8)
    return csr_array((ones, (bonds[:, 0], bonds[:, 1])), shape=(count, count))


def around(
    topology: Topology,
    snapshot: Snapshot,
    radical: Radical,
    hydrogen: str | None,
    radius: float,
    rebuild: bool = False,
) -> Region:
    """What is near a radical in one frame.

    Args:
        topology: of the structure.
        snapshot: the frame.
        radical: its atom, and the hydrogen it loses.
        hydrogen: name of that hydrogen where it is one of those to be added.
        radius: in Å.
        rebuild: whether backbone oxygens that are torn off are put in place.

    Raises:
        ValueError: if the box is too small for the radius, or hydrogens can not be added.
    """
    refuse_wide(snapshot, radius, f"{topology.file}, frame {snapshot.frame}")
    vectors = displacements(snapshot, radical.atom)
    near = residues_within(topology, vectors, radius)
    atoms = np.flatnonzero(with_bonded(topology, near)[topology.owner])
    part = topology.take(atoms)
    center = int(np.searchsorted(atoms, radical.atom))
    cut = Snapshot(snapshot.frame, snapshot.positions[atoms], snapshot.cell)
    kept = near[topology.owner[atoms][np.searchsorted(part.owner, range(len(part.residues)))]]
    positions, moved = make_whole(part, cut, center), 0
    if rebuild:
        positions, moved = rebuild_carbonyls(part, positions)
    part, positions, added = add_hydrogens(part, positions)
    source = topology.source[radical.atom]
    center = int(np.flatnonzero(part.source == source)[0])
    lost = None
    if radical.hydrogen is not None:
        lost = int(np.flatnonzero(part.source == topology.source[radical.hydrogen])[0])
    elif hydrogen is not None:
        lost = next(one for one in part.bonded(center).tolist() if part.names[one] == hydrogen)
    if lost is not None:
        part, positions = _without(part, positions, lost)
        center -= int(lost < center)
    return Region(part, positions, center, kept, added, moved)


def _without(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"], atom: int
) -> tuple[Topology, Float[np.ndarray, "fewer 3"]]:
    degree = topology.degree.copy()
    degree[topology.bonded(atom)] -= 1
    left = np.delete(np.arange(len(degree)), atom)
    return replace(topology, degree=degree).take(left), positions[left]
