"""Heads turn features into distributions. May import blocks and below; they know no model.

Comes in: weights and `Features`. Goes out: a `Distribution` of the energy of each graph, and one of
the force on each atom about −dE/dr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.distributions.densities import Distribution, Rule
from surefoot.graph import Features, Width
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere


@runtime_checkable
class Head(Protocol):
    """What the rest of the house knows of a head."""

    @property
    def energy(self) -> str:
        """As a config spells it."""
        ...

    @property
    def forces(self) -> str:
        """Where the forces come from."""
        ...

    @property
    def rules(self) -> Mapping[str, tuple[Rule, ...]]:
        """Of `energy` and `forces` the scores in a loss that teach all of this head's weights."""
        ...

    def model_dump(self) -> dict[str, Any]:
        """The settings, for the saved file."""
        ...

    def init(self, generator: torch.Generator, widths: tuple[Width, ...]) -> Weights:
        """Fresh weights in float64 for read-out layers of these widths."""
        ...

    def __call__(self, weights: Weights, features: Features) -> Distribution:
        """The energy of each graph, in units of the baseline's scale."""
        ...

    def force_distribution(
        self,
        weights: Weights,
        features: Features,
        mean: Float[Tensor, "*members atoms 3"],
        scale: float,
    ) -> Distribution:
        """The force on each atom about a mean of −dE/dr, in eV/Å.

        Args:
            weights: of the head.
            features: what the energy was made of.
            mean: (…, atoms, 3) eV/Å; zeros where `forces` are no gradient.
            scale: of the baseline, eV.
        """
        ...

    def judging(self) -> tuple[str, ...]:
        """Prefixes of the weights that judge and make no energy: they can be fitted afterwards."""
        ...


HEADS: dict[str, type[Scalar] | type[Categorical]] = {
    "categorical": Categorical,
    "histogram": ErrorHistograms,
    "mean_variance": MeanVariance,
    "scalar": Scalar,
    "sphere": Sphere,
}
"""Name of the energy head in a config → head."""
