"""What a labelling run leaves beside its journal: labelled frames, and the reasons of failures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from surefoot.data.adsorption import REFERENCE
from surefoot.data.levels import LEVEL_KEY, METHOD_KEY, SETTINGS_KEY
from surefoot.data.read import STRESS_KEYS, VIRIAL_KEYS
from surefoot.label.labeler import Labels

CORES_KEY = "label_cores"


@dataclass(frozen=True)
class Failure:
    """One frame without labels: its file, its number there from 0, and the reason."""

    file: str
    frame: int
    reason: str


def beside(output: Path, ending: str) -> Path:
    """The name of a file that belongs to another one."""
    return output.with_name(f"{output.name}.{ending}")


def write_failed(path: Path, failed: Sequence[Failure]) -> None:
    """Write the reasons as JSON, whole or not at all; remove the file where there are none."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    unfinished = beside(path, "unfinished")
    unfinished.write_text(json.dumps([asdict(failure) for failure in failed], indent=1) + "\n")
    _put_in_place(unfinished, path)


def write_labelled(path: Path, images: Sequence[Atoms]) -> None:
    """Write frames as extended XYZ, whole or not at all."""
    unfinished = beside(path, "unfinished")
    ase.io.write(unfinished, list(images), format="extxyz")
    _put_in_place(unfinished, path)


def _put_in_place(unfinished: Path, path: Path) -> None:
    # The content is on the disk before the name is: whole or not at all, whatever happens.
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


@dataclass(frozen=True)
class Origin:
    """Where labels come from.

    Attributes:
        method: `Labeler.describe()`.
        settings: `Labeler.settings()`; extended XYZ keeps it as JSON.
    """

    method: str
    settings: dict[str, Any]

    def level(self) -> str:
        """Short hash of the settings, as text, which every file format keeps."""
        said = json.dumps(self.settings, sort_keys=True).encode()
        return f"sha256-{hashlib.sha256(said).hexdigest()[:16]}"


def with_labels(
    atoms: Atoms, labels: Labels, state: tuple[int, int], origin: Origin, cores: dict[str, int]
) -> Atoms:
    """A copy of a frame with its labels and where they come from.

    What belonged to an older label goes: stress, ⟨S²⟩ and the reference of adsorption energies.

    Args:
        atoms: the frame, with info and arrays that stay.
        labels: energy in eV, forces in eV/Å.
        state: charge in e and multiplicity.
        origin: where they come from.
        cores: electrons that core potentials stand for, by element.
    """
    labelled = atoms.copy()
    for key in (*STRESS_KEYS, *VIRIAL_KEYS, "stress", "spin_squared", REFERENCE, CORES_KEY):
        labelled.info.pop(key, None)
    labelled.info |= {
        "REF_energy": labels.energy,
        "charge": state[0],
        "spin": state[1],
        METHOD_KEY: origin.method,
        SETTINGS_KEY: origin.settings,
        LEVEL_KEY: origin.level(),
    }
    if cores:
        labelled.info[CORES_KEY] = cores
    if labels.spin_squared is not None:
        labelled.info["spin_squared"] = labels.spin_squared
    labelled.arrays["REF_forces"] = labels.forces
    return labelled
