"""A Gaussian over the last linear maps: energies vary in closed form, forces by a few draws.

How it is fitted, and the equations, stand in `laplace.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import Weights, branch, cast, under
from surefoot.heads import Head, Scalar
from surefoot.posteriors.posterior import complete, require_count

OUT = re.compile(r"head\.layer\d+\.out\.(weight|bias)")


@dataclass(frozen=True, kw_only=True)
class LastLayer:
    """The point, and W with Cov(θ) = W Wᵀ over its last linear maps.

    Attributes:
        point: one set of weights, θ among them.
        factor: W (K, K), float64; rows in the order of `out_leaves`.
        natural: how many draws are taken where nobody says.
    """

    point: Weights
    factor: Float[Tensor, "weights weights"]
    natural: int
    name: ClassVar[str] = "laplace"

    @classmethod
    def read(cls, tree: Weights) -> LastLayer:
        """From the tree of its file.

        Raises:
            KeyError, ValueError: if something is missing, or the factor is not K by K.
        """
        point, factor = branch(tree, "point"), tree["factor"].double()
        size = sum(point[name].numel() for name in out_leaves(point))
        if factor.shape != (size, size):
            raise ValueError(
                f"factor has the shape {tuple(factor.shape)} where {(size, size)} is needed"
            )
        return cls(point=point, factor=factor, natural=int(tree["draws"]))

    def tree(self) -> Weights:
        """All of it."""
        draws = torch.tensor(self.natural)
        return under("point", self.point) | {"factor": self.factor, "draws": draws}

    def spread(self) -> Weights:
        """Heads with the columns of W as last weights: their energies are z, see `ClosedForm`."""
        rest = {n: v for n, v in self.point.items() if n.startswith("head.layer")}
        heads = rest | to_heads(self.point, self.factor.T)
        return branch(cast(heads, torch.float64), "head")

    def draws(self, generator: torch.Generator, count: int | None) -> Weights:
        """Balanced draws: their mean is the point; one is the point, K + 1 have covariance W Wᵀ.

        Raises:
            ValueError: if fewer than one or more than K + 1 are asked for.
        """
        number = require_count(count, self.natural)
        size = len(self.factor)
        if number > size + 1:
            raise ValueError(
                f"{number} draws of a last layer of {size} weights; {size + 1} are exact already."
            )
        noise = torch.randn((size, number - 1), generator=generator, dtype=torch.float64)
        directions = torch.linalg.qr(noise).Q
        off = (size**0.5) * balanced(number) @ directions.T @ self.factor.T
        drawn = to_heads(self.point, off)
        for name, value in drawn.items():
            point = self.point[name]
            drawn[name] = (point.double() + value).to(point.dtype)
        return complete(self.point, drawn)


def balanced(count: int) -> Float[Tensor, "count directions"]:
    """An orthonormal basis (count, count − 1) of the numbers whose sum is zero (Helmert)."""
    rows = torch.arange(count, dtype=torch.float64)[:, None]
    columns = torch.arange(1, count, dtype=torch.float64)
    basis = (rows < columns).double() - columns * (rows == columns)
    return basis / (columns * (columns + 1)).sqrt()


def out_leaves(weights: Weights) -> list[str]:
    """Names of the last linear maps, in the order of θ."""
    return sorted(name for name in weights if OUT.fullmatch(name))


def flatten_out(head: Head, weights: Weights) -> Float[Tensor, " weights"]:
    """θ (K) of one set of weights, float64.

    Raises:
        ValueError: as `require_last_layer`.
    """
    require_last_layer(head)
    return torch.cat([weights[name].reshape(-1) for name in out_leaves(weights)]).double()


def require_last_layer(head: Head) -> None:
    """Refuse heads that a Gaussian over the last linear maps says too little of.

    Raises:
        ValueError: if the energy is not linear in the last weights, or is not what makes the
            forces.
    """
    if not isinstance(head, Scalar):
        raise ValueError(
            f"the energy of a {head.energy} head is not linear in its last weights, so there is no "
            "Laplace approximation of the last layer; set `posterior: {weights: all}`."
        )
    if head.forces != "gradient":
        raise ValueError(
            "`head: {forces: direct}` has a network of its own for the forces, of which the "
            "Laplace approximation of the last layer of the energy knows nothing; set "
            "`posterior: {weights: all}`, or train with `head: {forces: gradient}`."
        )


def to_heads(weights: Weights, theta: Float[Tensor, "heads weights"]) -> Weights:
    """Stacked last linear maps with these values, in the precision of the values.

    Args:
        weights: one set, for names and shapes.
        theta: (heads, K).
    """
    names = out_leaves(weights)
    parts = theta.split([weights[name].numel() for name in names], dim=1)
    return {
        name: part.reshape(-1, *weights[name].shape)
        for name, part in zip(names, parts, strict=True)
    }
