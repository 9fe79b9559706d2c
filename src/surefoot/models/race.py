"""RACE: one convolution with neighbours per body order, and a read-out after each.

Paper: Willow, Park, …, Myung, 2025 ("restratified atomic cluster expansion"; code: BAM-torch).
Faithful: layer η takes the features of the layer before as they are, sums over the neighbours

    m_ij = R_η(r_ij) · [u_j ‖ (u_j ⊗ Y_ij)],   u = Linear A^(η−1),   A~_i = Linear Σ_j m_ij / N

    (the copy and the products, cut to the hidden irreps, each with radial weights of its own), and
    gives A^η_i = Linear_Z(A~_i) + Linear_Z(A_i^(η−1)), whose scalars a head reads.
Differs: the original multiplies A~_i with a one-body feature a_i of F scalars and mixes all F ×
    channels products. a_i knows the species only, so that is a linear map with a matrix for each
    species, and is written as one here: F / species times fewer weights for the same functions
    (counted in `cli/tasks.py`). With charge and spin conditioning a_i is that of the species.
    Sums are divided by √N, not N (`normalisation`): the same functions, but fresh weights give
    every body order its share; AcAc's forces are a sixth better after as many epochs.
    Irreps that a layer cannot reach yet, or from which no later scalar comes, are left out.
    Unequal multiplicities are filled up with zeros to the largest: exact, at the largest's cost.
Cost: layers × (½ edges × (radial network + paths × channels)
    + edges × channels × Σ_paths (2 l1 + 1)(2 l3 + 1) + atoms × channels² × Σ_paths (2 l3 + 1)).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from surefoot.blocks.angular import harmonics
from surefoot.blocks.conditioning import embed
from surefoot.blocks.convolution import convolve
from surefoot.blocks.couplings import Irrep, Irreps, Multiplicities, couple_irreps, parse_irreps
from surefoot.blocks.dense import Weights, branch, init_network, init_table, under
from surefoot.blocks.path_weights import path_factors, path_weights
from surefoot.blocks.products import (
    ChannelProduct,
    arrange,
    channel_product,
    mix,
    mix_species,
    read_out,
    width_of,
)
from surefoot.blocks.radial import Bessel, PolynomialCutoff, expand
from surefoot.blocks.splines import Curves
from surefoot.graph import Features, Geometry, Width
from surefoot.settings import Settings

SCALAR = Irrep(0, 1)
HIGHEST = 6  # degree; the tests compare with the plain formula up to 5

Shapes = dict[str, tuple[tuple[int, ...], int]]
"""Irrep → (channels of each of its copies side by side, channels out) of a linear map."""


@dataclass(frozen=True)
class Layer:
    """Irreps of one layer, and what couples them.

    Attributes:
        inputs: of the atoms before, with their channels.
        angular: of the harmonics.
        outputs: of the atoms after, with their channels.
    """

    inputs: Multiplicities
    angular: Irreps
    outputs: Multiplicities

    @functools.cached_property
    def product(self) -> ChannelProduct:
        """Of atoms and harmonics: the messages."""
        return message_product(_bare(self.inputs), self.angular, _bare(self.outputs))

    @functools.cached_property
    def path_widths(self) -> tuple[int, ...]:
        """Channels of each path of the product."""
        widths = {irrep: count for count, irrep in self.inputs}
        return tuple(widths[first] for first, _, _ in self.product.paths)

    @functools.cached_property
    def maps(self) -> dict[str, Shapes]:
        """The linear maps of the layer; those of `mix` and `skip` have a matrix per species."""
        before = {irrep: count for count, irrep in self.inputs}
        after = {irrep: count for count, irrep in self.outputs}
        by_path = list(zip(self.product.paths, self.path_widths, strict=True))
        copies = {i: tuple(n for path, n in by_path if path[2] == i) for i in after}
        return {
            "up": {str(i): ((n,), n) for i, n in before.items()},
            "down": {str(i): (copies[i], n) for i, n in after.items()},
            "mix": {str(i): ((n,), n) for i, n in after.items()},
            "skip": {str(i): ((n,), after[i]) for i, n in before.items() if i in after},
        }


class Race(Settings):
    """Settings of RACE, and the model itself: a pure function of weights and geometry."""

    native: ClassVar[bool] = True  # kernels in C
    recomputes: ClassVar[bool] = True  # weights by blocks of pairs
    local: ClassVar[bool] = False  # an atom's energy hangs on its own edges alone
    most_kept: ClassVar[int | None] = 100_000  # pairs, times members
    name: Literal["race"] = "race"
    cutoff: float = Field(
        default=5.0, gt=0, description="Å; atoms farther apart do not see each other"
    )
    irreps: str = Field(
        default="32x0e + 32x1o + 32x2e",
        description="hidden features of each atom: channels x degree and parity; channels may "
        "differ, 0e is among them",
    )
    channels: int = Field(
        default=64, ge=1, description="scalars that an atom begins from, one row per element"
    )
    normalisation: Literal["root_neighbors", "neighbors"] = Field(
        default="root_neighbors",
        description="sums are divided by the root of the mean number of neighbours, so that they "
        "keep their size; or by the number itself, as in the paper",
    )
    max_ell: int = Field(default=2, ge=0, le=HIGHEST, description="highest degree of the harmonics")
    interactions: int = Field(
        default=3, ge=1, le=100, description="layers; each raises the body order by one"
    )
    basis_size: int = Field(default=8, ge=1, description="Bessel functions of the distance")
    cutoff_power: int = Field(
        default=2,
        ge=2,
        le=100,
        description="p of the polynomial cutoff; more is steeper at the end",
    )
    radial: tuple[PositiveInt, ...] = Field(
        default=(64, 64), description="hidden widths of the radial network"
    )

    @field_validator("irreps")
    @classmethod
    def _understood(cls, text: str) -> str:
        hidden = _bare(parse_irreps(text))
        if SCALAR not in hidden:
            raise ValueError(
                f"'{text}' holds no scalars (0e), from which the energy is read; write for example "
                "32x0e + 16x1o"
            )
        highest = max(irrep.degree for irrep in hidden)
        if highest > HIGHEST:
            raise ValueError(f"degree {highest} in '{text}' is not built; the highest is {HIGHEST}")
        return text

    @property
    def widths(self) -> tuple[Width, ...]:
        """Channels of each read-out layer."""
        return tuple(width_of(layer.outputs) for layer in self.layers())

    def layers(self) -> tuple[Layer, ...]:
        """What each layer takes, couples and gives."""
        hidden = parse_irreps(self.irreps)
        return _layers(((self.channels, SCALAR),), hidden, self.max_ell, self.interactions)

    def init(self, generator: torch.Generator, species: int) -> Weights:
        """Fresh weights in float64, all standard normal.

        Args:
            generator: the only source of randomness.
            species: number of elements.
        """
        weights: Weights = {"embedding": init_table(generator, species, self.channels)}
        for index, layer in enumerate(self.layers()):
            for name, shapes in layer.maps.items():
                count = (species,) if name in ("mix", "skip") else ()
                part = _init_maps(generator, shapes, count)
                weights |= under(f"layer{index}.{name}", part)
            ends = (self.basis_size, *self.radial, sum(layer.path_widths))
            weights |= under(f"layer{index}.radial", init_network(generator, ends))
        return weights

    def __call__(self, weights: Weights, geometry: Geometry) -> Features:
        """Atom features after each layer: one read-out layer of scalars for each interaction."""
        basis = self._basis(geometry.lengths)
        angles = harmonics(geometry.vectors, self.max_ell)
        kinds = geometry.kinds
        atoms = embed(weights, geometry).unsqueeze(-2)
        rows = []
        for index, layer in enumerate(self.layers()):
            before, after, product = _bare(layer.inputs), _bare(layer.outputs), layer.product
            part = _fill_layer(branch(weights, f"layer{index}"), layer)
            sent = mix(atoms, branch(part, "up"), arrange(before), before)
            radial = path_factors(branch(part, "radial"), geometry, basis, self.cutoff)
            summed = convolve(sent, angles, radial, geometry.graph, product)
            messages = mix(summed, branch(part, "down"), product.blocks, after)
            messages = messages / self._size(geometry.neighbors)
            updated = mix_species(messages, branch(part, "mix"), arrange(after), after, kinds)
            atoms = updated + mix_species(
                atoms, branch(part, "skip"), arrange(before), after, kinds
            )
            rows.append(read_out(atoms, layer.outputs))
        return Features(layers=tuple(rows), geometry=geometry)

    def _size(self, neighbors: float) -> float:
        """What the sum over neighbours is divided by."""
        return neighbors if self.normalisation == "neighbors" else math.sqrt(neighbors)

    def curves(self, weights: Weights) -> dict[str, Curves]:
        """The path weights of each layer as functions of the distance."""
        return {
            f"layer{index}.radial": partial(
                self._curve, _fill_layer(branch(weights, f"layer{index}"), layer)
            )
            for index, layer in enumerate(self.layers())
        }

    def _curve(self, weights: Weights, lengths: Tensor) -> Tensor:
        radial, basis = branch(weights, "radial"), self._basis(lengths)
        return path_weights(radial, lengths, basis, self.cutoff)

    def _basis(self, lengths: Tensor) -> Tensor:
        envelope = PolynomialCutoff(self.cutoff, self.cutoff_power)
        return expand(lengths, Bessel(self.cutoff, self.basis_size)) * expand(lengths, envelope)


@functools.cache
def _layers(
    first: Multiplicities, hidden: Multiplicities, max_ell: int, count: int
) -> tuple[Layer, ...]:
    """Layers with the hidden irreps that can be reached, and from which a scalar is."""
    angular = tuple(Irrep(degree, (-1) ** degree) for degree in range(max_ell + 1))
    stages = [first]
    for _ in range(count):
        there = {end for _, irrep in stages[-1] for end in _reach(irrep, angular)}
        stages.append(tuple(one for one in hidden if one[1] in there))
    wanted = {SCALAR}
    for index in range(count, 0, -1):
        stages[index] = tuple(one for one in stages[index] if one[1] in wanted)
        wanted = {irrep for _, irrep in stages[index - 1] if wanted & _reach(irrep, angular)}
    return tuple(Layer(before, angular, after) for before, after in pairwise(stages))


@functools.cache
def message_product(features: Irreps, angular: Irreps, results: Irreps) -> ChannelProduct:
    """[u ‖ (u ⊗ Y)]: for each result the copy of the features, if they have it, then the products.

    The copy is u ⊗ Y_0, for Y_0 = 1; it shares the coupling of that product, not its weights.
    """
    product = channel_product(features, angular, results)
    same = {third: k for k, (_, second, third) in enumerate(product.paths) if not second.degree}
    order: list[int] = []
    for block in product.blocks:
        order += [same[block.irrep]] if block.irrep in same else []
        order += [k for k, path in enumerate(product.paths) if path[2] == block.irrep]
    paths = tuple(product.paths[k] for k in order)
    reached = [block.irrep for block in product.blocks]
    blocks = arrange(reached, [sum(path[2] == i for path in paths) for i in reached])
    table = product.table[order]
    for block in blocks:
        rows = [k for k, path in enumerate(paths) if path[2] == block.irrep]
        table[rows, 2] = block.start + np.arange(block.copies)
        table[rows, 3] = block.copies
    return replace(product, paths=paths, blocks=blocks, table=table)


def _bare(irreps: Multiplicities) -> Irreps:
    """The irreps without their channels."""
    return tuple(irrep for _, irrep in irreps)


def _most(irreps: Multiplicities) -> int:
    """Channels to which all irreps are filled up."""
    return max(count for count, _ in irreps)


def _reach(irrep: Irrep, angular: Irreps) -> set[Irrep]:
    """What a product with the harmonics can lead to; the irrep itself is among it."""
    return {end for second in angular for end in couple_irreps(irrep, second)}


def _init_maps(generator: torch.Generator, shapes: Shapes, count: tuple[int, ...]) -> Weights:
    return {
        name: torch.randn((*count, sum(copies), end), generator=generator, dtype=torch.float64)
        for name, (copies, end) in shapes.items()
    }


def _fill_layer(weights: Weights, layer: Layer) -> Weights:
    """The weights of a layer, filled up with zeros so that all irreps have as many channels.

    Equal multiplicities have nothing to fill up. Features in the channels that are filled up are
    zero throughout: the columns of each linear map are, and the radial weights.
    """
    before, after = _most(layer.inputs), _most(layer.outputs)
    widths = {"up": (before, before), "down": (before, after)}
    widths |= {"mix": (after, after), "skip": (before, after)}
    filled: Weights = {}
    for name, shapes in layer.maps.items():
        inputs, outputs = widths[name]
        for irrep, (copies, end) in shapes.items():
            matrix = weights[f"{name}.{irrep}"]
            rows = spread(matrix, copies, inputs, -2)
            if rows is not matrix:  # `mix` divides by the root of all rows, here of the true ones
                rows = rows * math.sqrt(rows.shape[-2] / matrix.shape[-2])
            filled[f"{name}.{irrep}"] = spread(rows, (end,), outputs, -1)
    network_parts = branch(weights, "radial")
    if "table" in network_parts:  # filled up before it was made
        return filled | under("radial", network_parts)
    last = f"layer{len(network_parts) - 1}"
    network_parts[last] = spread(network_parts[last], layer.path_widths, before, -1)
    return filled | under("radial", network_parts)


def spread(values: Tensor, sizes: Sequence[int], width: int, axis: int) -> Tensor:
    """Parts of an axis, each filled up with zeros to one width; the tensor itself if all have it.

    Args:
        values: any shape; the axis holds parts of these sizes, one after the other.
        sizes: of the parts.
        width: of each part of the result, not below the largest size.
        axis: which.
    """
    if all(size == width for size in sizes):
        return values
    places = [torch.arange(size) + width * index for index, size in enumerate(sizes)]
    shape = list(values.shape)
    shape[axis] = width * len(sizes)
    return values.new_zeros(shape).index_copy(axis, torch.cat(places).to(values.device), values)
