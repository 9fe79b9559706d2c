"""Potentials of fairchem-core 1: weights of its SCN become a Predictor with the same numbers.

The weights are those of the class `SphericalChannelNetwork`, by their names in its state dict
(`scn_weights`), and the options are its arguments, as a config of that package has them under
`model`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from surefoot.blocks.reference import Baseline
from surefoot.blocks.turning import HIGHEST
from surefoot.deploy.records import Record, UnreadableFile, read_records, shorten, show
from surefoot.deploy.scn_weights import TABLES, is_repeated, plain_name, read_weights, shapes_of
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

LIMITS: dict[str, tuple[float, float]] = {
    "max_num_neighbors": (1, 10_000),
    "cutoff": (0.1, 100.0),
    "max_num_elements": (2, 200),
    "num_interactions": (1, 64),
    "lmax": (0, HIGHEST),
    "num_resolutions": (1, 2),
    "sphere_channels": (1, 4096),
    "sphere_channels_reduce": (1, 4096),
    "hidden_channels": (4, 65_536),
    "num_bands": (1, 2),
    "num_sphere_samples": (2, 10_000),
    "num_basis_functions": (1, 65_536),
    "basis_width_scalar": (1e-3, 1e3),
    "distance_resolution": (1e-4, 100.0),
}
"""Least and most of what is given as a number: some of it costs memory before weights are seen."""

EDGES = {"use_pbc": True, "otf_graph": True, "enforce_max_neighbors_strictly": True}
"""Options that say which edges there are; with another value they are not those of here."""

IGNORED = {
    "name", "use_pbc_single", "show_timing_info", "direct_forces", "num_atoms", "bond_feat_dim",
    "num_targets",
}  # fmt: skip
"""Options that say how edges are searched or what is shown; they change no number here."""

BASES: dict[str, Literal["gaussian", "sigmoid", "linear_sigmoid", "silu"]] = {
    "gaussian": "gaussian",
    "sigmoid": "sigmoid",
    "linearsigmoid": "linear_sigmoid",
    "silu": "silu",
}
"""Their name of a radial basis → ours."""

TWO_MILLION = {
    "num_interactions": 12,
    "hidden_channels": 1024,
    "max_num_neighbors": 40,
    "basis_width_scalar": 2.0,
}
WRONG = (ValueError, TypeError, IndexError, KeyError, ArithmeticError, AttributeError, RuntimeError)
"""What comes of a setting that has another type than fairchem-core gives it."""

PUBLISHED: dict[str, dict[str, Any]] = {
    "2M t1-b1": {**TWO_MILLION, "num_taps": 1, "num_bands": 1},
    "2M t4-b2": {**TWO_MILLION, "num_taps": 4, "num_bands": 2},
    "All+MD": {**TWO_MILLION, "num_interactions": 16, "num_bands": 2},
}
"""Options of the three published configurations, as the repository's configs have them."""


def read_scn(path: Path, elements: Sequence[int] | None = None) -> Predictor:
    """The potential in a checkpoint of fairchem-core 1 or of ocp before it.

    Weights are the averages of the training where the file has some, as that package itself takes
    them, and those under `state_dict` otherwise, which in its checkpoints for inference are the
    averages. The file is read by `records`: nothing in it is executed.

    Args:
        path: of the file.
        elements: atomic numbers to keep, ascending; all that its tables have where not given.
    Raises:
        UnreadableFile: if it is no such file, or holds something that is not built here.
    """
    return from_checkpoint(read_records(path), path, elements)


def from_checkpoint(
    record: Record | dict[Any, Any], path: Path, elements: Sequence[int] | None = None
) -> Predictor:
    """The same of a file that was read already."""
    try:
        if not isinstance(record, dict) or not {"state_dict", "config"} <= record.keys():
            raise UnreadableFile(
                "holds no state_dict beside a config; give a checkpoint of fairchem-core 1."
            )
        config = record["config"]
        if not isinstance(config, dict):
            raise UnreadableFile(
                f"its config is {show(config)}, and no dict with the options of its model; give a "
                "checkpoint of fairchem-core 1."
            )
        options = _options(config)
        if record.get("elementrefs"):
            raise UnreadableFile(
                "its energies are counted from element references; not built here."
            )
        shift, scale = _normaliser(record, ("energy", "target"))
        centre, unit = _normaliser(record, ("forces", "grad_target"))
        if centre:
            raise UnreadableFile(f"its forces are shifted by {centre:g}; the usual shift is zero.")
        return build_scn(
            _averages(record),
            options,
            elements=elements,
            scale=scale,
            shift=shift,
            force_scale=unit,
            origin=f"fairchem-core, {path.name}",
        )
    except UnreadableFile as error:
        raise UnreadableFile(f"{path}: {shorten(str(error))}") from error
    except WRONG as error:
        raise UnreadableFile(
            f"{path}: its settings are not those of a checkpoint of fairchem-core 1 "
            f"({shorten(str(error))})."
        ) from error


