"""Histograms as distributions: of a value, of the error of a mean, of the length of an error.

`Binned` is what a Prediction carries of them, averaged over draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.distributions.bins import Bins
from surefoot.distributions.densities import SCORES, Distribution, Rule, Spread, score_mean
from surefoot.distributions.masses import (
    cross_entropy,
    crps,
    distribution_function,
    draw,
    entropic_deviation,
    expectation,
    log_density,
    mutual_information,
    quantiles,
    relative_entropy,
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
    """

    bins: Bins
    logits: Float[Tensor, "*rows bins"]
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    spread: Spread = "noise"

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
        return _score(self, target, rule, self.standardise(target))

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
        return _score(self, target, rule, (target - self.mean.detach()) / self.scale)

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
        return _score(self, target, rule, length / self.scale)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Lengths:
        """The distribution of scale · y + shift, scale a number above 0."""
        return replace(self, mean=self.mean * scale + shift, scale=self.scale * scale)

    def shown(self) -> Histogram:
        """The histogram of |y − mean|."""
        return Histogram(bins=self.bins, logits=self.logits, scale=self.scale, spread=self.spread)


def _score(
    distribution: Histogram | Residuals | Lengths, target: Tensor, rule: Rule, label: Tensor
) -> Tensor:
    """The rules that all kinds share; `label` is what the bins are of, in their unit."""
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


@runtime_checkable
class Shown(Protocol):
    """A distribution with a histogram that users are shown."""

    def shown(self) -> Histogram:
        """The histogram, in the unit of the user."""
        ...


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Histograms of many rows as a Prediction carries them: averaged over draws and detached.

    y = shift + scale · x with x over bins.

    Attributes:
        bins: of x.
        probabilities: (rows, bins).
        shift: (rows) unit of y.
        scale: (rows) unit of y per unit of the bins.
        information: (rows) mutual information of draw and bin in nats, where there are several
            draws over one support; else None.
    """

    bins: Bins
    probabilities: Float[Tensor, "rows bins"]
    shift: Float[Tensor, " rows"]
    scale: Float[Tensor, " rows"]
    information: Float[Tensor, " rows"] | None = None

    @property
    def mean(self) -> Float[Tensor, " rows"]:
        """The expectation."""
        return self.shift + self.scale * expectation(self.probabilities, self.bins)

    @property
    def deviation(self) -> Float[Tensor, " rows"]:
        """Standard deviation about the expectation."""
        centre = expectation(self.probabilities, self.bins)
        square = second_moment(self.probabilities, self.bins) - centre.square()
        return self.scale * square.clamp(min=0.0).sqrt()

    @property
    def relative_entropy(self) -> Float[Tensor, " rows"]:
        """0 for a perfect prediction to 1 for an even one; total, never epistemic."""
        return relative_entropy(self.probabilities, self.bins)

    @property
    def entropic_deviation(self) -> Float[Tensor, " rows"]:
        """s_H, in the unit of y."""
        return self.scale * entropic_deviation(self.probabilities, self.bins)

    def cdf(self, values: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """P(Y ≤ y); at the labels it is the PIT."""
        return distribution_function(
            self.probabilities, self.bins, (values - self.shift) / self.scale
        )

    def quantile(self, level: float) -> Float[Tensor, " rows"]:
        """The value below which a share `level` of the mass lies."""
        return self.shift + self.scale * quantiles(self.probabilities, self.bins, level)

    def crps(self, values: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Continuous ranked probability score of labels, in the unit of y."""
        places = (values - self.shift) / self.scale
        return self.scale * crps(self.probabilities, self.bins, places)

    def log_prob(self, values: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Log density at labels, in the inverse unit of y."""
        places = (values - self.shift) / self.scale
        return log_density(self.probabilities.log(), self.bins, places) - self.scale.log()


def mix_histograms(parts: Sequence[Distribution]) -> Binned | None:
    """The histograms of portions of the draws, averaged; None where there are none to be shown.

    Args:
        parts: over (draws, rows).
    """
    found = [part.shown() for part in parts if isinstance(part, Shown)]
    if not found:
        return None
    masses = torch.cat([one.probabilities.detach() for one in found]).double()
    rows = masses.shape[:-1]
    shift, scale = (
        torch.cat(
            [
                torch.as_tensor(getattr(one, name), dtype=masses.dtype)
                .detach()
                .expand(one.logits.shape[:-1])
                for one in found
            ]
        ).reshape(rows)
        for name in ("shift", "scale")
    )
    # Over different supports an average of entropies means nothing.
    shared = bool((shift == shift[0]).all() and (scale == scale[0]).all())
    return Binned(
        bins=found[0].bins,
        probabilities=masses.mean(0),
        shift=shift.mean(0),
        scale=scale.mean(0),
        information=mutual_information(masses) if shared else None,
    )


def join_binned(parts: Sequence[Binned | None]) -> Binned | None:
    """Histograms of consecutive batches as one."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    joined = {}
    for name in (one.name for one in fields(Binned) if one.name != "bins"):
        values = [value for part in present if (value := getattr(part, name)) is not None]
        joined[name] = torch.cat(values) if values else None
    return Binned(bins=present[0].bins, **joined)
