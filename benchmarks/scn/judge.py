"""What a potential gets wrong on the slabs: errors by system, rotations, and who knows nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from surefoot.data.convert import to_graph
from surefoot.evaluate.oc20 import energy_within, forces_cosine
from surefoot.graph import collate
from surefoot.models.scn import Scn
from surefoot.posteriors.predictor import Predictor

TURNED, ROTATIONS = 48, 4  # structures whose rotations are tried, and how many of each
FINE = {"samples": 512, "rings": 12}
"""Points of the read-out and of the grid at which next to nothing is left of their own error."""


def free(atoms: Atoms) -> np.ndarray:
    """Atoms that are not held: forces on the others were never learned."""
    return atoms.get_tags() != 0


def refined(predictor: Predictor) -> Predictor:
    """The same weights with finer points, so that rotations show the messages alone."""
    model = predictor.potential.model
    if not isinstance(model, Scn):
        return predictor
    finer = replace(predictor.potential, model=model.model_copy(update=FINE))
    return replace(predictor, potential=finer)


def ask(predictor: Predictor, frames: Sequence[Atoms]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Energies, and forces on free atoms, some structures at a time."""
    energies, forces = [], []
    for begin in range(0, len(frames), 32):
        part = frames[begin : begin + 32]
        found = predictor(collate([to_graph(atoms, predictor.cutoff) for atoms in part]))
        energies.append(found.energy.mean.double().numpy())
        parts = found.forces.mean.double().split([len(atoms) for atoms in part])
        forces += [piece.numpy()[free(atoms)] for piece, atoms in zip(parts, part, strict=True)]
    return np.concatenate(energies), forces


def errors(predictor: Predictor, frames: Sequence[Atoms]) -> dict[str, Any]:
    """Errors in meV and meV/Å, and by system what they are the means of."""
    energies, forces = ask(predictor, frames)
    off = energies - energies_of(frames)
    true = [atoms.get_forces(apply_constraint=False)[free(atoms)] for atoms in frames]
    systems: dict[str, list[float]] = {}
    for atoms, energy, found, right in zip(frames, off, forces, true, strict=True):
        row = systems.setdefault(str(atoms.info["sid"]), [0, 0.0, 0, 0.0])
        pulled = np.abs(found - right)
        for place, value in enumerate((1, 1000 * abs(energy), pulled.size, 1000 * pulled.sum())):
            row[place] += float(value)
    rows = np.array(list(systems.values()))
    return {
        "energy_mae": mean_error(rows, "energy"),
        "energy_within": energy_within(off),
        "forces_mae": mean_error(rows, "forces"),
        "forces_cosine": forces_cosine(np.concatenate(forces), np.concatenate(true)),
        "systems": {name: [round(value, 6) for value in row] for name, row in systems.items()},
    }


def mean_error(rows: np.ndarray, of: str) -> float:
    """Of systems as rows of frames, Σ|ΔE|, components and Σ|ΔF|, in milli-units."""
    count, total = rows.sum(0)[:2] if of == "energy" else rows.sum(0)[2:]
    return float(total / count)


def energies_of(frames: Sequence[Atoms]) -> np.ndarray:
    """Labels, eV."""
    return np.array([atoms.get_potential_energy() for atoms in frames])


def knowing_nothing(train: Sequence[Atoms], frames: Sequence[Atoms]) -> dict[str, float]:
    """Errors of three who see no structure: the mean, energies of elements alone, no force."""
    right = energies_of(frames)
    elements = sorted({int(z) for atoms in train for z in atoms.numbers})

    def count(images: Sequence[Atoms]) -> np.ndarray:
        return np.array([[np.sum(atoms.numbers == z) for z in elements] for atoms in images], float)

    fitted = np.linalg.lstsq(count(train), energies_of(train), rcond=None)[0]
    forces = [atoms.get_forces(apply_constraint=False)[free(atoms)] for atoms in frames]
    return {
        "mean": 1000 * float(np.abs(right - energies_of(train).mean()).mean()),
        "elements": 1000 * float(np.abs(right - count(frames) @ fitted).mean()),
        "no_force": 1000 * float(np.abs(np.concatenate(forces)).mean()),
    }


def rotation_errors(predictor: Predictor, frames: Sequence[Atoms]) -> dict[str, float]:
    """What turning a structure changes on free atoms: meV, meV/Å, and relative to the forces."""
    frames = frames[:: max(1, len(frames) // TURNED)][:TURNED]
    energies, forces = ask(predictor, frames)
    moved, pulled, size = [], [], np.concatenate(forces)
    for number in range(ROTATIONS):
        matrix = Rotation.random(random_state=number).as_matrix()
        turned = [atoms.copy() for atoms in frames]
        for atoms in turned:
            atoms.set_cell(atoms.cell.array @ matrix.T)
            atoms.positions = atoms.positions @ matrix.T
        others, there = ask(predictor, turned)
        moved.append(np.abs(others - energies))
        pulled.append(np.concatenate(there) - size @ matrix.T)
    difference = np.stack(pulled)
    share = np.linalg.norm(difference) / np.linalg.norm(size) / ROTATIONS**0.5
    return {
        "energy_mae": 1000 * float(np.stack(moved).mean()),
        "forces_mae": 1000 * float(np.abs(difference).mean()),
        "forces_relative": float(share),
    }
