"""Predictions beside labels: what calibration and evaluation both start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from surefoot.data.batches import EVALUATION, join, plan_batches
from surefoot.data.convert import Sample, join_targets
from surefoot.evaluate.quantities import PLAIN, Quantity, Ranked, Structures, Vectors
from surefoot.evaluate.strata import name_ranges
from surefoot.graph import Targets
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.predictor import Predictor, join_predictions
from surefoot.prediction import Moments, Prediction

MILLI = 1000.0  # tables show meV
FORCE_RANGES = (0.5, 1.0, 2.0, 4.0)  # eV/Å, of the label's length
DRAWS = 16  # whose spread is looked at as a covariance
TRIANGLE = np.triu_indices(3)  # a stress is symmetric: six of its nine entries
RANK = 1e-10  # of the largest eigenvalue: a smaller one is rounding


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

    @property
    def counted_stress(self) -> Bool[np.ndarray, " graphs"]:
        """Structures whose stress is labelled and predicted: without a volume there is none."""
        labelled = self.targets.has_stress.numpy()
        if self.prediction.stress is None:
            return np.zeros_like(labelled)
        return labelled & np.isfinite(self.prediction.stress.mean.numpy()).all((1, 2))


def pick(stress: Tensor) -> Tensor:
    """(…, 6) The six independent components of (…, 3, 3)."""
    return stress[..., *TRIANGLE]


def triangle(stress: Moments) -> Moments:
    """The six independent components, (graphs, 6)."""
    return replace(_change(stress, pick), mean=pick(stress.mean))


def by_component(forces: Moments) -> Moments:
    """Variances of the components, (atoms, 3), in place of covariances."""
    return _change(forces, lambda part: part.diagonal(dim1=-2, dim2=-1))


def _change(moments: Moments, change: Callable[[Tensor], Tensor]) -> Moments:
    parts = {name: getattr(moments, name) for name in ("aleatoric", "epistemic", "residual")}
    return replace(moments, **{n: None if v is None else change(v) for n, v in parts.items()})


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
    targets = join_targets(samples)
    stress = predictor.gives_stress and bool(targets.has_stress.any())
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
        sizes=np.array([sample.atoms for sample in samples]),
        calibration=predictor.calibration,
    )


def compare(judged: Judged, samples: Sequence[Sample]) -> list[Quantity]:
    """Residuals and error bars of every labelled quantity, in meV/atom, meV/Å and meV/Å³."""
    groups, types = name_rows(samples)
    prediction, targets = judged.prediction, judged.targets
    quantities = []
    labelled = targets.has_energy.numpy()
    if labelled.any():
        per_atom = MILLI / judged.sizes[labelled]
        mean, std = _numpy(prediction.energy)
        draws = None
        if prediction.energy_draws is not None and len(prediction.energy_draws) > 1:
            draws = (targets.energy - prediction.energy_draws).numpy()[:, labelled] * per_atom
        quantities.append(
            Quantity(
                name="energy",
                unit="meV/atom",
                residuals=(targets.energy.numpy() - mean)[labelled] * per_atom,
                draws=draws,
                std=None if std is None else std[labelled] * per_atom,
                factor=judged.calibration.energy or 1.0,
                groups=groups[labelled],
                types=types[labelled],
                strata={"atoms": _by_size(judged.sizes)[labelled]},
                bounds=_bounds(judged, "energy", labelled),
            )
        )
    if prediction.forces is not None and judged.counted_atoms.any():
        quantities.append(_compare_forces(judged, prediction.forces, samples))
    if prediction.stress is not None and judged.counted_stress.any():
        quantities.append(_compare_stress(judged, prediction.stress, groups, types))
    return quantities


def name_rows(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Group and config_type of each sample."""
    groups = np.array([sample.group for sample in samples], dtype=str)
    return groups, np.array([sample.config_type for sample in samples], dtype=str)


def _by_size(counts: np.ndarray) -> np.ndarray:
    """Classes of the number of atoms, powers of two, in an order that sorts."""
    low = 2 ** np.floor(np.log2(counts)).astype(int)
    return np.array([f"{first:4d} – {2 * first - 1}" for first in low], dtype=str)


