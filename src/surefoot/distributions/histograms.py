"""Histograms as distributions: of a value, of the error of a mean, of the length of an error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.distributions.bins import Bins
from surefoot.distributions.densities import SCORES, Rule, Spread, score_mean
from surefoot.distributions.masses import (
    cross_entropy,
    draw,
    expectation,
    log_density,
    second_moment,
)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """y = shift + scale · x with x over bins; its mean is the expectation.

    Attributes:
        bins: of x.
        logits: (…, bins).
        scale: (…) above 0, unit of y per unit of the bins.
        shift: (…) unit of y.
        spread: what its variance is.
        axes: (…, 3, 3) orthonormal rows along which vectors of histograms (…, 3) have these
            components; None for those of space, or for what is no vector.
    """

    bins: Bins
    logits: Float[Tensor, "*rows bins"]
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    spread: Spread = "noise"
    axes: Tensor | None = None

    @property
    def probabilities(self) -> Float[Tensor, "*rows bins"]:
        """Mass of each bin."""
        return self.logits.softmax(-1)

    @property
    def mean(self) -> Tensor:
        """The expectation: smooth in the logits, unlike mode and quantiles."""
        return expectation(self.probabilities, self.bins) * self.scale + self.shift

    @property
    def variance(self) -> Tensor:
        """About the mean, with the variance inside bins."""
        masses = self.probabilities
        centre = expectation(masses, self.bins)
        return (second_moment(masses, self.bins) - centre.square()) * self.scale**2

    def standardise(self, values: Tensor) -> Tensor:
        """Values in the unit of the bins."""
        return (values - self.shift) / self.scale

    def log_prob(self, target: Tensor) -> Tensor:
        """Log density; −∞ beyond closed ends."""
        found = log_density(self.logits.log_softmax(-1), self.bins, self.standardise(target))
        return found - torch.as_tensor(self.scale, dtype=found.dtype).log()

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw per row."""
        return draw(self.probabilities, self.bins, generator) * self.scale + self.shift

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """cross_entropy: −Σ q ln p in nats, q the target of the label; nll; or a rule of the mean.

        Raises:
            ValueError: for a rule that histograms do not have.
        """
        return score_bins(self, target, rule, self.standardise(target))

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Histogram:
        """The distribution of scale · y + shift, scale above 0."""
        return replace(self, scale=self.scale * scale, shift=self.shift * scale + shift)

    def shown(self) -> Histogram:
        """What a user is shown: itself."""
        return self


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """A mean from elsewhere, and a histogram of what labels differ from it by.

    y = mean + scale · x with x over bins. The mean stays what it is: where the histogram has a
    bias, that is part of the variance, which is the mean square of y − mean.

    Attributes:
        mean: (…) of the potential.
        bins: of x.
        logits: (…, bins).
        scale: (…) above 0, unit of y per unit of the bins.
    """

    mean: Tensor
    bins: Bins
    logits: Float[Tensor, "*rows bins"]
    scale: Tensor | float = 1.0
    spread: Spread = "residual"

    @property
    def variance(self) -> Tensor:
        """Mean square of y − mean."""
        return second_moment(self.logits.softmax(-1), self.bins) * self.scale**2

    def log_prob(self, target: Tensor) -> Tensor:
        """Log density; −∞ beyond closed ends."""
        return self.shown().log_prob(target)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw per row."""
        return self.shown().sample(generator)

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """cross_entropy of the residual y − mean, by which the mean is not moved; nll; of the mean.

        Raises:
            ValueError: for a rule that histograms do not have.
        """
        return score_bins(self, target, rule, (target - self.mean.detach()) / self.scale)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Residuals:
        """The distribution of scale · y + shift, scale above 0."""
        return replace(self, mean=self.mean * scale + shift, scale=self.scale * scale)

    def shown(self) -> Histogram:
        """The histogram of y."""
        return Histogram(
            bins=self.bins,
            logits=self.logits,
            scale=self.scale,
            shift=self.mean,
            spread=self.spread,
        )


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """A mean vector, and a histogram of how long its error is; all directions are alike.

    |y − mean| = scale · x with x over bins from 0 on.

    Attributes:
        mean: (…, 3) of the potential.
        bins: of x.
        logits: (…, bins).
        scale: above 0, unit of y per unit of the bins.
    """

    mean: Float[Tensor, "*rows 3"]
    bins: Bins
    logits: Float[Tensor, "*rows bins"]
    scale: Tensor | float = 1.0
    spread: Spread = "residual"

    @property
    def variance(self) -> Float[Tensor, "*rows 3 3"]:
        """The covariance ⟨u²⟩ / 3 · I."""
        square = second_moment(self.logits.softmax(-1), self.bins) * (self.scale**2 / 3)
        axes = torch.eye(3, dtype=square.dtype, device=square.device)
        return square[..., None, None] * axes

    def log_prob(self, target: Tensor) -> Float[Tensor, "*rows"]:
        """Log density in space, ln p(u) − ln 4πu²; without a bound where u is 0."""
        length = SCORES["norm"](target - self.mean)
        tiny = torch.finfo(length.dtype).tiny
        return self.shown().log_prob(length) - (4 * math.pi * length.square().clamp(min=tiny)).log()

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw per row: a length, and a direction of all."""
        shape, kind = self.mean.shape, self.mean.dtype
        normal = torch.randn(shape, generator=generator, dtype=kind, device=self.mean.device)
        ways = torch.nn.functional.normalize(normal, dim=-1)
        return self.mean + ways * self.shown().sample(generator).unsqueeze(-1)

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """cross_entropy of |y − mean|, by which the mean is not moved; nll; or of the mean.

        Raises:
            ValueError: for a rule that histograms do not have.
        """
        length = SCORES["norm"](target - self.mean.detach())
        return score_bins(self, target, rule, length / self.scale)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Lengths:
        """The distribution of scale · y + shift, scale a number above 0."""
        return replace(self, mean=self.mean * scale + shift, scale=self.scale * scale)

    def shown(self) -> Histogram:
        """The histogram of |y − mean|."""
        return Histogram(bins=self.bins, logits=self.logits, scale=self.scale, spread=self.spread)


