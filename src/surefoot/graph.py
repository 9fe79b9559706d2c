"""Graph, Targets and Features: the nouns every room below `Prediction` speaks in.

Everything is always batched: one molecule is a batch of one. Cell vectors are rows. An edge runs
from a sender to a receiver, its vector is

    v = position(sender) + shift · cell − position(receiver)

and edges are sorted by receiver, so that a sum over neighbours is a sum over contiguous segments.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.compilation import AXIS, BOUNDS
from surefoot.segments import Segments, find_offsets, group

Memory = Literal["keep", "recompute"]
"""What becomes of large values of each pair: kept for derivatives, or made anew in each."""

UNSTATED = 0  # the spin of a structure whose multiplicity nobody stated


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Structures and their neighbours, joined into one disconnected graph.

    Attributes:
        positions: (atoms, 3) Å, float64.
        numbers: (atoms) atomic numbers.
        cell: (graphs, 3, 3) Å, rows are vectors; zeros where there is none.
        pbc: (graphs, 3).
        edge_index: (2, edges): row 0 receiver, row 1 sender; sorted by receiver.
        edge_shift: (edges, 3) whole cells by which the sender is moved.
        receiver_offsets: (atoms + 1) where the edges of each receiver begin.
        sender_order: (edges) sorts the edges by sender.
        sender_offsets: (atoms + 1) where the edges of each sender begin in that order.
        pair_index: (edges) the pair of each edge; an edge and its reverse are one pair, and what
            depends on the distance alone is computed once for both.
        pair_edges: (2, pairs) the two edges of each pair.
        graph_index: (atoms) graph of each atom, sorted.
        graph_offsets: (graphs + 1) where the atoms of each graph begin.
        charge: (graphs) total charge in e; 0 where nobody stated it.
        spin: (graphs) multiplicity 2S+1; `UNSTATED` where nobody stated it.
    """

    positions: Float[Tensor, "atoms 3"]
    numbers: Int[Tensor, " atoms"]
    cell: Float[Tensor, "graphs 3 3"]
    pbc: Bool[Tensor, "graphs 3"]
    edge_index: Int[Tensor, "2 edges"] = dataclasses.field(metadata={AXIS: 1})
    edge_shift: Int[Tensor, "edges 3"]
    receiver_offsets: Int[Tensor, " bounds"] = dataclasses.field(metadata={BOUNDS: True})
    sender_order: Int[Tensor, " edges"]
    sender_offsets: Int[Tensor, " sender_bounds"] = dataclasses.field(metadata={BOUNDS: True})
    pair_index: Int[Tensor, " edges"]
    pair_edges: Int[Tensor, "sides pairs"] = dataclasses.field(metadata={AXIS: 1})
    graph_index: Int[Tensor, " atoms"]
    graph_offsets: Int[Tensor, " graph_bounds"] = dataclasses.field(metadata={BOUNDS: True})
    charge: Int[Tensor, " graphs"]
    spin: Int[Tensor, " graphs"]

    @property
    def receivers(self) -> Segments:
        """Edges by receiver; sorted already."""
        return Segments(index=self.edge_index[0], offsets=self.receiver_offsets)

    @property
    def senders(self) -> Segments:
        """Edges by sender."""
        return Segments(
            index=self.edge_index[1], offsets=self.sender_offsets, order=self.sender_order
        )

    @property
    def atoms(self) -> Segments:
        """Atoms by graph."""
        return Segments(index=self.graph_index, offsets=self.graph_offsets)

    @property
    def atom_counts(self) -> Int[Tensor, " graphs"]:
        """Atoms of each graph."""
        return self.graph_offsets.diff()

    @property
    def volume(self) -> Float[Tensor, " graphs"]:
        """Cell volumes in Å³, zero without a cell."""
        return torch.linalg.det(self.cell).abs()


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Labels of a batch; what a file does not state is masked, never zero by meaning.

    Attributes:
        energy: (graphs) eV.
        forces: (atoms, 3) eV/Å.
        stress: (graphs, 3, 3) eV/Å³, tensile positive.
        has_energy, has_forces, has_stress: (graphs) which labels exist.
        weight: (graphs) weight in the loss.
        fixed: (atoms) atoms whose forces count nowhere.
        group: (graphs) number of the group: unit of splits, folds and block intervals.
    """

    energy: Float[Tensor, " graphs"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "graphs 3 3"]
    has_energy: Bool[Tensor, " graphs"]
    has_forces: Bool[Tensor, " graphs"]
    has_stress: Bool[Tensor, " graphs"]
    weight: Float[Tensor, " graphs"]
    fixed: Bool[Tensor, " atoms"]
    group: Int[Tensor, " graphs"]


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Which elements of the potential's table occur in a batch, and where.

    Attributes:
        present: (kinds) their indices in the table.
        atoms: atoms by kind.
    """

    present: Int[Tensor, " kinds"]
    atoms: Segments


