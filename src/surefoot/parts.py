"""Strictly local models, asked part by part: about some atoms with all their edges at a time.

What such a model says of an atom depends on the edges that this atom receives, and on nothing that
it says of others. So the energy is a sum over parts, and so is its slope by the edge vectors, since
no edge is in two of them. Nothing is computed twice, and what has to be held does not grow with the
batch; a part fits into the cache of a processor, which a large batch does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import Weights, branch, lookup
from surefoot.graph import Geometry, Graph, Kinds, Memory, Rows, TypedGraph
from surefoot.heads import Scalar
from surefoot.members import count_models, stacks_model
from surefoot.models import Model
from surefoot.segments import find_offsets, group

EDGES = 8192
"""Of a part, for all members together."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some atoms of a batch, the centres, and the edges they receive.

    Attributes:
        typed: the centres are its atoms, and senders are atoms of their own behind them: they have
            species and states, and receive nothing. Each edge is a pair by itself. All graphs of
            the batch are there.
        vectors: (edges, 3) Å in the precision of the model.
    """

    typed: TypedGraph
    vectors: Float[Tensor, "edges 3"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the parts say.

    Attributes:
        energy: (…, graphs) in units of the baseline's scale, float64.
        slope: (…, edges, 3) of scale · energy by the edge vectors; None where not asked for.
        layers: what the head was given, without slopes; none where not asked for.
    """

    energy: Float[Tensor, "*members graphs"]
    slope: Float[Tensor, "*members edges 3"] | None
    layers: tuple[Rows, ...]


@dataclass(frozen=True, kw_only=True)
class Local:
    """A question to a local model and a head whose energies are sums over atoms.

    Attributes:
        model: features of atoms or edges.
        head: energies.
        scale: of the baseline, eV.
        neighbors: of the baseline.
        sloped: whether slopes are wanted.
        rows: whether features are wanted.
    """

    model: Model
    head: Scalar
    scale: float
    neighbors: float
    sloped: bool
    rows: bool

    def __call__(self, weights: Weights, part: Part) -> Found:
        """The answer of one part."""
        vectors = spread_members(part.vectors, weights).requires_grad_(self.sloped)
        with torch.set_grad_enabled(self.sloped):
            geometry = measure(
                part.typed, vectors, neighbors=self.neighbors, cutoff=self.model.cutoff
            )
            features = self.model(branch(weights, "model"), geometry)
            energy = self.head.sum_energy(branch(weights, "head"), features)
            slope = energy_slope(self.scale * energy, vectors) if self.sloped else None
        layers = tuple(self._kept(rows) for rows in features.layers) if self.rows else ()
        return Found(energy=energy.detach(), slope=slope, layers=layers)

    def _kept(self, rows: Rows) -> Rows:
        turning = rows.quadrupoles if self.head.judging() else None
        return replace(
            rows,
            values=rows.values.detach(),
            quadrupoles=None if turning is None else turning.detach(),
        )


