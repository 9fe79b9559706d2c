"""The figures of OC20's tasks and the files of its leaderboard, from plain arrays.

S2EF: structure → energy and forces. IS2RE: initial structure → relaxed energy. IS2RS: → relaxed
structure. Source: Chanussot et al., ACS Catal. 11 (2021) 6059, arXiv:2010.09990, and the evaluator
of fairchem-core 1.10.0, whose numbers these are: every threshold is strict, and an atom that is
held fixed counts nowhere. Differs: figures of no atom or no structure are refused, where it would
give nan, and a structure whose atoms are all fixed is judged by its energy alone.

AFbT, the share of relaxed structures with small DFT forces, needs DFT and is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

ENERGY_WITHIN = 0.02  # eV
FORCES_WITHIN = 0.03  # eV/Å, every component
DISTANCES_WITHIN = np.arange(10, 500) / 1000  # Å; 490 thresholds
SHORTEST = 1e-8  # eV/Å; a shorter force has no direction
SPLITS = ("id", "ood_ads", "ood_cat", "ood_both")
Task = Literal["s2ef", "is2re"]


def energy_mae(errors: Float[np.ndarray, " systems"]) -> float:
    """Mean |ΔE| in eV."""
    return float(np.abs(_some(errors, "structure")).mean())


def energy_within(errors: Float[np.ndarray, " systems"]) -> float:
    """EwT: the share of structures with |ΔE| < 0.02 eV, in percent."""
    return 100 * float((np.abs(_some(errors, "structure")) < ENERGY_WITHIN).mean())


def forces_mae(errors: Float[np.ndarray, "free 3"]) -> float:
    """Mean |ΔF| over free atoms and components in eV/Å; the loss has the length of ΔF instead."""
    return float(np.abs(_some(errors, "free atom")).mean())


def forces_cosine(
    predicted: Float[np.ndarray, "free 3"], labels: Float[np.ndarray, "free 3"]
) -> float:
    """Mean cosine between predicted and true forces of free atoms; 0 where one has no length."""
    lengths = [np.linalg.norm(_some(one, "free atom"), axis=1) for one in (predicted, labels)]
    first, second = (np.maximum(length, SHORTEST) for length in lengths)
    return float(((predicted * labels).sum(1) / (first * second)).mean())


def forces_magnitude(
    predicted: Float[np.ndarray, "free 3"], labels: Float[np.ndarray, "free 3"]
) -> float:
    """Mean difference | |F̂| − |F| | of the lengths of free atoms' forces in eV/Å."""
    lengths = [np.linalg.norm(_some(one, "free atom"), axis=1) for one in (predicted, labels)]
    return float(np.abs(lengths[0] - lengths[1]).mean())


def energy_forces_within(
    energy_errors: Float[np.ndarray, " systems"],
    force_errors: Float[np.ndarray, "free 3"],
    system: Int[np.ndarray, " free"],
) -> float:
    """EFwT: the share with |ΔE| < 0.02 eV and every |ΔF| < 0.03 eV/Å, in percent.

    Args:
        energy_errors: (systems) eV.
        force_errors: (free, 3) eV/Å, of free atoms and each component.
        system: (free) the structure of each of these atoms.
    """
    worst = np.zeros(len(_some(energy_errors, "structure")))
    np.maximum.at(worst, system, np.abs(force_errors).max(1, initial=0.0))
    within = (np.abs(energy_errors) < ENERGY_WITHIN) & (worst < FORCES_WITHIN)
    return 100 * float(within.mean())


def displacements(
    positions: Float[np.ndarray, "atoms 3"],
    relaxed: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, " 3"],
) -> Float[np.ndarray, " atoms"]:
    """How far each atom is from where it should be in Å, by the nearest image along each vector.

    As in the evaluator each fraction of the cell is rounded by itself: in a skewed cell that may
    be another image than the nearest, for an atom that is off by about half of the cell.
    """
    difference = relaxed - positions
    vectors = cell[pbc]
    fractions = difference @ np.linalg.pinv(vectors)
    difference = difference - np.round(fractions) @ vectors
    return np.linalg.norm(difference, axis=1)


def distance_within(distances: Float[np.ndarray, " systems"]) -> float:
    """ADwT: the share of structures closer than t, averaged over t = 0.010 … 0.499 Å, in percent.

    Args:
        distances: (systems) Å, mean of `displacements` over the free atoms of each structure.
    """
    distances = _some(distances, "structure")
    return 100 * float((distances[:, None] < DISTANCES_WITHIN).mean())


def _some(values: np.ndarray, what: str) -> np.ndarray:
    if len(values) == 0:
        raise ValueError(f"there is no {what} to take the mean over.")
    return values


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What is handed in for one split.

    Attributes:
        ids: of each structure: `sid_fid` for S2EF, `sid` for IS2RE.
        energy: (structures) eV.
        forces: one (atoms, 3) per structure in eV/Å, fixed atoms included; S2EF only.
        unfinished: how many of them are relaxations that did not converge.
    """

    ids: list[str]
    energy: list[float]
    forces: list[np.ndarray]
    unfinished: int = 0


def submission(task: Task, splits: Mapping[str, Predictions]) -> dict[str, np.ndarray]:
    """The arrays of a file for the leaderboard.

    `{split}_ids` and `{split}_energy`, for S2EF `{split}_forces` in one array too, and
    `{split}_chunk_idx`, its rows before each structure but the first, as `numpy.split` takes them.

    Raises:
        ValueError: if a split is not one of the four, or two structures have one id.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, one in splits.items():
        if name not in SPLITS:
            raise ValueError(f"the split {name} is not known; there is {', '.join(SPLITS)}.")
        if len(set(one.ids)) < len(one.ids):
            twice = next(found for found in one.ids if one.ids.count(found) > 1)
            raise ValueError(f"the split {name} has the structure {twice} twice.")
        arrays[f"{name}_ids"] = np.array(one.ids, dtype=str)
        arrays[f"{name}_energy"] = np.array(one.energy, dtype=np.float32)
        if task == "s2ef":
            counts = [len(forces) for forces in one.forces]
            arrays[f"{name}_forces"] = np.concatenate(one.forces).astype(np.float32)
            arrays[f"{name}_chunk_idx"] = np.cumsum(counts)[:-1].astype(np.int64)
    return arrays
