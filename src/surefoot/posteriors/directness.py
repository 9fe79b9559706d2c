"""What forces that are no gradient lack, of a Predictor at structures that are turned and moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from surefoot.data.batches import EVALUATION, batch_graphs
from surefoot.data.convert import Sample
from surefoot.evaluate.directness import Arrangement, Directness, Forces, measure_directness
from surefoot.graph import Graph, build_graph, collate
from surefoot.neighbors import find_neighbors
from surefoot.posteriors.predictor import Predictor

MOST = 5  # structures that are moved


def is_direct(predictor: Predictor) -> bool:
    """Whether forces are said directly, and are not the slope of an energy by construction."""
    return not predictor.gives_stress


def find_directness(
    predictor: Predictor, samples: Sequence[Sample], generator: np.random.Generator
) -> Directness | None:
    """Rotation error and asymmetry of the Jacobian of mean forces on free atoms.

    None where no structure has two atoms of which one is free.

    Args:
        predictor: what predicts.
        samples: of which `MOST`, evenly spaced, are turned and moved.
        generator: of rotations and moves.
    """
    fit = [s for s in samples if len(s.targets.fixed) > 1 and not bool(s.targets.fixed.all())]
    if not fit:
        return None
    places = np.linspace(0, len(fit) - 1, min(MOST, len(fit))).round().astype(int)
    chosen = [(_forces(predictor, fit[place].graph), _arrange(fit[place])) for place in places]
    return measure_directness(chosen, generator)


def _arrange(sample: Sample) -> Arrangement:
    graph = sample.graph
    return Arrangement(
        positions=graph.positions.numpy(),
        cell=graph.cell[0].numpy(),
        free=~sample.targets.fixed.numpy(),
    )


def _forces(predictor: Predictor, graph: Graph) -> Forces:
    """Forces of this structure wherever its atoms are."""

    def evaluate(positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
        moved = (
            _move(graph, place, cell, predictor.cutoff)
            for place, cell in zip(positions, cells, strict=True)
        )
        found = []
        for batch in batch_graphs(moved, EVALUATION.shared_by(predictor.draws)):
            forces = predictor(collate(batch)).forces
            if forces is None:
                raise ValueError("the predictor gave no forces.")
            found.append(forces.mean.double().numpy())
        return np.concatenate(found).reshape(positions.shape)

    return evaluate


def _move(graph: Graph, positions: np.ndarray, cell: np.ndarray, cutoff: float) -> Graph:
    edge_index, edge_shift = find_neighbors(positions, cell, graph.pbc[0].numpy(), cutoff)
    return build_graph(
        positions=torch.tensor(positions, dtype=torch.float64),
        numbers=graph.numbers,
        cell=torch.tensor(cell),
        pbc=graph.pbc[0],
        edge_index=torch.tensor(edge_index),
        edge_shift=torch.tensor(edge_shift),
        charge=int(graph.charge[0]),
        spin=int(graph.spin[0]),
    )
