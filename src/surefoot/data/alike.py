"""Structures that are nearly one: turned, shifted, in another order of atoms, or a step apart.

Two structures are alike if the lists of their distances, sorted for each pair of elements, agree to
0.01 Å: all distances of a molecule, those within 5 Å in a cell. Mirror images are alike too, and
have the same energy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import vesin
from ase.geometry import complete_cell
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.read import Frame

SAME = 0.01  # Å, of any distance
REACH = 5.0  # Å, of the distances in a cell
MOST_ATOMS = 300  # of a structure that is compared
MOST_FRAMES = 20_000
MOST_DISTANCES = 20_000_000  # of all that are compared; a molecule of n atoms has n²/2
NEAREST = 4
CONFLICT = 0.01  # eV/atom, beyond what forces explain
UNKNOWN_FORCE = 10.0  # eV/Å
MOVED = 1.0  # Å, further than an atom goes between two frames that follow each other
STAYED = 0.5  # Å, of every atom once they are back in order


@dataclass(frozen=True)
class Outline:
    """What is compared of a structure.

    Attributes:
        kinds: (distances) which pair of elements.
        lengths: (distances) Å, sorted within each kind.
        moments: a few sums that change by no more than the lengths do.
    """

    kinds: Int[np.ndarray, " distances"]
    lengths: Float[np.ndarray, " distances"]
    moments: Float[np.ndarray, " moments"]


def check_alike(splits: Mapping[str, Sequence[Frame]]) -> list[Finding]:
    """Find structures of one split that stand, nearly, in another, and such with two energies.

    Exact copies are a finding of their own and are not told again.
    """
    groups: dict[tuple[object, ...], list[tuple[str, Frame]]] = defaultdict(list)
    count = distances = 0
    for name, frames in splits.items():
        for frame in frames:
            count += 1
            size = len(frame.structure.numbers)
            if count <= MOST_FRAMES and distances <= MOST_DISTANCES and 1 < size <= MOST_ATOMS:
                groups[_same(frame)].append((name, frame))
                distances += size * size // 2
    across, conflicts = [], []
    for group in groups.values():
        for one, other in _find_pairs([frame for _, frame in group]):
            (name, first), (other_name, second) = group[one], group[other]
            if name != other_name:
                text = f"the structure is nearly that of {first.place}, of split '{name}'"
                across.append(Suspect(second, f"{text}, and stands in split '{other_name}'"))
            if first.energy is not None and second.energy is not None:
                gap = abs(first.energy - second.energy) / len(first.structure)
                if gap > CONFLICT + SAME * max(_usual_force(first), _usual_force(second)):
                    text = (
                        f"the structure is nearly that of {first.place}, with an energy {gap:.3g} "
                        "eV/atom off"
                    )
                    conflicts.append(Suspect(second, text, None, gap, gap))
    return gather(
        "near-leakage",
        Severity.WARNING,
        _once(across),
        f"all distances agree to {SAME} Å, in whatever orientation and order, so errors on it say "
        "little of others; remove it from one of the splits",
    ) + gather(
        "near-conflict",
        Severity.WARNING,
        _once(conflicts),
        f"all distances agree to {SAME} Å, so one of the energies is wrong, or of another state or "
        "level",
    )


def _usual_force(frame: Frame) -> float:
    """What the energy of an atom may change by in eV for each Å."""
    if frame.forces is None:
        return UNKNOWN_FORCE
    return 2 * float(np.sqrt(np.mean(np.sum(frame.forces**2, axis=1))))


def _once(suspects: Sequence[Suspect]) -> list[Suspect]:
    """One for each frame."""
    return list({(s.frame.file, s.frame.index): s for s in reversed(suspects)}.values())[::-1]


def _same(frame: Frame) -> tuple[object, ...]:
    atoms = frame.structure
    state = (frame.charge, frame.spin)
    return (atoms.formula, atoms.pbc.tobytes(), state)


def _find_pairs(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """Numbers of frames that are alike but not copies, the earlier first."""
    if len(frames) < 2:
        return []
    outlines = [_outline(frame) for frame in frames]
    moments = np.array([outline.moments for outline in outlines])
    limit = SAME * np.sqrt(moments.shape[1])
    near = KDTree(moments).query(
        moments, k=min(NEAREST + 1, len(frames)), distance_upper_bound=limit
    )[1]
    found = set()
    for one, others in enumerate(np.asarray(near)):
        for other in others[others < len(frames)].tolist():
            pair = (min(one, other), max(one, other))
            if one != other and pair not in found and _alike(outlines[one], outlines[other]):
                found.add(pair)
    return [pair for pair in sorted(found) if not _copies(frames[pair[0]], frames[pair[1]])]


def _alike(first: Outline, second: Outline) -> bool:
    if len(first.lengths) != len(second.lengths) or (first.kinds != second.kinds).any():
        return False
    return bool(np.abs(first.lengths - second.lengths).max(initial=0.0) < SAME)


def _copies(first: Frame, second: Frame) -> bool:
    one, other = first.structure, second.structure
    if (one.numbers != other.numbers).any():
        return False
    return bool(np.abs(one.positions - other.positions).max() < 1e-6)


def _outline(frame: Frame) -> Outline:
    atoms = frame.structure
    numbers = np.searchsorted(np.unique(atoms.numbers), atoms.numbers)
    count = int(numbers.max()) + 1
    if atoms.pbc.any():
        search = vesin.NeighborList(cutoff=REACH, full_list=False)
        i, j, lengths = search.compute(atoms.positions, atoms.cell, atoms.pbc, "ijd")
        weight = (1 - lengths / REACH) ** 2  # neighbours come and go at the end of the reach
    else:
        i, j = np.triu_indices(len(atoms), 1)
        lengths = np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1)
        weight = lengths
    i, j = i.astype(int), j.astype(int)
    kinds = np.minimum(numbers[i], numbers[j]) * count + np.maximum(numbers[i], numbers[j])
    order = np.lexsort((lengths, kinds))
    sums = np.bincount(kinds, weight, count * count)
    totals = np.maximum(np.bincount(kinds, minlength=count * count), 1)
    if atoms.pbc.any():
        inside = order[lengths[order] < REACH - SAME]
        # A neighbour at the end of the reach may be in one list only.
        kept = inside[lengths[inside] < 0.9 * REACH]
        return Outline(kinds[kept], lengths[kept], sums / totals)
    return Outline(kinds[order], lengths[order], sums / totals)


def check_order(frames: Sequence[Frame]) -> list[Finding]:
    """Find frames of a trajectory in which atoms stand in another order than in the frame before.

    Only where most frames follow the one before step by step, only if putting other than hydrogen
    atoms back into place makes the step short, since methyl groups turn by themselves, and only
    where the order comes back: a file may hold several trajectories of one composition.
    """
    suspects = []
    for run in _runs(frames):
        steps = [_step(first, second) for first, second in pairwise(run)]
        near = [step < MOVED for step in steps]
        if sum(near) <= len(steps) / 2:
            continue
        changes = {
            number: moved
            for number, close in enumerate(near)
            if not close and (moved := _count_exchanged(run[number], run[number + 1]))
        }
        if len(changes) < 2:
            continue
        for number, moved in list(changes.items())[::2]:
            text = (
                f"{moved} atoms that are not hydrogen stand in another order than in frame "
                f"{run[number].index}, while the structure has hardly moved"
            )
            suspects.append(Suspect(run[number + 1], text, None, float(moved), float(moved)))
    return gather(
        "shuffled-atoms",
        Severity.WARNING,
        suspects,
        "a potential does not mind, but look whether forces and other rows of the atoms have been "
        "put into the same order",
    )


def _runs(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Consecutive frames of a file with the same composition and periodicity, 4 or more."""
    runs: list[list[Frame]] = []
    for frame in frames:
        last = runs[-1][-1] if runs else None
        follows = (
            last is not None
            and last.file == frame.file
            and last.index + 1 == frame.index
            and len(last.structure) == len(frame.structure)
            and (np.sort(last.structure.numbers) == np.sort(frame.structure.numbers)).all()
            and (last.structure.pbc == frame.structure.pbc).all()
        )
        if follows:
            runs[-1].append(frame)
        elif 2 < len(frame.structure) <= MOST_ATOMS:
            runs.append([frame])
    return [run for run in runs if len(run) > 3]


