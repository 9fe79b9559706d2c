"""Neighbour lists with a skin: rebuilt when needed, never late.

A list made at positions r⁰ and cell C⁰ holds all pairs closer than cutoff + skin. With the cell
C = C⁰ F and displacements u = r − r⁰ F, any edge vector is v = v⁰ F + u_j − u_i, so

    |v| ≥ s |v⁰| − (u₁ + u₂)

with s the smallest singular value of F and u₁, u₂ the two largest |u| of the system. While

    s (cutoff + skin) − (u₁ + u₂) ≥ cutoff

no pair that is missing from the list can be within the cutoff. This is looked at before every
evaluation, for each system by itself, and what a surface is given holds the pairs within the cutoff
and no others: with a skin or without, it sees the same edges.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.graph import Graph, build_graph, collate, edge_vectors
from surefoot.motion.slices import take_pairs
from surefoot.motion.systems import Configuration, Systems
from surefoot.neighbors import CoincidentAtoms, find_neighbors

SKIN = 1.0  # Å


class NoNeighbors(ValueError):
    """A system of which no list can be made: the others of the batch can go on without it.

    Attributes:
        number: of the system in the batch.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class NeighborLists:
    """The lists of systems that move together; the one thing here that remembers.

    Args:
        systems: whose they are.
        cutoff: Å.
        skin: Å; 0 makes a new list for every evaluation.
    """

    def __init__(self, systems: Systems, cutoff: float, skin: float = SKIN) -> None:
        if not skin >= 0:
            raise ValueError(f"the skin is {skin} Å; it must be 0 or more.")
        self.cutoff, self.skin = cutoff, skin
        self.builds = 0
        self._systems = systems
        self._lists: list[Graph | None] = [None] * systems.count
        self._joined: Graph | None = None

    @property
    def reference(self) -> Configuration:
        """Positions and cells at which the lists were made: with them they can be made again."""
        joined = self._join()
        return Configuration(positions=joined.positions, cell=joined.cell)

    def restore(self, reference: Configuration) -> None:
        """Make all lists at these positions, as they were when these were their reference."""
        everything = torch.ones(self._systems.count, dtype=torch.bool)
        self._build(reference, everything)

    def select(self, keep: Bool[Tensor, " systems"]) -> None:
        """Forget all other systems."""
        self._systems = self._systems.select(keep)
        self._lists = [one for one, kept in zip(self._lists, keep.tolist(), strict=True) if kept]
        self._joined = None

    def append(self, systems: Systems) -> None:
        """Take in more systems; `systems` are those that were here and the new ones."""
        self._lists += [None] * (systems.count - self._systems.count)
        self._systems = systems
        self._joined = None

    def graph(self, configuration: Configuration) -> Graph:
        """The batch at these positions, with all edges shorter than the cutoff.

        Raises:
            NoNeighbors: if a position or cell is not finite, or two atoms are at one place.
        """
        stale = self._stale(configuration)
        if stale.any():
            self._build(configuration, stale)
        listed = replace(self._join(), positions=configuration.positions, cell=configuration.cell)
        vectors = edge_vectors(listed)[listed.pair_edges[0]]
        return take_pairs(listed, vectors.square().sum(-1) < self.cutoff**2)

    def _stale(self, configuration: Configuration) -> Bool[Tensor, " systems"]:
        """Which lists may miss a pair."""
        new = torch.tensor([one is None for one in self._lists])
        if new.all() or self.skin == 0:
            return torch.ones_like(new)
        if new.any():  # nothing is joined yet, and they are few
            return torch.tensor(
                [
                    one is None or self._is_stale(number, one, configuration)
                    for number, one in enumerate(self._lists)
                ]
            )
        joined = self._join()
        return self._too_far(
            self._systems,
            Configuration(positions=joined.positions, cell=joined.cell),
            configuration,
        )

    def _is_stale(self, number: int, listed: Graph, configuration: Configuration) -> bool:
        chosen = torch.arange(self._systems.count) == number
        atoms = chosen[self._systems.owner]
        before = Configuration(positions=listed.positions, cell=listed.cell)
        now = Configuration(
            positions=configuration.positions[atoms], cell=configuration.cell[chosen]
        )
        return bool(self._too_far(self._systems.select(chosen), before, now)[0])

    def _too_far(
        self, systems: Systems, before: Configuration, now: Configuration
    ) -> Bool[Tensor, " systems"]:
        strain = find_strain(before.cell, now.cell)
        carried = torch.einsum("ax,axy->ay", before.positions, strain[systems.owner])
        moved = torch.linalg.vector_norm(now.positions - carried, dim=-1)
        largest = _two_largest(moved, systems)
        smallest = torch.linalg.svdvals(strain)[:, -1]
        # Not `<`: a displacement that is not a number must count as too far.
        return ~(smallest * (self.cutoff + self.skin) - largest >= self.cutoff)

    def _build(self, configuration: Configuration, which: Bool[Tensor, " systems"]) -> None:
        systems, self._joined = self._systems, None
        bounds = systems.atoms.offsets.tolist()
        for number in which.nonzero()[:, 0].tolist():
            atoms = slice(bounds[number], bounds[number + 1])
            positions, cell = configuration.positions[atoms], configuration.cell[number]
            if not (positions.isfinite().all() and cell.isfinite().all()):
                raise NoNeighbors(
                    number,
                    f"structure {int(systems.ids[number])} has a position that is not finite, so "
                    "it has no neighbours; it has exploded.",
                )
            try:
                index, shift = find_neighbors(
                    positions.numpy(),
                    cell.numpy(),
                    systems.pbc[number].numpy(),
                    self.cutoff + self.skin,
                )
            except CoincidentAtoms as error:
                place = f"structure {int(systems.ids[number])}"
                raise NoNeighbors(number, f"{place} has collapsed: {error}") from error
            self._lists[number] = build_graph(
                positions=positions,
                numbers=systems.numbers[atoms],
                cell=cell,
                pbc=systems.pbc[number],
                edge_index=torch.tensor(index),
                edge_shift=torch.tensor(shift),
                charge=int(systems.charge[number]),
                spin=int(systems.spin[number]),
            )
            self.builds += 1

    def _join(self) -> Graph:
        if self._joined is None:
            self._joined = collate([one for one in self._lists if one is not None])
        return self._joined


def find_strain(
    before: Float[Tensor, "systems 3 3"], now: Float[Tensor, "systems 3 3"]
) -> Float[Tensor, "systems 3 3"]:
    """F with now = before F; the identity where the cell has not changed, or is no full cell."""
    strain = torch.eye(3, dtype=now.dtype).expand(now.shape).clone()
    changed = (before != now).flatten(1).any(-1)
    if changed.any():
        strain[changed] = torch.linalg.solve(before[changed], now[changed])
    return strain


def _two_largest(values: Float[Tensor, " atoms"], systems: Systems) -> Float[Tensor, " systems"]:
    """The sum of the two largest values of each system; of one atom and its image, twice it."""
    count = systems.count
    owner = systems.owner
    largest = values.new_zeros(count).scatter_reduce(0, owner, values, "amax")
    at_top = values == largest[owner]
    # Several atoms may share the largest value: all but the first stay for the second place.
    order = torch.arange(len(values))
    first = order.new_full((count,), len(values)).scatter_reduce(
        0, owner[at_top], order[at_top], "amin"
    )
    rest = values.index_fill(0, first[first < len(values)], 0.0)
    second = values.new_zeros(count).scatter_reduce(0, owner, rest, "amax")
    # An atom and its own image move together, so they never need more than this.
    return largest + second
