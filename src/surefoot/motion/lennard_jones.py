"""The Lennard-Jones surface: motion with a known answer, and what the engine costs by itself.

    φ(r) = 4ε [(σ/r)¹² − (σ/r)⁶] S(r)

with the switch S of Brooks et al., J. Comput. Chem. 4 (1983) 187, which takes φ and its slope
to zero between `onset` and `cutoff`. All elements are alike; energies, forces and stress are those
of ASE's LennardJones with smooth=True.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsInt

import torch
from torch import Tensor

from surefoot.graph import Graph, edge_vectors
from surefoot.motion.surface import Evaluation
from surefoot.segments import segment_sum


@dataclass(frozen=True, kw_only=True)
class LennardJones:
    """A `Surface`.

    Attributes:
        epsilon: depth, eV; that of argon where not set.
        sigma: where φ is zero, Å.
        cutoff: Å.
        onset: where the switch begins, Å.
    """

    epsilon: float = 0.0104
    sigma: float = 3.40
    cutoff: float = 8.5
    onset: float = 6.5

    @property
    def bias(self) -> None:
        """There is none."""

    def require(
        self,
        numbers: Iterable[SupportsInt],
        charge: int | None,
        spin: int | None,
        place: str,
    ) -> None:
        """Anything goes."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:  # noqa: ARG002
        """Energies, forces and stress; there are no uncertainties."""
        vectors = edge_vectors(graph)
        lengths = torch.linalg.vector_norm(vectors, dim=-1)
        energy, slope = self._pair(lengths)
        by_atom = segment_sum(0.5 * energy, graph.receivers, axis=0)
        pull = (slope / lengths)[:, None] * vectors
        found = None
        if stress:
            virial = segment_sum(0.5 * vectors[:, :, None] * pull[:, None], graph.receivers, axis=0)
            volume = torch.where(graph.pbc.all(-1), graph.volume, torch.nan)
            found = segment_sum(virial, graph.atoms, axis=0) / volume[:, None, None]
        return Evaluation(
            energy=segment_sum(by_atom, graph.atoms, axis=0),
            forces=segment_sum(pull, graph.receivers, axis=0),
            stress=found,
        )

    def _pair(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """φ and dφ/dr."""
        six = (self.sigma / lengths) ** 6
        plain = 4 * self.epsilon * (six**2 - six)
        plain_slope = -24 * self.epsilon * (2 * six**2 - six) / lengths
        r2, c2, o2 = lengths**2, self.cutoff**2, self.onset**2
        width = (c2 - o2) ** 3
        switch = (c2 - r2) ** 2 * (c2 + 2 * r2 - 3 * o2) / width
        switch_slope = 12 * lengths * (c2 - r2) * (o2 - r2) / width
        inside = lengths < self.onset
        switch = torch.where(inside, 1.0, switch)
        switch_slope = torch.where(inside, 0.0, switch_slope)
        return plain * switch, plain_slope * switch + plain * switch_slope
