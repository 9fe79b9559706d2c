"""Scalar head: the energy is a sum of one number per row, and it says nothing of its error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from surefoot.blocks.dense import (
    ACTIVATIONS,
    Activation,
    Weights,
    branch,
    init_linear,
    linear,
    under,
)
from surefoot.distributions.densities import SCORES, Distribution, Point, Rule
from surefoot.graph import Features, Rows, Width
from surefoot.segments import segment_sum
from surefoot.settings import Settings


class Scalar(Settings):
    """Settings of the scalar head, and the head itself.

    E = Σ_layers Σ_rows weight · (basis(values) · w + b)
    """

    energy: Literal["scalar"] = "scalar"
    forces: Literal["gradient"] = Field(default="gradient", description="forces are −dE/dr")
    hidden: int | None = Field(
        default=None, ge=1, description="width of the hidden layer; half the features where not set"
    )
    activation: Activation = Field(default="shifted_softplus", description="of the hidden layer")
    layers: Literal["every", "last", "none"] = Field(
        default="every",
        description="read-out layers with a hidden layer; the others are linear (last: as in MACE)",
    )
    scaling: Literal["glorot", "normal"] = Field(
        default="glorot",
        description="normal: weights of order one, divided by the root of the inputs at each call, "
        "as equivariant models do; glorot: stored as they act, as SchNet does",
    )

    def init(self, generator: torch.Generator, widths: tuple[Width, ...]) -> Weights:
        """Fresh weights in float64, one small network per read-out layer."""
        return self.init_layers(generator, widths, 1)

    def init_layers(
        self, generator: torch.Generator, widths: tuple[Width, ...], outputs: int
    ) -> Weights:
        """The same for networks with any number of results."""
        weights: Weights = {}
        for index, width in enumerate(widths):
            inputs = width.values
            last = index == len(widths) - 1
            if self.layers == "every" or (self.layers == "last" and last):
                inputs = self.hidden or max(1, width.values // 2)
                hidden = self._fresh(generator, width.values, inputs)
                weights |= under(f"layer{index}.hidden", hidden)
            weights |= under(f"layer{index}.out", self._fresh(generator, inputs, outputs))
        return weights

    def _fresh(self, generator: torch.Generator, inputs: int, outputs: int) -> Weights:
        weights = init_linear(generator, inputs, outputs)
        if self.scaling == "normal":
            shape = weights["weight"].shape
            weights["weight"] = torch.randn(shape, generator=generator, dtype=torch.float64)
        return weights

    def _apply(self, x: Tensor, weights: Weights) -> Tensor:
        if self.scaling == "normal":
            matrix = weights["weight"]
            weights = {**weights, "weight": matrix / math.sqrt(matrix.shape[-2])}
        return linear(x, weights)

    def basis(
        self, weights: Weights, rows: Rows, layer: int
    ) -> Float[Tensor, "*members rows width"]:
        """The values whose linear map is the energy: what a last-layer posterior works on."""
        hidden = branch(weights, f"layer{layer}.hidden")
        if not hidden:
            return rows.values
        return ACTIVATIONS[self.activation](self._apply(rows.values, hidden))

    def read_rows(
        self, weights: Weights, rows: Rows, layer: int
    ) -> Float[Tensor, "*members rows outputs"]:
        """What a read-out layer gives to each row."""
        basis = self.basis(weights, rows, layer)
        return self._apply(basis, branch(weights, f"layer{layer}.out"))

    def read_layers(
        self, weights: Weights, features: Features
    ) -> list[Float[Tensor, "*members atoms outputs"]]:
        """What each read-out layer gives to each atom, summed over its rows in float64.

        Raises:
            ValueError: if there is no layer.
        """
        if not features.layers:
            raise ValueError("the model gave no read-out layer.")
        return [
            sum_rows(self.read_rows(weights, rows, layer).double(), rows)
            for layer, rows in enumerate(features.layers)
        ]

    def sum_energy(self, weights: Weights, features: Features) -> Float[Tensor, "*members graphs"]:
        """Energy of each graph in units of the baseline's scale, in float64."""
        atoms = features.geometry.graph.atoms
        layers = self.read_layers(weights, features)
        energies = [segment_sum(values, atoms).squeeze(-1) for values in layers]
        return sum(energies[1:], energies[0])

    def __call__(self, weights: Weights, features: Features) -> Distribution:
        """A point: energy of each graph in units of the baseline's scale."""
        return Point(self.sum_energy(weights, features))

    def force_distribution(
        self,
        weights: Weights,  # noqa: ARG002
        features: Features,  # noqa: ARG002
        mean: Tensor,
        scale: float,  # noqa: ARG002
    ) -> Distribution:
        """The forces themselves: this head says nothing of their error."""
        return Point(mean)

    @property
    def rules(self) -> Mapping[str, tuple[Rule, ...]]:
        """Those that look at the mean."""
        return {"energy": ("squared", "absolute", "huber"), "forces": tuple(SCORES)}

    def judging(self) -> tuple[str, ...]:
        """None: all weights make the energy."""
        return ()


def sum_rows(
    values: Float[Tensor, "*members rows width"], rows: Rows
) -> Float[Tensor, "*members atoms width"]:
    """What is linear in the rows of a layer, summed over those of each atom with their weights."""
    if rows.weight is not None:
        values = values * rows.weight.unsqueeze(-1).to(values.dtype)
    return values if rows.atom is None else segment_sum(values, rows.atom)
