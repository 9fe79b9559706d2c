"""Predictions beside labels: what calibration and evaluation both start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from surefoot.data.batches import EVALUATION, join, plan_batches
from surefoot.data.convert import Sample
from surefoot.evaluate.quantities import Quantity
from surefoot.graph import Targets, collate_targets
from surefoot.posteriors.predictor import Calibration, Predictor, join_predictions
from surefoot.prediction import Moments, Prediction

MILLI = 1000.0  # tables show meV


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Predictions beside labels, in the order of the samples.

    Attributes:
        prediction: of all draws.
        targets: labels and masks.
        sizes: (graphs) atoms of each structure.
        calibration: the factors in the prediction.
    """

    prediction: Prediction
    targets: Targets
    sizes: np.ndarray
    calibration: Calibration

    @property
    def graph_of_atom(self) -> np.ndarray:
        """(atoms) number of each atom's structure."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def counted_atoms(self) -> Bool[np.ndarray, " atoms"]:
        """Atoms whose forces are labelled and not fixed."""
        labelled = self.targets.has_forces.numpy()[self.graph_of_atom]
        return labelled & ~self.targets.fixed.numpy()


def predict_samples(
    predictor: Predictor,
    samples: Sequence[Sample],
    *,
    members: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Judged:
    """Predictions and labels of all samples, in their order.

    Args:
        predictor: what predicts.
        samples: what is predicted.
        members: whether the forces of each draw are kept.
        progress: called with the number of samples done since the last call.
    """
    targets = collate_targets([sample.targets for sample in samples])
    stress = bool(targets.has_stress.any())
    parts = []
    for indices in plan_batches(
        samples, np.arange(len(samples)), EVALUATION.shared_by(predictor.draws)
    ):
        graph = join(samples, indices).graph
        parts.append(predictor(graph, stress=stress, members=members))
        progress(len(indices))
    return Judged(
        prediction=join_predictions(parts),
        targets=targets,
        sizes=np.array([sample.graph.numbers.shape[0] for sample in samples]),
        calibration=predictor.calibration,
    )


def compare(judged: Judged, samples: Sequence[Sample]) -> list[Quantity]:
    """Residuals and error bars of every labelled quantity, in meV/atom, meV/Å and meV/Å³."""
    groups = np.array([sample.group for sample in samples], dtype=str)
    types = np.array([sample.config_type for sample in samples], dtype=str)
    prediction, targets = judged.prediction, judged.targets
    quantities = []
    labelled = targets.has_energy.numpy()
    if labelled.any():
        per_atom = MILLI / judged.sizes[labelled]
        mean, std = _numpy(prediction.energy)
        quantities.append(
            Quantity(
                name="energy",
                unit="meV/atom",
                residuals=(targets.energy.numpy() - mean)[labelled] * per_atom,
                std=None if std is None else std[labelled] * per_atom,
                factor=judged.calibration.energy or 1.0,
                groups=groups[labelled],
                types=types[labelled],
            )
        )
    if prediction.forces is not None and judged.counted_atoms.any():
        quantities.append(_compare_forces(judged, prediction.forces, groups, types))
    if prediction.stress is not None and targets.has_stress.any():
        quantities.append(_compare_stress(judged, prediction.stress, groups, types))
    return quantities


def _numpy(moments: Moments) -> tuple[np.ndarray, np.ndarray | None]:
    total = moments.total
    return moments.mean.numpy(), None if total is None else total.sqrt().numpy()


def _compare_forces(
    judged: Judged, forces: Moments, groups: np.ndarray, types: np.ndarray
) -> Quantity:
    chosen = judged.counted_atoms
    owner = np.repeat(judged.graph_of_atom[chosen], 3)
    residuals = (judged.targets.forces.numpy() - forces.mean.numpy())[chosen].reshape(-1)
    std = None
    if forces.total is not None:
        diagonal = forces.total.diagonal(dim1=-2, dim2=-1).sqrt().numpy()
        std = MILLI * diagonal[chosen].reshape(-1)
    return Quantity(
        name="forces",
        unit="meV/Å",
        residuals=MILLI * residuals,
        std=std,
        factor=judged.calibration.forces or 1.0,
        groups=groups[owner],
        types=types[owner],
    )


def _compare_stress(
    judged: Judged, stress: Moments, groups: np.ndarray, types: np.ndarray
) -> Quantity:
    chosen = judged.targets.has_stress.numpy() & np.isfinite(stress.mean.numpy()).all((1, 2))
    owner = np.repeat(np.flatnonzero(chosen), 9)
    mean, std = _numpy(stress)
    return Quantity(
        name="stress",
        unit="meV/Å³",
        residuals=MILLI * (judged.targets.stress.numpy() - mean)[chosen].reshape(-1),
        std=None if std is None else MILLI * std[chosen].reshape(-1),
        factor=judged.calibration.stress or 1.0,
        groups=groups[owner],
        types=types[owner],
    )
