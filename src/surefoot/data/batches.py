"""Samples to batches, bounded by graphs, atoms and edges; the order follows from seed and epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pydantic import Field

from surefoot.data.convert import Sample, join_graphs, join_targets
from surefoot.graph import Graph, Targets
from surefoot.settings import Settings

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class BatchLimits(Settings):
    """How large a batch may grow; it closes at whichever limit comes first."""

    graphs: int = Field(default=16, ge=1, description="structures in a batch")
    atoms: int | None = Field(default=None, ge=1, description="atoms in a batch")
    edges: int | None = Field(
        default=100_000, ge=1, description="edges × members in a batch: this bounds memory"
    )

    def shared_by(self, members: int) -> BatchLimits:
        """The limits of a batch that several members work on at once."""
        if self.edges is None or members < 2:
            return self
        return self.model_copy(update={"edges": max(1, self.edges // members)})


EVALUATION = BatchLimits(graphs=64)
"""Limits of a batch of which only energies, forces and stress are wanted."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Joined graphs and targets, and which samples they are."""

    graph: Graph
    targets: Targets
    samples: np.ndarray


def order_of_epoch(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the samples in an epoch: it needs no memory, so a restart finds it again."""
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass
class _Fill:
    """How full the open batch is."""

    graphs: int = 0
    atoms: int = 0
    edges: int = 0

    def takes(self, more_atoms: int, more_edges: int, limits: BatchLimits) -> bool:
        """Put a structure in, or say that it does not fit; an empty batch takes anything."""
        atoms, edges = self.atoms + more_atoms, self.edges + more_edges
        fits = (
            self.graphs + 1 <= limits.graphs
            and (limits.atoms is None or atoms <= limits.atoms)
            and (limits.edges is None or edges <= limits.edges)
        )
        if fits or self.graphs == 0:
            self.graphs, self.atoms, self.edges = self.graphs + 1, atoms, edges
            return True
        return False


def plan_batches(
    samples: Sequence[Sample], order: np.ndarray, limits: BatchLimits
) -> list[np.ndarray]:
    """Cut an order of samples into batches within the limits.

    A structure that alone exceeds the limit of atoms or edges is a batch of its own: there is no
    smaller one.
    """
    batches: list[list[int]] = []
    fill = _Fill()
    for index in order:
        sizes = samples[index].atoms, samples[index].edges
        if not batches or not fill.takes(*sizes, limits):
            fill = _Fill()
            fill.takes(*sizes, limits)
            batches.append([])
        batches[-1].append(int(index))
    return [np.array(batch) for batch in batches]


def batch_graphs(graphs: Iterable[Graph], limits: BatchLimits) -> Iterator[list[Graph]]:
    """Consecutive graphs in batches within the limits, made as they are needed."""
    batch: list[Graph] = []
    fill = _Fill()
    for graph in graphs:
        sizes = graph.numbers.shape[0], graph.edge_index.shape[1]
        if not fill.takes(*sizes, limits):
            yield batch
            batch, fill = [], _Fill()
            fill.takes(*sizes, limits)
        batch.append(graph)
    if batch:
        yield batch


def ahead(
    load: Callable[[Item], Loaded], items: Iterable[Item], *, threaded: bool
) -> Generator[Loaded, None, None]:
    """What is made of each item; with a thread the next one is made while the last one is used."""
    if not threaded:
        yield from map(load, items)
        return
    with ThreadPoolExecutor(1) as thread:
        coming: deque[Future[Loaded]] = deque()
        for item in items:
            coming.append(thread.submit(load, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def join(samples: Sequence[Sample], indices: np.ndarray) -> Batch:
    """The batch of these samples."""
    chosen = [samples[index] for index in indices]
    return Batch(
        graph=join_graphs(chosen),
        targets=join_targets(chosen),
        samples=indices,
    )