@runtime_checkable
class Placed(Protocol):
    """A distribution whose bins are of something that a label has a place in."""

    @property
    def bins(self) -> Bins:
        """Of what the logits are."""
        ...

    @property
    def logits(self) -> Tensor:
        """(…, bins)."""
        ...

    @property
    def mean(self) -> Tensor:
        """The expectation."""
        ...

    def log_prob(self, target: Tensor) -> Tensor:
        """Log density."""
        ...


def score_bins(distribution: Placed, target: Tensor, rule: Rule, label: Tensor) -> Tensor:
    """The rules that all kinds share.

    Args:
        distribution: of the target.
        target: label, in the unit of the user.
        rule: cross_entropy, nll, or one of the mean.
        label: what the bins are of, in their unit.
    Raises:
        ValueError: for a rule that histograms do not have.
    """
    if rule == "cross_entropy":
        return cross_entropy(distribution.logits, distribution.bins, label)
    if rule == "nll":
        return -distribution.log_prob(target)
    if rule not in SCORES:
        raise ValueError(
            f"the rule {rule} scores a normal; for a histogram there is cross_entropy, nll and, of "
            f"its mean, {', '.join(SCORES)}."
        )
    return score_mean(distribution.mean, target, rule)


def turn(
    vectors: Float[Tensor, "*rows 3"], axes: Float[Tensor, "*rows 3 3"] | None
) -> Float[Tensor, "*rows 3"]:
    """Components along axes, their rows; those of space where there are none."""
    return vectors if axes is None else (axes @ vectors.to(axes).unsqueeze(-1)).squeeze(-1)


@runtime_checkable
class Shown(Protocol):
    """A distribution with a histogram that users are shown."""

    def shown(self) -> Histogram:
        """The histogram, in the unit of the user."""
        ...
