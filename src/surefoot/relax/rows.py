"""Rows of coordinates by system, and what an optimiser remembers of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which system each row of coordinates belongs to.

    Attributes:
        owner: (rows) sorted.
        count: number of systems.
    """

    owner: Int[Tensor, " rows"]
    count: int

    def sum(self, values: Float[Tensor, " rows"]) -> Float[Tensor, " systems"]:
        """Σ over the rows of each system."""
        return values.new_zeros(self.count).index_add_(0, self.owner, values)

    def dot(self, a: Float[Tensor, "rows 3"], b: Float[Tensor, "rows 3"]) -> Tensor:
        """Inner product of the rows of each system, (systems)."""
        return self.sum((a * b).sum(-1))

    def longest(self, vectors: Float[Tensor, "rows 3"]) -> Float[Tensor, " systems"]:
        """Length of the longest row of each system."""
        lengths = torch.linalg.vector_norm(vectors, dim=-1)
        return lengths.new_zeros(self.count).scatter_reduce(0, self.owner, lengths, "amax")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What an optimiser carries from step to step.

    Attributes:
        of_rows: tensors (rows, …).
        of_systems: tensors (systems, …).
    """

    of_rows: dict[str, Tensor]
    of_systems: dict[str, Tensor]

    def select(self, keep: Bool[Tensor, " systems"], rows: Rows) -> Memory:
        """That of some systems."""
        kept = keep[rows.owner]
        return Memory(
            of_rows={name: value[kept] for name, value in self.of_rows.items()},
            of_systems={name: value[keep] for name, value in self.of_systems.items()},
        )

    def append(self, other: Memory) -> Memory:
        """That of both, one after the other."""
        return Memory(
            of_rows={n: torch.cat([v, other.of_rows[n]]) for n, v in self.of_rows.items()},
            of_systems={n: torch.cat([v, other.of_systems[n]]) for n, v in self.of_systems.items()},
        )


class Optimizes(Protocol):
    """An optimiser of many systems at once, none of which sees another."""

    def begin(self, rows: Rows) -> Memory:
        """What it carries before its first step."""
        ...

    def step(
        self,
        memory: Memory,
        rows: Rows,
        coordinates: Float[Tensor, "rows 3"],
        forces: Float[Tensor, "rows 3"],
    ) -> tuple[Memory, Float[Tensor, "rows 3"]]:
        """The displacement of every row, and what to carry on.

        Args:
            memory: from `begin` or the last step.
            rows: by system.
            coordinates: (rows, 3) where the systems are.
            forces: (rows, 3) minus the slope of the energy there.
        """
        ...
