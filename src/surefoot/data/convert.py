"""Frames to graphs and targets: the one step from numpy to torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms

from surefoot.data.read import Frame
from surefoot.graph import UNSTATED, Graph, Targets, build_graph
from surefoot.neighbors import CoincidentAtoms, find_neighbors


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One structure ready for a batch.

    Attributes:
        graph: a batch of one.
        targets: its labels.
        place: file and frame, for messages.
        config_type: its row in error tables.
        group: its unit of splits.
    """

    graph: Graph
    targets: Targets
    place: str
    config_type: str
    group: str


def to_graph(
    atoms: Atoms, cutoff: float, charge: int | None = None, spin: int | None = None
) -> Graph:
    """One structure with its neighbours as a batch of one.

    Args:
        atoms: any ASE structure.
        cutoff: Å.
        charge: in e; None stands for not stated.
        spin: multiplicity 2S+1; None stands for not stated.
    Raises:
        CoincidentAtoms: if two atoms are at one place.
    """
    cell = np.array(atoms.cell, np.float64)
    edge_index, edge_shift = find_neighbors(atoms.positions, cell, atoms.pbc, cutoff)
    return build_graph(
        positions=torch.tensor(atoms.positions, dtype=torch.float64),
        numbers=torch.tensor(atoms.numbers, dtype=torch.int64),
        cell=torch.tensor(cell),
        pbc=torch.tensor(atoms.pbc),
        edge_index=torch.tensor(edge_index),
        edge_shift=torch.tensor(edge_shift),
        charge=0 if charge is None else charge,
        spin=UNSTATED if spin is None else spin,
    )


def to_targets(frame: Frame, group: int) -> Targets:
    """The labels of a frame; what is absent is masked."""
    count = len(frame.atoms)
    fixed = torch.zeros(count, dtype=torch.bool)
    for constraint in frame.atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[torch.as_tensor(constraint.index)] = True
    forces = np.zeros((count, 3)) if frame.forces is None else frame.forces
    stress = np.zeros((3, 3)) if frame.stress is None else frame.stress
    return Targets(
        energy=torch.tensor([0.0 if frame.energy is None else frame.energy], dtype=torch.float64),
        forces=torch.tensor(forces, dtype=torch.float64),
        stress=torch.tensor(stress, dtype=torch.float64)[None],
        has_energy=torch.tensor([frame.energy is not None]),
        has_forces=torch.tensor([frame.forces is not None]),
        # Without a volume there is no stress, whatever the file says.
        has_stress=torch.tensor([frame.stress is not None and bool(frame.atoms.pbc.all())]),
        weight=torch.ones(1, dtype=torch.float64),
        fixed=fixed,
        group=torch.tensor([group]),
    )


def number_groups(frames: Sequence[Frame]) -> dict[str, int]:
    """Group names in order of appearance, numbered."""
    return {name: number for number, name in enumerate(dict.fromkeys(f.group for f in frames))}


def to_samples(
    frames: Sequence[Frame], cutoff: float, groups: Mapping[str, int] | None = None
) -> list[Sample]:
    """Frames as graphs with neighbours within the cutoff, and targets.

    Raises:
        CoincidentAtoms: if two atoms of a frame are at one place, naming them and the frame.
        ValueError: if a frame can have no neighbours for another reason, naming it.
    """
    numbers = number_groups(frames) if groups is None else groups
    return [
        Sample(
            graph=_place_graph(frame, cutoff),
            targets=to_targets(frame, numbers[frame.group]),
            place=frame.place,
            config_type=frame.config_type,
            group=frame.group,
        )
        for frame in frames
    ]


def _place_graph(frame: Frame, cutoff: float) -> Graph:
    """The graph of a frame, which an error names."""
    try:
        return to_graph(frame.atoms, cutoff, frame.charge, frame.spin)
    except ValueError as error:
        kind = CoincidentAtoms if isinstance(error, CoincidentAtoms) else ValueError
        raise kind(f"{frame.place}: {error}") from error