def _averages(record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights, or their averages, which are a list in the order of the weights."""
    found = record["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UnreadableFile("its state_dict is no dict of tensors.")
    state = {str(name): value for name, value in found.items()}
    ema = record.get("ema")
    if ema is None:
        return state
    averages = ema.get("shadow_params") if isinstance(ema, dict) else None
    names = [name for name in state if not is_repeated(plain_name(name))]
    if not isinstance(averages, list | tuple) or (
        [getattr(value, "shape", None) for value in averages] != [state[n].shape for n in names]
    ):
        raise UnreadableFile(
            "its averages (ema) are not those of its weights, so that nobody can say which weights "
            "its numbers come from; save it for inference, without ema."
        )
    return state | dict(zip(names, averages, strict=True))


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the class: under `model` with its name, or beside it in older files."""
    model = config.get("model")
    found = model if isinstance(model, dict) else config.get("model_attributes")
    name = model.get("name") if isinstance(model, dict) else model
    if name != "scn" or not isinstance(found, dict):
        raise UnreadableFile(f"is a checkpoint of the model {show(name)}; scn is read here.")
    return dict(found)


def _normaliser(record: Mapping[str, Any], names: tuple[str, ...]) -> tuple[float, float]:
    """Mean and unit that labels were normalised by; 0 and 1 where they were not."""
    stated = record.get("normalizers") or {}
    if not isinstance(stated, dict):
        raise UnreadableFile(f"its normalizers are {show(stated)}, and no dict.")
    for name in names:
        found = stated.get(name)
        if found is not None:
            try:
                unit = found["rmsd"] if "rmsd" in found else found["std"]
                mean, unit = float(found["mean"]), float(unit)
            except WRONG as error:
                raise UnreadableFile(
                    f"the normaliser of its {names[0]} has no single mean and rmsd ({error})."
                ) from error
            if not (math.isfinite(mean) and 0 < unit < math.inf):
                raise UnreadableFile(
                    f"the normaliser of its {names[0]} has the mean {mean:g} and the rmsd "
                    f"{unit:g}; finite numbers are needed, and an rmsd above zero."
                )
            return mean, unit
    return 0.0, 1.0


def _require_options(given: Mapping[str, Any]) -> None:
    """Refuse numbers that are none, or beyond `LIMITS`."""
    for name, (least, most) in LIMITS.items():
        value, whole = given[name], isinstance(OPTIONS[name], int)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (whole and not isinstance(value, int)) or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            raise UnreadableFile(
                f"the option {name} is {show(value)}; {kind} from {least} to {most} is read."
            )
    for name in ("use_grid", "regress_forces"):
        if not isinstance(given[name], bool):
            raise UnreadableFile(f"the option {name} is {show(given[name])}; give true or false.")
    if not given["distance_resolution"] <= given["cutoff"] / 2:
        raise UnreadableFile(
            f"distance_resolution is {given['distance_resolution']}, and cutoff {given['cutoff']}; "
            "two radial basis functions are needed at least."
        )


def published_scn(options: Mapping[str, Any]) -> tuple[Scn, Sphere]:
    """Model and head that give the numbers of the original class with these options.

    Args:
        options: arguments of the class; see `OPTIONS` for what holds where one is not given.
    Raises:
        UnreadableFile: naming an option that is not known or a value that is not built here.
    """
    unknown = sorted(map(str, options.keys() - OPTIONS.keys() - EDGES.keys() - IGNORED))
    if unknown:
        raise UnreadableFile(
            f"SCN has no option {unknown[0][:80]}; there are {', '.join(sorted(OPTIONS))}."
        )
    for name, value in EDGES.items():
        if options.get(name, value) is not value:
            raise UnreadableFile(
                f"the option {name} is {show(options[name])}, which means other edges; {value} is "
                "built here."
            )
    given = OPTIONS | {name: value for name, value in options.items() if name in OPTIONS}
    if not isinstance(given["distance_function"], str) or given["distance_function"] not in BASES:
        raise UnreadableFile(
            f"there is no distance_function {show(given['distance_function'])}; there are "
            f"{', '.join(BASES)}."
        )
    if given["mmax"] not in (0, 1):
        raise UnreadableFile(
            f"mmax is {show(given['mmax'])}; the original class runs with 0 and 1."
        )
    _require_options(given)
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
            basis=BASES[given["distance_function"]],
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
    rows = {**OPTIONS, **options}["max_num_elements"]
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


def their_shapes(options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's weights with these options.

    Raises:
        UnreadableFile: as `published_scn`.
    """
    return shapes_of(*published_scn(options), {**OPTIONS, **options}["max_num_elements"])
