"""Distribution, Output, Prediction: what one set of weights says, and what the world sees.

An `Output` is differentiable and belongs to one set of weights (or a stack of them, member axis
first). `mix` turns the outputs of many draws into a detached `Prediction` by the law of total
variance:

    mean      = ⟨μ_d⟩
    epistemic = Σ_d (μ_d − mean)² / (draws − 1)
    aleatoric = ⟨σ_d²⟩

Variances stay inside; standard deviations are what every surface shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.graph import Features

Rule = Literal["squared", "absolute", "huber", "norm"]
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
        """The variance, zero for a point."""
        ...

    def log_prob(self, target: Tensor) -> Tensor:
        """Log density in the unit of the target."""
        ...

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw per element."""
        ...

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """The training score of each element; smaller is better."""
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
        """Distance of value and target by one of the rules.

        squared: Δ²; absolute: |Δ|; huber: Δ²/2 within δ, δ(|Δ| − δ/2) beyond, divided by δ;
        norm: the length of Δ over the last axis, safe at zero.
        """
        return SCORES[rule](self.mean - target)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Point:
        """The value scaled and shifted."""
        return Point(self.mean * scale + shift)


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


SCORES = {"squared": torch.square, "absolute": torch.abs, "huber": _huber, "norm": _norm}


@dataclass(frozen=True, kw_only=True)
class Output:
    """What one set of weights says of a batch; with a leading member axis for stacked weights.

    Attributes:
        energy: over (…, graphs), eV.
        forces: over (…, atoms, 3), eV/Å; None where not asked for.
        stress: over (…, graphs, 3, 3), eV/Å³; None where not asked for.
        features: what the head was given; None from a compiled potential, which keeps none.
    """

    energy: Distribution
    forces: Distribution | None
    stress: Distribution | None
    features: Features | None


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean of a quantity and the parts of its variance; None where a part does not exist.

    For energies and stress the variances have the shape of the mean; for forces they are one
    covariance per atom, (atoms, 3, 3).
    """

    mean: Tensor
    aleatoric: Tensor | None = None
    epistemic: Tensor | None = None
    residual: Tensor | None = None

    @property
    def total(self) -> Tensor | None:
        """The whole variance: a residual as it is, else the sum of the parts that exist."""
        if self.residual is not None:
            return self.residual
        parts = [part for part in (self.aleatoric, self.epistemic) if part is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def select(self, rows: Tensor) -> Moments:
        """Some of the rows."""
        parts = {
            name: None if (part := getattr(self, name)) is None else part[rows]
            for name in ("aleatoric", "epistemic", "residual")
        }
        return Moments(mean=self.mean[rows], **parts)

    def scaled(self, factor: float) -> Moments:
        """The same mean with every standard deviation multiplied by `factor`."""
        scaled = {
            name: None if (part := getattr(self, name)) is None else part * factor**2
            for name in ("aleatoric", "epistemic", "residual")
        }
        return replace(self, **scaled)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the world sees of a batch: detached, calibrated, with every variance named.

    Attributes:
        energy: over (graphs), eV.
        forces: over (atoms, 3), eV/Å, variances (atoms, 3, 3); None where not asked for.
        stress: over (graphs, 3, 3), eV/Å³; None where not asked for.
        ood: (graphs) distance to the training data where the Predictor has a gate, else None.
        energy_draws: (draws, graphs) mean of each draw.
        forces_draws: (draws, atoms, 3) or None.
        stress_draws: (draws, graphs, 3, 3) or None.
        energy_factor: (graphs, r) z with Var(E_a − E_b) = |z_a − z_b|² for structures a and b of
            one composition, across all batches of one Predictor; None where it has no spread.
    """

    energy: Moments
    forces: Moments | None = None
    stress: Moments | None = None
    ood: Tensor | None = None
    energy_draws: Float[Tensor, "draws graphs"] | None = None
    forces_draws: Float[Tensor, "draws atoms 3"] | None = None
    stress_draws: Float[Tensor, "draws graphs 3 3"] | None = None
    energy_factor: Float[Tensor, "graphs rank"] | None = None

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Central interval of the energies, mean ± z(level) · standard deviation, in eV.

        Raises:
            ValueError: if the level is not between 0 and 1, or there is no error bar.
        """
        if not 0 < level < 1:
            raise ValueError(f"the level of an interval is {level}; it lies between 0 and 1.")
        variance = self.energy.total
        if variance is None:
            raise ValueError(
                "this prediction has no error bar: one set of weights with a scalar head makes "
                "none. Train an ensemble (`posterior: {members: 8}`)."
            )
        width = normal_quantile(0.5 + level / 2) * variance.sqrt()
        return self.energy.mean - width, self.energy.mean + width


def normal_quantile(probability: float) -> float:
    """The value below which a standard normal falls with this probability."""
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Means and variances of many draws, detached, first axis the draw."""

    mean: Tensor
    variance: Tensor | None
    spread: Spread


def join_draws(parts: Sequence[Distribution]) -> Draws:
    """Distributions over portions of the draws as one."""
    spread = parts[0].spread
    variance = None
    if spread != "none":
        variance = torch.cat([part.variance.detach() for part in parts])
    return Draws(
        mean=torch.cat([part.mean.detach() for part in parts]), variance=variance, spread=spread
    )


def mix(distribution: Distribution | Draws, *, vector: bool = False) -> Moments:
    """Moments over a leading axis of draws, by the law of total variance.

    Args:
        distribution: over (draws, …).
        vector: whether the last axis is a vector whose covariance is wanted; variances are then
            (…, 3, 3).
    Returns:
        Epistemic variance with draws − 1 in the denominator; None for a single draw.
    """
    mean = distribution.mean.detach().double()
    draws = mean.shape[0]
    centre = mean.mean(0)
    epistemic = None
    if draws > 1:
        deviation = mean - centre
        epistemic = (_outer(deviation) if vector else deviation.square()).sum(0) / (draws - 1)
    if distribution.spread == "none" or distribution.variance is None:
        return Moments(mean=centre, epistemic=epistemic)
    spread = distribution.variance.detach().double().mean(0)
    if distribution.spread == "residual":
        return Moments(mean=centre, residual=spread)
    return Moments(mean=centre, aleatoric=spread, epistemic=epistemic)


def _outer(vectors: Tensor) -> Tensor:
    return vectors.unsqueeze(-1) * vectors.unsqueeze(-2)
