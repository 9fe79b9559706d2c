"""Parts of a Predictor as its file spells them, and weights that are not those of its potential."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from surefoot.blocks.conditioning import States
from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline
from surefoot.blocks.repulsion import Repulsion
from surefoot.potential import Potential, count_members, shares_model
from surefoot.train.checkpoint import RefusedFile


def say_setting(error: ValidationError) -> str:
    """The first setting that is not as this version has it, on one line."""
    problem = error.errors()[0]
    name = ".".join([error.title, *map(str, problem["loc"])])
    return f"{name}: {problem['msg']}, found {problem['input']!r}"


def require_weights(potential: Potential, found: Weights, path: Path) -> None:
    """Refuse draws that are not weights of the potential: read as they are, some would not matter.

    Args:
        potential: whose weights they should be.
        found: a stack, whole or partial.
        path: of the file.
    Raises:
        RefusedFile: naming the first weight that is missing, left over or of another shape.
    """
    fresh = potential.init(0, torch.float64)
    found = {name: value for name, value in found.items() if name.startswith(("model.", "head."))}
    for name in sorted(fresh.keys() - found.keys()):
        raise RefusedFile(
            f"{path}: the weight {name} of shape {tuple(fresh[name].shape)} is missing; the file "
            "is of no use."
        )
    for name in sorted(found.keys() - fresh.keys()):
        raise RefusedFile(
            f"{path}: the weight {name} of shape {tuple(found[name].shape[1:])} is not one of the "
            "potential; the file is of no use."
        )
    stacked = ("head.",) if shares_model(found) else ("model.", "head.")
    count = (count_members(found),)
    for name in sorted(fresh):
        sets = count if name.startswith(stacked) else ()
        shape, needed = tuple(found[name].shape), (*sets, *fresh[name].shape)
        if shape != needed:
            raise RefusedFile(
                f"{path}: the weight {name} has the shape {shape}, and the potential needs "
                f"{needed}, sets of weights first; the file is of no use."
            )


def read_baseline(header: dict[str, Any]) -> Baseline:
    """The baseline."""
    return Baseline(
        elements=tuple(header["elements"]),
        energies=tuple(header["energies"]),
        scale=header["scale"],
        neighbors=header["neighbors"],
        repulsion=_read_repulsion(header["repulsion"]),
    )


def _read_repulsion(header: dict[str, Any] | None) -> Repulsion | None:
    return None if header is None else Repulsion(**{**header, "radii": tuple(header["radii"])})


def read_states(pairs: list[list[int]] | None) -> States | None:
    """The states that are told apart."""
    if pairs is None:
        return None
    return States(tuple((int(charge), int(spin)) for charge, spin in pairs))
