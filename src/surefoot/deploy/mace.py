"""Potentials of mace-torch 0.3: a saved model becomes a Predictor with the same numbers.

Only the records of the file are read (see `records`): neither mace-torch nor e3nn is needed, and
nothing in the file is executed. Here its settings and baseline are found, and what is not built
here is refused; `mace_weights` maps the weights. The shift joins the reference energies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from surefoot.blocks.couplings import Irrep, Irreps, Multiplicities, format_irreps, parse_irreps
from surefoot.blocks.dense import under
from surefoot.blocks.distances import AGNESI, COVALENT_RADII, SOFT, Transform
from surefoot.blocks.reference import Baseline
from surefoot.blocks.repulsion import SCREENING, Repulsion
from surefoot.deploy.mace_checks import (
    BLOCKS,
    RADIAL,
    check_basis,
    class_of,
    effective_tensors,
    layer_count,
    refusal,
    refuse_options,
    require_option,
)
from surefoot.deploy.mace_weights import GATES, Gate, Order, Source, model_weights, readouts
from surefoot.deploy.records import (
    Global,
    Record,
    UnreadableFile,
    find,
    read_records,
    shorten,
    show,
)
from surefoot.models.mace import Mace
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Predictor, build_predictor
from surefoot.potential import Potential

MODELS = ("mace.modules.models.ScaleShiftMACE", "mace.modules.models.MACE")
TRANSFORMS: dict[str, Transform] = {"AgnesiTransform": "agnesi", "SoftTransform": "soft"}
EMBEDDING = "node_embedding.linear.weight"
ELEMENTS = 118
MOST_IRREPS = 100  # kinds in one layer
SILU = "torch.nn.functional.silu"
ROUNDED = {torch.float32: 1e-5, torch.float64: 1e-9}
"""What rounding of the coupling tensors may leave of them outside our basis."""

WRONG = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
)
"""What comes of a setting that has another type than mace-torch gives it."""


def read_mace(path: Path, head: str | None = None) -> Predictor:
    """The potential in a file that mace-torch saved with `torch.save(model, path)`.

    Args:
        path: of the file.
        head: which head to take; needed where the model has several.
    Raises:
        UnreadableFile: if it is no such file, has several heads and none is named, or holds
            something that is not built here, with what that is.
    """
    return from_module(read_records(path), path, head)


def from_module(record: Record | dict[Any, Any], path: Path, head: str | None = None) -> Predictor:
    """The same of a file that was read already."""
    try:
        return build_mace(record, head, path.name)
    except UnreadableFile as error:
        raise UnreadableFile(f"{path}: {shorten(str(error))}") from error
    except WRONG as error:
        raise UnreadableFile(
            f"{path}: its settings are not those of a model of mace-torch 0.3 "
            f"({shorten(str(error))})."
        ) from error


def build_mace(record: Record | dict[Any, Any], head: str | None, origin: str) -> Predictor:
    """The potential in the records of a file.

    Args:
        record: the model.
        head: which head to take; needed where the model has several.
        origin: name of the file, kept in the provenance.
    Raises:
        UnreadableFile: as `read_mace`, but without the path.
    """
    if not isinstance(record, Record) or record.name not in MODELS:
        found = record.name if isinstance(record, Record) else "a dict, such as a state dict"
        raise UnreadableFile(
            f"holds {found}, not a model of mace-torch (ScaleShiftMACE or MACE); save the model "
            "itself with torch.save(model, path)."
        )
    refuse_options(record)
    found = effective_tensors(record)
    source = _open(record, found, head)
    model = _settings(record, source)
    _check_layers(record, source, model)
    weights = under("model", model_weights(source, model))
    scalar, read = readouts(source, model)
    weights |= under("head", read)
    baseline = _baseline(record, source, model)
    extra = source.unread()
    if extra:
        raise refusal(f"the weights {extra[0]} belong to nothing that is built here")
    precision = found[EMBEDDING].dtype
    return build_predictor(
        Potential(model=model, head=scalar, baseline=baseline),
        Single({name: value.to(precision) for name, value in weights.items()}),
        Calibration(),
        {"origin": f"mace-torch, {origin}", "head": _heads(record)[source.head]},
    )


def _heads(record: Record) -> list[str]:
    names = find(record, "heads", None) or ["Default"]
    if not all(isinstance(name, str) for name in names):
        raise UnreadableFile(f"its heads are {show(names)}, not a list of names; damaged.")
    return list(names)


def _open(record: Record, found: dict[str, Tensor], head: str | None) -> Source:
    """The weights with what has to be known to read them."""
    heads = _heads(record)
    if head is None and len(heads) > 1:
        raise UnreadableFile(f"the model has the heads {', '.join(heads)}; name one (--head).")
    if head is not None and head not in heads:
        raise UnreadableFile(f"there is no head '{head}'; the model has {', '.join(heads)}.")
    for name in (EMBEDDING, "atomic_numbers"):
        if name not in found:
            raise UnreadableFile(f"the weights {name} are missing; it is not a complete model.")
    precision, numbers = found[EMBEDDING].dtype, found["atomic_numbers"]
    if precision not in ROUNDED:
        raise refusal(f"the weights are stored as {precision}")
    if bool(((numbers < 1) | (numbers > ELEMENTS)).any()):
        raise UnreadableFile(f"its elements {numbers.tolist()} are no atomic numbers; damaged.")
    gate, scale = _gate(record)
    return Source(
        tensors={name: t.double() if t.is_floating_point() else t for name, t in found.items()},
        orders=tuple(_order(record, index) for index in range(layer_count(record))),
        species=torch.argsort(numbers),
        head=0 if head is None else heads.index(head),
        heads=len(heads),
        silu=_radial_scale(record),
        gate=gate,
        gate_scale=scale,
        rounding=ROUNDED[precision],
    )


def _order(record: Record, index: int) -> Order:
    block = find(record, f"interactions.{index}")
    products = find(record, f"products.{index}.symmetric_contractions.irreps_out")
    return Order(
        inputs=_irreps(find(block, "node_feats_irreps")),
        messages=_irreps(find(block, "target_irreps")),
        outputs=_irreps(products),
    )


def _irreps(value: Any) -> Irreps:
    """Irreps as the file orders them."""
    return tuple(irrep for _, irrep in _multiplicities(value))


def _multiplicities(value: Any) -> Multiplicities:
    """Irreps and their channels: from their record, or from text."""
    if isinstance(value, str):
        return tuple(parse_irreps(value))
    listed = []
    if len(_items(value)) > MOST_IRREPS:
        raise UnreadableFile(f"it has irreps of {len(_items(value))} kinds; damaged.")
    for entry in _items(value):
        count, irrep = _items(entry)
        degree, parity = _items(irrep)
        listed.append((int(count), Irrep(int(degree), int(parity))))
    return tuple(listed)


def _items(value: Any) -> Sequence[Any]:
    """The entries of a record that was a tuple."""
    entries = value.args[0] if isinstance(value, Record) and value.args else ()
    return entries if isinstance(entries, list | tuple) else ()


def _radial_scale(record: Record) -> float:
    """The constant of the normalised SiLU in the radial networks."""
    constants = set()
    for index in range(layer_count(record)):
        network = f"interactions.{index}.conv_tp_weights"
        for layer in range(len(find(record, f"{network}.hs")) - 2):
            name, scale = _activation(record, f"{network}.layer{layer}.act")
            if name != "silu":
                raise refusal(f"the activation of {network} is {name}, not SiLU")
            constants.add(scale)
    if len(constants) != 1:
        raise refusal("its radial networks have several normalisations, or no hidden layer")
    return constants.pop()


def _gate(record: Record) -> tuple[Gate, float]:
    """The activation of the last read-out, and its constant."""
    last = f"readouts.{layer_count(record) - 1}.non_linearity"
    if find(record, last, None) is None:
        return "none", 1.0
    name, scale = _activation(record, f"{last}.acts.0")
    if name not in GATES:
        raise refusal(f"the activation {name} of the read-out (option gate)")
    return name, scale  # type: ignore[return-value]


def _activation(record: Record, path: str) -> tuple[str, float]:
    """Name of a normalised activation, and what it is multiplied by; none where there is none."""
    if find(record, path, None) is None:
        return "none", 1.0
    function = find(record, f"{path}.f")
    name = "of unknown name"
    if isinstance(function, Global):
        name = "silu" if function.name == SILU else function.name
    elif isinstance(function, Record) and function.name == "builtins.getattr":
        name = show(function.args[-1]).strip(
            "'"
        )  # how a built-in function such as torch.tanh is pickled
    scale = float(find(record, f"{path}.cst"))
    if not math.isfinite(scale):
        raise refusal(f"the constant of its activation {name} is {scale}")
    return name, scale


def _settings(record: Record, source: Source) -> Mace:
    """What the model is, in our settings."""
    count = len(source.orders)
    first = find(record, "interactions.0")
    kinds = [BLOCKS[class_of(record, f"interactions.{index}")] for index in range(count)]
    if any(kind != ("residual", kinds[0][1]) for kind in kinds[1:]):
        raise refusal("its layers are normalised differently, or a later one is not residual")
    last = find(record, f"interactions.{count - 1}")
    hidden = _multiplicities(find(last, "node_feats_irreps" if count > 1 else "hidden_irreps"))
    product = "products.0.symmetric_contractions.contractions.0.correlation"
    basis = RADIAL[class_of(record, "radial_embedding.bessel_fn")]
    try:
        model = Mace.model_validate(
            {
                "cutoff": float(source.take("r_max")),
                "irreps": format_irreps(parse_irreps(format_irreps(hidden))),
                "max_ell": max(irrep.degree for irrep in source.orders[0].messages),
                "correlation": find(record, product),
                "interactions": count,
                "first": kinds[0][0],
                "normalisation": kinds[0][1],
                "transform": _transform(record, source),
                "envelope": "basis" if find(record, "apply_cutoff", True) else "weights",
                "basis": basis,
                "basis_size": source.take(
                    f"radial_embedding.bessel_fn.{basis}_weights", -1
                ).numel(),
                "cutoff_power": int(source.take("radial_embedding.cutoff_fn.p")),
                "radial": tuple(find(first, "radial_MLP", (64, 64, 64))),
            }
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"]))
        raise refusal(
            f"its {name} = {show(wrong['input'])} is not built here ({wrong['msg']})"
        ) from error
    check_basis(record, source, model)
    return model


def _transform(record: Record, source: Source) -> Transform:
    """How distances are transformed; its constants stand in the file and may have been trained."""
    name = "radial_embedding.distance_transform"
    if find(record, name, None) is None:
        return "none"
    kind = class_of(record, name)
    if kind not in TRANSFORMS:
        raise refusal(f"the transform of distances {kind} (option distance_transform)")
    expected = dict(AGNESI) if kind == "AgnesiTransform" else {"alpha": SOFT}
    found = {part: float(source.take(f"{name}.{part}")) for part in expected}
    same = all(math.isclose(found[part], expected[part], rel_tol=1e-6) for part in expected)
    numbers = source.take("atomic_numbers", -1)
    radii = source.take(f"{name}.covalent_radii", -1)[numbers]
    usual = torch.tensor(COVALENT_RADII, dtype=torch.float64)[numbers - 1]
    if not same or not torch.allclose(radii, usual, rtol=1e-6):
        raise refusal(f"the constants of its {kind} have been trained")
    return TRANSFORMS[kind]


def _check_layers(record: Record, source: Source, model: Mace) -> None:
    """Refuse irreps that our layers of these settings do not have."""
    for index, (layer, order) in enumerate(zip(model.layers(), source.orders, strict=True)):
        for part in ("inputs", "messages", "outputs"):
            ours, theirs = getattr(layer, part), getattr(order, part)
            if sorted(map(str, ours)) != sorted(map(str, theirs)):
                raise refusal(
                    f"the {part} of layer {index} are {' + '.join(map(str, theirs))} where "
                    f"{' + '.join(map(str, ours))} are built"
                )
        option = f"products.{index}.use_sc"
        value = find(record, option, layer.residual)
        require_option(option, value, layer.residual, "the skip of another kind of layer")
        block = find(record, f"interactions.{index}")
        own = find(block, "edge_irreps", None)
        if own is not None and _multiplicities(own) != _multiplicities(
            find(block, "node_feats_irreps")
        ):
            raise refusal("the messages have irreps of their own (option edge_irreps)")


def _baseline(record: Record, source: Source, model: Mace) -> Baseline:
    """Reference energies with the shift in them, scale, neighbours and repulsion."""
    count = len(source.species)
    rows = source.take("atomic_energies_fn.atomic_energies", -1, count)
    energies = rows[source.head if len(rows) > 1 else 0][source.species]
    scale, shift = (
        _of_head(source, f"scale_shift.{name}", usual)
        for name, usual in (("scale", 1.0), ("shift", 0.0))
    )
    averages = {
        float(find(record, f"interactions.{index}.avg_num_neighbors"))
        for index in range(model.interactions)
    }
    if len(averages) > 1:
        raise refusal("its layers have different mean numbers of neighbours")
    neighbors = averages.pop()
    if not (math.isfinite(neighbors) and neighbors > 0):
        raise refusal(f"its mean number of neighbours (avg_num_neighbors) is {neighbors}")
    numbers = source.take("atomic_numbers", count)[source.species]
    return Baseline(
        elements=tuple(numbers.tolist()),
        energies=tuple((energies + shift).tolist()),
        scale=scale,
        neighbors=neighbors,
        repulsion=_repulsion(record, source, numbers, scale),
    )


def _of_head(source: Source, name: str, usual: float) -> float:
    """A number that each head may have of its own; the usual one where the model has none."""
    if name not in source.tensors:
        return usual
    values = source.take(name, -1)
    return float(values[source.head if len(values) > 1 else 0])


def _repulsion(record: Record, source: Source, numbers: Tensor, scale: float) -> Repulsion | None:
    """Its repulsion stands inside the scale."""
    name = "pair_repulsion_fn"
    if find(record, name, None) is None:
        return None
    expected = torch.tensor([weight for weight, _ in SCREENING], dtype=torch.float64)
    if not torch.allclose(source.take(f"{name}.c", len(SCREENING)), expected, rtol=1e-6):
        raise refusal("the screening of its repulsion has been trained")
    return Repulsion(
        radii=tuple(source.take(f"{name}.covalent_radii", -1)[numbers].tolist()),
        power=int(source.take(f"{name}.p")),
        strength=scale,
        prefactor=float(source.take(f"{name}.a_prefactor")),
        exponent=float(source.take(f"{name}.a_exp")),
    )