def find_kinds(species: Int[Tensor, " atoms"]) -> Kinds:
    """The kinds of these species."""
    present, index = torch.unique(species, return_inverse=True)
    return Kinds(present=present, atoms=group(index, present.shape[0]))


@dataclass(frozen=True, kw_only=True)
class TypedGraph:
    """A batch and where its elements and states stand in the tables of a potential.

    Attributes:
        graph: the batch.
        kinds: the species of the atoms.
        state: (atoms) index of the charge and spin around each atom, or None where the potential
            does not tell states apart.
    """

    graph: Graph
    kinds: Kinds
    state: Int[Tensor, " atoms"] | None = None


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a model may know of a graph: no positions, only species and edge vectors.

    A leading member axis is there when stacked weights are evaluated together: all members see
    the same vectors, and each differentiates with respect to its own copy.

    Attributes:
        graph: for its segments.
        kinds: the species of the atoms.
        vectors: (…, edges, 3) Å in the precision of the model.
        lengths: (…, pairs) Å; an edge and its reverse are equally long.
        state: (atoms) index of the charge and spin around each atom in the potential's table, or
            None where the potential does not tell states apart.
        neighbors: mean number of neighbours, for models that normalise their sums.
        cutoff: Å; no edge is longer.
        memory: whether the radial weights of all pairs are kept, or never held at once and made
            anew in each derivative.
    """

    graph: Graph
    kinds: Kinds
    vectors: Float[Tensor, "*members edges 3"]
    lengths: Float[Tensor, "*members pairs"]
    state: Int[Tensor, " atoms"] | None = None
    neighbors: float = 1.0
    cutoff: float = math.inf
    memory: Memory = "keep"

    @property
    def species(self) -> Int[Tensor, " atoms"]:
        """Index of each atom's element in the potential's table."""
        return self.kinds.present[self.kinds.atoms.index]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One read-out layer: values by row, and the atom each row belongs to.

    Attributes:
        values: (…, rows, channels).
        atom: the rows of each atom, or None when row i is atom i.
        weight: (rows) signed weight of each row in its atom's sum of what is linear in the rows,
            or None when all are 1.
        vectors: (rows, 3) a direction per row, or None.
        quadrupoles: (…, rows, 5, channels) degree 2 of natural parity, where the model has it.
    """

    values: Float[Tensor, "*members rows channels"]
    atom: Segments | None = None
    weight: Float[Tensor, " rows"] | None = None
    vectors: Float[Tensor, "rows 3"] | None = None
    quadrupoles: Float[Tensor, "*members rows 5 width"] | None = None


@dataclass(frozen=True)
class Width:
    """How many channels the rows of a read-out layer have, known before there are any.

    Attributes:
        values: of the invariants.
        quadrupoles: of degree 2; 0 where the layer has none.
    """

    values: int
    quadrupoles: int = 0


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a model returns: one block of rows per read-out layer, and the shared geometry."""

    layers: tuple[Rows, ...]
    geometry: Geometry


class _ToEdges(torch.autograd.Function):
    """Pair values to both edges of the pair; its derivative is `_ToPairs` and back again."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        return values.index_select(-2, graph.pair_index)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _ToPairs.apply(grads[0], ctx.graph), None


class _ToPairs(torch.autograd.Function):
    """Sum of both edges of each pair."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        first, *second = graph.pair_edges.unbind()  # of a part of a graph a pair has one edge
        found = values.index_select(-2, first)
        return found.add_(values.index_select(-2, second[0])) if second else found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _ToEdges.apply(grads[0], ctx.graph), None


def pairs_to_edges(values: Tensor, graph: Graph) -> Tensor:
    """The value of each edge's pair: (…, pairs, channels) → (…, edges, channels)."""
    return _ToEdges.apply(values, graph)  # type: ignore[no-any-return]


def edge_vectors(graph: Graph) -> Float[Tensor, "edges 3"]:
    """Edge vectors in Å, in the precision of the positions.

    v = position(sender) + shift · cell − position(receiver)
    """
    receiver, sender = graph.edge_index
    cell = graph.cell[graph.graph_index[receiver]]
    shift = torch.einsum("es,esx->ex", graph.edge_shift.to(cell), cell)
    return graph.positions[sender] + shift - graph.positions[receiver]


