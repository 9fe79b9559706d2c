"""Histograms of the components of vectors, along the axes of space or axes of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.distributions.bins import Bins
from surefoot.distributions.densities import Rule, Spread
from surefoot.distributions.histograms import Histogram, score_bins, turn
from surefoot.distributions.masses import draw, expectation, log_density, second_moment


@dataclass(frozen=True, kw_only=True)
class Components:
    """Independent histograms of the components of vectors along axes.

    y = scale Σ_k x_k axis_k + shift, each x_k over bins.

    Attributes:
        bins: of each x.
        logits: (…, 3, bins).
        frames: (…, 3, 3) orthonormal axes as rows; None for those of y.
        scale: above 0, unit of y per unit of the bins.
        shift: unit of y.
    """

    bins: Bins
    logits: Float[Tensor, "*rows 3 bins"]
    frames: Float[Tensor, "*rows 3 3"] | None = None
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    spread: Spread = "noise"

    @property
    def mean(self) -> Float[Tensor, "*rows 3"]:
        """The vector of expectations."""
        return self._to_space(expectation(self.logits.softmax(-1), self.bins))

    @property
    def variance(self) -> Float[Tensor, "*rows 3 3"]:
        """The covariance."""
        masses = self.logits.softmax(-1)
        squares = second_moment(masses, self.bins) - expectation(masses, self.bins).square()
        squares = squares * self.scale**2
        if self.frames is None:
            return torch.diag_embed(squares)
        return self.frames.mT @ (squares.unsqueeze(-1) * self.frames)

    def log_prob(self, target: Tensor) -> Float[Tensor, "*rows"]:
        """Log density in space; −∞ beyond closed ends."""
        found = log_density(self.logits.log_softmax(-1), self.bins, self._to_axes(target))
        return found.sum(-1) - 3 * torch.as_tensor(self.scale, dtype=found.dtype).log()

    def sample(self, generator: torch.Generator) -> Float[Tensor, "*rows 3"]:
        """One draw per vector."""
        return self._to_space(draw(self.logits.softmax(-1), self.bins, generator))

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """cross_entropy of each component, nll of the vector, or a rule of the mean.

        Raises:
            ValueError: for a rule that histograms do not have.
        """
        return score_bins(self, target, rule, self._to_axes(target))

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Components:
        """The distribution of scale · y + shift, scale a number above 0."""
        return replace(self, scale=self.scale * scale, shift=self.shift * scale + shift)

    def shown(self) -> Histogram:
        """The histogram of each component, (…, 3), along the axes."""
        along = torch.as_tensor(self.shift, dtype=self.logits.dtype, device=self.logits.device)
        return Histogram(
            bins=self.bins,
            logits=self.logits,
            scale=self.scale,
            shift=turn(along.expand(self.logits.shape[:-1]), self.frames),
            spread=self.spread,
            axes=self.frames,
        )

    def _to_space(self, components: Tensor) -> Tensor:
        if self.frames is not None:
            components = (components.unsqueeze(-2) @ self.frames).squeeze(-2)
        return components * self.scale + self.shift

    def _to_axes(self, vectors: Tensor) -> Tensor:
        return turn((vectors - self.shift) / self.scale, self.frames)
