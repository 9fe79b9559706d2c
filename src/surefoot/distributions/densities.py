"""Distributions: what one set of weights says of a quantity, and how it is scored.

Variances are kept in the form in which they are learned, as logarithms, so that none is negative
and none underflows before it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Rule = Literal[
    "squared",
    "absolute",
    "huber",
    "norm",
    "nll",
    "mahalanobis",
    "log_determinant",
    "cross_entropy",
]
"""Scores: the first four of the mean, the others of a density or of a histogram."""

Spread = Literal["none", "noise", "residual"]
HUBER_WIDTH = 0.01  # eV/atom or eV/Å: where the Huber score turns from square to line


@runtime_checkable
class Distribution(Protocol):
    """A prediction of one set of weights, element by element.

    `spread` says what `variance` is: `none` (a point, it says nothing), `noise` (given the
    weights) or `residual` (out-of-sample error of the posterior mean, already total).
    """

    @property
    def spread(self) -> Spread:
        """What `variance` is."""
        ...

    @property
    def mean(self) -> Tensor:
        """The expectation."""
        ...

    @property
    def variance(self) -> Tensor:
        """The variance, zero for a point; of vectors that have one, the covariance (…, 3, 3)."""
        ...

    def log_prob(self, target: Tensor) -> Tensor:
        """Log density in the unit of the target."""
        ...

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw per element."""
        ...

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """The training score of each element; smaller is better.

        Raises:
            ValueError: if this kind of distribution does not have the rule.
        """
        ...

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Distribution:
        """The distribution of scale · y + shift."""
        ...


@dataclass(frozen=True)
class Point:
    """All mass on one value: the distribution of a scalar head.

    Attributes:
        mean: the value.
    """

    mean: Tensor
    spread: Spread = "none"

    @property
    def variance(self) -> Tensor:
        """Zero: a point claims nothing about its error."""
        return torch.zeros_like(self.mean)

    def log_prob(self, target: Tensor) -> Tensor:  # noqa: ARG002
        """A point has no density.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a scalar head gives a point, which has no density; score the spread of an ensemble "
            "or choose a head with a distribution."
        )

    def sample(self, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The value itself."""
        return self.mean

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """Distance of value and target by one of the rules of `score_mean`."""
        return score_mean(self.mean, target, rule)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Point:
        """The value scaled and shifted."""
        return Point(self.mean * scale + shift)


@dataclass(frozen=True)
class Normal:
    """Independent normal values, each with a mean and a variance.

    Attributes:
        mean: of any shape.
        log_variance: ln σ², of the same shape.
    """

    mean: Float[Tensor, "*shape"]
    log_variance: Float[Tensor, "*shape"]
    spread: Spread = "noise"

    @property
    def variance(self) -> Tensor:
        """σ²."""
        return self.log_variance.exp()

    def log_prob(self, target: Tensor) -> Tensor:
        """Log density of each value."""
        return -self.score(target, "nll")

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw per value."""
        return self.mean + (0.5 * self.log_variance).exp() * _noise(self.mean, generator)

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """A score of `score_mean`, or of the density.

        With r = mean − target, mahalanobis: r² / σ²; log_determinant: ln σ²;
        nll: ½ (r² / σ² + ln σ² + ln 2π).
        """
        return score_density(self, target, rule)

    def mahalanobis(self, target: Tensor) -> Tensor:
        """r² / σ²."""
        return (self.mean - target).square() * (-self.log_variance).exp()

    @property
    def log_determinant(self) -> Tensor:
        """The logarithm of σ²."""
        return self.log_variance

    @property
    def dimensions(self) -> int:
        """Numbers in one element: 1."""
        return 1

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Normal:
        """Mean and standard deviation scaled, the mean shifted; no scale is zero."""
        scale = torch.as_tensor(scale, dtype=self.mean.dtype, device=self.mean.device)
        log_variance = self.log_variance + 2 * scale.abs().log()
        return Normal(self.mean * scale + shift, log_variance, self.spread)


@dataclass(frozen=True)
class VectorNormal:
    """Normal vectors, each with a full 3×3 covariance.

    What makes residuals independent numbers of variance one, and the logarithm of the determinant,
    are what the likelihood needs. A sum of squares is never negative, however stretched Σ is and
    whatever the precision; the inverse of Σ itself would have twice the digits to lose.

        Σ⁻¹ = Wᵀ W        Σ = L Lᵀ,  L = W⁻¹ = adj(W) √det Σ

    Attributes:
        mean: (…, 3).
        whitening: (…, 3, 3) W, of positive determinant.
        log_determinant: (…) ln det Σ.
    """

    mean: Float[Tensor, "*shape 3"]
    whitening: Float[Tensor, "*shape 3 3"]
    log_determinant: Float[Tensor, "*shape"]
    spread: Spread = "noise"

    @property
    def variance(self) -> Tensor:
        """The covariance of each vector, (…, 3, 3)."""
        return self._root @ self._root.mT

    @property
    def _root(self) -> Tensor:
        """L."""
        return _adjugate(self.whitening) * (0.5 * self.log_determinant).exp()[..., None, None]

    def log_prob(self, target: Tensor) -> Tensor:
        """Log density of each vector, (…)."""
        return -self.score(target, "nll")

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw per vector."""
        return self.mean + (self._root @ _noise(self.mean, generator).unsqueeze(-1)).squeeze(-1)

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """A score of `score_mean`, or of the density, one per vector.

        With r = mean − target, mahalanobis: rᵀ Σ⁻¹ r; log_determinant: ln det Σ;
        nll: ½ (rᵀ Σ⁻¹ r + ln det Σ + 3 ln 2π).
        """
        return score_density(self, target, rule)

    def mahalanobis(self, target: Tensor) -> Tensor:
        """rᵀ Σ⁻¹ r = |W r|², (…)."""
        residual = self.mean - target
        return (self.whitening * residual.unsqueeze(-2)).sum(-1).square().sum(-1)

    @property
    def dimensions(self) -> int:
        """Numbers in one element: 3."""
        return 3

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> VectorNormal:
        """Each component scaled and shifted; no scale is zero."""
        scale = torch.as_tensor(scale, dtype=self.mean.dtype, device=self.mean.device)
        inverse = scale.reciprocal().expand_as(self.mean)
        return VectorNormal(
            self.mean * scale + shift,
            self.whitening * inverse.unsqueeze(-2),
            self.log_determinant - 2 * inverse.abs().log().sum(-1),
            self.spread,
        )


