"""What a saved potential says along paths, all images in batches, with covariance between them.

Draws of weights make curves of their own, and the spread is that of these curves. A posterior that
knows its energies in closed form has z with Cov(E_a, E_b) = z_a · z_b instead; curves are drawn
from that normal, images of a path together, so that the highest point may be another one in each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float

from surefoot.barriers.heights import Curve
from surefoot.data.batches import EVALUATION, BatchLimits, batch_graphs
from surefoot.data.convert import to_graph
from surefoot.data.read import read_state
from surefoot.graph import collate
from surefoot.posteriors.predictor import Predictor, join_predictions, knows_energies
from surefoot.prediction import Prediction

SAMPLES = 4000  # of a normal: a standard deviation is then known to 1 %
SEED = 0  # of these samples, the same for every path


def predict_curves(
    predictor: Predictor,
    paths: Sequence[Sequence[Atoms]],
    *,
    limits: BatchLimits = EVALUATION,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Curve]:
    """Energies and their joint errors along paths.

    Args:
        predictor: from `load_predictor`.
        paths: the images of each path, of one composition and state.
        limits: of a batch.
        progress: called with the number of images done since the last call.
    Raises:
        UnknownElement, UnknownState: if the potential can know nothing of an image.
    """
    images = [atoms for path in paths for atoms in path]
    if not images:
        return []
    for number, atoms in enumerate(images):
        predictor.require(atoms.numbers, *read_state(atoms.info), f"image {number}")
    parts: list[Prediction] = []
    graphs = (to_graph(atoms, predictor.cutoff, *read_state(atoms.info)) for atoms in images)
    for batch in batch_graphs(graphs, limits.shared_by(predictor.draws)):
        parts.append(predictor(collate(batch), forces=False))
        progress(len(batch))
    whole = join_predictions(parts)
    ends = np.cumsum([0, *(len(path) for path in paths)])
    return [
        _to_curve(predictor, whole, slice(start, stop)) for start, stop in pairwise(ends.tolist())
    ]


def _to_curve(predictor: Predictor, prediction: Prediction, points: slice) -> Curve:
    energy, factor = prediction.energy, predictor.calibration.difference
    deviations, freedom = _find_deviations(predictor, prediction, points)
    return Curve(
        energies=energy.mean[points].double().numpy(),
        deviations=deviations,
        freedom=freedom,
        factor=factor,
        std=None if energy.total is None else energy.total[points].sqrt().double().numpy(),
        ood=None if prediction.ood is None else prediction.ood[points].double().numpy(),
    )


def _find_deviations(
    predictor: Predictor, prediction: Prediction, points: slice
) -> tuple[Float[np.ndarray, "curves points"] | None, int]:
    """Deviations without the factor of calibration, and their degrees of freedom."""
    draws, z = prediction.energy_draws, prediction.energy_factor
    if knows_energies(predictor) and z is not None:
        raw = z[points].double() / (predictor.calibration.difference or 1.0)
        generator = torch.Generator().manual_seed(SEED)
        drawn = torch.randn(SAMPLES, raw.shape[1], generator=generator, dtype=torch.float64)
        return (drawn @ raw.T).numpy(), SAMPLES
    if draws is None or len(draws) < 2:
        return None, 1
    own = draws[:, points].double().numpy()
    return own - prediction.energy.mean[points].double().numpy(), len(own) - 1
