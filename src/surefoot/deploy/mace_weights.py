"""The weights of mace-torch's MACE as weights of ours: order, signs, norms and couplings.

What changes on the way: the edge vector points the other way, so paths with harmonics of odd degree
change sign, and some couplings have the sign of e3nn 0.4; irreps are sorted in the house layout;
the weights of redundant product paths are projected on independent ones; constants of activations
and the number of elements move out of the norms into the weights.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.blocks.angular import sign_in_e3nn_04
from surefoot.blocks.couplings import Irrep, Irreps, project_couplings, symmetric_couplings
from surefoot.blocks.dense import SILU_SCALE, Weights, under
from surefoot.blocks.products import arrange
from surefoot.deploy.records import UnreadableFile
from surefoot.heads.scalar import Scalar
from surefoot.models.mace import Layer, Mace

Gate = Literal["silu", "tanh", "none"]
GATES = get_args(Gate)
ORDERS = 4  # factors of a product at most: of more, the permutations alone would fill the memory
PRODUCT = re.compile(r"(.+\.contractions\.\d+)\.(U_matrix_|weights_max|weights\.)(\d?)")
"""Couplings and weights of one product: block, kind and order, or place below the highest."""


@dataclass(frozen=True)
class Order:
    """Irreps of one layer in the order of the file.

    Attributes:
        inputs: of the atoms before.
        messages: of the sums over neighbours, from which products are made.
        outputs: of the atoms after.
    """

    inputs: Irreps
    messages: Irreps
    outputs: Irreps


@dataclass(frozen=True)
class Source:
    """A model of mace-torch: its weights, and what has to be known to read them.

    Attributes:
        tensors: as in its state dict without constants of no effect, float64 where real.
        orders: of the irreps, one for each layer.
        species: our species → row of its tables.
        head: index of the head that is read.
        heads: how many there are.
        silu: what it multiplies SiLU by, to normalise it, in the radial networks.
        gate: activation of the read-out of the last layer.
        gate_scale: what that one is multiplied by.
        rounding: what rounding of the coupling tensors may leave of them outside our basis.
        read: names that were taken; it fills as weights are mapped.
    """

    tensors: Mapping[str, Tensor]
    orders: tuple[Order, ...]
    species: Int[Tensor, " species"]
    head: int
    heads: int
    silu: float
    gate: Gate
    gate_scale: float
    rounding: float
    read: set[str] = field(default_factory=set)

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor by its name in the state dict, in this shape; one length may be −1.

        Raises:
            UnreadableFile: if it is not there, has another number of values, or holds one that is
                not finite.
        """
        found = self.tensors.get(name)
        if found is None:
            raise UnreadableFile(f"the weights {name} are missing; it is not a complete model.")
        self.read.add(name)
        if not found.isfinite().all():
            raise UnreadableFile(f"the weights {name} hold values that are not finite.")
        try:
            return found.reshape(shape)
        except RuntimeError as error:
            wanted = " × ".join("n" if length < 0 else str(length) for length in shape) or "one"
            raise UnreadableFile(
                f"the weights {name} have shape {tuple(found.shape)}, but the settings in the file "
                f"call for {wanted} values."
            ) from error

    def unread(self) -> list[str]:
        """What nothing has asked for; weights of products that are always zero do not count."""
        return [
            name
            for name, value in self.tensors.items()
            if name not in self.read and value.numel() > 0 and not self._is_zero(name)
        ]

    def _is_zero(self, name: str) -> bool:
        """Whether this belongs to a product of the file that is zero for all features."""
        match = PRODUCT.fullmatch(name)
        if match is None:
            return False
        block, kind, number = match[1], match[2], match[3]
        factors = int(number or 0)
        if kind != "U_matrix_":
            orders = [o for o in range(1, ORDERS + 1) if f"{block}.U_matrix_{o}" in self.tensors]
            factors = max(orders, default=0) - (0 if kind == "weights_max" else 1 + factors)
        coupling = self.tensors.get(f"{block}.U_matrix_{factors}")
        if coupling is None or factors > ORDERS or not factors < coupling.dim() <= factors + 2:
            return False
        # All factors are the same features, so only the symmetric part acts.
        flat = coupling.flatten(0, -factors - 2) if coupling.dim() > factors + 1 else coupling[None]
        axes = range(1, factors + 1)
        parts = [flat.permute(0, *p, factors + 1) for p in itertools.permutations(axes)]
        symmetric = torch.stack(parts).sum(0) if len(set(flat.shape[1:-1])) == 1 else flat
        return bool(symmetric.abs().amax() <= self.rounding * flat.abs().amax())