def _bounds(judged: Judged, name: Literal["energy", "forces"], rows: np.ndarray) -> dict[str, Any]:
    """Intervals of the recalibrations that the Predictor knows, for some rows."""
    if name not in judged.calibration.levels:
        return {}
    isotonic = judged.calibration.levels[name].isotonic
    width = judged.prediction.bounds[name]
    chosen = torch.tensor(rows)
    repeats = 3 if name == "forces" else 1

    def by_level(level: float) -> tuple[np.ndarray, np.ndarray]:
        low, high = isotonic.bounds(level)
        count = int(rows.sum()) * repeats
        return np.full(count, low), np.full(count, high)

    def by_kind(level: float) -> tuple[np.ndarray, np.ndarray]:
        low, high = (side[chosen].repeat_interleave(repeats).numpy() for side in width(level))
        return low, high

    return {"isotonic": by_level, "conformal": by_kind}


def _numpy(moments: Moments) -> tuple[np.ndarray, np.ndarray | None]:
    total = moments.total
    return moments.mean.numpy(), None if total is None else total.sqrt().numpy()


def _compare_forces(judged: Judged, forces: Moments, samples: Sequence[Sample]) -> Quantity:
    groups, types = name_rows(samples)
    chosen = judged.counted_atoms
    owner = np.repeat(judged.graph_of_atom[chosen], 3)
    labels = judged.targets.forces.numpy()[chosen]
    residuals = (labels - forces.mean.numpy()[chosen]).reshape(-1)
    std = None
    if forces.total is not None:
        _, deviations = _numpy(by_component(forces))
        std = None if deviations is None else MILLI * deviations[chosen].reshape(-1)
    numbers = np.concatenate([sample.bare.numbers.numpy() for sample in samples])[chosen]
    lengths = np.linalg.norm(labels, axis=1)
    return Quantity(
        name="forces",
        unit="meV/Å",
        residuals=MILLI * residuals,
        std=std,
        factor=judged.calibration.forces or 1.0,
        groups=groups[owner],
        types=types[owner],
        strata={
            "element": np.repeat(numbers.astype(str), 3),
            "atoms": _by_size(judged.sizes)[owner],
            "|force|": np.repeat(name_ranges(lengths, FORCE_RANGES, "eV/Å"), 3),
        },
        bounds=_bounds(judged, "forces", chosen),
    )


def _compare_stress(
    judged: Judged, stress: Moments, groups: np.ndarray, types: np.ndarray
) -> Quantity:
    chosen = judged.counted_stress
    mean, std = _numpy(triangle(stress))
    owner = np.repeat(np.flatnonzero(chosen), mean.shape[1])
    return Quantity(
        name="stress",
        unit="meV/Å³",
        residuals=MILLI * (pick(judged.targets.stress).numpy() - mean)[chosen].reshape(-1),
        std=None if std is None else MILLI * std[chosen].reshape(-1),
        factor=judged.calibration.stress or 1.0,
        groups=groups[owner],
        types=types[owner],
    )


def compare_vectors(judged: Judged, samples: Sequence[Sample]) -> Vectors | None:
    """Force residuals beside covariances of full rank; None where there are none.

    The spread of a few draws is no covariance to divide by: with n draws the mean of z² is
    3 (n − 1) / (n − 5) where it is true, and n below `DRAWS` says more of n than of the spread.
    """
    forces, draws = judged.prediction.forces, judged.prediction.energy_draws
    if forces is None or forces.total is None:
        return None
    if (
        forces.aleatoric is None
        and forces.residual is None
        and (draws is None or len(draws) < DRAWS)
    ):
        return None
    chosen = judged.counted_atoms
    covariance = forces.total.double().numpy()[chosen]
    values = np.linalg.eigvalsh(covariance)
    whole = values[:, 0] > RANK * values[:, 2]
    if not whole.any():
        return None
    residuals = (judged.targets.forces.numpy() - forces.mean.numpy())[chosen]
    owner = judged.graph_of_atom[chosen][whole]
    return Vectors(
        residuals=residuals[whole],
        covariance=covariance[whole],
        groups=name_rows(samples)[0][owner],
    )


