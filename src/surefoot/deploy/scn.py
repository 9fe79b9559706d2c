"""Potentials of fairchem-core 1: weights of its SCN become a Predictor with the same numbers.

The weights are those of the class `SphericalChannelNetwork`, by their names in its state dict, and
the options are its arguments, as a config of that package has them under `model`. Linear maps are
stored input first here, and coefficients in the frame of an edge by order instead of by degree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from surefoot.blocks.dense import Weights, under
from surefoot.blocks.frames import by_degree
from surefoot.blocks.orders import Layout
from surefoot.blocks.reference import Baseline
from surefoot.deploy.records import UnreadableFile, read_records
from surefoot.heads.sphere import Sphere
from surefoot.models.scn import Scn
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Predictor, build_predictor
from surefoot.potential import Potential

OPTIONS: dict[str, Any] = {
    "max_num_neighbors": 20,
    "cutoff": 8.0,
    "max_num_elements": 90,
    "num_interactions": 8,
    "lmax": 6,
    "mmax": 1,
    "num_resolutions": 2,
    "sphere_channels": 128,
    "sphere_channels_reduce": 128,
    "hidden_channels": 256,
    "num_taps": -1,
    "use_grid": True,
    "num_bands": 1,
    "num_sphere_samples": 128,
    "num_basis_functions": 128,
    "distance_function": "gaussian",
    "basis_width_scalar": 1.0,
    "distance_resolution": 0.02,
    "regress_forces": True,
}
"""What the class is told, and what it takes where it is not."""

IGNORED = {
    "name", "use_pbc", "use_pbc_single", "otf_graph", "show_timing_info", "direct_forces",
    "enforce_max_neighbors_strictly", "num_atoms", "bond_feat_dim", "num_targets",
}  # fmt: skip
"""Options that say where edges come from or what is shown; they change no number here."""

TWO_MILLION = {
    "num_interactions": 12,
    "hidden_channels": 1024,
    "max_num_neighbors": 40,
    "basis_width_scalar": 2.0,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "2M t1-b1": {**TWO_MILLION, "num_taps": 1, "num_bands": 1},
    "2M t4-b2": {**TWO_MILLION, "num_taps": 4, "num_bands": 2},
    "All+MD": {**TWO_MILLION, "num_interactions": 16, "num_bands": 2},
}
"""Options of the three published configurations, as the repository's configs have them."""


MESSAGE = {
    "fc1_dist": ("gate", False),
    "fc1_edge_proj": ("inwards", True),
    "fc1_edge": ("hidden", False),
    "fc2_edge": ("outwards", True),
}
"""Linear maps of a message block, and whether one side of them is coefficients of an edge."""

TABLES = ("embedding", "sender", "receiver")  # rows of elements; what is not a linear map

Places = dict[str, tuple[str, Layout | None]]
"""Name in the state dict → name here, and the coefficients that are to be put in order."""