def model_weights(source: Source, model: Mace) -> Weights:
    """Weights of the model, without those of the read-outs, in float64.

    Args:
        source: where from.
        model: what they are for; its settings have to be those of the source.
    Raises:
        UnreadableFile: if weights are missing, have another shape, or a coupling tensor is none.
    """
    count, width = len(source.species), model.channels
    embedding = source.take("node_embedding.linear.weight", count, width)
    weights: Weights = {"embedding": embedding[source.species] / math.sqrt(count)}
    for index, layer in enumerate(model.layers()):
        order, block = source.orders[index], f"interactions.{index}"
        up = source.take(f"{block}.linear_up.weight", len(order.inputs), width, width)
        mixed = source.take(f"products.{index}.linear.weight", len(order.outputs), width, width)
        parts = {
            "up": _by_irrep(order.inputs, up),
            "radial": _radial(source, index, layer, model),
            "down": _down(source, index, layer, width),
            "skip": _skip(source, index, layer, width),
            "mix": _by_irrep(order.outputs, mixed),
        }
        if model.normalisation == "density":
            density = source.take(f"{block}.density_fn.layer0.weight", model.basis_size, 1)
            parts["density"] = {"layer0": density}
        for name, part in parts.items():
            weights |= under(f"layer{index}.{name}", part)
        weights[f"layer{index}.product"] = _product(source, index, layer, width)
    return weights


def _by_irrep(order: Irreps, matrices: Tensor) -> Weights:
    return {str(irrep): matrix for irrep, matrix in zip(order, matrices, strict=True)}


def _paths(layer: Layer, inputs: Irreps) -> list[tuple[int, int]]:
    """For each path in our order: its place in the file, and the sign it takes.

    The file sorts paths by result (degree, then odd before even), then by the irreps of the atoms
    as it orders them, then by the degree of the harmonics.
    """

    def key(path: tuple[Irrep, Irrep, Irrep]) -> tuple[int, int, int, int]:
        first, second, third = path
        return third.degree, third.parity, inputs.index(first), second.degree

    ours = layer.product.paths
    place = {path: rank for rank, path in enumerate(sorted(ours, key=key))}
    return [
        (place[path], (-1) ** path[1].degree * sign_in_e3nn_04(*(irrep.degree for irrep in path)))
        for path in ours
    ]


def _radial(source: Source, index: int, layer: Layer, model: Mace) -> Weights:
    """The radial network; its last columns, one set for each path, in our order."""
    places = _paths(layer, source.orders[index].inputs)
    widths = (model.basis_size, *model.radial, len(places) * model.channels)
    name = f"interactions.{index}.conv_tp_weights"
    matrices = [
        source.take(f"{name}.layer{number}.weight", *widths[number : number + 2])
        * (1.0 if number == 0 else source.silu / SILU_SCALE)
        for number in range(len(widths) - 1)
    ]
    signs = torch.tensor([sign for _, sign in places], dtype=torch.float64)
    last = matrices[-1].unflatten(-1, (len(places), model.channels))
    last = last[:, [place for place, _ in places]] * signs[:, None]
    matrices[-1] = last.flatten(-2)
    return {f"layer{number}": matrix for number, matrix in enumerate(matrices)}


def _down(source: Source, index: int, layer: Layer, width: int) -> Weights:
    """The map after the sum: a matrix for each path, stacked by result."""
    product = layer.product
    name = f"interactions.{index}.linear.weight"
    matrices = source.take(name, len(product.paths), width, width)
    places = [place for place, _ in _paths(layer, source.orders[index].inputs)]
    weights = {}
    for block in product.blocks:
        rows = [
            matrices[place]
            for path, place in zip(product.paths, places, strict=True)
            if path[2] == block.irrep
        ]
        weights[str(block.irrep)] = torch.cat(rows)
    return weights


