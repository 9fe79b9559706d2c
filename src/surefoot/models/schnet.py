"""SchNet: continuous-filter convolutions on interatomic distances.

Paper: Schütt, Sauceda, Kindermans, Tkatchenko, Müller, J. Chem. Phys. 148, 241722 (2018).
Faithful: embedding, Gaussian expansion, filter networks, interaction blocks and shifted softplus;
    with the same weights the numbers are those of SchNetPack 2.1.1 to rounding.
Differs: filters go to zero at the cutoff by a smooth factor (as in SchNetPack, not in the paper);
    the read-out is the head's, not the model's; filters are computed once for an edge and its
    reverse; SiLU may be chosen, it costs a third of the
    shifted softplus.
Cost: interactions × (½ edges × features × (basis + features) + 3 × atoms × features²).
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from surefoot.blocks.conditioning import embed
from surefoot.blocks.dense import (
    ACTIVATIONS,
    Activation,
    Weights,
    branch,
    init_linear,
    init_table,
    linear,
    under,
)
from surefoot.blocks.filters import convolve_filters, make_filters, may_stream, stream_filters
from surefoot.blocks.radial import CUTOFFS, Gaussians, expand
from surefoot.blocks.splines import Curves, interpolate
from surefoot.graph import Features, Geometry, Rows, Width
from surefoot.settings import Settings


class Schnet(Settings):
    """Settings of SchNet, and the model itself: a pure function of weights and geometry."""

    native: ClassVar[bool] = False  # kernels in C
    recomputes: ClassVar[bool] = False  # weights by blocks of pairs
    local: ClassVar[bool] = False  # an atom's energy hangs on its own edges alone
    most_kept: ClassVar[int | None] = 12_000  # pairs, times members
    name: Literal["schnet"] = "schnet"
    cutoff: float = Field(
        default=5.0, gt=0, description="Å; atoms farther apart do not see each other"
    )
    features: int = Field(default=128, ge=1, description="channels of each atom")
    interactions: int = Field(
        default=6, ge=1, le=100, description="interaction blocks, each with its own weights"
    )
    gaussians: int = Field(
        default=50, ge=2, description="radial basis functions between 0 and the cutoff"
    )
    cutoff_function: Literal["cosine", "polynomial"] = Field(
        default="cosine", description="cosine as in SchNetPack; polynomial has one more derivative"
    )
    activation: Activation = Field(
        default="shifted_softplus", description="shifted_softplus as in the paper, silu or tanh"
    )

    @property
    def widths(self) -> tuple[Width, ...]:
        """Channels of each read-out layer."""
        return (Width(self.features),)

    def init(self, generator: torch.Generator, species: int) -> Weights:
        """Fresh weights in float64.

        Args:
            generator: the only source of randomness.
            species: number of elements.
        """
        width = self.features
        weights: Weights = {"embedding": init_table(generator, species, width)}
        for block in range(self.interactions):
            layers = {
                "filter1": init_linear(generator, self.gaussians, width),
                "filter2": init_linear(generator, width, width),
                "input": init_linear(generator, width, width, bias=False),
                "output1": init_linear(generator, width, width),
                "output2": init_linear(generator, width, width),
            }
            for name, layer in layers.items():
                weights |= under(f"interaction{block}.{name}", layer)
        return weights

    def __call__(self, weights: Weights, geometry: Geometry) -> Features:
        """Atom features after all interactions: one read-out layer, one row per atom.

        x_i ← x_i + Dense(ssp(Dense(Σ_j (x_j W_in) ∘ W(r_ij) f_c(r_ij))))    eqs. 5, 6 and fig. 2
        """
        basis, envelope = self._expand(geometry.lengths)
        atoms = embed(weights, geometry)
        graph, activate = geometry.graph, ACTIVATIONS[self.activation]
        for block in range(self.interactions):
            layer = branch(weights, f"interaction{block}")
            sent = linear(atoms, branch(layer, "input"))
            if geometry.memory == "recompute" and may_stream(sent, layer):
                summed = stream_filters(sent, basis, envelope, layer, self.activation, graph)
            else:
                filters = self._filters(layer, geometry.lengths, basis, envelope)
                summed = convolve_filters(sent, filters, graph)
            update = activate(linear(summed, branch(layer, "output1")))
            atoms = atoms + linear(update, branch(layer, "output2"))
        return Features(layers=(Rows(values=atoms),), geometry=geometry)

    def curves(self, weights: Weights) -> dict[str, Curves]:
        """The filters of each block as functions of the distance."""
        return {
            f"interaction{block}.filter": partial(
                self._curve, branch(weights, f"interaction{block}")
            )
            for block in range(self.interactions)
        }

    def _curve(self, weights: Weights, lengths: Tensor) -> Tensor:
        return self._filters(weights, lengths, *self._expand(lengths))

    def _expand(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        basis = expand(lengths, Gaussians(self.cutoff, self.gaussians))
        return basis, expand(lengths, CUTOFFS[self.cutoff_function](self.cutoff))

    def _filters(
        self, weights: Weights, lengths: Tensor, basis: Tensor, envelope: Tensor
    ) -> Tensor:
        """W(r) f_c(r) of each pair."""
        if "filter.table" in weights:
            return interpolate(lengths, weights["filter.table"], self.cutoff)
        return make_filters(basis, envelope, weights, self.activation)