def ask_parts(
    ask: Callable[[Weights, Part], Found],
    weights: Weights,
    typed: TypedGraph,
    vectors: Float[Tensor, "edges 3"],
) -> Found:
    """What all parts say together.

    Args:
        ask: one part.
        weights: one set, stacked or partial.
        typed: the batch.
        vectors: of its edges.
    """
    asked = {n: v for n, v in weights.items() if n.startswith(("model.", "head."))}
    found, bounds = [], _bounds(typed.graph, max(1, EDGES // count_models(weights)))
    energy: Tensor | None = None
    for part in _split(typed, vectors, bounds):
        answer = ask(asked, part)
        energy = answer.energy if energy is None else energy + answer.energy
        found.append(replace(answer, energy=energy))
    slopes = [part.slope for part in found if part.slope is not None]
    return Found(
        energy=found[-1].energy,
        slope=torch.cat(slopes, -2) if slopes else None,
        layers=tuple(
            _join(rows, bounds) for rows in zip(*(part.layers for part in found), strict=True)
        ),
    )


def measure(
    typed: TypedGraph,
    vectors: Float[Tensor, "*members edges 3"],
    *,
    neighbors: float,
    cutoff: float,
    memory: Memory = "keep",
) -> Geometry:
    """What a model may know of a graph.

    Args:
        typed: the graph.
        vectors: of its edges, Å.
        neighbors: of the baseline.
        cutoff: Å.
        memory: see `Geometry`.
    """
    return Geometry(
        graph=typed.graph,
        kinds=typed.kinds,
        vectors=vectors,
        # index_select would not do: torch's compiler was seen to read its slope too early.
        lengths=torch.linalg.vector_norm(lookup(vectors, typed.graph.pair_edges[0]), dim=-1),
        state=typed.state,
        neighbors=neighbors,
        cutoff=cutoff,
        memory=memory,
    )


def spread_members(
    vectors: Float[Tensor, "edges 3"], weights: Weights
) -> Float[Tensor, "*members edges 3"]:
    """The vectors for each member of stacked weights, cut off from where they come from."""
    if stacks_model(weights):
        vectors = vectors.expand(count_models(weights), -1, -1)
    return vectors.detach()


def energy_slope(
    energy: Float[Tensor, "*members graphs"], vectors: Tensor, *, differentiable: bool = False
) -> Tensor:
    """dE/dv, (…, edges, 3).

    Members do not see each other, so one sum serves all that have vectors of their own. Members
    that share a model share the vectors too, and are differentiated one after the other.

    Args:
        energy: E of each graph.
        vectors: v.
        differentiable: whether the slope is to be differentiated.
    """
    if vectors.shape[-2] == 0:
        return vectors.new_zeros(energy.shape[:-1] + vectors.shape[-2:])
    if energy.dim() == vectors.dim():
        slopes = [
            torch.autograd.grad(one.sum(), vectors, retain_graph=True, create_graph=differentiable)[
                0
            ]
            for one in energy.unbind()
        ]
        return torch.stack(slopes)
    (slope,) = torch.autograd.grad(energy.sum(), vectors, create_graph=differentiable)
    return slope


def _bounds(graph: Graph, edges: int) -> list[int]:
    """Where parts of some `edges` edges each begin, and where the last one ends."""
    offsets = graph.receiver_offsets
    total, atoms = graph.edge_index.shape[1], graph.numbers.shape[0]
    count = max(1, round(total / edges))
    even = torch.arange(1, count, device=offsets.device) * total // count
    inner = torch.searchsorted(offsets, even).tolist()
    return sorted({0, *inner, atoms})


def _split(typed: TypedGraph, vectors: Tensor, bounds: Sequence[int]) -> Iterator[Part]:
    graph = typed.graph
    starts = graph.receiver_offsets[torch.tensor(bounds)].tolist()
    for centres, edges in zip(pairwise(bounds), pairwise(starts), strict=True):
        yield _part(typed, vectors, slice(*centres), slice(*edges))


def _part(typed: TypedGraph, vectors: Tensor, centres: slice, edges: slice) -> Part:
    graph, kinds = typed.graph, typed.kinds
    receiver, sender = graph.edge_index[:, edges]
    senders, place = torch.unique(sender, return_inverse=True)
    count, own = centres.stop - centres.start, torch.arange(len(sender), device=sender.device)
    atoms = torch.cat([torch.arange(centres.start, centres.stop, device=sender.device), senders])
    place = place + count
    kind = kinds.atoms.index[atoms]
    part = Graph(
        positions=graph.positions[centres],
        numbers=graph.numbers[centres],
        cell=graph.cell,
        pbc=graph.pbc,
        edge_index=torch.stack([receiver - centres.start, place]),
        edge_shift=graph.edge_shift[edges],
        receiver_offsets=graph.receiver_offsets[centres.start : centres.stop + 1] - edges.start,
        sender_order=torch.argsort(place, stable=True),
        sender_offsets=find_offsets(place, len(atoms)),
        pair_index=own,
        pair_edges=own.unsqueeze(0),
        graph_index=graph.graph_index[centres],
        graph_offsets=graph.graph_offsets.clamp(centres.start, centres.stop) - centres.start,
        charge=graph.charge,
        spin=graph.spin,
    )
    return Part(
        typed=TypedGraph(
            graph=part,
            kinds=Kinds(present=kinds.present, atoms=group(kind, kinds.present.shape[0])),
            state=None if typed.state is None else typed.state[atoms],
        ),
        vectors=vectors[edges],
    )


def _join(parts: Sequence[Rows], bounds: Sequence[int]) -> Rows:
    """The rows of one read-out layer of all parts."""
    first = parts[0]
    index = [
        rows.atom.index + start
        for rows, start in zip(parts, bounds, strict=False)
        if rows.atom is not None
    ]
    weights = [rows.weight for rows in parts if rows.weight is not None]
    turning = [rows.quadrupoles for rows in parts if rows.quadrupoles is not None]
    return replace(
        first,
        values=torch.cat([rows.values for rows in parts], -2),
        atom=group(torch.cat(index), bounds[-1]) if index else None,
        weight=torch.cat(weights) if weights else None,
        quadrupoles=torch.cat(turning, -3) if turning else None,
    )
