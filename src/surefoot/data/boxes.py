"""Boxes that are not periodic where they should be, and the other way round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from ase.geometry import complete_cell

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.read import Frame

GAP = 2.5  # Å between a structure and its image, within which they would be neighbours
SMALLEST = 8  # atoms: a small molecule in a tight box may have been put there
EMPTIEST = 30.0  # Å³ per atom: condensed matter has less, a molecule in a box more


def check_boxes(frames: Sequence[Frame]) -> list[Finding]:
    """Find full boxes without `pbc`, and one composition with and without `pbc`."""
    return _check_full(frames) + _check_mixed(frames)


def _check_full(frames: Sequence[Frame]) -> list[Finding]:
    suspects = []
    for frame in frames:
        atoms = frame.structure
        if atoms.pbc.any() or atoms.cell.any(axis=1).sum() < 3 or len(atoms) < SMALLEST:
            continue
        volume = abs(float(np.linalg.det(atoms.cell))) / len(atoms)
        gap = _gap(frame)
        if volume < EMPTIEST and gap < GAP:
            text = (
                f"there is a cell of {volume:.3g} Å³ per atom, which the atoms fill up to "
                f"{gap:.2g} Å, and pbc is off"
            )
            suspects.append(Suspect(frame, text, None, gap, -gap))
    return gather(
        "box-without-pbc",
        Severity.ERROR,
        suspects,
        "a liquid or crystal without its images has surfaces that its labels know nothing of, so "
        'set pbc="T T T" in the file, or remove the cell where there are no images',
    )


def _gap(frame: Frame) -> float:
    """The largest of the three distances in Å between the structure and its images."""
    cell = complete_cell(frame.structure.cell)
    normals = np.linalg.inv(cell).T  # rows: reciprocal vectors
    thickness = 1 / np.linalg.norm(normals, axis=1)
    scaled = frame.structure.positions @ normals.T
    return float(((1 - np.ptp(scaled, axis=0)) * thickness).max())


def _check_mixed(frames: Sequence[Frame]) -> list[Finding]:
    groups: dict[str, dict[bool, list[Frame]]] = defaultdict(lambda: defaultdict(list))
    for frame in frames:
        if len(frame.structure) > 1:
            formula = frame.structure.formula
            groups[formula][bool(frame.structure.pbc.any())].append(frame)
    suspects = []
    for formula, held in groups.items():
        if len(held) < 2:
            continue
        few, many = sorted(held.values(), key=len)
        state = "periodic" if few[0].structure.pbc.any() else "not periodic"
        text = f"{formula} is {state} here, and otherwise in {many[0].place}"
        suspects += [Suspect(frame, text) for frame in few]
    return gather(
        "pbc-differs",
        Severity.WARNING,
        suspects,
        "the same atoms with and without images are rarely meant, so look at pbc of both",
    )
