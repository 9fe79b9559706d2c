"""Edges as messages see them: which there are, in which frames, and how much each counts."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from surefoot.blocks.frames import Frames, wigner_blocks
from surefoot.blocks.nearest import Chosen, take_ends
from surefoot.blocks.turning import Ends, ends_of
from surefoot.graph import Graph

RECEIVER = 1  # of the ends of an edge, the sender being the first


@dataclass(frozen=True)
class Edges:
    """The edges of one resolution.

    Attributes:
        chosen: (chosen) which they are, or None for all.
        ends: senders and receivers of the turned edges: each frame of an edge is one.
        inwards: (…, turned, entries) from an atom's coefficients to those in the edge's frame.
        outwards: the same, times how much the message counts; zero for one that is not there.
        frames: of each edge.
    """

    chosen: Int[Tensor, " chosen"] | None
    ends: Ends
    inwards: Float[Tensor, "*members turned entries"]
    outwards: Float[Tensor, "*members turned entries"]
    frames: int


def turned_edges(
    graph: Graph,
    frames: Frames,
    lmax: int,
    mmax: int,
    chosen: Chosen | None,
    weight: Float[Tensor, "*members edges 1"] | None,
) -> Edges:
    """Some edges, or all, and their rotations.

    Args:
        graph: the batch.
        frames: of all its edges.
        lmax: highest degree.
        mmax: highest order, at most lmax.
        chosen: which edges; all where None.
        weight: (…, edges, 1) by which messages of all edges are multiplied; of chosen ones those
            that are there count as one.
    """
    rotations, ends = frames.rotations, ends_of(graph.senders, graph.receivers)
    edges = None
    if chosen is not None:
        weight = chosen.there.flatten().to(rotations).unsqueeze(-1)
        if chosen.edges is not None:
            edges = chosen.edges.flatten()
            rotations = rotations.index_select(-4, edges)
            receivers, senders = take_ends(graph, chosen.edges)
            ends = ends_of(senders, receivers)
    count = rotations.shape[-3]
    inwards = wigner_blocks(rotations, lmax, mmax)
    outwards = inwards
    if frames.weights is not None:
        outwards = outwards * frames.weights.unsqueeze(-1)
    if weight is not None:
        outwards = outwards * weight.unsqueeze(-1)
    inwards, outwards = inwards.flatten(-3, -2), outwards.flatten(-3, -2)
    return Edges(edges, ends.repeat(count), inwards, outwards, count)
