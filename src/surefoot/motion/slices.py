"""Parts of a batch, so that memory stays bounded however many systems move together."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from surefoot.data.batches import BatchLimits
from surefoot.graph import Graph, collate


def slice_graph(graph: Graph, limits: BatchLimits) -> list[Graph]:
    """A batch as batches of consecutive structures within the limits.

    A structure that alone exceeds a limit is a batch of its own.
    """
    atoms = graph.graph_offsets.tolist()
    edges = graph.receiver_offsets[graph.graph_offsets].tolist()
    count = len(atoms) - 1
    cuts = [0]
    for number in range(1, count):
        start = cuts[-1]
        full = (
            number - start >= limits.graphs
            or (limits.atoms is not None and atoms[number + 1] - atoms[start] > limits.atoms)
            or (limits.edges is not None and edges[number + 1] - edges[start] > limits.edges)
        )
        if full:
            cuts.append(number)
    if len(cuts) == 1:
        return [graph]
    return [
        _cut(graph, start, stop, atoms, edges)
        for start, stop in zip(cuts, [*cuts[1:], count], strict=True)
    ]


def _cut(graph: Graph, start: int, stop: int, atoms: list[int], edges: list[int]) -> Graph:
    """Structures start … stop − 1; all that belongs to them stands together."""
    of_atoms, of_edges = slice(atoms[start], atoms[stop]), slice(edges[start], edges[stop])
    of_pairs = slice(of_edges.start // 2, of_edges.stop // 2)
    of_bounds = slice(of_atoms.start, of_atoms.stop + 1)
    return Graph(
        positions=graph.positions[of_atoms],
        numbers=graph.numbers[of_atoms],
        cell=graph.cell[start:stop],
        pbc=graph.pbc[start:stop],
        edge_index=graph.edge_index[:, of_edges] - of_atoms.start,
        edge_shift=graph.edge_shift[of_edges],
        receiver_offsets=graph.receiver_offsets[of_bounds] - of_edges.start,
        sender_order=graph.sender_order[of_edges] - of_edges.start,
        sender_offsets=graph.sender_offsets[of_bounds] - of_edges.start,
        pair_index=graph.pair_index[of_edges] - of_pairs.start,
        pair_edges=graph.pair_edges[:, of_pairs] - of_edges.start,
        graph_index=graph.graph_index[of_atoms] - start,
        graph_offsets=graph.graph_offsets[start : stop + 1] - of_atoms.start,
        charge=graph.charge[start:stop],
        spin=graph.spin[start:stop],
    )


def take_graphs(graph: Graph, keep: Bool[Tensor, " graphs"]) -> Graph:
    """Some structures of a batch, at least one, as a batch of their own."""
    if keep.all():
        return graph
    atoms = graph.graph_offsets.tolist()
    edges = graph.receiver_offsets[graph.graph_offsets].tolist()
    chosen = keep.nonzero()[:, 0].tolist()
    return collate([_cut(graph, number, number + 1, atoms, edges) for number in chosen])


def take_pairs(graph: Graph, keep: Bool[Tensor, " pairs"]) -> Graph:
    """The batch with some of its pairs alone, all orders kept.

    Args:
        graph: the batch.
        keep: (pairs) which stay; an edge and its reverse are one pair.
    """
    edges = keep[graph.pair_index]
    by_sender = edges[graph.sender_order]
    place, sender_place, pair_place = (_places(kept) for kept in (edges, by_sender, keep))
    return replace(
        graph,
        edge_index=graph.edge_index[:, edges],
        edge_shift=graph.edge_shift[edges],
        receiver_offsets=place[graph.receiver_offsets],
        sender_order=place[graph.sender_order[by_sender]],
        sender_offsets=sender_place[graph.sender_offsets],
        pair_index=pair_place[graph.pair_index[edges]],
        pair_edges=place[graph.pair_edges[:, keep]],
    )


def _places(kept: Tensor) -> Tensor:
    """How many are kept before each: its new number, where it is kept itself."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])
