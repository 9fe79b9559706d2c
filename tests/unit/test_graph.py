from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from surefoot import segments as room
from surefoot.data.convert import to_graph
from surefoot.graph import (
    Graph,
    Targets,
    build_graph,
    collate,
    collate_targets,
    edge_vectors,
    move,
    pairs_to_edges,
    split_atoms,
)
from surefoot.segments import Segments, gather, segment_sum

INDEX = torch.tensor([3, 0, 3, 5, 0, 3, 1])  # items 2 and 4 have no rows
ITEMS = 6


def segments(*, is_sorted: bool) -> Segments:
    order = torch.argsort(INDEX, stable=True)
    counts = torch.bincount(INDEX, minlength=ITEMS)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    if is_sorted:
        return Segments(index=INDEX[order], offsets=offsets)
    return Segments(index=INDEX, offsets=offsets, order=order)


both_orders = pytest.mark.parametrize("is_sorted", [True, False])
with_and_without_members = pytest.mark.parametrize("members", [(), (3,)])


@both_orders
@with_and_without_members
@pytest.mark.parametrize("tail", [(), (4,), (2, 3)])
def test_gather_and_segment_sum_equal_a_loop(is_sorted, members, tail, generator) -> None:
    parts = segments(is_sorted=is_sorted)
    axis = -1 - len(tail)
    values = torch.randn((*members, ITEMS, *tail), generator=generator, dtype=torch.float64)
    rows = torch.randn((*members, len(INDEX), *tail), generator=generator, dtype=torch.float64)
    gathered = gather(values, parts, axis)
    expected = torch.zeros_like(values)
    for row, item in enumerate(parts.index.tolist()):
        assert torch.equal(gathered.select(axis, row), values.select(axis, item))
        expected.select(axis, item).add_(rows.select(axis, row))
    summed = segment_sum(rows, parts, axis)
    torch.testing.assert_close(summed, expected, rtol=1e-15, atol=1e-15)
    assert torch.equal(summed.select(axis, 2), torch.zeros_like(summed.select(axis, 2)))


@both_orders
def test_sums_of_a_table_in_float32_are_to_the_bit_those_in_the_order_of_rows(
    is_sorted, generator, monkeypatch
) -> None:
    monkeypatch.setattr(room, "LARGE", 0)  # so that sorted rows take the kernel, too
    parts = segments(is_sorted=is_sorted)
    rows = torch.randn((len(INDEX), 5), generator=generator)
    order = range(len(INDEX)) if parts.order is None else parts.order.tolist()
    expected = torch.zeros(ITEMS, 5)
    for row in order:
        expected[parts.index[row]] += rows[row]
    assert torch.equal(segment_sum(rows, parts), expected)
    apart = rows.T.contiguous().T  # the columns of a table that lies the other way
    assert torch.equal(segment_sum(apart, parts), expected)


@both_orders
def test_gather_and_segment_sum_are_adjoint(is_sorted, generator) -> None:
    parts = segments(is_sorted=is_sorted)
    values = torch.randn((3, ITEMS, 4), generator=generator, dtype=torch.float64)
    rows = torch.randn((3, len(INDEX), 4), generator=generator, dtype=torch.float64)
    left = (gather(values, parts) * rows).sum()
    right = (values * segment_sum(rows, parts)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-14)


@both_orders
@with_and_without_members
@pytest.mark.parametrize("operator", [gather, segment_sum])
def test_first_and_second_derivatives(operator, is_sorted, members, generator) -> None:
    parts = segments(is_sorted=is_sorted)
    size = ITEMS if operator is gather else len(INDEX)
    start = torch.randn((*members, size, 2), generator=generator, dtype=torch.float64)
    start.requires_grad_()

    def curved(x: torch.Tensor) -> torch.Tensor:
        return operator(x.sin(), parts).square()

    assert gradcheck(curved, start)
    assert gradgradcheck(curved, start)


def test_no_rows_give_zeros() -> None:
    empty = Segments(
        index=torch.zeros(0, dtype=torch.int64), offsets=torch.zeros(4, dtype=torch.int64)
    )
    rows = torch.zeros((0, 2), requires_grad=True)
    summed = segment_sum(rows, empty)
    assert torch.equal(summed, torch.zeros(3, 2))
    summed.sum().backward()
    assert rows.grad is not None
    assert rows.grad.shape == (0, 2)
    assert gather(torch.ones(3, 2), empty).shape == (0, 2)