def score_mean(mean: Tensor, target: Tensor, rule: Rule) -> Tensor:
    """Distance of a value and its target.

    squared: Δ²; absolute: |Δ|; huber: Δ²/2 within δ, δ(|Δ| − δ/2) beyond, divided by δ;
    norm: the length of Δ over the last axis, safe at zero.

    Raises:
        ValueError: if the rule needs a distribution.
    """
    if rule not in SCORES:
        raise ValueError(
            f"the rule {rule} scores a distribution, and this head gives one value alone; choose "
            f"{', '.join(SCORES)}, or a head that judges, such as "
            "`head: {energy: mean_variance}`."
        )
    return SCORES[rule](mean - target)


def score_density(normal: Normal | VectorNormal, target: Tensor, rule: Rule) -> Tensor:
    """The score of a normal value or vector of k dimensions.

    nll = ½ (Mahalanobis + ln det Σ + k ln 2π) = −ln density

    Raises:
        ValueError: if the rule is one of histograms.
    """
    if rule in SCORES:
        return score_mean(normal.mean, target, rule)
    if rule == "log_determinant":
        return normal.log_determinant
    if rule == "mahalanobis":
        return normal.mahalanobis(target)
    if rule == "cross_entropy":
        raise ValueError("the rule cross_entropy scores histograms; for a normal there is nll.")
    constant = normal.dimensions * math.log(2 * math.pi)
    return 0.5 * (normal.mahalanobis(target) + normal.log_determinant + constant)


def _huber(difference: Tensor) -> Tensor:
    zero = torch.zeros_like(difference)
    return (
        torch.nn.functional.huber_loss(difference, zero, reduction="none", delta=HUBER_WIDTH)
        / HUBER_WIDTH
    )


def _norm(difference: Tensor) -> Tensor:
    square = difference.square().sum(-1)
    # The slope of a square root at zero is infinite: replaced before, masked after.
    safe = torch.where(square > 0, square, 1.0).sqrt()
    return torch.where(square > 0, safe, 0.0)


SCORES: dict[Rule, Callable[[Tensor], Tensor]] = {
    "squared": torch.square,
    "absolute": torch.abs,
    "huber": _huber,
    "norm": _norm,
}
"""The rules that look at the mean alone."""


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _adjugate(matrix: Float[Tensor, "*shape 3 3"]) -> Float[Tensor, "*shape 3 3"]:
    """det(A) A⁻¹: its columns are cross products of rows of A."""
    first, second, third = matrix.unbind(-2)
    rows = (
        torch.linalg.cross(second, third),
        torch.linalg.cross(third, first),
        torch.linalg.cross(first, second),
    )
    return torch.stack(rows, dim=-1)
