"""The state of a run on disk: with it, a killed run goes on as if it had not been."""

from __future__ import annotations

import errno
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from surefoot.data.read import read_state
from surefoot.md.settings import Simulation
from surefoot.md.state import State
from surefoot.md.trajectory import Marks, Sums
from surefoot.motion.systems import Configuration, find_fixed
from surefoot.train.checkpoint import (
    BROKEN,
    RefusedFile,
    digest,
    read_tree,
    refuse_difference,
    write_tree,
)

KIND = "state of molecular dynamics"
STATE = "state.safetensors"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the motion of one system ended before the run did.

    Attributes:
        status: `broken`, or `unsure` where the guard has stopped it.
        step: that it did not pass: at the end of which the guard stopped it, or in which it broke.
        reason: a sentence.
    """

    status: str
    step: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Saved:
    """Everything a run needs to go on.

    Attributes:
        state: of the systems that still move.
        reference: where their neighbour lists were made, so that sums have the same order again.
        ids: (systems) which they are.
        step: how many have been made.
        marks: how much of the trajectory counts.
        sums: what tells whether that is as it was written.
        endings: by number of the system.
        made_by: versions of what adds and draws.
    """

    state: State
    reference: Configuration
    ids: Tensor
    step: int
    marks: Marks
    sums: Sums
    endings: dict[int, Ending]
    made_by: dict[str, str]


def versions() -> dict[str, str]:
    """What decides the last bit of a trajectory."""
    return {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine()}


def identify(
    structures: Sequence[Atoms],
    temperatures: Sequence[float],
    settings: Simulation,
    potential: str,
) -> dict[str, Any]:
    """What makes two runs the same: everything but their length, guard and bias.

    Args:
        structures: as they came.
        temperatures: K, of each.
        settings: of the run.
        potential: what names the surface, such as the hash of its file.
    """
    states = [read_state(atoms.info) for atoms in structures]
    parts = {
        "numbers": np.concatenate([atoms.numbers for atoms in structures]),
        "positions": np.concatenate([atoms.positions for atoms in structures]),
        "momenta": np.concatenate([atoms.get_momenta() for atoms in structures]),
        "masses": np.concatenate([atoms.get_masses() for atoms in structures]),
        "cells": np.array([atoms.cell.array for atoms in structures]),
        "temperatures": np.array(temperatures, float),
        "pbc": np.array([atoms.pbc for atoms in structures]),
        "fixed": np.concatenate([find_fixed(atoms) for atoms in structures]),
        "states": np.array(  # nan: nobody stated it
            [[np.nan if part is None else part for part in state] for state in states], float
        ),
    }
    return {
        "structures": digest({name: torch.tensor(value) for name, value in parts.items()}),
        "settings": settings.model_dump(exclude={"steps"}),
        "potential": potential,
    }


@contextmanager
def full_disk(folder: Path, step: int) -> Iterator[None]:
    """Say in a sentence that the disk is full.

    Raises:
        ValueError: where the system says so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"{folder}: the disk is full at step {step}. What was written before is whole; make "
            "room and resume the run."
        ) from error


def save(folder: Path, saved: Saved, identity: dict[str, Any]) -> None:
    """Write the state, whole or not at all."""
    tree = {f"state.{name}": value for name, value in saved.state.tree().items()}
    tree |= {
        "reference.positions": saved.reference.positions,
        "reference.cell": saved.reference.cell,
        "ids": saved.ids,
    }
    header = {
        "identity": identity,
        "step": saved.step,
        "marks": saved.marks,
        "sums": saved.sums,
        "endings": {str(n): vars(one) for n, one in saved.endings.items()},
        "versions": saved.made_by,
    }
    # Copies, since the file holds no two names for one piece of memory.
    tree = {name: value.clone() for name, value in tree.items()}
    write_tree(folder / STATE, KIND, tree, header)


def _same_names(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether what both settle has the same names throughout; values may differ, or be None."""
    if found.keys() != wanted.keys():
        return False
    return all(
        _same_names(found[name], wanted[name])
        for name in found
        if isinstance(found[name], Mapping) and isinstance(wanted[name], Mapping)
    )


def load(folder: Path, identity: dict[str, Any]) -> Saved:
    """Read the state of a run.

    Raises:
        RefusedFile: if it is missing, damaged or of another run.
    """
    path = folder / STATE
    tree, header = read_tree(path, KIND)
    found = header.get("identity")
    if not isinstance(found, Mapping) or not _same_names(found, identity):
        raise RefusedFile(
            f"{path}: another version of surefoot has written it, with other settings; go on with "
            "that version, or begin a new run in another folder."
        )
    refuse_difference(found, identity, path)
    if {f"state.{name.name}" for name in fields(State)} - tree.keys():
        raise RefusedFile(
            f"{path}: another version of surefoot has written it, and it lacks what a run goes on "
            "from here; go on with that version, or begin a new run in another folder."
        )
    try:
        counts = (header["step"], *header["marks"].values())
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a count is none")
        state = State(
            **{n.removeprefix("state."): v for n, v in tree.items() if n.startswith("state.")}
        )
        return Saved(
            state=state,
            reference=Configuration(
                positions=tree["reference.positions"], cell=tree["reference.cell"]
            ),
            ids=tree["ids"],
            step=header["step"],
            marks=header["marks"],
            sums=header.get("sums", {}),
            endings={int(n): Ending(**one) for n, one in header["endings"].items()},
            made_by=header["versions"],
        )
    except BROKEN as error:
        raise RefusedFile(
            f"{path}: it is not the state of a run ({error}); the run can not go on from it."
        ) from error
