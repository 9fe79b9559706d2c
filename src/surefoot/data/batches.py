"""Samples to batches, bounded by graphs, atoms and edges; the order follows from seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from surefoot.data.convert import Sample
from surefoot.graph import Graph, Targets, collate, collate_targets
from surefoot.settings import Settings


class BatchLimits(Settings):
    """How large a batch may grow; it closes at whichever limit comes first."""

    graphs: int = Field(16, ge=1, description="structures in a batch")
    atoms: int | None = Field(None, ge=1, description="atoms in a batch")
    edges: int | None = Field(400_000, ge=1, description="edges in a batch: this bounds memory")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Joined graphs and targets, and which samples they are."""

    graph: Graph
    targets: Targets
    samples: np.ndarray


def order_of_epoch(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the samples in an epoch: it needs no memory, so a restart finds it again."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def plan_batches(
    samples: Sequence[Sample], order: np.ndarray, limits: BatchLimits
) -> list[np.ndarray]:
    """Cut an order of samples into batches within the limits.

    A structure that alone exceeds the limit of atoms or edges is a batch of its own: there is no
    smaller one.
    """
    batches: list[list[int]] = []
    graphs = atoms = edges = 0
    for index in order:
        graph = samples[index].graph
        size, links = graph.numbers.shape[0], graph.edge_index.shape[1]
        full = (
            graphs + 1 > limits.graphs
            or (limits.atoms is not None and atoms + size > limits.atoms)
            or (limits.edges is not None and edges + links > limits.edges)
        )
        if full or not batches:
            batches.append([])
            graphs = atoms = edges = 0
        batches[-1].append(int(index))
        graphs, atoms, edges = graphs + 1, atoms + size, edges + links
    return [np.array(batch) for batch in batches]


def join(samples: Sequence[Sample], indices: np.ndarray) -> Batch:
    """The batch of these samples."""
    chosen = [samples[index] for index in indices]
    return Batch(
        graph=collate([sample.graph for sample in chosen]),
        targets=collate_targets([sample.targets for sample in chosen]),
        samples=indices,
    )
