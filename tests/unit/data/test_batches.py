"""Batches: within the limits, every sample once, the same order for the same seed and epoch."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from ase import Atoms
from pydantic import ValidationError

from surefoot.data.batches import (
    BatchLimits,
    ahead,
    batch_graphs,
    join,
    order_of_epoch,
    plan_batches,
)
from surefoot.data.convert import Sample, to_graph, to_targets
from surefoot.data.read import Frame
from surefoot.graph import Graph

SIZES = (3, 1, 9, 2, 2, 4, 30, 1, 5, 3)
NO_LIMIT = 10**9


def chain(size: int) -> Graph:
    """Atoms in a row, each sees its neighbours: 2 (size − 1) edges."""
    return to_graph(Atoms(f"H{size}", positions=[[i, 0, 0] for i in range(size)]), 1.5)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    made = []
    for index, size in enumerate(SIZES):
        frame = Frame(
            atoms=Atoms(f"H{size}"),
            energy=float(index),
            group="g",
            config_type="c",
            file="f",
            index=index,
        )
        made.append(
            Sample(
                graph=chain(size),
                targets=to_targets(frame, index),
                place=frame.place,
                config_type="c",
                group="g",
            )
        )
    return made


def atoms_of(graphs: list[Graph]) -> int:
    return sum(graph.numbers.shape[0] for graph in graphs)


def edges_of(graphs: list[Graph]) -> int:
    return sum(graph.edge_index.shape[1] for graph in graphs)


LIMITS = [
    BatchLimits(graphs=1),
    BatchLimits(graphs=3),
    BatchLimits(graphs=100, atoms=10),
    BatchLimits(graphs=100, edges=12),
    BatchLimits(graphs=4, atoms=12, edges=14),
    BatchLimits(graphs=100, atoms=None, edges=None),
]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_batches_keep_the_limits_and_are_as_large_as_these_allow(samples, limits, seed) -> None:
    order = np.arange(len(SIZES)) if seed is None else order_of_epoch(len(SIZES), seed, 0)
    batches = plan_batches(samples, order, limits)
    assert np.concatenate(batches).tolist() == order.tolist()

    def allowed(indices: list[int]) -> bool:
        graphs = [samples[index].graph for index in indices]
        return (
            len(graphs) <= limits.graphs
            and atoms_of(graphs) <= (limits.atoms or NO_LIMIT)
            and edges_of(graphs) <= (limits.edges or NO_LIMIT)
        )

    for batch in batches:
        assert len(batch) == 1 or allowed(batch.tolist())
    for batch, following in pairwise(batches):
        assert not allowed([*batch.tolist(), following[0]])


@pytest.mark.parametrize("limits", [BatchLimits(atoms=10), BatchLimits(edges=20)])
@pytest.mark.parametrize("place", [0, 3, len(SIZES) - 1])
def test_a_structure_beyond_the_limit_is_alone(samples, limits, place) -> None:
    large = SIZES.index(30)
    order = [index for index in range(len(SIZES)) if index != large]
    order.insert(place, large)
    batches = plan_batches(samples, np.array(order), limits)
    assert [large] in [batch.tolist() for batch in batches]
    assert np.concatenate(batches).tolist() == order


def test_no_samples_no_batches(samples) -> None:
    assert plan_batches(samples, np.array([], int), BatchLimits()) == []
    assert list(batch_graphs([], BatchLimits())) == []


def test_order_follows_from_seed_and_epoch_alone() -> None:
    first = order_of_epoch(50, 1, 2)
    np.testing.assert_array_equal(order_of_epoch(50, 1, 2), first)
    assert sorted(first) == list(range(50))
    orders = {tuple(order_of_epoch(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@pytest.mark.parametrize("limits", LIMITS)
def test_graphs_are_batched_like_samples(samples, limits) -> None:
    graphs = [sample.graph for sample in samples]
    planned = plan_batches(samples, np.arange(len(SIZES)), limits)
    batches = list(batch_graphs(iter(graphs), limits))
    assert [len(batch) for batch in batches] == [len(batch) for batch in planned]
    assert [id(graph) for batch in batches for graph in batch] == [id(graph) for graph in graphs]


def test_graphs_are_made_as_they_are_needed() -> None:
    made = []

    def make():
        for size in SIZES:
            made.append(size)
            yield chain(size)

    stream = batch_graphs(make(), BatchLimits(graphs=2))
    assert made == []
    assert len(next(stream)) == 2
    assert len(made) == 3  # the third closed the first batch


def test_joined_samples(samples) -> None:
    chosen = np.array([4, 0, 6])
    batch = join(samples, chosen)
    assert batch.samples.tolist() == [4, 0, 6]
    assert batch.graph.atom_counts.tolist() == [2, 3, 30]
    assert batch.targets.energy.tolist() == [4.0, 0.0, 6.0]
    assert batch.targets.group.tolist() == [4, 0, 6]
    assert batch.targets.forces.shape == (35, 3)
    expected = torch.cat([samples[index].graph.positions for index in chosen])
    assert torch.equal(batch.graph.positions, expected)


@pytest.mark.parametrize("limits", [{"graphs": 0}, {"atoms": 0}, {"edges": 0}, {"nodes": 5}])
def test_impossible_limits_are_refused(limits) -> None:
    with pytest.raises(ValidationError, match=next(iter(limits))):
        BatchLimits.model_validate(limits)


@pytest.mark.parametrize("threaded", [True, False])
def test_loading_ahead(threaded: bool) -> None:
    """In order, at most one item ahead, and no further where nobody asks for more."""
    asked: list[int] = []

    def load(item: int) -> int:
        asked.append(item)
        if item == 5:
            raise ValueError("this one is broken")
        return 2 * item

    assert list(ahead(load, range(5), threaded=threaded)) == [0, 2, 4, 6, 8]
    asked.clear()
    found = ahead(load, range(4, 9), threaded=threaded)
    assert next(found) == 8
    with pytest.raises(ValueError, match="broken"):
        next(found)
    asked.clear()
    found = ahead(load, range(10, 99), threaded=threaded)
    assert [next(found), next(found)] == [20, 22]
    found.close()
    assert asked == ([10, 11, 12] if threaded else [10, 11])