def assert_same_graph(one: Graph, other: Graph) -> None:
    for field in fields(Graph):
        assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_segments_describe_the_edges(small_structures) -> None:
    graph = collate([to_graph(atoms, 4.0) for atoms in small_structures.values()])
    for parts, row in ((graph.receivers, 0), (graph.senders, 1)):
        index = graph.edge_index[row]
        assert torch.equal(parts.index, index)
        sorted_index = index if parts.order is None else index[parts.order]
        assert torch.equal(sorted_index, index.sort().values)
        for atom in range(parts.count):
            begin, end = parts.offsets[atom : atom + 2].tolist()
            assert sorted_index[begin:end].tolist() == [atom] * (end - begin)
        assert parts.offsets[-1] == graph.edge_index.shape[1]
    sizes = [len(atoms) for atoms in small_structures.values()]
    assert graph.atom_counts.tolist() == sizes
    assert graph.graph_index.tolist() == np.repeat(np.arange(len(sizes)), sizes).tolist()


def test_collate_equals_rebuilding(small_structures) -> None:
    """Joined segment orders are what sorting the joined edges afresh would give."""
    graphs = [to_graph(atoms, 4.0) for atoms in small_structures.values()]
    joined = collate(graphs)
    # Edges in the order in which they came: first all first edges of pairs, then all second ones.
    order = joined.pair_edges.flatten()
    rebuilt = build_graph(
        positions=joined.positions,
        numbers=joined.numbers,
        cell=torch.zeros(3, 3),
        pbc=torch.zeros(3, dtype=torch.bool),
        edge_index=joined.edge_index[:, order],
        edge_shift=joined.edge_shift[order],
    )
    for name in ("edge_index", "edge_shift", "receiver_offsets", "sender_order", "sender_offsets"):
        assert torch.equal(getattr(joined, name), getattr(rebuilt, name)), name
    for name in ("pair_index", "pair_edges"):  # pairs count through, graph by graph
        assert torch.equal(getattr(joined, name), getattr(rebuilt, name)), name
    assert torch.equal(joined.cell, torch.cat([graph.cell for graph in graphs]))
    assert torch.equal(joined.pbc, torch.cat([graph.pbc for graph in graphs]))


def test_an_edge_and_its_reverse_are_one_pair(small_structures) -> None:
    graph = collate([to_graph(atoms, 4.0) for atoms in small_structures.values()])
    first, second = graph.pair_edges
    edges = torch.arange(graph.edge_index.shape[1])
    assert torch.equal(torch.cat([first, second]).sort().values, edges)
    assert torch.equal(graph.pair_index[first], torch.arange(len(first)))
    assert torch.equal(graph.pair_index[second], torch.arange(len(first)))
    assert torch.equal(graph.edge_index[:, first], graph.edge_index[:, second].flip(0))
    assert torch.equal(graph.edge_shift[first], -graph.edge_shift[second])
    vectors = edge_vectors(graph)
    torch.testing.assert_close(vectors[first], -vectors[second], rtol=0, atol=1e-12)


@with_and_without_members
def test_pairs_to_edges_and_its_derivatives(members, small_structures, generator) -> None:
    graph = collate([to_graph(small_structures[name], 2.0) for name in ("ethanol", "far_atoms")])
    count = graph.pair_edges.shape[1]
    values = torch.randn((*members, count, 2), generator=generator, dtype=torch.float64)
    found = pairs_to_edges(values, graph)
    assert torch.equal(found, values[..., graph.pair_index, :])
    values.requires_grad_()

    def curved(x: torch.Tensor) -> torch.Tensor:
        return pairs_to_edges(x.sin(), graph).square()

    assert gradcheck(curved, values)
    assert gradgradcheck(curved, values)


def test_collate_is_associative(small_structures) -> None:
    graphs = [to_graph(atoms, 4.0) for atoms in small_structures.values()]
    assert_same_graph(
        collate([collate(graphs[:2]), graphs[2], collate(graphs[3:])]), collate(graphs)
    )


