"""What a model of mace-torch must be made of to be converted: classes, options, radial functions.

A file says what it computes by the names of classes and by settings. Whatever is mapped here is
held against the ones that are built; a name or a setting that is another is refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor

from surefoot.deploy.mace_weights import Source
from surefoot.deploy.records import Record, UnreadableFile, find, modules, show, tensors
from surefoot.models.mace import Mace

BLOCKS = {
    "RealAgnosticInteractionBlock": ("plain", "neighbors"),
    "RealAgnosticResidualInteractionBlock": ("residual", "neighbors"),
    "RealAgnosticDensityInteractionBlock": ("plain", "density"),
    "RealAgnosticDensityResidualInteractionBlock": ("residual", "density"),
}
RADIAL = {"BesselBasis": "bessel", "GaussianBasis": "gaussian"}
CLASSES: dict[str, tuple[str, ...]] = {
    "node_embedding": ("LinearNodeEmbeddingBlock",),
    "radial_embedding": ("RadialEmbeddingBlock",),
    "radial_embedding.cutoff_fn": ("PolynomialCutoff",),
    "spherical_harmonics": ("SphericalHarmonics",),
    "pair_repulsion_fn": ("ZBLBasis",),
    "atomic_energies_fn": ("AtomicEnergiesBlock",),
    "scale_shift": ("ScaleShiftBlock",),
    "interactions.#": tuple(BLOCKS),
    "interactions.#.conv_tp": ("TensorProduct",),
    "interactions.#.conv_tp_weights": ("FullyConnectedNet",),
    "interactions.#.conv_tp_weights.layer#": ("_Layer",),
    "interactions.#.density_fn": ("FullyConnectedNet",),
    "interactions.#.density_fn.layer#": ("_Layer",),
    "interactions.#.skip_tp": ("FullyConnectedTensorProduct",),
    "interactions.#.reshape": ("reshape_irreps",),
    "products.#": ("EquivariantProductBasisBlock",),
    "products.#.symmetric_contractions": ("SymmetricContraction",),
    "products.#.symmetric_contractions.contractions.#": ("Contraction",),
    "readouts.#": ("LinearReadoutBlock", "NonLinearReadoutBlock"),
    "readouts.#.non_linearity": ("Activation",),
    **dict.fromkeys(
        (
            "node_embedding.linear",
            "interactions.#.linear_up",
            "interactions.#.linear",
            "products.#.linear",
            "readouts.#.linear",
            "readouts.#.linear_#",
        ),
        ("Linear",),
    ),
}
"""Path of what is mapped, with # for numbers → names of classes, without their packages."""

CONSTANT = re.compile(
    r"num_interactions|.*\.output_mask|products\.\d+\..*\.contractions\.\d+\.weights_\w+_zeroed"
)
"""Buffers that have no part in what a model computes."""


def refusal(what: str) -> UnreadableFile:
    """The error for something that is not built here."""
    return UnreadableFile(f"{what}; such a model can not be converted.")


def class_of(record: Record, path: str) -> str:
    """Name of a module's class, without its package."""
    return find(record, path).name.rsplit(".", 1)[-1]


def layer_count(record: Record) -> int:
    """How many layers a model has."""
    return len(find(record, "interactions._modules"))


def effective_tensors(record: Record) -> dict[str, Tensor]:
    """The tensors of a model by their names, without buffers of no effect."""
    idle = {name for name in tensors(record, ("_buffers",)) if CONSTANT.fullmatch(name)}
    trained = tensors(record, ("_parameters",))
    return {n: v for n, v in tensors(record).items() if n in trained or n not in idle}


def refuse_options(record: Record) -> None:
    """Refuse classes and options of mace-torch that change what it computes and are not built here.

    Args:
        record: the model.
    Raises:
        UnreadableFile: naming the option or the class, and where it is.
    """
    for option, usual, what in (
        ("use_agnostic_product", False, "the products know no elements"),
        ("use_last_readout_only", False, "only the last layer is read out"),
        ("use_so3", False, "all parities are called even"),
        ("edge_irreps", None, "the messages have irreps of their own"),
        ("joint_embedding", None, "charge or spin are embedded"),
    ):
        require_option(option, find(record, option, usual), usual, what)
    basis = class_of(record, "radial_embedding.bessel_fn")
    if basis not in RADIAL:
        raise refusal(f"the radial basis {basis} (option radial_type) is not built here")
    for path, module in modules(record).items():
        known = CLASSES.get(re.sub(r"\d+", "#", path))
        kind = module.name.rsplit(".", 1)[-1]
        if known is not None and kind not in known:
            raise refusal(f"the block {kind} ({path}) is not built here")
    for name, usual in (("normalize", True), ("normalization", "component")):
        option = f"spherical_harmonics.{name}"
        value = find(record, option)
        require_option(option, value, usual, "harmonics have another length")


def require_option(option: str, value: Any, usual: Any, what: str) -> None:
    """Refuse an option that is not the usual one, of which `what` says what it does."""
    if type(value) is not type(usual) or value != usual:
        raise refusal(f"the model has the option {option} = {show(value)} ({what})")


def check_basis(record: Record, source: Source, model: Mace) -> None:
    """Hold the radial functions against ours: a file has them as tensors, which may be trained.

    Args:
        record: the model.
        source: its weights.
        model: what they are for.
    Raises:
        UnreadableFile: if the envelope or the basis is another.
    """
    count, cutoff = model.basis_size, model.cutoff
    end = float(source.take("radial_embedding.cutoff_fn.r_max"))
    if not math.isclose(end, cutoff, rel_tol=1e-6):
        raise refusal(f"the envelope ends at {end:g} Å, the cutoff is {cutoff:g} Å")
    basis = "radial_embedding.bessel_fn"
    expected = torch.linspace(0.0, cutoff, count, dtype=torch.float64)
    width = -0.5 / (cutoff / max(count - 1, 1)) ** 2
    factors = [(find(record, f"{basis}.coeff", width), width)]
    if model.basis == "bessel":
        expected = torch.arange(1, count + 1).double() * (math.pi / cutoff)
        factors = [
            (source.take(f"{basis}.r_max"), cutoff),
            (source.take(f"{basis}.prefactor"), math.sqrt(2.0 / cutoff)),
        ]
    found = source.take(f"{basis}.{model.basis}_weights", count)
    same = all(math.isclose(float(value), usual, rel_tol=1e-6) for value, usual in factors)
    if not same or not torch.allclose(found, expected, rtol=1e-6, atol=0.0):
        raise refusal("the functions of its radial basis have been trained")