def _step(first: Frame, second: Frame) -> float:
    """The longest displacement in Å as the atoms stand; infinite where elements do not agree."""
    if (first.structure.numbers != second.structure.numbers).any():
        return float("inf")
    step = _displace(first, second, second.structure.positions)
    return float(np.linalg.norm(step, axis=1).max())


def _displace(
    first: Frame, second: Frame, positions: Float[np.ndarray, "... 3"]
) -> Float[np.ndarray, "... 3"]:
    start = first.structure.positions
    if not first.structure.pbc.any():
        middle = second.structure.positions.mean(axis=0) - start.mean(axis=0)
        return positions - middle - start
    cell = complete_cell(first.structure.cell)
    scaled = (positions - start) @ np.linalg.inv(cell)
    return (scaled - np.where(first.structure.pbc, np.round(scaled), 0.0)) @ cell


def _count_exchanged(first: Frame, second: Frame) -> int:
    """Atoms besides hydrogen that another order brings back into place; 0 where none does."""
    table = _displace(first, second, second.structure.positions[:, None, :])  # (second, first, 3)
    cost = np.linalg.norm(table, axis=2)
    cost[second.structure.numbers[:, None] != first.structure.numbers[None, :]] = 1e6
    rows, columns = linear_sum_assignment(cost**2)
    if cost[rows, columns].max() > STAYED:
        return 0
    exchanged = (rows != columns) & (second.structure.numbers[rows] > 1)
    return int(exchanged.sum())
