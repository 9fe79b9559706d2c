"""Frames to graphs and targets: the one step from numpy to torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from surefoot.data.frame import Frame
from surefoot.data.joined import find_edges, join_structures
from surefoot.graph import UNSTATED, Graph, Targets, build_graph, collate, collate_targets
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

    @property
    def atoms(self) -> int:
        """How many it has."""
        return self.graph.numbers.shape[0]

    @property
    def edges(self) -> int:
        """How many it has."""
        return self.graph.edge_index.shape[1]

    @property
    def bare(self) -> Graph:
        """Its graph for those who do not look at edges, of which there may be none."""
        return self.graph


class StoredSample(Sample):
    """A sample of a frame that stays on disk: made anew whenever it is asked for.

    Neighbours are searched each time, which costs less than to keep them, see decision 0026.
    """

    __slots__ = ("_edges", "cutoff", "frame", "number")

    def __init__(self, frame: Frame, cutoff: float, number: int) -> None:
        """Look at it once: how many edges there are.

        Args:
            frame: on disk.
            cutoff: Å.
            number: of its group.
        Raises:
            CoincidentAtoms: if two atoms are at one place, naming them and the frame.
            ValueError: if it can have no neighbours for another reason, naming it.
        """
        object.__setattr__(self, "frame", frame)
        object.__setattr__(self, "cutoff", cutoff)
        object.__setattr__(self, "number", number)
        with _naming(frame):
            edges = find_edges(frame.structure, cutoff)[0].shape[1]
        object.__setattr__(self, "_edges", edges)

    @property
    def graph(self) -> Graph:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its graph, with neighbours."""
        return _build([self.frame], self.cutoff)

    @property
    def targets(self) -> Targets:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its labels."""
        return to_targets(self.frame, self.number)

    @property
    def place(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """File and frame."""
        return self.frame.place

    @property
    def config_type(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its row in error tables."""
        return self.frame.config_type

    @property
    def group(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its unit of splits."""
        return self.frame.group

    @property
    def atoms(self) -> int:
        """How many it has."""
        return len(self.frame.structure)

    @property
    def edges(self) -> int:
        """How many it has."""
        return self._edges

    @property
    def bare(self) -> Graph:
        """Its graph without edges."""
        return _build([self.frame], None)


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
    return _to_targets([frame], [group])


def _to_targets(frames: Sequence[Frame], groups: Sequence[int]) -> Targets:
    structures = [frame.structure for frame in frames]
    forces = [
        np.zeros_like(structure.positions) if frame.forces is None else frame.forces
        for frame, structure in zip(frames, structures, strict=True)
    ]
    stress = [np.zeros((3, 3)) if frame.stress is None else frame.stress for frame in frames]
    # Without a volume there is no stress, whatever the file says.
    volume = [bool(structure.pbc.all()) for structure in structures]
    return Targets(
        energy=torch.tensor([f.energy or 0.0 for f in frames], dtype=torch.float64),
        forces=torch.tensor(np.concatenate(forces), dtype=torch.float64),
        stress=torch.tensor(np.stack(stress), dtype=torch.float64),
        has_energy=torch.tensor([frame.energy is not None for frame in frames]),
        has_forces=torch.tensor([frame.forces is not None for frame in frames]),
        has_stress=torch.tensor([f.stress is not None for f in frames]) & torch.tensor(volume),
        weight=torch.ones(len(frames), dtype=torch.float64),
        fixed=torch.tensor(np.concatenate([frame.fixed for frame in frames])),
        group=torch.tensor(groups),
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
        StoredSample(frame, cutoff, numbers[frame.group])
        if frame.on_disk
        else Sample(
            graph=_build_one(frame, cutoff),
            targets=to_targets(frame, numbers[frame.group]),
            place=frame.place,
            config_type=frame.config_type,
            group=frame.group,
        )
        for frame in frames
    ]


def _build_one(frame: Frame, cutoff: float) -> Graph:
    with _naming(frame):
        return to_graph(frame.atoms, cutoff, frame.charge, frame.spin)


@contextmanager
def _naming(frame: Frame) -> Iterator[None]:
    """Put the place of a frame before what is wrong with it."""
    try:
        yield
    except ValueError as error:
        kind = CoincidentAtoms if isinstance(error, CoincidentAtoms) else ValueError
        raise kind(f"{frame.place}: {error}") from error


def join_graphs(samples: Sequence[Sample]) -> Graph:
    """The graphs of samples as one; those on disk are made together, which is faster."""
    stored = _stored(samples)
    if stored is None:
        return collate([sample.graph for sample in samples])
    return _build([sample.frame for sample in stored], stored[0].cutoff)


def join_targets(samples: Sequence[Sample]) -> Targets:
    """Their labels as one, likewise."""
    stored = _stored(samples)
    if stored is None:
        return collate_targets([sample.targets for sample in samples])
    return _to_targets([one.frame for one in stored], [one.number for one in stored])


def on_disk(samples: Sequence[Sample]) -> bool:
    """Whether some of them stay there, so that it takes time to join them."""
    return any(isinstance(sample, StoredSample) for sample in samples)


def _stored(samples: Sequence[Sample]) -> list[StoredSample] | None:
    """The samples, if all of them are on disk."""
    stored = [sample for sample in samples if isinstance(sample, StoredSample)]
    return stored if len(stored) == len(samples) else None


def _build(frames: Sequence[Frame], cutoff: float | None) -> Graph:
    """The graph of frames, as in `to_graph`; without edges where there is no cutoff."""
    states = [(f.charge or 0, UNSTATED if f.spin is None else f.spin) for f in frames]
    return join_structures([frame.structure for frame in frames], states, cutoff)
