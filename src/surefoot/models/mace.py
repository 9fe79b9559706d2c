"""MACE: many-body messages from products of equivariant features.

Paper: Batatia, Kovács, Simm, Ortner, Csányi, NeurIPS 2022, arXiv:2206.07697.
Faithful: the interaction blocks of mace-torch 0.3 (plain or residual first layer, sums divided by
    the mean number of neighbours or by a learned density), products of up to four factors, one
    read-out per layer; with the same weights energies, forces and stress are those of mace-torch.
Differs: sums are divided by the root of the mean number of neighbours unless told otherwise, since
    products of three sums divided by the number itself are too small to learn quickly; the paths
    of the symmetric contraction are linearly independent, where the original has some that are
    equal or zero, so there are fewer weights for the same functions; the read-outs are the head's;
    radial weights are computed once for an edge and its reverse.
Cost: layers × (½ edges × (radial network + paths × channels)
    + edges × channels × Σ_paths (2 l1 + 1)(2 l3 + 1) + atoms × channels × (monomials + channels)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, field_validator, model_validator
from torch import Tensor

from surefoot.blocks.angular import harmonics
from surefoot.blocks.conditioning import embed
from surefoot.blocks.contraction import Contraction, contract, contraction
from surefoot.blocks.convolution import convolve
from surefoot.blocks.couplings import Irrep, Irreps, parse_irreps
from surefoot.blocks.dense import (
    Weights,
    branch,
    init_network,
    init_table,
    network,
    under,
)
from surefoot.blocks.distances import TRANSFORMS, Transform, bond_lengths
from surefoot.blocks.path_weights import path_factors, path_weights, times
from surefoot.blocks.products import (
    ChannelProduct,
    arrange,
    channel_product,
    init_mix,
    init_mix_species,
    mix,
    mix_species,
    read_out,
    width_of,
)
from surefoot.blocks.radial import Bessel, Gaussians, PolynomialCutoff, expand
from surefoot.blocks.splines import Curves
from surefoot.graph import Features, Geometry, Width, pairs_to_edges
from surefoot.segments import segment_sum
from surefoot.settings import Settings

SCALARS: Irreps = (Irrep(0, 1),)
MOST_MONOMIALS = 300_000  # their couplings take seconds and some GB to make
BASES = {"bessel": Bessel, "gaussian": Gaussians}


@dataclass(frozen=True)
class Layer:
    """Irreps of one layer, and what couples them.

    Attributes:
        inputs: of the atoms before.
        angular: of the harmonics.
        messages: of the sums over neighbours, from which products are made.
        outputs: of the atoms after.
        correlation: factors of a product.
        residual: whether the atoms before are added, by a linear map of their species.
    """

    inputs: Irreps
    angular: Irreps
    messages: Irreps
    outputs: Irreps
    correlation: int
    residual: bool

    @property
    def product(self) -> ChannelProduct:
        """Of atoms and harmonics."""
        return channel_product(self.inputs, self.angular, self.messages)

    @property
    def plan(self) -> Contraction:
        """Of messages with each other."""
        return contraction(self.messages, self.outputs, self.correlation)


class Mace(Settings):
    """Settings of MACE, and the model itself: a pure function of weights and geometry."""

    native: ClassVar[bool] = True  # kernels in C
    recomputes: ClassVar[bool] = True  # weights by blocks of pairs
    local: ClassVar[bool] = False  # an atom's energy hangs on its own edges alone
    most_kept: ClassVar[int | None] = 100_000  # pairs, times members
    name: Literal["mace"] = "mace"
    cutoff: float = Field(
        default=5.0, gt=0, description="Å; atoms farther apart do not see each other"
    )
    irreps: str = Field(
        default="64x0e + 64x1o",
        description="hidden features of each atom: channels x degree and parity; all with the "
        "same channels, 0e among them",
    )
    max_ell: int = Field(default=3, ge=0, le=6, description="highest degree of the harmonics")
    correlation: int = Field(
        default=3, ge=1, le=4, description="factors of a product; its body order is one more"
    )
    interactions: int = Field(default=2, ge=1, le=100, description="layers")
    first: Literal["residual", "plain"] = Field(
        default="residual",
        description="first layer: residual adds a linear map of the element; with plain (as in the "
        "paper) atoms without neighbours have no features",
    )
    normalisation: Literal["root_neighbors", "neighbors", "density"] = Field(
        default="root_neighbors",
        description="sums are divided by the root of the mean number of neighbours, so that they "
        "keep their size; by the number itself, as in the paper; or by a learned density",
    )
    basis: Literal["bessel", "gaussian"] = Field(default="bessel", description="of the distances")
    transform: Transform = Field(
        default="none",
        description="of the distances before the basis, by the covalent radii of the pair: agnesi, "
        "soft or none",
    )
    envelope: Literal["basis", "weights"] = Field(
        default="basis",
        description="what the cutoff multiplies: the functions of the distance, or the weights "
        "that the radial network makes of them",
    )
    basis_size: int = Field(default=8, ge=2, description="functions of the distance")
    cutoff_power: int = Field(
        default=5,
        ge=2,
        le=100,
        description="p of the polynomial cutoff; more is steeper at the end",
    )
    radial: tuple[PositiveInt, ...] = Field(
        default=(64, 64, 64), description="hidden widths of the radial network"
    )

    @field_validator("irreps")
    @classmethod
    def _understood(cls, text: str) -> str:
        parsed = parse_irreps(text)
        widths = {count for count, _ in parsed}
        if len(widths) > 1 or SCALARS[0] not in {irrep for _, irrep in parsed}:
            raise ValueError(
                f"'{text}' has to hold scalars (0e), and all irreps with the same channels; write "
                "for example 64x0e + 64x1o"
            )
        highest = max(irrep.degree for _, irrep in parsed)
        if highest > 3:
            raise ValueError(f"degree {highest} in '{text}' is not built; the highest is 3")
        return text

    @model_validator(mode="after")
    def _possible(self) -> Mace:
        size = max(sum(irrep.dim for irrep in layer.messages) for layer in self.layers())
        count = math.comb(size + self.correlation - 1, self.correlation)
        if count > MOST_MONOMIALS:
            raise ValueError(
                f"products of {self.correlation} factors among {size} components are {count} "
                f"monomials, and more than {MOST_MONOMIALS} are not built; choose a smaller "
                "max_ell or correlation, or irreps without 0o"
            )
        return self

    @property
    def channels(self) -> int:
        """Channels of every irrep."""
        return parse_irreps(self.irreps)[0][0]

    @property
    def widths(self) -> tuple[Width, ...]:
        """Channels of each read-out layer."""
        return tuple(
            width_of(tuple((self.channels, irrep) for irrep in layer.outputs))
            for layer in self.layers()
        )

    def layers(self) -> tuple[Layer, ...]:
        """What each layer takes, couples and gives."""
        hidden = tuple(irrep for _, irrep in parse_irreps(self.irreps))
        angular = tuple(Irrep(degree, (-1) ** degree) for degree in range(self.max_ell + 1))
        # As in the original: both parities in the messages only if there are pseudoscalars.
        both = angular + tuple(Irrep(i.degree, -i.parity) for i in angular)
        later = both if Irrep(0, -1) in hidden else angular
        return tuple(
            Layer(
                inputs=hidden if index else SCALARS,
                angular=angular,
                messages=later if index else angular,
                outputs=hidden if index < self.interactions - 1 else SCALARS,
                correlation=self.correlation,
                residual=index > 0 or self.first == "residual",
            )
            for index in range(self.interactions)
        )

    def init(self, generator: torch.Generator, species: int) -> Weights:
        """Fresh weights in float64, all standard normal.

        Args:
            generator: the only source of randomness.
            species: number of elements.
        """
        width = self.channels
        weights: Weights = {"embedding": init_table(generator, species, width)}
        for index, layer in enumerate(self.layers()):
            product, plan = layer.product, layer.plan
            parts = {
                "up": init_mix(generator, arrange(layer.inputs), layer.inputs, (width, width)),
                "radial": init_network(
                    generator, (self.basis_size, *self.radial, len(product.paths) * width)
                ),
                "down": init_mix(generator, product.blocks, layer.messages, (width, width)),
                "mix": init_mix(generator, arrange(layer.outputs), layer.outputs, (width, width)),
            }
            source = layer.inputs if layer.residual else layer.messages
            target = layer.outputs if layer.residual else layer.messages
            parts["skip"] = init_mix_species(
                generator, arrange(source), target, species, (width, width)
            )
            if self.normalisation == "density":
                parts["density"] = init_network(generator, (self.basis_size, 1))
            for name, part in parts.items():
                weights |= under(f"layer{index}.{name}", part)
            shape = (species, plan.path_count, width)
            weights[f"layer{index}.product"] = torch.randn(
                shape, generator=generator, dtype=torch.float64
            )
        return weights

    def __call__(self, weights: Weights, geometry: Geometry) -> Features:
        """Atom features after each layer: one read-out layer of scalars for each interaction."""
        graph = geometry.graph
        basis, envelope = self._radial(geometry)
        angles = harmonics(geometry.vectors, self.max_ell)
        kinds = geometry.kinds
        atoms = embed(weights, geometry).unsqueeze(-2)
        rows = []
        for index, layer in enumerate(self.layers()):
            part = branch(weights, f"layer{index}")
            sent = mix(atoms, branch(part, "up"), arrange(layer.inputs), layer.inputs)
            radial = path_factors(branch(part, "radial"), geometry, basis, self.cutoff, envelope)
            summed = convolve(sent, angles, radial, graph, layer.product)
            messages = mix(summed, branch(part, "down"), layer.product.blocks, layer.messages)
            messages = messages / self._size(part, basis, envelope, geometry)
            skip = branch(part, "skip")
            if not layer.residual:
                messages = mix_species(
                    messages, skip, arrange(layer.messages), layer.messages, kinds
                )
            products = contract(messages, part["product"], kinds, layer.plan)
            updated = mix(products, branch(part, "mix"), arrange(layer.outputs), layer.outputs)
            if layer.residual:
                updated = updated + mix_species(
                    atoms, skip, arrange(layer.inputs), layer.outputs, kinds
                )
            atoms = updated
            rows.append(read_out(atoms, tuple((self.channels, irrep) for irrep in layer.outputs)))
        return Features(layers=tuple(rows), geometry=geometry)

    def curves(self, weights: Weights) -> dict[str, Curves]:
        """The path weights of each layer as functions of the distance."""
        if self.transform != "none":
            return {}  # they depend on the elements too
        return {
            f"layer{index}.radial": partial(self._curve, branch(weights, f"layer{index}.radial"))
            for index in range(self.interactions)
        }

    def _curve(self, weights: Weights, lengths: Tensor) -> Tensor:
        basis, envelope = self._expand(lengths, lengths)
        return path_weights(weights, lengths, basis, self.cutoff, envelope)

    def _radial(self, geometry: Geometry) -> tuple[Tensor, Tensor | None]:
        """Radial functions of each pair, and what is left to multiply their weights by."""
        lengths = geometry.lengths
        if self.transform != "none":
            lengths = TRANSFORMS[self.transform](lengths, bond_lengths(geometry))
        return self._expand(lengths, geometry.lengths)

    def _expand(self, transformed: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        basis = expand(transformed, BASES[self.basis](self.cutoff, self.basis_size))
        envelope = expand(lengths, PolynomialCutoff(self.cutoff, self.cutoff_power))
        return (basis * envelope, None) if self.envelope == "basis" else (basis, envelope)

    def _size(
        self, part: Weights, basis: Tensor, envelope: Tensor | None, geometry: Geometry
    ) -> Tensor | float:
        """What the sum over neighbours is divided by."""
        if self.normalisation == "neighbors":
            return geometry.neighbors
        if self.normalisation == "root_neighbors":
            return math.sqrt(geometry.neighbors)
        density = torch.tanh(network(basis, branch(part, "density")).square())
        density = times(density, envelope)
        by_atom = segment_sum(pairs_to_edges(density, geometry.graph), geometry.graph.receivers)
        return 1.0 + by_atom.unsqueeze(-1)
