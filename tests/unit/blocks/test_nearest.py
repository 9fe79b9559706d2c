"""Ranks of neighbours, and the radius that holds so many."""

import pytest
import torch

from surefoot.blocks.nearest import (
    fade,
    fade_within,
    find_reach,
    rank_neighbors,
    step,
    take_ends,
    take_ranks,
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


def test_ranks_against_a_loop(graph) -> None:
    lengths, receivers = lengths_of(graph), graph.receivers
    found = rank_neighbors(lengths, receivers)
    for atom in range(receivers.count):
        mine = receivers.index == atom
        expected = torch.argsort(torch.argsort(lengths[mine], stable=True), stable=True)
        assert torch.equal(found[mine], expected)


def test_every_edge_is_taken_once(graph) -> None:
    rank = rank_neighbors(lengths_of(graph), graph.receivers)
    near, rest = take_ranks(rank, (3, None))
    assert torch.equal(torch.cat([near, rest]).sort().values, torch.arange(len(rank)))
    first, second = take_ranks(rank, (3, 7))
    assert torch.equal(first, near)
    assert set(rank[second].tolist()) == {3, 4, 5, 6}


def test_ends_of_some_edges(graph) -> None:
    chosen = torch.arange(0, graph.edge_index.shape[1], 3)
    for side, row in zip(take_ends(graph, chosen), graph.edge_index, strict=True):
        assert torch.equal(side.index, row[chosen])
        assert torch.equal(side.offsets, find_offsets(row[chosen], graph.numbers.shape[0]))
        in_order = side.index if side.order is None else side.index[side.order]
        assert (in_order.diff() >= 0).all()


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
