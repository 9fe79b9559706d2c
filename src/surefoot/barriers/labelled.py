"""A labeler as a surface: bands and saddle points of the method that makes the labels itself."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import SupportsInt

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from surefoot.graph import UNSTATED, Graph
from surefoot.label.labeler import Labeler, LabelingFailed, check_state
from surefoot.motion.surface import Evaluation


@dataclass(frozen=True, kw_only=True)
class LabelerSurface:
    """A `Surface` whose energies and forces come from a labeler, structure by structure.

    Attributes:
        labeler: what calculates; a calculation that fails gives nan, which ends the motion of its
            structure alone.
        executor: calculates the structures of a batch at once; one after the other where not set.
        cutoff: Å, of the edges, of which a labeler needs none.
    """

    labeler: Labeler
    executor: Executor | None = None
    cutoff: float = 1.0

    @property
    def bias(self) -> None:
        """There is none."""

    def require(
        self, numbers: Iterable[SupportsInt], charge: int | None, spin: int | None, place: str
    ) -> None:
        """Refuse a structure without charge and spin, or whose electrons do not fit them."""
        for word, value in (("charge", charge), ("spin", spin)):
            if value is None:
                raise ValueError(
                    f"{place}: info has no '{word}'; the {self.labeler.name} labeler needs the "
                    "total charge and the multiplicity."
                )
        try:
            check_state(np.array([int(z) for z in numbers]), int(charge or 0), int(spin or 0))
        except ValueError as error:
            raise ValueError(f"{place}: {error}.") from error

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:  # noqa: ARG002
        """Energies and forces of a batch; there are no uncertainties.

        Raises:
            ValueError: if stress is asked for, or nobody has stated a spin.
        """
        if stress:
            raise ValueError("labelers give no stress; keep the cell fixed.")
        if (graph.spin == UNSTATED).any():
            raise ValueError("a structure states no spin; labelers need charge and multiplicity.")
        counts = graph.atom_counts.tolist()
        structures = [
            Atoms(numbers.numpy(), positions.detach().numpy(), cell=cell.numpy(), pbc=pbc.numpy())
            for numbers, positions, cell, pbc in zip(
                graph.numbers.split(counts),
                graph.positions.split(counts),
                graph.cell,
                graph.pbc,
                strict=True,
            )
        ]
        asked = (
            [self.labeler] * len(structures),
            structures,
            graph.charge.tolist(),
            graph.spin.tolist(),
        )
        run = map if self.executor is None else self.executor.map
        found = list(run(_label, *asked))
        return Evaluation(
            energy=torch.tensor([energy for energy, _ in found], dtype=torch.float64),
            forces=torch.cat([forces for _, forces in found]),
        )


def _label(labeler: Labeler, atoms: Atoms, charge: int, spin: int) -> tuple[float, Tensor]:
    """Energy and forces; nan where the calculation fails."""
    try:
        labels = labeler.label(atoms, charge, spin)
    except LabelingFailed:
        return float("nan"), torch.full((len(atoms), 3), torch.nan, dtype=torch.float64)
    return labels.energy, torch.tensor(labels.forces, dtype=torch.float64)
