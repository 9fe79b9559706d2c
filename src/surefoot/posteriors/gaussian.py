"""A Gaussian over weights: mean, a diagonal and a few directions.

    θ = mean + √variance ⊙ ε + Σ_k direction_k η_k        ε, η standard normal
    Cov(θ) = diag(variance) + Σ_k direction_k direction_kᵀ

What SWAG, IVON and the diagonal Laplace approximation end in; each has a class of its name here and
a file of its own that says where the numbers come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from surefoot.blocks.dense import Weights, branch, under
from surefoot.posteriors.posterior import complete, require_count


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Weights that vary as a Gaussian, and others that do not.

    Attributes:
        mean: of the weights that vary.
        variance: of each of them, beside the directions.
        natural: how many draws are taken where nobody says.
        fixed: weights that do not vary.
        directions: stacked along a first axis; empty where there are none.
    """

    mean: Weights
    variance: Weights
    natural: int
    fixed: Weights = field(default_factory=dict)
    directions: Weights = field(default_factory=dict)
    name: ClassVar[str]

    @classmethod
    def read(cls, tree: Weights) -> Gaussian:
        """From the tree of its file.

        Raises:
            KeyError, ValueError: if something is missing or has another shape than its mean.
        """
        found = cls(
            mean=branch(tree, "mean"),
            variance=branch(tree, "variance"),
            natural=int(tree["draws"]),
            fixed=branch(tree, "fixed"),
            directions=branch(tree, "directions"),
        )
        rank = next((len(value) for value in found.directions.values()), 0)
        _require_like("variance", found.variance, found.mean, ())
        if rank:
            _require_like("directions", found.directions, found.mean, (rank,))
        return found

    def tree(self) -> Weights:
        """All of it."""
        return (
            under("mean", self.mean)
            | under("variance", self.variance)
            | under("fixed", self.fixed)
            | under("directions", self.directions)
            | {"draws": torch.tensor(self.natural)}
        )

    def draws(self, generator: torch.Generator, count: int | None) -> Weights:
        """Independent draws; any number is possible.

        They are made `natural` at a time, so that the first ones are the same for any number.

        Raises:
            ValueError: if none is asked for.
        """
        number = require_count(count, self.natural)
        portions = [self._draw(generator) for _ in range(-(-number // self.natural))]
        drawn = {n: torch.cat([portion[n] for portion in portions])[:number] for n in portions[0]}
        return complete(self.fixed, drawn)

    def _draw(self, generator: torch.Generator) -> Weights:
        """The natural number of draws of what varies."""
        drawn: Weights = {}
        number = self.natural
        rank = next((value.shape[0] for value in self.directions.values()), 0)
        along = torch.randn((number, rank), generator=generator, dtype=torch.float64)
        # By name, since a tree from a file has another order.
        for name in sorted(self.mean):
            mean = self.mean[name].double()
            noise = torch.randn((number, *mean.shape), generator=generator, dtype=torch.float64)
            value = mean + self.variance[name].double().sqrt() * noise
            if rank:
                value += torch.tensordot(along, self.directions[name].double(), 1)
            drawn[name] = value.to(self.mean[name].dtype)
        return drawn


def _require_like(part: str, found: Weights, mean: Weights, lead: tuple[int, ...]) -> None:
    for name in sorted(mean.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{part}.{name} is missing")
        if name not in mean:
            raise ValueError(f"{part}.{name} is there and mean.{name} is not")
        shape, needed = tuple(found[name].shape), (*lead, *mean[name].shape)
        if shape != needed:
            raise ValueError(f"{part}.{name} has the shape {shape} where {needed} is needed")


class Swag(Gaussian):
    """What SWAG ends in, see `swag.py`."""

    name: ClassVar[str] = "swag"


class Ivon(Gaussian):
    """What IVON ends in, see `ivon.py`."""

    name: ClassVar[str] = "ivon"


class DiagonalLaplace(Gaussian):
    """The Laplace approximation over all weights, see `laplace.py`."""

    name: ClassVar[str] = "laplace_diagonal"
