"""The fixed part of an energy: reference energies of the elements, and the scale of the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsInt

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.blocks.repulsion import Repulsion
from surefoot.elements import name_elements
from surefoot.graph import Graph
from surefoot.segments import segment_sum


class UnknownElement(ValueError):
    """A structure holds an element that the potential was not trained on."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """E = Σ_atoms E0(Z) + repulsion + scale · head; measured once on the training split.

    Attributes:
        elements: atomic numbers, ascending; their positions are the species.
        energies: E0 of each element in eV.
        scale: eV per unit of the head's output.
        neighbors: mean number of neighbours, for models that normalise their sums.
        repulsion: screened nuclear repulsion, or None.
    """

    elements: tuple[int, ...]
    energies: tuple[float, ...]
    scale: float
    neighbors: float
    repulsion: Repulsion | None = None

    def species(self, numbers: Int[Tensor, " atoms"]) -> Int[Tensor, " atoms"]:
        """Position of each atom's element in the table; −1 where it is not there."""
        table = torch.full((128,), -1, dtype=torch.int64, device=numbers.device)
        table[list(self.elements)] = torch.arange(len(self.elements), device=numbers.device)
        return table[numbers]

    def require(self, numbers: Iterable[SupportsInt], place: str) -> None:
        """Refuse elements that are not in the table.

        Raises:
            UnknownElement: naming the element, the place and what is known.
        """
        unknown = sorted({int(number) for number in numbers} - set(self.elements))
        if unknown:
            raise UnknownElement(
                f"{place}: element {name_elements(unknown[:1])} is not among those this potential "
                f"was trained on ({name_elements(self.elements)}); train on data that hold it."
            )

    def energy(self, graph: Graph, species: Int[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Σ E0 of each graph in eV, float64."""
        table = torch.tensor(self.energies, dtype=torch.float64, device=species.device)
        return segment_sum(table[species], graph.atoms, axis=0)