def compare_atoms(judged: Judged, samples: Sequence[Sample]) -> Ranked | None:
    """The length of each atom's force error, and what may tell of it; None without labels."""
    forces, chosen = judged.prediction.forces, judged.counted_atoms
    if forces is None or not chosen.any():
        return None
    off = judged.targets.forces.numpy() - forces.mean.numpy()
    lengths = forces.mean.double().square().sum(-1).sqrt()
    scores = {"predicted force": lengths.numpy()}
    if judged.prediction.ood_atoms is not None:
        scores = {"ood": judged.prediction.ood_atoms.double().numpy(), **scores}
    if forces.total is not None:
        trace = forces.total.double().diagonal(dim1=-2, dim2=-1).sum(-1)
        scores = {"force σ": trace.sqrt().numpy(), **scores}
    return Ranked(
        errors=MILLI * np.linalg.norm(off, axis=1)[chosen],
        scores={name: score[chosen] for name, score in scores.items()},
        groups=name_rows(samples)[0][judged.graph_of_atom[chosen]],
    )


Errors = Literal["forces", "energy"]


def find_common_errors(inside: Sequence[Sample], outside: Sequence[Sample]) -> Errors | None:
    """What both sets of structures have labels of: forces if they can, else energies."""
    for name in ("forces", "energy"):
        if all(any(_labelled(sample, name) for sample in part) for part in (inside, outside)):
            return name
    return None


def _labelled(sample: Sample, name: Errors) -> bool:
    targets = sample.targets
    if name == "energy":
        return bool(targets.has_energy)
    return bool(targets.has_forces) and not bool(targets.fixed.all())


def compare_structures(judged: Judged, samples: Sequence[Sample], errors_of: Errors) -> Structures:
    """The error of each labelled structure, and every score that might tell of it.

    Args:
        judged: what is predicted, and labels.
        samples: the structures.
        errors_of: forces or energy; those without labels of it are not counted.
    """
    groups, types = name_rows(samples)
    prediction, targets = judged.prediction, judged.targets
    atoms, owner = judged.counted_atoms, judged.graph_of_atom
    count = len(judged.sizes)
    per_frame = np.bincount(owner[atoms], minlength=count)
    scores = _energy_scores(judged)
    if errors_of == "forces" and prediction.forces is not None:
        squares = (targets.forces.numpy() - prediction.forces.mean.numpy()) ** 2
        counted = per_frame > 0
        sums = np.bincount(owner[atoms], squares[atoms].sum(1), minlength=count)
        errors = MILLI * np.sqrt(sums / np.maximum(3 * per_frame, 1))
        scores |= _force_scores(judged, prediction.forces)
    else:
        counted = targets.has_energy.numpy()
        errors = MILLI * np.abs(targets.energy.numpy() - prediction.energy.mean.numpy())
        errors = errors / judged.sizes
    return Structures(
        errors=errors[counted],
        scores={name: score[counted] for name, score in scores.items()},
        groups=groups[counted],
        types=types[counted],
        counted=counted,
    )


def _energy_scores(judged: Judged) -> dict[str, np.ndarray]:
    prediction = judged.prediction
    scores = {}
    if prediction.ood is not None:
        scores["ood"] = prediction.ood.numpy()
    mean, std = _numpy(prediction.energy)
    if std is not None:
        scores["energy σ per atom"] = std / judged.sizes
    return scores | {PLAIN[0]: mean / judged.sizes}


def _force_scores(judged: Judged, forces: Moments) -> dict[str, np.ndarray]:
    owner, count = judged.graph_of_atom, len(judged.sizes)
    lengths = forces.mean.double().square().sum(-1).numpy()
    scores = {PLAIN[1]: np.sqrt(np.bincount(owner, lengths, count) / judged.sizes)}
    if forces.total is None:
        return scores
    trace = forces.total.diagonal(dim1=-2, dim2=-1).sum(-1).numpy()
    largest = np.zeros(count)
    np.maximum.at(largest, owner, trace)
    return {
        "force σ, rms of atoms": np.sqrt(np.bincount(owner, trace, count) / judged.sizes),
        "force σ, worst atom": np.sqrt(largest),
        **scores,
    }
