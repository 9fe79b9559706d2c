"""Several structures to one graph in one go, neighbours included.

The same, to the bit, as `collate` of what `build_graph` makes of each, and several times faster:
small tensors cost more to make than to fill. So frames that stay on disk reach a batch at a few per
cent of what a step on it costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from surefoot.data.frame import Structure
from surefoot.graph import Graph
from surefoot.neighbors import find_neighbors


def join_structures(
    structures: Sequence[Structure],
    states: Sequence[tuple[int, int]],
    cutoff: float | None,
) -> Graph:
    """One graph of several structures.

    Args:
        structures: at least one.
        states: charge in e and multiplicity of each, or `UNSTATED`.
        cutoff: Å; None for a graph without edges.
    Raises:
        CoincidentAtoms: if two atoms are at one place.
    """
    nothing = np.zeros((2, 0), np.int64), np.zeros((0, 3), np.int64)
    edges = [nothing if cutoff is None else find_edges(s, cutoff) for s in structures]
    sizes = np.array([len(structure) for structure in structures])
    bounds = _bounds(sizes)
    lengths = np.array([index.shape[1] for index, _ in edges])
    first_atom = np.repeat(bounds[:-1], lengths)
    index = np.concatenate([index for index, _ in edges], axis=1) + first_atom
    order = np.argsort(index[0], kind="stable")  # graphs follow each other, so each keeps its own
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    index = index[:, order]
    # The second half of the edges of a structure are the first half reversed.
    pairs = lengths // 2
    within = np.arange(len(order)) - np.repeat(_bounds(lengths)[:-1], lengths)
    second = within >= np.repeat(pairs, lengths)
    pair = within - np.where(second, np.repeat(pairs, lengths), 0)
    pair += np.repeat(_bounds(pairs)[:-1], lengths)
    return Graph(
        positions=torch.from_numpy(np.concatenate([s.positions for s in structures])),
        numbers=torch.from_numpy(np.concatenate([s.numbers for s in structures]).astype(np.int64)),
        cell=torch.from_numpy(np.stack([s.cell for s in structures])),
        pbc=torch.from_numpy(np.stack([s.pbc for s in structures])),
        edge_index=torch.from_numpy(index),
        edge_shift=torch.from_numpy(np.concatenate([shift for _, shift in edges])[order]),
        receiver_offsets=_offsets(index[0], int(bounds[-1])),
        sender_order=torch.from_numpy(np.argsort(index[1], kind="stable")),
        sender_offsets=_offsets(index[1], int(bounds[-1])),
        pair_index=torch.from_numpy(pair[order]),
        pair_edges=torch.from_numpy(np.stack([place[~second], place[second]])),
        graph_index=torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
        graph_offsets=torch.from_numpy(bounds),
        charge=torch.tensor([charge for charge, _ in states]),
        spin=torch.tensor([spin for _, spin in states]),
    )


def find_edges(
    structure: Structure, cutoff: float
) -> tuple[Int[np.ndarray, "2 edges"], Int[np.ndarray, "edges 3"]]:
    """As `find_neighbors` gives them."""
    return find_neighbors(structure.positions, structure.cell, structure.pbc, cutoff)


def _bounds(counts: Int[np.ndarray, " items"]) -> Int[np.ndarray, " bounds"]:
    """Where each item begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _offsets(index: Int[np.ndarray, " rows"], count: int) -> Int[torch.Tensor, " bounds"]:
    return torch.from_numpy(_bounds(np.bincount(index, minlength=count)))
