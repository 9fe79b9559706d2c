"""Weights of the original SCN class by their names: which there are, and where each goes here.

Linear maps are stored input first here, and coefficients in the frame of an edge by order instead
of by degree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from surefoot.blocks.dense import Weights, under
from surefoot.blocks.frames import by_degree
from surefoot.blocks.orders import Layout
from surefoot.deploy.records import UnreadableFile
from surefoot.heads.sphere import Sphere
from surefoot.models.scn import Scn

MESSAGE = {
    "fc1_dist": ("gate", False),
    "fc1_edge_proj": ("inwards", True),
    "fc1_edge": ("hidden", False),
    "fc2_edge": ("outwards", True),
}
"""Linear maps of a message block, and whether one side of them is coefficients of an edge."""

RAMPS = "distance_expansion.fc1"  # the learnt radial basis
TABLES = ("embedding", "sender", "receiver")  # rows of elements; what is not a linear map

Places = dict[str, tuple[str, Layout | None]]
"""Name in the state dict → name here, and the coefficients that are to be put in order."""


def read_weights(state: Mapping[str, Tensor], model: Scn, head: Sphere, rows: int) -> Weights:
    """Weights of model and head; tables have all `rows` of the original, from atomic number 0.

    Raises:
        UnreadableFile: naming weights that are missing, of another shape or too many.
    """
    found = {plain_name(name): value for name, value in state.items()}
    expected = shapes_of(model, head, rows)
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise UnreadableFile(f"the weights {missing[0]} are missing; the options ask for them.")
    extra = sorted(n for n in found.keys() - expected.keys() if not is_repeated(n))
    if extra:
        raise UnreadableFile(f"the weights {extra[0]} belong to nothing the options ask for.")
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise UnreadableFile(
                f"the weights {name} have shape {tuple(found[name].shape)}; the options ask for "
                f"{tuple(shape)}."
            )
    weights: Weights = {}
    for name, (target, layout) in places_of(model, head).items():
        value = found[name].detach()
        table = target.endswith(TABLES)
        weights[target] = value if table else _by_order(value, target, layout)
    if model.basis == "silu":  # a map of the length and of one, and its bias
        ramp = found[f"{RAMPS}.weight"].detach()
        weights["model.basis.weight"] = ramp[:, :1].mT
        weights["model.basis.bias"] = ramp[:, 1] + found[f"{RAMPS}.bias"].detach()
    return weights


def shapes_of(model: Scn, head: Sphere, rows: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's weights; tables have `rows` rows."""
    generator = torch.Generator().manual_seed(0)
    # One layer tells the shapes of all. Nothing is allocated: the options are those of a file.
    one = model.model_copy(update={"layers": 1})
    with torch.device("meta"):
        shapes = under("model", one.init(generator, rows)) | under(
            "head", head.init(generator, model.widths)
        )
    found: dict[str, tuple[int, ...]] = {}
    for name, (target, _) in places_of(model, head).items():
        shape = shapes[re.sub(r"\.layer\d+\.", ".layer0.", target)].shape
        found[name] = tuple(shape if target.endswith(TABLES) else shape[::-1])
    if model.basis == "silu":
        found |= {f"{RAMPS}.weight": (model.gaussians, 2), f"{RAMPS}.bias": (model.gaussians,)}
    return found


def is_repeated(name: str) -> bool:
    """Whether this is a buffer, or the radial basis of a layer, which is that of the model."""
    return name.endswith(".offset") or ".dist_block.distance_expansion." in name


def plain_name(name: str) -> str:
    """Without what a wrapper of several processes puts before a name."""
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def places_of(model: Scn, head: Sphere) -> Places:
    """Every weight the options ask for."""
    places: Places = {"sphere_embedding.weight": ("model.embedding", None)}
    heads = {"energy": ""} | ({"force": "force."} if head.forces == "direct" else {})
    for kind, prefix in heads.items():
        for number, name in enumerate(("first", "hidden", "out"), start=1):
            places |= _linear(f"{kind}_fc{number}", f"head.{prefix}layer0.{name}")
    for layer in range(model.layers):
        places |= _layer_places(f"edge_blocks.{layer}", f"model.layer{layer}", model)
    return places


def _layer_places(theirs: str, ours: str, model: Scn) -> Places:
    """Every weight of one layer."""
    edge = f"{theirs}.dist_block"
    places: Places = {
        f"{edge}.source_embedding.weight": (f"{ours}.sender", None),
        f"{edge}.target_embedding.weight": (f"{ours}.receiver", None),
        **_linear(f"{edge}.fc1_dist", f"{ours}.distance"),
        **_linear(f"{edge}.fc1_edge_attr", f"{ours}.edge"),
    }
    for index, layout in enumerate(model.layouts):
        for old, (new, sorted_) in MESSAGE.items():
            place = f"{theirs}.message_blocks.{index}.{old}", f"{ours}.message{index}.{new}"
            places |= _linear(*place, layout if sorted_ else None)
    if model.aggregation == "grid":
        for number, name in enumerate(("first", "second", "third"), start=1):
            places |= _linear(f"{theirs}.fc{number}_sphere", f"{ours}.grid.{name}")
    if model.reduced is not None:
        places[f"{theirs}.downsample.weight"] = f"{ours}.reduce.weight", None
        places[f"{theirs}.upsample.weight"] = f"{ours}.expand.weight", None
    return places


def _linear(theirs: str, ours: str, layout: Layout | None = None) -> Places:
    return {f"{theirs}.{part}": (f"{ours}.{part}", layout) for part in ("weight", "bias")}


def _by_order(value: Tensor, target: str, layout: Layout | None) -> Tensor:
    """A linear map or its bias as it is stored here."""
    if layout is None or target.endswith("inwards.bias"):
        return value.mT if value.dim() == 2 else value
    index = torch.tensor(by_degree(layout.lmax, layout.mmax))
    if "inwards" in target:
        # From (hidden; end, coefficient, channel) to (coefficient, end, channel; hidden).
        parts = value.unflatten(1, (2, layout.rows, -1))[:, :, index]
        return parts.permute(2, 1, 3, 0).flatten(0, 2)
    parts = value.unflatten(0, (layout.rows, -1))[index].flatten(0, 1)
    return parts.mT if value.dim() == 2 else parts
