"""What a potential is worth on frames that no round may learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surefoot.barriers.curves import predict_curves
from surefoot.barriers.paths import read_paths
from surefoot.barriers.scans import judge_scan
from surefoot.data.convert import Sample
from surefoot.data.read import Frame
from surefoot.evaluate.accuracy import accuracy
from surefoot.evaluate.calibration import coverage
from surefoot.posteriors.judge import compare, predict_samples
from surefoot.posteriors.predictor import Predictor
from surefoot.units import KCAL_PER_MOL

LEVEL = 0.9

Figures = dict[str, float]
"""Name with unit → value."""


def judge(predictor: Predictor, samples: Sequence[Sample]) -> Figures:
    """Errors and the coverage of error bars on labelled frames.

    For each labelled quantity its MAE and RMSE (meV/atom, meV/Å, meV/Å³), the mean standard
    deviation in the same unit, and the share of labels inside the central 90 % interval of a
    normal.

    Args:
        predictor: what is judged.
        samples: with labels.
    """
    figures: Figures = {}
    for quantity in compare(predict_samples(predictor, samples), samples):
        found = accuracy(quantity.residuals)
        figures[f"{quantity.name}_mae"] = found.mae
        figures[f"{quantity.name}_rmse"] = found.rmse
        if quantity.std is not None:
            figures[f"{quantity.name}_std"] = float(np.sqrt(np.mean(quantity.std**2)))
            inside = coverage(quantity.residuals, quantity.std, LEVEL)
            figures[f"{quantity.name}_coverage"] = float(inside)
    return figures


def judge_paths(predictor: Predictor, frames: Sequence[Frame]) -> Figures:
    """Errors of the barriers of rigid scans, both ways, in kcal/mol; nothing where there are none.

    Args:
        predictor: what is judged.
        frames: with labels; those with `path_point` in info are images of scans.
    """
    images = [frame for frame in frames if "path_point" in frame.atoms.info]
    if not images:
        return {}
    paths = read_paths(images)
    curves = predict_curves(predictor, [path.images for path in paths])
    scans = [judge_scan(path, curve) for path, curve in zip(paths, curves, strict=True)]
    barriers = [one for scan in scans for one in scan.barriers.values()]
    known = [one for one in barriers if one.reference is not None]
    if not known:
        return {}
    errors = np.array([one.value - one.reference for one in known if one.reference is not None])
    return {
        "barrier_mae": float(np.abs(errors).mean()) / KCAL_PER_MOL,
        "barrier_coverage": float(np.mean([one.holds(LEVEL) for one in known])),
    }
