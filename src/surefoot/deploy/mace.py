"""Potentials of mace-torch 0.3: a saved model becomes a Predictor with the same numbers.

Only the records of the file are read (see `records`): neither mace-torch nor e3nn is needed, and
nothing in the file is executed.

What changes on the way: the edge vector points the other way, so paths with harmonics of odd degree
change sign, and some couplings have the sign of e3nn 0.4; irreps are sorted in the house layout;
the weights of redundant product paths are projected on independent ones; constants of activations
move into the next layer; the shift joins the reference energies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot.blocks.angular import sign_in_e3nn_04
from surefoot.blocks.couplings import (
    Irrep,
    Irreps,
    format_irreps,
    parse_irreps,
    project_couplings,
    symmetric_couplings,
)
from surefoot.blocks.dense import SILU_SCALE, Weights, under
from surefoot.blocks.products import arrange
from surefoot.blocks.reference import Baseline
from surefoot.blocks.repulsion import Repulsion
from surefoot.deploy.records import Record, UnreadableFile, find, read_records, tensors
from surefoot.heads.scalar import Scalar
from surefoot.models.mace import Layer, Mace
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Calibration, Predictor, build_predictor
from surefoot.potential import Potential

MODELS = ("mace.modules.models.ScaleShiftMACE", "mace.modules.models.MACE")
BLOCKS = {
    "RealAgnosticInteractionBlock": ("plain", "neighbors"),
    "RealAgnosticResidualInteractionBlock": ("residual", "neighbors"),
    "RealAgnosticDensityInteractionBlock": ("plain", "density"),
    "RealAgnosticDensityResidualInteractionBlock": ("residual", "density"),
}
BASES = {"BesselBasis": "bessel", "GaussianBasis": "gaussian"}
SILU = "torch.nn.functional.silu"
ROUNDED = {torch.float32: 1e-5, torch.float64: 1e-9}
"""What rounding of the coupling tensors in the file may leave of them outside our basis."""


@dataclass(frozen=True)
class Source:
    """A model in a file.

    Attributes:
        path: of the file, for messages.
        record: the model.
        tensors: its weights, in float64.
        head: index of the head that is read.
        species: our species → row of the file's tables.
        dtype: of the weights in the file.
    """

    path: Path
    record: Record
    tensors: dict[str, Tensor]
    head: int
    species: Tensor
    dtype: torch.dtype

    def get(self, name: str) -> Tensor:
        """A tensor by its name in the state dict."""
        if name not in self.tensors:
            raise UnreadableFile(f"{self.path}: the weights {name} are missing.")
        return self.tensors[name]

    def refuse(self, what: str) -> UnreadableFile:
        """The error for something that is not built here."""
        return UnreadableFile(f"{self.path}: {what}; such a model can not be converted.")


def read_mace(path: Path, head: str | None = None) -> Predictor:
    """The potential in a file that mace-torch saved with `torch.save(model)`.

    Args:
        path: of the file.
        head: which head to take; needed where the model has several.
    Raises:
        UnreadableFile: if it is no such file, has several heads and none is named, or holds
            something that is not built here, with what that is.
    """
    record = read_records(path)
    if not isinstance(record, Record) or record.name not in MODELS:
        found = record.name if isinstance(record, Record) else "a dict of tensors"
        raise UnreadableFile(
            f"{path}: holds {found}, not a model of mace-torch (ScaleShiftMACE or MACE); save the "
            "model itself with torch.save(model, path)."
        )
    source = _open(path, record, head)
    model = _settings(source)
    weights = under("model", _model_weights(source, model))
    scalar, readouts = _readouts(source, model)
    weights |= under("head", readouts)
    potential = Potential(model=model, head=scalar, baseline=_baseline(source, model))
    _check_complete(potential, weights, path)
    return build_predictor(
        potential,
        Single({name: value.to(source.dtype) for name, value in weights.items()}),
        Calibration(),
        {"origin": f"mace-torch, {path.name}", "heads": find(record, "heads", ["Default"])},
    )


def _open(path: Path, record: Record, head: str | None) -> Source:
    found = tensors(record)
    heads = find(record, "heads", ["Default"])
    if head is None and len(heads) > 1:
        raise UnreadableFile(
            f"{path}: the model has the heads {', '.join(map(str, heads))}; name one of them."
        )
    if head is not None and head not in heads:
        raise UnreadableFile(
            f"{path}: there is no head '{head}'; the model has {', '.join(map(str, heads))}."
        )
    if "atomic_numbers" not in found or "node_embedding.linear.weight" not in found:
        raise UnreadableFile(f"{path}: the weights of the element embedding are missing.")
    return Source(
        path=path,
        record=record,
        tensors={name: t.double() if t.is_floating_point() else t for name, t in found.items()},
        head=0 if head is None else heads.index(head),
        species=torch.argsort(found["atomic_numbers"]),
        dtype=found["node_embedding.linear.weight"].dtype,
    )


def _class(record: Record) -> str:
    return record.name.rsplit(".", 1)[-1]


def _settings(source: Source) -> Mace:
    """What the model is; refuses what is not built here."""
    record = source.record
    count = int(source.get("num_interactions"))
    blocks = [find(record, f"interactions.{t}") for t in range(count)]
    kinds = [_class(block) for block in blocks]
    for kind in kinds:
        if kind not in BLOCKS:
            raise source.refuse(f"the interaction {kind} is not built here")
    radial = _class(find(record, "radial_embedding.bessel_fn"))
    for wrong, what in (
        (radial not in BASES, f"the radial basis {radial} is not built here"),
        (
            find(record, "radial_embedding.distance_transform", None) is not None,
            "the distances are transformed before the radial basis",
        ),
        (not find(record, "apply_cutoff", True), "the cutoff acts on the radial weights"),
        (bool(find(record, "use_agnostic_product", False)), "the product knows no elements"),
        (bool(find(record, "use_last_readout_only", False)), "only the last layer is read out"),
        (find(record, "edge_irreps", None) is not None, "the messages have irreps of their own"),
        (find(record, "joint_embedding", None) is not None, "charge or spin are embedded"),
        (len({BLOCKS[kind][1] for kind in kinds}) > 1, "its layers are normalised differently"),
        (
            any(BLOCKS[kind][0] == "plain" for kind in kinds[1:]),
            "a later layer is not residual",
        ),
    ):
        if wrong:
            raise source.refuse(what)
    hidden = _irreps(find(blocks[-1], "node_feats_irreps" if count > 1 else "hidden_irreps"))
    product = find(record, "products.0.symmetric_contractions.contractions.0")
    widths = find(blocks[0], "radial_MLP", [64, 64, 64])
    return Mace(
        cutoff=float(source.get("r_max")),
        irreps=format_irreps(parse_irreps(" + ".join(f"{n}x{irrep}" for n, irrep in hidden))),
        max_ell=max(irrep.degree for _, irrep in _irreps(find(blocks[0], "target_irreps"))),
        correlation=int(find(product, "correlation")),
        interactions=count,
        first=BLOCKS[kinds[0]][0],  # type: ignore[arg-type]
        normalisation=BLOCKS[kinds[0]][1],  # type: ignore[arg-type]
        basis=BASES[radial],  # type: ignore[arg-type]
        basis_size=int(source.get("interactions.0.conv_tp_weights.layer0.weight").shape[0]),
        cutoff_power=int(source.get("radial_embedding.cutoff_fn.p")),
        radial=tuple(int(width) for width in widths),
    )


def _irreps(value: Any) -> list[tuple[int, Irrep]]:
    """Irreps as the file orders them: from their record, or from text."""
    if isinstance(value, str):
        return list(parse_irreps(value))
    listed = []
    for entry in _items(value):
        count, irrep = _items(entry)
        degree, parity = _items(irrep)
        listed.append((int(count), Irrep(int(degree), int(parity))))
    return listed


def _items(value: Any) -> list[Any]:
    """The entries of a record that was a tuple."""
    return list(value.args[0]) if isinstance(value, Record) and value.args else []


def _model_weights(source: Source, model: Mace) -> Weights:
    count, width = len(source.species), model.channels
    embedding = source.get("node_embedding.linear.weight").reshape(count, width)
    weights: Weights = {"embedding": embedding[source.species] / math.sqrt(count)}
    for index, layer in enumerate(model.layers()):
        block = find(source.record, f"interactions.{index}")
        order = [irrep for _, irrep in _irreps(find(block, "node_feats_irreps"))]
        parts = {
            "up": _square(source.get(f"interactions.{index}.linear_up.weight"), order, width),
            "radial": _radial(source, index, layer, order, width),
            "down": _down(source, index, layer, order, width),
            "skip": _skip(source, index, layer, order, width),
            "mix": _square(
                source.get(f"products.{index}.linear.weight"), _output_order(source, index), width
            ),
        }
        if model.normalisation == "density":
            density = source.get(f"interactions.{index}.density_fn.layer0.weight")
            parts["density"] = {"layer0": density}
        for name, part in parts.items():
            weights |= under(f"layer{index}.{name}", part)
        weights[f"layer{index}.product"] = _product(source, index, layer)
    return weights


def _output_order(source: Source, index: int) -> list[Irrep]:
    irreps = find(source.record, f"products.{index}.symmetric_contractions.irreps_out")
    return [irrep for _, irrep in _irreps(irreps)]


def _square(flat: Tensor, order: list[Irrep], width: int) -> Weights:
    """One matrix per irrep, in the order of the file."""
    matrices = flat.reshape(len(order), width, width)
    return {str(irrep): matrix for irrep, matrix in zip(order, matrices, strict=True)}


def _paths(layer: Layer, order: list[Irrep]) -> list[tuple[int, float]]:
    """For each path in our order: its place in the file, and the sign it takes.

    The file sorts paths by result (degree, then odd before even), then by the irreps of the atoms
    as it orders them, then by the degree of the harmonics.
    """

    def key(path: tuple[Irrep, Irrep, Irrep]) -> tuple[int, int, int, int]:
        first, second, third = path
        return third.degree, third.parity, order.index(first), second.degree

    ours = layer.product.paths
    place = {path: rank for rank, path in enumerate(sorted(ours, key=key))}
    return [
        (place[path], (-1) ** path[1].degree * sign_in_e3nn_04(*(irrep.degree for irrep in path)))
        for path in ours
    ]


def _radial(
    source: Source, index: int, layer: Layer, order: list[Irrep], width: int
) -> Weights:
    name = f"interactions.{index}.conv_tp_weights"
    depth = len(find(source.record, f"{name}.hs")) - 1
    weights, factor = {}, 1.0
    for number in range(depth):
        matrix = source.get(f"{name}.layer{number}.weight")
        weights[f"layer{number}"] = matrix * factor
        if number < depth - 1:
            factor = _scale(source, f"{name}.layer{number}.act") / SILU_SCALE
    places = _paths(layer, order)
    last = weights[f"layer{depth - 1}"].unflatten(-1, (len(places), width))
    signs = torch.tensor([sign for _, sign in places], dtype=torch.float64)
    last = last[:, [place for place, _ in places]] * signs[:, None]
    weights[f"layer{depth - 1}"] = last.flatten(-2)
    return weights


def _scale(source: Source, name: str) -> float:
    """The constant of a normalised SiLU."""
    function = find(source.record, f"{name}.f")
    if getattr(function, "name", None) != SILU:
        raise source.refuse(f"the activation at {name} is not SiLU")
    return float(find(source.record, f"{name}.cst"))


def _down(
    source: Source, index: int, layer: Layer, order: list[Irrep], width: int
) -> Weights:
    """The map after the sum: a matrix for each path, stacked by result."""
    flat = source.get(f"interactions.{index}.linear.weight")
    product = layer.product
    matrices = flat.reshape(len(product.paths), width, width)
    places = [place for place, _ in _paths(layer, order)]
    weights = {}
    for block in product.blocks:
        rows = [
            matrices[place]
            for path, place in zip(product.paths, places, strict=True)
            if path[2] == block.irrep
        ]
        weights[str(block.irrep)] = torch.cat(rows)
    return weights


def _skip(
    source: Source, index: int, layer: Layer, order: list[Irrep], width: int
) -> Weights:
    """The species-indexed map: in the file the number of elements is in the norm."""
    flat = source.get(f"interactions.{index}.skip_tp.weight")
    count = len(source.species)
    if layer.residual:
        shared = [irrep for irrep in order if irrep in layer.outputs]
    else:
        irreps = find(source.record, f"interactions.{index}.target_irreps")
        shared = [irrep for _, irrep in _irreps(irreps)]
    matrices = flat.reshape(len(shared), width, count, width)[:, :, source.species]
    return {
        str(irrep): matrix.transpose(0, 1) / math.sqrt(count)
        for irrep, matrix in zip(shared, matrices, strict=True)
    }


def _product(source: Source, index: int, layer: Layer) -> Tensor:
    """Weights of the product paths, on the independent paths of our basis."""
    prefix = f"products.{index}.symmetric_contractions"
    inputs = find(source.record, f"{prefix}.contractions.0.coupling_irreps", None)
    if inputs is None:
        inputs = find(source.record, f"{prefix}.irreps_in")
    components = _components([irrep for _, irrep in _irreps(inputs)], layer.messages)
    number = {irrep: j for j, irrep in enumerate(_output_order(source, index))}
    rows = []
    for place, order, count in layer.plan.paths:
        irrep = layer.outputs[place]
        name = f"{prefix}.contractions.{number[irrep]}"
        last = order == layer.correlation
        weights = source.get(
            f"{name}.weights_max" if last else f"{name}.weights.{layer.correlation - 1 - order}"
        )[source.species]
        tensor = source.get(f"{name}.U_matrix_{order}").numpy()
        if irrep.degree == 0:
            tensor = tensor[None]
        tensor = np.moveaxis(tensor, 0, -2)
        for axis in range(order):
            tensor = np.take(tensor, components, axis)
        basis = symmetric_couplings(layer.messages, irrep, order)
        projection = torch.from_numpy(
            project_couplings(basis, tensor, tolerance=ROUNDED[source.dtype])
        )
        rows.append(math.sqrt(count) * (projection @ weights))
    return torch.cat(rows, -2)


def _components(order: list[Irrep], wanted: Irreps) -> list[int]:
    """For each component in the house layout its place in the file."""
    starts = {block.irrep: block.start for block in arrange(order)}
    return [starts[irrep] + m for irrep in wanted for m in range(irrep.dim)]


def _readouts(source: Source, model: Mace) -> tuple[Scalar, Weights]:
    """Linear read-outs, and a network for the last of several layers."""
    heads = len(find(source.record, "heads", ["Default"]))
    weights: Weights = {}
    hidden = 1
    for index in range(model.interactions):
        name = f"readouts.{index}"
        kind = _class(find(source.record, name))
        if kind == "LinearReadoutBlock":
            matrix = source.get(f"{name}.linear.weight").reshape(model.channels, heads)
            weights |= under(f"layer{index}.out", _dense(matrix[:, [source.head]]))
        elif kind == "NonLinearReadoutBlock":
            first = source.get(f"{name}.linear_1.weight").reshape(model.channels, heads, -1)
            hidden = first.shape[-1]
            second = source.get(f"{name}.linear_2.weight").reshape(heads, hidden, heads)
            factor = _scale(source, f"{name}.non_linearity.acts.0") / math.sqrt(heads)
            weights |= under(f"layer{index}.hidden", _dense(first[:, source.head]))
            out = factor * second[source.head][:, [source.head]]
            weights |= under(f"layer{index}.out", _dense(out))
        else:
            raise source.refuse(f"the read-out {kind} is not built here")
    scalar = Scalar(
        hidden=hidden,
        activation="silu",
        layers="last" if model.interactions > 1 else "none",
        scaling="normal",
    )
    return scalar, weights


def _dense(matrix: Tensor) -> Weights:
    return {"weight": matrix, "bias": torch.zeros(matrix.shape[-1], dtype=torch.float64)}


def _baseline(source: Source, model: Mace) -> Baseline:
    """Reference energies with the shift in them, scale, neighbours and repulsion."""
    energies = torch.atleast_2d(source.get("atomic_energies_fn.atomic_energies"))
    scale, shift = (
        float(torch.atleast_1d(source.tensors[name])[source.head]) if name in source.tensors else d
        for name, d in (("scale_shift.scale", 1.0), ("scale_shift.shift", 0.0))
    )
    averages = {
        float(find(source.record, f"interactions.{t}.avg_num_neighbors"))
        for t in range(model.interactions)
    }
    if len(averages) > 1:
        raise source.refuse("its layers have different mean numbers of neighbours")
    numbers = source.get("atomic_numbers")[source.species]
    row = energies[source.head if energies.shape[0] > 1 else 0][source.species]
    return Baseline(
        elements=tuple(numbers.tolist()),
        energies=tuple((row + shift).tolist()),
        scale=scale,
        neighbors=averages.pop(),
        repulsion=_repulsion(source, numbers, scale),
    )


def _repulsion(source: Source, numbers: Tensor, scale: float) -> Repulsion | None:
    if find(source.record, "pair_repulsion_fn", None) is None:
        return None
    radii = source.get("pair_repulsion_fn.covalent_radii")
    return Repulsion(
        radii=tuple(radii[numbers].tolist()),
        power=int(source.get("pair_repulsion_fn.p")),
        strength=scale,
        prefactor=float(source.get("pair_repulsion_fn.a_prefactor")),
        exponent=float(source.get("pair_repulsion_fn.a_exp")),
    )


def _check_complete(potential: Potential, weights: Weights, path: Path) -> None:
    """Every weight of our model has to be there, in its shape."""
    wanted = {name: value.shape for name, value in potential.init(0, torch.float64).items()}
    found = {name: value.shape for name, value in weights.items()}
    for name in sorted(set(wanted) | set(found)):
        if wanted.get(name) != found.get(name):
            raise UnreadableFile(
                f"{path}: the weights {name} have shape {tuple(found.get(name, ()))}, but this "
                f"architecture needs {tuple(wanted.get(name, ()))}; the file is not a complete "
                "model."
            )
