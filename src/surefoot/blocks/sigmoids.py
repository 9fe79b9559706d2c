"""Steps along the distance: the radial bases of SCN's code beside Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.radial import NEGLIGIBLE


@dataclass(frozen=True)
class Sigmoids:
    """Equally spaced steps from 0 to the cutoff, which may go on rising slowly.

    g_k(r) = σ(x) + t x,  x = w (r − μ_k) / Δ,  μ_k = k Δ,  Δ = cutoff / (count − 1)

    Derivatives are polynomials in s = σ(x): P_0 = s, P_(n+1) = s (1 − s) dP_n/ds, times (w/Δ)^n.

    Source: fairchem-core 1.10.0, where t is 0 (sigmoid) or 0.001 (linear sigmoid), and w, the
    width, makes steps steeper.
    """

    cutoff: float
    count: int
    width: float = 1.0
    tilt: float = 0.0

    def derivative(
        self, lengths: Float[Tensor, " edges"], order: int
    ) -> Float[Tensor, "edges count"]:
        """The derivative of this order; order 0 is the value."""
        spacing = self.cutoff / (self.count - 1)
        rate = self.width / spacing
        centres = spacing * torch.arange(self.count, dtype=lengths.dtype, device=lengths.device)
        x = rate * (lengths.unsqueeze(-1) - centres)
        # Far below its step a sigmoid is a denormal number, and those are slow.
        s = torch.where(x > NEGLIGIBLE, torch.sigmoid(x), 0.0)
        value = torch.zeros_like(s)
        for coefficient in reversed(_polynomial(order)):
            value = value * s + coefficient
        value = rate**order * value
        if order == 0:
            return value + self.tilt * x
        return value + self.tilt * rate if order == 1 else value


@cache
def _polynomial(order: int) -> tuple[int, ...]:
    """P_n by powers of s."""
    found = [0, 1]
    for _ in range(order):
        slope = [power * c for power, c in enumerate(found)]  # s dP/ds
        found = [a - b for a, b in zip([*slope, 0], [0, *slope], strict=True)]
    return tuple(found)
