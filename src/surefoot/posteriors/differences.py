"""Energy differences between structures of one composition, beside what others would assume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surefoot.data.convert import Sample
from surefoot.evaluate.quantities import Differences
from surefoot.posteriors.judge import MILLI, Judged, name_rows
from surefoot.posteriors.points import pair_frames


def compare_differences(judged: Judged, samples: Sequence[Sample]) -> Differences | None:
    """Differences between consecutive frames of a group; None where nothing tells their error.

    Args:
        judged: what is predicted, and labels.
        samples: the structures.
    """
    pairs = pair_frames(samples, [sample.group for sample in samples])
    z, energy = judged.prediction.energy_factor, judged.prediction.energy
    if z is None or energy.total is None or not len(pairs):
        return None
    first, second = pairs.T
    labels, means = judged.targets.energy.numpy(), energy.mean.numpy()
    factors, std = z.numpy(), MILLI * energy.total.sqrt().numpy()
    off = (labels - means)[second] - (labels - means)[first]
    return Differences(
        residuals=MILLI * off,
        std=MILLI * np.linalg.norm(factors[second] - factors[first], axis=1),
        independent=np.hypot(std[first], std[second]),
        correlated=np.abs(std[second] - std[first]),
        groups=name_rows(samples)[0][first],
        factor=judged.calibration.difference,
    )
