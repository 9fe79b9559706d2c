"""The same figures for each kind of point: error bars right on average may be wrong for each kind.

Kinds are what the input tells, such as the element or the number of atoms, and not the error bar:
within bins of error bars a calibration may look right that no kind of structure has (Pernot 2023,
arXiv:2309.06240).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Shaped

from surefoot.evaluate.calibration import central_bound, sharpness
from surefoot.evaluate.intervals import Interval, block_bootstrap_mean
from surefoot.evaluate.scoring import standardize

COVERED = 0.95
"""Level of the interval whose coverage is given for each kind."""


@dataclass(frozen=True)
class Stratum:
    """Errors and error bars of one kind of points, in the unit of the residuals.

    Attributes:
        count: number of points.
        rmse: of the residuals.
        sharpness: root mean square std.
        mean_square: ⟨z²⟩, 1 where error bars are true.
        coverage: share of labels inside the central interval of `COVERED`.
        interval: 95 % bootstrap interval of the coverage.
    """

    count: int
    rmse: float
    sharpness: float
    mean_square: float
    coverage: float
    interval: Interval


def stratify(
    residuals: Float[np.ndarray, " points"],
    std: Float[np.ndarray, " points"],
    kinds: Shaped[np.ndarray, " points"],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 200,
) -> dict[str, Stratum]:
    """Figures of each kind, in sorted order of the kinds.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.
        kinds: what divides the points: strings or numbers.
        groups: label of each point's group.
        generator: source of the draws.
        draws: number of bootstrap draws.

    Raises:
        ValueError: as `standardize`.
    """
    distances = np.abs(standardize(residuals, std))
    inside = (distances <= central_bound(COVERED)).astype(np.float64)
    names, codes = np.unique(kinds, return_inverse=True)
    _, blocks = np.unique(groups, return_inverse=True)
    table = {}
    for code, name in enumerate(names):
        chosen = codes == code
        table[str(name)] = Stratum(
            count=int(chosen.sum()),
            rmse=float(np.sqrt(np.mean(residuals[chosen].astype(np.float64) ** 2))),
            sharpness=sharpness(std[chosen]),
            mean_square=float(np.mean(distances[chosen] ** 2)),
            coverage=float(np.mean(inside[chosen])),
            interval=block_bootstrap_mean(inside[chosen], blocks[chosen], generator, draws),
        )
    return table


def name_ranges(
    values: Float[np.ndarray, " points"], edges: Sequence[float], unit: str
) -> Shaped[np.ndarray, " points"]:
    """The range of each value as a kind: `0 – 1 eV/Å` and so on, in an order that sorts.

    Args:
        values: what divides the points.
        edges: inner bounds of the ranges, rising.
        unit: shown after them.
    """
    bounds = ["0", *(f"{edge:g}" for edge in edges)]
    names = [f"{low} – {high} {unit}" for low, high in pairwise(bounds)]
    names.append(f"{bounds[-1]} {unit} and more")
    return np.array(names)[np.searchsorted(edges, values, side="right")]
