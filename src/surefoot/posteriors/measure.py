"""Bins of histogram heads, laid before training over what they are to hold.

A head that puts histograms on the energy takes them from training labels; one that puts them on the
error from the residuals of the potential it is fitted to, on frames given for that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from surefoot.blocks.reference import Baseline
from surefoot.data.batches import EVALUATION, join, plan_batches
from surefoot.data.convert import Sample
from surefoot.heads import Head
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.posteriors.judge import predict_samples
from surefoot.posteriors.predictor import Predictor

SEVERAL = ("ensemble", "shallow")
"""Posteriors of which a run takes each draw as it is, rather than what they are draws about."""


def lay_bins(
    head: Head, baseline: Baseline, samples: Sequence[Sample], foundation: Predictor | None
) -> Head:
    """The head with its bins; a head that has them, or needs none, is as it was.

    Args:
        head: of the run.
        baseline: energies beyond which labels are counted, and their scale.
        samples: the training split.
        foundation: the potential whose errors are judged, if there is one.
    Raises:
        ValueError: if there is nothing to measure, a label is not a number, or errors are those of
            a mean of several sets of weights.
    """
    if isinstance(head, Categorical) and head.measured is None:
        return _over_labels(head, baseline, samples)
    if isinstance(head, ErrorHistograms):
        if foundation is not None:
            _require_one(foundation)
        if head.measured is not None:
            return head
        if foundation is None:
            raise ValueError(
                "a histogram head judges the errors of a trained potential, on frames that it has "
                "not learned from; give them as `data: {train}` with `start: {potential: FILE, "
                "learn: judges}`."
            )
        return _over_errors(head, baseline, samples, foundation)
    return head


def _require_one(foundation: Predictor) -> None:
    if foundation.posterior.name in SEVERAL and foundation.draws > 1:
        raise ValueError(
            "a histogram head describes the error of one set of weights, and the potential that "
            f"this run starts from has {foundation.draws}, whose mean errs less than each of them; "
            "start from one of a single set (`posterior: {members: 1}`)."
        )


def _over_labels(head: Categorical, baseline: Baseline, samples: Sequence[Sample]) -> Head:
    energies, sizes, forces = [], [], []
    for indices in plan_batches(samples, np.arange(len(samples)), EVALUATION):
        batch = join(samples, indices)
        graph, targets = batch.graph, batch.targets
        known = targets.has_energy
        beyond = targets.energy - baseline.energy(graph, baseline.species(graph.numbers))
        counted = targets.has_forces[graph.graph_index] & ~targets.fixed
        energies.append(beyond[known])
        sizes.append(graph.atom_counts[known])
        forces.append(targets.forces[counted].reshape(-1))
    return head.measure(torch.cat(energies), torch.cat(sizes), torch.cat(forces), baseline.scale)


def _over_errors(
    head: ErrorHistograms, baseline: Baseline, samples: Sequence[Sample], foundation: Predictor
) -> Head:
    judged = predict_samples(foundation, samples)
    prediction, targets = judged.prediction, judged.targets
    known = targets.has_energy
    errors = torch.zeros(0, dtype=torch.float64)
    if prediction.forces is not None:
        counted = torch.as_tensor(judged.counted_atoms)
        off = (targets.forces - prediction.forces.mean.to(targets.forces))[counted]
        errors = torch.linalg.vector_norm(off, dim=-1)
    return head.measure(
        (targets.energy - prediction.energy.mean)[known],
        torch.as_tensor(judged.sizes)[known],
        errors,
        baseline.scale,
    )
