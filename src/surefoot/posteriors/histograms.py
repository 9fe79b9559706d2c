"""Labels in the histograms that a potential predicts: what evaluation starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surefoot.data.convert import Sample
from surefoot.distributions.binned import Binned
from surefoot.evaluate.quantities import Binning
from surefoot.posteriors.judge import Judged, name_rows


@dataclass(frozen=True)
class Rows:
    """Labels of structures or atoms that have a histogram each, or one of each component.

    Attributes:
        values: (rows) or (rows, 3).
        chosen: (rows) which are labelled.
        groups: (rows).
        ood: (rows) distance to the training data, or None.
    """

    values: Tensor
    chosen: Tensor
    groups: np.ndarray
    ood: Tensor | None


def compare_histograms(judged: Judged, samples: Sequence[Sample]) -> list[Binning]:
    """Labels in the histograms that the head predicts, in eV and eV/Å."""
    prediction, targets = judged.prediction, judged.targets
    groups = name_rows(samples)[0]
    found = []
    if prediction.energy_bins is not None and targets.has_energy.any():
        rows = Rows(targets.energy, targets.has_energy, groups, prediction.ood)
        found.append(_place("energy", "eV", prediction.energy_bins, rows))
    if prediction.forces is None or not judged.counted_atoms.any():
        return found
    atoms, owner = torch.tensor(judged.counted_atoms), groups[judged.graph_of_atom]
    if prediction.error_bins is not None:
        errors = torch.linalg.vector_norm(targets.forces - prediction.forces.mean, dim=-1)
        rows = Rows(errors, atoms, owner, prediction.ood_atoms)
        found.append(_place("force error", "eV/Å", prediction.error_bins, rows, of_error=True))
    if prediction.force_bins is not None:
        rows = Rows(prediction.force_bins.along(targets.forces), atoms, owner, prediction.ood_atoms)
        found.append(_place("force component", "eV/Å", prediction.force_bins, rows))
    return found


def _place(name: str, unit: str, bins: Binned, rows: Rows, *, of_error: bool = False) -> Binning:
    values = rows.values
    each = values[0].numel()

    def points(found: Tensor) -> np.ndarray:
        return found.double()[rows.chosen].reshape(-1).numpy()

    scores = {
        "standard deviation": bins.deviation,
        "s_H": bins.entropic_deviation,
        "relative entropy": bins.relative_entropy,
    }
    if of_error:
        scores = {"mean": bins.mean, "95 % quantile": bins.quantile(0.95), **scores}
    if bins.information is not None:
        scores["information"] = bins.information
    if rows.ood is not None:
        scores["ood"] = rows.ood.unsqueeze(-1).expand(-1, each)
    return Binning(
        name=name,
        unit=unit,
        pit=points(bins.cdf(values).clamp(0.0, 1.0)),
        crps=points(bins.crps(values)),
        nll=-points(bins.log_prob(values)),
        groups=np.repeat(rows.groups[rows.chosen.numpy()], each),
        errors=points(values if of_error else values - bins.mean),
        scores={name: points(score) for name, score in scores.items()},
        beyond=None if bins.beyond is None else points(bins.beyond),
        in_last=None if bins.beyond is None else points(bins.is_beyond(values)) > 0,
    )