def _skip(source: Source, index: int, layer: Layer, width: int) -> Weights:
    """The map of the species: in the file the number of elements is in its norm."""
    order, count = source.orders[index], len(source.species)
    shared = order.messages
    if layer.residual:
        shared = tuple(irrep for irrep in order.inputs if irrep in layer.outputs)
    name = f"interactions.{index}.skip_tp.weight"
    matrices = source.take(name, len(shared), width, count, width)[:, :, source.species]
    return _by_irrep(shared, matrices.transpose(1, 2) / math.sqrt(count))


def _product(
    source: Source, index: int, layer: Layer, width: int
) -> Float[Tensor, "species paths channels"]:
    """Weights of the product paths, on the independent paths of our basis."""
    order = source.orders[index]
    components = _components(order.messages, layer.messages)
    rows = []
    for place, factors, count in layer.plan.paths:
        irrep = layer.outputs[place]
        name = f"products.{index}.symmetric_contractions.contractions.{order.outputs.index(irrep)}"
        axes = (len(components),) * factors
        tensor = source.take(f"{name}.U_matrix_{factors}", irrep.dim, *axes, -1).numpy()
        last = "weights_max"
        rank = (
            last if factors == layer.correlation else f"weights.{layer.correlation - 1 - factors}"
        )
        weights = source.take(f"{name}.{rank}", len(source.species), tensor.shape[-1], width)
        tensor = np.moveaxis(tensor, 0, -2)[np.ix_(*[components] * factors)]
        basis = symmetric_couplings(layer.messages, irrep, factors)
        try:
            projection = project_couplings(basis, tensor, tolerance=source.rounding)
        except ValueError as error:
            raise UnreadableFile(
                f"{name}.U_matrix_{factors} is not a tensor that couples irreps; the file is "
                "damaged, or comes from another version of e3nn than 0.4."
            ) from error
        rows.append(math.sqrt(count) * (torch.from_numpy(projection) @ weights[source.species]))
    return torch.cat(rows, -2)


def _components(order: Sequence[Irrep], wanted: Irreps) -> list[int]:
    """For each component in the house layout its place in the file."""
    starts = {block.irrep: block.start for block in arrange(order)}
    return [starts[irrep] + m for irrep in wanted for m in range(irrep.dim)]


def readouts(source: Source, model: Mace) -> tuple[Scalar, Weights]:
    """The head and its weights: linear read-outs, and a network for the last of several layers.

    Args:
        source: where from.
        model: whose features are read out.
    Raises:
        UnreadableFile: if weights are missing or have another shape.
    """
    width, heads, head = model.channels, source.heads, source.head
    last = model.interactions - 1
    weights: Weights = {}
    for index in range(last or 1):
        matrix = source.take(f"readouts.{index}.linear.weight", width, heads)
        weights |= under(f"layer{index}.out", _dense(matrix[:, [head]]))
    if last == 0:
        return Scalar(layers="none", scaling="normal"), weights
    first = source.take(f"readouts.{last}.linear_1.weight", width, heads, -1)[:, head]
    hidden = first.shape[-1]
    second = source.take(f"readouts.{last}.linear_2.weight", heads, hidden, heads)[head][:, [head]]
    second = second * (source.gate_scale / math.sqrt(heads))
    if source.gate == "none":  # two linear maps are one
        weights |= under(f"layer{last}.out", _dense(first @ second / math.sqrt(hidden)))
        return Scalar(layers="none", scaling="normal"), weights
    weights |= under(f"layer{last}.hidden", _dense(first))
    weights |= under(f"layer{last}.out", _dense(second))
    scalar = Scalar(hidden=hidden, activation=source.gate, layers="last", scaling="normal")
    return scalar, weights


def _dense(matrix: Tensor) -> Weights:
    return {"weight": matrix, "bias": torch.zeros(matrix.shape[-1], dtype=torch.float64)}
