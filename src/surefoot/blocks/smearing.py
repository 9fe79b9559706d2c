"""Equally spaced Gaussians of any width, which is where SCN differs from SchNet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.radial import NEGLIGIBLE


@dataclass(frozen=True)
class Smearing:
    """Gaussians from 0 to the cutoff, `width` times as wide as their spacing.

    g_k(r) = exp(−(r − k Δ)² / (2 (width Δ)²)),  Δ = cutoff / (count − 1)
    """

    cutoff: float
    count: int
    width: float

    def derivative(
        self, lengths: Float[Tensor, " edges"], order: int
    ) -> Float[Tensor, "edges count"]:
        """g^(n+1) = −2γ ((r − μ) g^(n) + n g^(n−1)),  γ = 1 / (2 (width Δ)²)."""
        spacing = self.cutoff / (self.count - 1)
        centres = spacing * torch.arange(self.count, dtype=lengths.dtype, device=lengths.device)
        gamma = 0.5 / (self.width * spacing) ** 2
        x = lengths.unsqueeze(-1) - centres
        exponent = -gamma * x.square()
        # Far from its centre a Gaussian is a denormal number, and those are a hundred times slower.
        now = torch.where(exponent > NEGLIGIBLE, torch.exp(exponent), 0.0)
        before = torch.zeros_like(x)
        for n in range(order):
            before, now = now, -2 * gamma * (x * now + n * before)
        return now
