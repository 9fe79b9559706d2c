"""The points that calibration looks at: labels beside predictions, quantity by quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.data.convert import Sample
from surefoot.evaluate.quantities import NEGLIGIBLE
from surefoot.posteriors.judge import Judged, by_component, pick, triangle
from surefoot.prediction import Moments


@dataclass(frozen=True)
class Points:
    """One quantity at the calibration points, with error bars as they come.

    Attributes:
        residuals: label − mean of the draws that have not seen the point.
        std: of these draws; not calibrated.
        spread: the part of its square that is the unbiased variance between them; 0 for one.
        frame: number of each point's frame.
    """

    residuals: Float[np.ndarray, " points"]
    std: Float[np.ndarray, " points"]
    spread: Float[np.ndarray, " points"]
    frame: Int[np.ndarray, " points"]

    def select(self, chosen: Bool[np.ndarray, " points"]) -> Points:
        """Some of the points."""
        parts = (self.residuals, self.std, self.spread, self.frame)
        return Points(*(part[chosen] for part in parts))

    @property
    def stated(self) -> Bool[np.ndarray, " points"]:
        """Where there is an error bar."""
        return self.std > NEGLIGIBLE * self.std.max(initial=1e-30)


def points_of(judged: Judged) -> dict[str, Points]:
    """Residuals and error bars of each labelled quantity that has error bars."""
    prediction, targets = judged.prediction, judged.targets
    found = {}
    labelled = targets.has_energy.numpy()
    if labelled.any() and prediction.energy.total is not None:
        frames = np.arange(len(labelled))
        found["energy"] = _take(prediction.energy, targets.energy, labelled, frames)
    atoms = judged.counted_atoms
    if prediction.forces is not None and prediction.forces.total is not None and atoms.any():
        forces = by_component(prediction.forces)
        found["forces"] = _take(forces, targets.forces, atoms, judged.graph_of_atom)
    chosen = judged.counted_stress
    if prediction.stress is not None and prediction.stress.total is not None and chosen.any():
        frames = np.arange(len(chosen))
        found["stress"] = _take(triangle(prediction.stress), pick(targets.stress), chosen, frames)
    return found


def _take(
    moments: Moments, labels: Tensor, rows: Bool[np.ndarray, " rows"], frames: np.ndarray
) -> Points:
    """The points of some rows of a quantity that has an error bar."""
    total, part = moments.total, moments.epistemic
    if total is None:
        raise ValueError("there is no error bar.")
    if part is None or moments.residual is not None:
        part = torch.zeros_like(total)
    residuals, std, spread = (
        value.double().numpy()[rows].reshape(-1)
        for value in (labels - moments.mean.double(), total.sqrt(), part)
    )
    points_in_row = len(residuals) // max(1, int(rows.sum()))
    return Points(residuals, std, spread, np.repeat(frames[rows], points_in_row))


def draws_of(
    judged: Judged, unseen: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Label, draws (members, points) and unseen (members, points) of each labelled quantity."""
    prediction, targets = judged.prediction, judged.targets
    quantities = {}
    labelled = targets.has_energy.numpy()
    if labelled.any() and prediction.energy_draws is not None:
        draws = prediction.energy_draws.numpy()
        quantities["energy"] = (
            targets.energy.numpy()[labelled],
            draws[:, labelled],
            unseen[:, labelled],
        )
    atoms = judged.counted_atoms
    if atoms.any() and prediction.forces_draws is not None:
        draws = prediction.forces_draws.double().numpy()[:, atoms]
        by_atom = unseen[:, judged.graph_of_atom[atoms]]
        quantities["forces"] = (
            targets.forces.numpy()[atoms].reshape(-1),
            draws.reshape(draws.shape[0], -1),
            np.repeat(by_atom, 3, axis=1),
        )
    chosen = judged.counted_stress
    if prediction.stress_draws is not None and chosen.any():
        draws = pick(prediction.stress_draws).double().numpy()
        quantities["stress"] = (
            pick(targets.stress).numpy()[chosen].reshape(-1),
            draws[:, chosen].reshape(draws.shape[0], -1),
            np.repeat(unseen[:, chosen], draws.shape[-1], axis=1),
        )
    return quantities


def pair_frames(samples: Sequence[Sample], groups: Sequence[str]) -> Int[np.ndarray, "pairs 2"]:
    """Each labelled frame with the one before it of the same group, composition and state."""
    before: dict[tuple[str, bytes, int, int], int] = {}
    pairs = []
    for number, (sample, group) in enumerate(zip(samples, groups, strict=True)):
        if not bool(sample.targets.has_energy.all()):
            continue
        graph = sample.bare
        composition = graph.numbers.sort().values.numpy().tobytes()
        key = (group, composition, int(graph.charge), int(graph.spin))
        if key in before:
            pairs.append((before[key], number))
        before[key] = number
    return np.array(pairs, np.int64).reshape(-1, 2)


def differences(
    judged: Judged, unseen: np.ndarray, pairs: Int[np.ndarray, "pairs 2"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, draws and unseen of energy differences; unseen only if neither frame was seen."""
    first, second = pairs.T
    energies = judged.targets.energy.numpy()
    draws = judged.prediction.energy_draws
    if draws is None:
        raise ValueError("energies of the members are needed to calibrate differences.")
    members = draws.numpy()
    return (
        energies[second] - energies[first],
        members[:, second] - members[:, first],
        unseen[:, first] & unseen[:, second],
    )


def spreads(draws: Float[np.ndarray, "members points"], unseen: np.ndarray) -> np.ndarray:
    """Points on which the unseen members differ; symmetry makes some force components equal."""
    low = np.min(np.where(unseen, draws, np.inf), axis=0)
    high = np.max(np.where(unseen, draws, -np.inf), axis=0)
    spread = np.where(unseen.any(0), high - low, 0.0)
    return spread > NEGLIGIBLE * spread.max(initial=1e-30)