def read_scn(path: Path, elements: Sequence[int] | None = None) -> Predictor:
    """The potential in a checkpoint of fairchem-core 1 or of ocp before it.

    Weights are those under `state_dict`, which in a checkpoint for inference are the averages of
    the training. The file is read by `records`: nothing in it is executed.

    Args:
        path: of the file.
        elements: atomic numbers to keep, ascending; all that its tables have where not given.
    Raises:
        UnreadableFile: if it is no such file, or holds something that is not built here.
    """
    record = read_records(path)
    try:
        if not isinstance(record, dict) or not {"state_dict", "config"} <= record.keys():
            raise UnreadableFile(
                "holds no state_dict beside a config; give a checkpoint of fairchem-core 1."
            )
        config = record["config"]
        options = _options(config) if isinstance(config, dict) else {}
        if record.get("elementrefs"):
            raise UnreadableFile(
                "its energies are counted from element references; not built here."
            )
        shift, scale = _normaliser(record, ("energy", "target"))
        centre, unit = _normaliser(record, ("forces", "grad_target"))
        if centre:
            raise UnreadableFile(f"its forces are shifted by {centre:g}; the usual shift is zero.")
        return build_scn(
            {str(name): value for name, value in record["state_dict"].items()},
            options,
            elements=elements,
            scale=scale,
            shift=shift,
            force_scale=unit,
            origin=f"fairchem-core, {path.name}",
        )
    except UnreadableFile as error:
        raise UnreadableFile(f"{path}: {error}") from error


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the class: under `model` with its name, or beside it in older files."""
    model = config.get("model")
    found = model if isinstance(model, dict) else config.get("model_attributes")
    name = model.get("name") if isinstance(model, dict) else model
    if name != "scn" or not isinstance(found, dict):
        raise UnreadableFile(f"is a checkpoint of the model {name}; scn is read here.")
    return dict(found)


def _normaliser(record: Mapping[str, Any], names: tuple[str, ...]) -> tuple[float, float]:
    """Mean and unit that labels were normalised by; 0 and 1 where they were not."""
    for name in names:
        found = (record.get("normalizers") or {}).get(name)
        if found is not None:
            return float(found["mean"]), float(found["rmsd"] if "rmsd" in found else found["std"])
    return 0.0, 1.0


def published_scn(options: Mapping[str, Any]) -> tuple[Scn, Sphere]:
    """Model and head that give the numbers of the original class with these options.

    Args:
        options: arguments of the class; see `OPTIONS` for what holds where one is not given.
    Raises:
        UnreadableFile: naming an option that is not known or a value that is not built here.
    """
    unknown = sorted(options.keys() - OPTIONS.keys() - IGNORED)
    if unknown:
        raise UnreadableFile(
            f"SCN has no option {unknown[0]}; there are {', '.join(sorted(OPTIONS))}."
        )
    given = OPTIONS | {name: value for name, value in options.items() if name in OPTIONS}
    if given["distance_function"] != "gaussian":
        raise UnreadableFile(
            f"the distance_function {given['distance_function']} is not built here; the published "
            "configurations have gaussian."
        )
    if given["mmax"] not in (0, 1):
        raise UnreadableFile(f"mmax is {given['mmax']}; the original class runs with 0 and 1.")
    width, reduced = given["sphere_channels"], given["sphere_channels_reduce"]
    try:
        model = Scn(
            form="published",
            cutoff=given["cutoff"],
            layers=given["num_interactions"],
            lmax=given["lmax"],
            mmax=given["mmax"],
            taps=1 if given["num_taps"] == 1 or given["mmax"] == 0 else 4,
            mirrors="one",
            channels=width,
            reduced=None if reduced == width else reduced,
            hidden=given["hidden_channels"],
            edge=given["num_basis_functions"],
            gaussians=int(given["cutoff"] / given["distance_resolution"]),
            width=given["basis_width_scalar"],
            limit=given["max_num_neighbors"],
            resolutions=given["num_resolutions"],
            aggregation="grid" if given["use_grid"] else "sum",
            bands=given["num_bands"] if given["use_grid"] else 1,
            samples=given["num_sphere_samples"],
        )
        forces = "direct" if given["regress_forces"] else "gradient"
        return model, Sphere(forces=forces, hidden=reduced)
    except (ValidationError, TypeError) as error:
        raise UnreadableFile(f"the options are not those of SCN ({error}).") from error


def build_scn(
    state: Mapping[str, Tensor],
    options: Mapping[str, Any],
    *,
    elements: Sequence[int] | None = None,
    scale: float = 1.0,
    shift: float = 0.0,
    force_scale: float | None = None,
    origin: str = "fairchem-core",
) -> Predictor:
    """The potential of these weights.

    Args:
        state: the state dict, its names with or without a leading `module.`.
        options: arguments of the class, as its config has them under `model`.
        elements: atomic numbers to keep, ascending; all that its tables have where not given.
        scale: eV; what energies were divided by before training.
        shift: eV; what was taken from the energy of each structure before that.
        force_scale: eV/Å; what forces were divided by, as the energies where not given.
        origin: kept in the provenance.
    Raises:
        UnreadableFile: naming weights that are missing, of another shape or too many, or an option
            that is not built here.
    """
    model, head = published_scn(options)
    rows = int({**OPTIONS, **options}["max_num_elements"])
    kept = tuple(range(1, rows)) if elements is None else tuple(elements)
    if not kept or list(kept) != sorted(set(kept)) or not 0 < kept[0] <= kept[-1] < rows:
        raise UnreadableFile(f"elements have to be ascending, from 1 to {rows - 1}; got {kept}.")
    head = head.model_copy(update={"offset": shift / scale})
    weights = read_weights(state, model, head, rows)
    chosen = torch.tensor(kept)
    weights = {
        name: value[chosen] if name.endswith(TABLES) else value for name, value in weights.items()
    }
    if force_scale is not None and head.forces == "direct":
        for part in ("weight", "bias"):
            last = f"head.force.layer0.out.{part}"
            weights[last] = weights[last] * (force_scale / scale)
    zeros = (0.0,) * len(kept)
    baseline = Baseline(elements=kept, energies=zeros, scale=scale, neighbors=1.0)
    return build_predictor(
        Potential(model=model, head=head, baseline=baseline),
        Single(weights),
        Calibration(),
        {"origin": origin},
    )


def read_weights(state: Mapping[str, Tensor], model: Scn, head: Sphere, rows: int) -> Weights:
    """Weights of model and head; tables have all `rows` of the original, from atomic number 0.

    Raises:
        UnreadableFile: naming weights that are missing, of another shape or too many.
    """
    found = {_plain(name): value for name, value in state.items()}
    places = _places(model, head)
    missing = sorted(places.keys() - found.keys())
    if missing:
        raise UnreadableFile(f"the weights {missing[0]} are missing; the options ask for them.")
    extra = sorted(n for n in found.keys() - places.keys() if not n.endswith(".offset"))
    if extra:
        raise UnreadableFile(f"the weights {extra[0]} belong to nothing the options ask for.")
    generator = torch.Generator().manual_seed(0)
    shapes = under("model", model.init(generator, rows))
    shapes |= under("head", head.init(generator, model.widths))
    weights: Weights = {}
    for name, (target, layout) in places.items():
        value = found[name]
        table = target.endswith(TABLES)
        expected = shapes[target].shape if table else shapes[target].shape[::-1]
        if value.shape != expected:
            raise UnreadableFile(
                f"the weights {name} have shape {tuple(value.shape)}; the options ask for "
                f"{tuple(expected)}."
            )
        weights[target] = value.detach() if table else _by_order(value.detach(), target, layout)
    return weights


def _plain(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _places(model: Scn, head: Sphere) -> Places:
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