def build_graph(
    *,
    positions: Float[Tensor, "atoms 3"],
    numbers: Int[Tensor, " atoms"],
    cell: Float[Tensor, "3 3"],
    pbc: Bool[Tensor, " 3"],
    edge_index: Int[Tensor, "2 edges"],
    edge_shift: Int[Tensor, "edges 3"],
    charge: int = 0,
    spin: int = UNSTATED,
) -> Graph:
    """One structure with its neighbours as a batch of one.

    Args:
        positions: (atoms, 3) Å.
        numbers: (atoms).
        cell: (3, 3) Å, rows are vectors.
        pbc: (3).
        edge_index: (2, edges), row 0 receiver, row 1 sender; the second half of the edges are the
            first half reversed, as `find_neighbors` gives them.
        edge_shift: (edges, 3).
        charge: in e.
        spin: multiplicity 2S+1, or `UNSTATED`.
    """
    atoms = positions.shape[0]
    pairs = edge_index.shape[1] // 2
    reverse = edge_index[:, pairs:].flip(0), -edge_shift[pairs:]
    if not (
        torch.equal(edge_index[:, :pairs], reverse[0])
        and torch.equal(edge_shift[:pairs], reverse[1])
    ):
        raise ValueError("the second half of the edges must be the first half reversed.")
    order = torch.argsort(edge_index[0], stable=True)
    edge_index, edge_shift = edge_index[:, order], edge_shift[order]
    return Graph(
        positions=positions.double(),
        numbers=numbers,
        cell=cell[None].double(),
        pbc=pbc[None],
        edge_index=edge_index,
        edge_shift=edge_shift,
        receiver_offsets=find_offsets(edge_index[0], atoms),
        sender_order=torch.argsort(edge_index[1], stable=True),
        sender_offsets=find_offsets(edge_index[1], atoms),
        pair_index=order % max(pairs, 1),
        pair_edges=torch.argsort(order).reshape(2, pairs),
        graph_index=torch.zeros_like(numbers),
        graph_offsets=torch.tensor([0, atoms]),
        charge=torch.tensor([charge]),
        spin=torch.tensor([spin]),
    )


# How much the whole numbers of a field grow from one graph of a batch to the next.
_SHIFTED_BY = {
    "edge_index": "atoms",
    "graph_index": "graphs",
    "sender_order": "edges",
    "pair_index": "pairs",
    "pair_edges": "edges",
    "receiver_offsets": "edges",
    "sender_offsets": "edges",
    "graph_offsets": "atoms",
}


def collate(graphs: Sequence[Graph]) -> Graph:
    """Join batches of structures into one, both segment orders included."""
    if len(graphs) == 1:
        return graphs[0]
    joined: dict[str, Tensor] = {}
    for field in fields(Graph):
        parts = [getattr(graph, field.name) for graph in graphs]
        unit = _SHIFTED_BY.get(field.name)
        if unit is not None:
            parts = _shift(parts, [_size(graph, unit) for graph in graphs])
        if field.name.endswith("_offsets"):
            parts = [parts[0], *(part[1:] for part in parts[1:])]
        joined[field.name] = torch.cat(parts, dim=1 if parts[0].dim() == 2 and unit else 0)
    return Graph(**joined)


def _shift(parts: list[Tensor], sizes: list[int]) -> list[Tensor]:
    start = 0
    shifted = []
    for part, size in zip(parts, sizes, strict=True):
        shifted.append(part + start)
        start += size
    return shifted


def _size(graph: Graph, unit: str) -> int:
    sizes = {
        "atoms": graph.numbers.shape[0],
        "edges": graph.edge_index.shape[1],
        "pairs": graph.pair_edges.shape[1],
        "graphs": graph.charge.shape[0],
    }
    return sizes[unit]


def collate_targets(targets: Sequence[Targets]) -> Targets:
    """Join the labels of several batches into one."""
    return Targets(
        **{
            field.name: torch.cat([getattr(part, field.name) for part in targets])
            for field in fields(Targets)
        }
    )


def split_atoms(values: Tensor, graph: Graph) -> tuple[Tensor, ...]:
    """Per-atom values (atoms, …) of a batch as one tensor per graph."""
    return values.split(graph.atom_counts.tolist())


Batched = TypeVar("Batched", Graph, Targets)


def move(batch: Batched, device: torch.device) -> Batched:
    """The same batch on another device."""
    return replace(batch, **{f.name: getattr(batch, f.name).to(device) for f in fields(batch)})
