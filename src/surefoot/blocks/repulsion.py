"""Screened nuclear repulsion: what keeps atoms apart where no training data are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.radial import PolynomialCutoff, expand
from surefoot.graph import Geometry
from surefoot.segments import group, segment_sum

COULOMB = 14.3996  # e² / (4 π ε0) in eV Å, to the digits of the implementation we agree with
BOHR = 0.529  # Å, likewise
SCREENING = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))


@dataclass(frozen=True, kw_only=True)
class Repulsion:
    """The universal potential of Ziegler, Biersack and Littmark, cut off at the bond length.

    V(r) = strength · e²/(4πε0) Z_i Z_j / r · φ(r / a) · f(r / (R_i + R_j)),
    a = prefactor · 0.529 Å / (Z_i^exponent + Z_j^exponent)

    f is the polynomial cutoff: beyond the sum of the covalent radii R nothing is left.

    Attributes:
        radii: R of each species in Å.
        power: p of the polynomial cutoff.
        strength: factor of the whole.
        prefactor, exponent: of the screening length.

    Source: Ziegler, Biersack, Littmark 1985; the cutoff as in mace-torch.
    """

    radii: tuple[float, ...]
    power: int = 6
    strength: float = 1.0
    prefactor: float = 0.4543
    exponent: float = 0.3

    def energy(self, geometry: Geometry) -> Float[Tensor, "*members graphs"]:
        """Σ_pairs V of each graph in eV, float64."""
        graph, lengths = geometry.graph, geometry.lengths.double()
        first = graph.pair_edges[0]
        receiver, sender = graph.edge_index[0, first], graph.edge_index[1, first]
        radii = torch.tensor(self.radii, dtype=torch.float64, device=lengths.device)
        reach = radii[geometry.species[receiver]] + radii[geometry.species[sender]]
        charges = graph.numbers.double()[receiver], graph.numbers.double()[sender]
        size = charges[0] ** self.exponent + charges[1] ** self.exponent
        reduced = lengths * size / (self.prefactor * BOHR)
        screened = sum(weight * torch.exp(-rate * reduced) for weight, rate in SCREENING)
        envelope = expand(lengths / reach, PolynomialCutoff(1.0, self.power))[..., 0]
        value = self.strength * COULOMB * charges[0] * charges[1] / lengths * screened * envelope
        owner = graph.graph_index[receiver]
        pairs = group(owner, graph.charge.shape[0])
        return segment_sum(value, pairs, axis=-1)
