"""The nearest neighbours of each atom: by rank, or by a radius that holds so many, smoothly.

A rank is arbitrary where distances are equal, as they are for an atom and its images, and jumps
where two of them cross. So there is a radius ρ_i instead, which is a smooth function of all
distances of atom i, and weights that fall to zero there:

    N_i(ρ) = Σ_j step((ρ − r_ij) / `EDGE`)         neighbours within ρ, counted softly
    ρ_i = ∫_0^cutoff step((K − N_i(ρ)) / (`SPREAD` K) + 1) dρ

About K neighbours lie within it, and it is the cutoff where fewer than K lie within that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.graph import Graph
from surefoot.segments import Segments, gather, segment_sum

EDGE = 1.0  # Å over which a neighbour begins to count
SPREAD = 0.25  # share of K over which a count counts as full
SPACING = 0.2  # Å between radii


@dataclass(frozen=True)
class Chosen:
    """Some neighbours of each atom, as many places for every atom.

    Attributes:
        edges: (atoms, places) which edges they are; None for all edges as they are.
        there: of the same shape, or (edges): whether there is a neighbour at this place.
    """

    edges: Int[Tensor, "atoms places"] | None
    there: Bool[Tensor, "..."]


def take_nearest(
    lengths: Float[Tensor, " edges"], receivers: Segments, low: int, high: int | None
) -> Chosen:
    """The neighbours of each atom from the low-th nearest up to, and without, the high-th.

    Of equally near ones the edges' order counts. Each atom has high − low places, whether it has
    so many neighbours or not, so that no shape hangs on a value.

    Args:
        lengths: (edges) Å, of at least one edge.
        receivers: edges by receiver, sorted.
        low: how many are left out.
        high: None for all that are left.
    """
    by_length = torch.argsort(lengths, stable=True)
    order = by_length[torch.argsort(receivers.index[by_length], stable=True)]
    if high is None:
        place = torch.arange(order.shape[0], device=order.device)
        rank = torch.empty_like(order).index_copy_(
            0, order, place - receivers.offsets[receivers.index]
        )
        return Chosen(None, rank >= low)
    place = receivers.offsets[:-1, None] + torch.arange(low, high, device=order.device)
    there = place < receivers.offsets[1:, None]
    return Chosen(order[place.clamp(max=order.shape[0] - 1)], there)


def find_reach(
    lengths: Float[Tensor, "*members edges 1"], receivers: Segments, count: int, cutoff: float
) -> Float[Tensor, "*members edges 1"]:
    """ρ of each edge's receiver in Å; see the top of the file.

    Args:
        lengths: (…, edges, 1) Å.
        receivers: edges by receiver.
        count: K.
        cutoff: Å, above which no radius is.
    """
    pieces = max(8, round(cutoff / SPACING))
    width = cutoff / pieces
    radii = (torch.arange(pieces, dtype=lengths.dtype, device=lengths.device) + 0.5) * width
    within = segment_sum(step((radii - lengths) / EDGE), receivers)
    reach = width * step((count - within) / (SPREAD * count) + 1.0).sum(-1, keepdim=True)
    return gather(reach, receivers)


def step(x: Tensor) -> Tensor:
    """x³ (10 − 15 x + 6 x²) from 0 at x ≤ 0 to 1 at x ≥ 1, twice differentiable."""
    x = x.clamp(min=0.0, max=1.0)
    return x**3 * (10 + x * (6 * x - 15))


def fade(x: Tensor) -> Tensor:
    """The polynomial cutoff of power 6 as a function of r / ρ: 1 at 0, 0 from 1 on.

    f = y³ Σ_{k<6} (k+1)(k+2)/2 x^k with y = 1 − x, see `PolynomialCutoff`.
    """
    x = x.clamp(max=1.0)
    value = torch.zeros_like(x)
    for k in reversed(range(6)):
        value = value * x + 0.5 * (k + 1) * (k + 2)
    return value * (1 - x) ** 3


def fade_within(
    lengths: Float[Tensor, "*members edges 1"],
    receivers: Segments,
    count: int | None,
    cutoff: float,
) -> Float[Tensor, "*members edges 1"]:
    """How much each edge counts: smoothly from 1 to 0 at the cutoff, or at ρ where count is given.

    Args:
        lengths: (…, edges, 1) Å.
        receivers: edges by receiver.
        count: about how many neighbours are seen; all where None.
        cutoff: Å.
    """
    if count is None:
        return fade(lengths / cutoff)
    return fade(lengths / find_reach(lengths, receivers, count, cutoff))


def take_ends(graph: Graph, edges: Int[Tensor, "atoms places"]) -> tuple[Segments, Segments]:
    """The edges that `take_nearest` chose, row by row, by receiver and by sender.

    A place without a neighbour belongs to its receiver, and to the sender of any edge.
    """
    atoms, places = edges.shape
    index = torch.arange(atoms, device=edges.device).unsqueeze(-1).expand(-1, places).flatten()
    bounds = torch.arange(atoms + 1, device=edges.device)
    sender = graph.edge_index[1].index_select(0, edges.flatten())
    order = torch.argsort(sender, stable=True)
    return (
        Segments(index=index, offsets=places * bounds),
        Segments(index=sender, offsets=torch.searchsorted(sender[order], bounds), order=order),
    )
