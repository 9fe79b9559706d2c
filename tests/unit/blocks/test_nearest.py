"""Ranks of neighbours, and the radius that holds so many."""

import pytest
import torch

from surefoot.blocks.nearest import (
    fade,
    fade_within,
    find_reach,
    step,
    take_ends,
    take_nearest,
)
from surefoot.blocks.radial import PolynomialCutoff
from surefoot.data.convert import to_graph
from surefoot.graph import collate, pairs_to_edges
from surefoot.segments import Segments, find_offsets

CUTOFF = 4.0


@pytest.fixture
def graph(small_structures):
    return collate([to_graph(small_structures[n], CUTOFF) for n in ("ethanol", "atom", "slab")])


def lengths_of(graph) -> torch.Tensor:
    receiver, sender = graph.edge_index
    cell = graph.cell[graph.graph_index[receiver]]
    shift = torch.einsum("es,esx->ex", graph.edge_shift.double(), cell)
    vectors = graph.positions[sender] + shift - graph.positions[receiver]
    return torch.linalg.vector_norm(vectors, dim=-1)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (3, 7), (0, 60), (12, 14), (0, None), (4, None)])
def test_the_nearest_against_a_loop(low, high, graph) -> None:
    """Of the bare atom none is there; of equal lengths the first edges are."""
    lengths, receivers = lengths_of(graph), graph.receivers
    found = take_nearest(lengths, receivers, low, high)
    edges = torch.arange(len(lengths)) if found.edges is None else found.edges
    expected = []
    for atom in range(receivers.count):
        mine = (receivers.index == atom).nonzero().squeeze(-1)
        expected += mine[torch.argsort(lengths[mine], stable=True)][low:high].tolist()
    assert sorted(edges[found.there].tolist()) == sorted(expected)
    if high is not None:
        assert edges[found.there].tolist() == expected
        assert edges.shape == found.there.shape == (receivers.count, high - low)


def test_ends_of_the_nearest(graph) -> None:
    """Every place belongs to its atom; there it is the edge's own."""
    found = take_nearest(lengths_of(graph), graph.receivers, 0, 9)
    assert found.edges is not None
    receivers, senders = take_ends(graph, found.edges)
    count = graph.numbers.shape[0]
    assert torch.equal(receivers.index, torch.arange(count).repeat_interleave(9))
    assert torch.equal(receivers.offsets, 9 * torch.arange(count + 1))
    assert torch.equal(senders.index, graph.edge_index[1, found.edges.flatten()])
    assert torch.equal(senders.offsets, find_offsets(senders.index, count))
    assert senders.order is not None
    assert (senders.index[senders.order].diff() >= 0).all()
    real = found.edges[found.there]
    assert torch.equal(receivers.index[found.there.flatten()], graph.edge_index[0, real])


def star(lengths: torch.Tensor) -> Segments:
    """All edges at one atom."""
    count = len(lengths)
    return Segments(index=torch.zeros(count, dtype=torch.int64), offsets=torch.tensor([0, count]))


def test_the_reach_is_the_cutoff_where_few_are_near() -> None:
    lengths = torch.linspace(1, 3.9, 10, dtype=torch.float64)
    found = find_reach(lengths[:, None], star(lengths), 10, CUTOFF)
    torch.testing.assert_close(found, torch.full_like(found, CUTOFF))


@pytest.mark.parametrize("count", [5, 12, 40])
def test_about_so_many_lie_within_the_reach(count) -> None:
    """Evenly spaced neighbours; the last of them count little."""
    lengths = torch.linspace(0.5, CUTOFF, 100, dtype=torch.float64)
    reach = find_reach(lengths[:, None], star(lengths), count, CUTOFF)
    within = int((lengths < reach[0]).sum())
    assert count <= within <= 1.3 * count + 15  # those within the soft edge of 0.5 Å


def test_the_reach_is_smooth() -> None:
    lengths = torch.tensor([1.0, 1.3, 1.3, 2.0, 2.2, 2.2, 3.1], dtype=torch.float64)
    edges = lengths[:, None].requires_grad_()
    receivers = star(lengths)
    assert torch.autograd.gradcheck(lambda x: find_reach(x, receivers, 3, CUTOFF), edges)
    assert torch.autograd.gradcheck(lambda x: fade_within(x, receivers, 3, CUTOFF), edges)
    alike = fade_within(edges, receivers, 3, CUTOFF).squeeze(-1)
    assert alike[1] == alike[2]
    assert alike[4] == alike[5]


def test_steps_and_fades() -> None:
    x = torch.linspace(-0.5, 1.5, 41, dtype=torch.float64)
    assert torch.equal(step(x) == 0, x <= 0)
    torch.testing.assert_close(step(x) + step(1 - x), torch.ones_like(x))
    radii = torch.linspace(0.0, 5.0, 30, dtype=torch.float64)
    expected = PolynomialCutoff(CUTOFF).derivative(radii, 0).squeeze(-1)
    torch.testing.assert_close(fade(radii / CUTOFF), expected)


def test_members_have_a_radius_each(graph) -> None:
    lengths = pairs_to_edges(lengths_of(graph)[graph.pair_edges[0], None], graph)
    stacked = lengths.expand(2, -1, -1)
    found = find_reach(stacked, graph.receivers, 6, CUTOFF)
    torch.testing.assert_close(found[1], find_reach(lengths, graph.receivers, 6, CUTOFF))