def test_pairs_in_any_order_are_sorted(small_structures, generator) -> None:
    graph = to_graph(small_structures["skewed_cell"], 4.0)
    shuffled = torch.randperm(graph.pair_edges.shape[1], generator=generator)
    order = graph.pair_edges[:, shuffled].flatten()
    again = build_graph(
        positions=graph.positions,
        numbers=graph.numbers,
        cell=graph.cell[0],
        pbc=graph.pbc[0],
        edge_index=graph.edge_index[:, order],
        edge_shift=graph.edge_shift[order],
        charge=-1,
        spin=2,
    )
    assert torch.equal(again.edge_index[0], graph.edge_index[0])
    assert torch.equal(again.receiver_offsets, graph.receiver_offsets)
    assert torch.equal(again.sender_offsets, graph.sender_offsets)
    assert (again.charge.tolist(), again.spin.tolist()) == ([-1], [2])
    lengths = [edge_vectors(g).norm(dim=-1).sort().values for g in (graph, again)]
    assert torch.equal(*lengths)


@pytest.mark.parametrize("broken", ["not reversed", "odd", "shift"])
def test_edges_without_their_reverse_are_refused(broken) -> None:
    edge_index = torch.tensor([[0, 1], [1, 0]])
    edge_shift = torch.tensor([[0, 0, 1], [0, 0, -1]])
    if broken == "not reversed":
        edge_index = edge_index[:, [0, 0]]
    if broken == "odd":
        edge_index, edge_shift = edge_index[:, :1], edge_shift[:1]
    if broken == "shift":
        edge_shift = edge_shift.abs()
    with pytest.raises(ValueError, match="first half reversed"):
        build_graph(
            positions=torch.zeros(2, 3),
            numbers=torch.tensor([1, 8]),
            cell=torch.eye(3),
            pbc=torch.ones(3, dtype=torch.bool),
            edge_index=edge_index,
            edge_shift=edge_shift,
        )


def test_edge_vectors_point_from_receiver_to_sender() -> None:
    cell = torch.tensor([[3.0, 0.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.5, 5.0]])
    graph = build_graph(
        positions=torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]),
        numbers=torch.tensor([1, 8]),
        cell=cell,
        pbc=torch.ones(3, dtype=torch.bool),
        edge_index=torch.tensor([[0, 1], [1, 0]]),
        edge_shift=torch.tensor([[0, 1, -1], [0, -1, 1]]),
    )
    vector = torch.tensor([1.0, 2.0, 3.0]) + cell[1] - cell[2]
    expected = torch.stack([vector, -vector]).double()
    torch.testing.assert_close(edge_vectors(graph), expected)
    assert graph.volume.tolist() == pytest.approx([60.0])


def test_edge_vectors_use_the_cell_of_their_own_graph(small_structures) -> None:
    graphs = [to_graph(small_structures[name], 4.0) for name in ("slab", "skewed_cell")]
    apart = torch.cat([edge_vectors(graph) for graph in graphs])
    assert torch.equal(edge_vectors(collate(graphs)), apart)


def test_split_atoms_undoes_the_joining(small_structures) -> None:
    graphs = [to_graph(atoms, 4.0) for atoms in small_structures.values()]
    parts = split_atoms(collate(graphs).positions, collate(graphs))
    assert len(parts) == len(graphs)
    for part, graph in zip(parts, graphs, strict=True):
        assert torch.equal(part, graph.positions)


def test_move_keeps_every_field(make_samples) -> None:
    sample = make_samples()[0]
    device = torch.device("cpu")
    assert_same_graph(move(sample.graph, device), sample.graph)
    meta = move(sample.targets, torch.device("meta"))
    for field in fields(Targets):
        assert getattr(meta, field.name).device.type == "meta"
        assert getattr(meta, field.name).shape == getattr(sample.targets, field.name).shape


def test_collate_targets_joins_every_field(make_samples) -> None:
    targets = [sample.targets for sample in make_samples()]
    joined = collate_targets(targets)
    assert joined.forces.shape[0] == sum(part.forces.shape[0] for part in targets)
    assert torch.equal(joined.energy, torch.stack([part.energy[0] for part in targets]))
    assert joined.has_stress.tolist() == [bool(part.has_stress) for part in targets]
