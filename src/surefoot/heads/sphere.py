"""Sphere head: energy and forces as integrals over the sphere of each atom.

    E = Σ_i ∫ f(s_i(n)) dn,    F_i = ∫ n g(s_i(n)) dn            ∫ dn = 1

with networks f and g of the values s_i(n) that a model gives at points n of the sphere.

Paper: Zitnick et al., NeurIPS 2022, arXiv:2206.14331.
Faithful: two hidden layers with SiLU, the second as wide as SCN's reduced channels; the points and
    their weights are the model's. Sums of energies are in float64 here.
Differs: forces may be −dE/dr (`forces: gradient`). Direct ones are no gradient: they conserve no
    energy, their sum over a molecule is not zero, and no stress belongs to them.
Cost: atoms × points × width² twice.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from surefoot.blocks.dense import (
    ACTIVATIONS,
    SILU_SCALE,
    Activation,
    Weights,
    branch,
    linear,
    under,
)
from surefoot.blocks.orders import init_dense
from surefoot.distributions.densities import Distribution, Point
from surefoot.graph import Features, Rows, Width
from surefoot.heads.scalar import Scalar, sum_rows


class Sphere(Scalar):
    """Settings of the sphere head, and the head itself."""

    energy: Literal["sphere"] = "sphere"  # type: ignore[assignment]
    forces: Literal["gradient", "direct"] = Field(  # type: ignore[assignment]
        default="gradient",
        description="gradient: −dE/dr; direct: an integral of their own, as in the paper",
    )
    hidden: int | None = Field(
        default=None, ge=1, description="second hidden layer; as the features where not set"
    )
    offset: float = Field(
        default=0.0,
        description="energy of each structure, whatever its size, in units of the scale; what "
        "adsorption energies were shifted by before training",
    )
    layers: Literal["every"] = Field(  # type: ignore[assignment]
        default="every", description="all read-out layers have two hidden layers"
    )
    activation: Activation = Field(default="silu", description="of the hidden layers")
    scaling: Literal["glorot"] = Field(  # type: ignore[assignment]
        default="glorot", description="weights are stored as they act"
    )

    def init(self, generator: torch.Generator, widths: tuple[Width, ...]) -> Weights:
        """Fresh weights in float64: one network per read-out layer, or two."""
        weights = self.init_layers(generator, widths, 1)
        if self.forces == "direct":
            weights |= under("force", self.init_layers(generator, widths, 1))
        return weights

    def init_layers(
        self, generator: torch.Generator, widths: tuple[Width, ...], outputs: int
    ) -> Weights:
        """The same for networks with any number of results."""
        weights: Weights = {}
        for index, width in enumerate(widths):
            first = width.values
            second = self.hidden or first
            parts = {
                "first": init_dense(generator, first, first),
                "hidden": init_dense(generator, first, second, gain=SILU_SCALE),
                "out": init_dense(generator, second, outputs, gain=SILU_SCALE),
            }
            for name, part in parts.items():
                weights |= under(f"layer{index}.{name}", part)
        return weights

    def basis(
        self, weights: Weights, rows: Rows, layer: int
    ) -> Float[Tensor, "*members rows width"]:
        """The values whose linear map is the energy: what a last-layer posterior works on."""
        activate = ACTIVATIONS[self.activation]
        first = activate(linear(rows.values, branch(weights, f"layer{layer}.first")))
        return activate(linear(first, branch(weights, f"layer{layer}.hidden")))

    def __call__(self, weights: Weights, features: Features) -> Distribution:
        """A point: energy of each graph in units of the baseline's scale."""
        # Not in `sum_energy`, which is linear in the last weights.
        return Point(self.sum_energy(weights, features) + self.offset)

    def force_distribution(
        self,
        weights: Weights,
        features: Features,
        mean: Float[Tensor, "*members atoms 3"],
        scale: float,
    ) -> Distribution:
        """The forces: −dE/dr as given, or scale · Σ_p w_p n_p g(s(n_p)) of each atom.

        Raises:
            ValueError: if forces are direct and the model gives no directions.
        """
        if self.forces == "gradient":
            return Point(mean)
        part = branch(weights, "force")
        total = torch.zeros((), dtype=torch.float64, device=mean.device)
        for layer, rows in enumerate(features.layers):
            if rows.vectors is None or rows.atom is None:
                raise ValueError(
                    "direct forces are an integral over directions, and this model gives none; "
                    "choose `head: {forces: gradient}`, or a model with points on a sphere (scn "
                    "with `readout: sphere`)."
                )
            pulled = self.read_rows(part, rows, layer).double() * rows.vectors.double()
            total = total + sum_rows(pulled, rows)
        forces = (scale * total).to(mean.dtype)
        # Without derivatives the given ones are cut off from the graph, and so are these.
        return Point(forces if mean.requires_grad else forces.detach())
