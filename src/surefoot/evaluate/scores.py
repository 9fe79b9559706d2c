"""Everything that is said about the error bars of one quantity, each number with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from surefoot.evaluate.calibration import (
    central_bound,
    miscalibration_area_by_counts,
    sharpness,
    spearman_by_counts,
)
from surefoot.evaluate.intervals import Interval, block_bootstrap_counts, block_bootstrap_mean
from surefoot.evaluate.scoring import gaussian_crps, gaussian_nll, standardize

LEVELS = (0.50, 0.68, 0.90, 0.95)
"""Probabilities of the central intervals whose coverage is reported."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval from drawing groups again.

    Attributes:
        value: the statistic of all points.
        interval: bounds; NaN with fewer than two groups, or where the statistic is NaN in a draw.
    """

    value: float
    interval: Interval


@dataclass(frozen=True)
class Scores:
    """Quality of the error bars of one quantity.

    Attributes:
        count: number of points.
        groups: number of groups, the independent units of the intervals.
        nll: mean negative log-likelihood in nats; depends on the unit of the residuals.
        crps: mean continuous ranked probability score, unit of the residuals.
        coverage: share of labels inside the central interval, for each of LEVELS.
        miscalibration_area: between observed and expected coverage; 0 is perfect, ½ the worst.
        spearman: rank correlation of |residual| with std; NaN where all std are equal.
        sharpness: root mean square std, unit of the residuals.
    """

    count: int
    groups: int
    nll: Estimate
    crps: Estimate
    coverage: dict[float, Estimate]
    miscalibration_area: Estimate
    spearman: Estimate
    sharpness: Estimate


def score(
    residuals: Float[np.ndarray, " points"],
    std: Float[np.ndarray, " points"],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 500,
) -> Scores:
    """Score the Gaussian error bars of one quantity, with block-bootstrap intervals.

    The interval of the miscalibration area is of the resampled area, which is never less than what
    chance gives: near perfect calibration it lies above the value.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.
        groups: label of each point's group.
        generator: source of the draws.
        draws: number of bootstrap draws.

    Raises:
        ValueError: if a std is not positive and finite, a residual is not finite, or there is none.
    """
    names, codes = np.unique(groups, return_inverse=True)  # once: strings are slow to sort
    distances = np.abs(standardize(residuals, std))

    def mean(values: Float[np.ndarray, " points"]) -> Estimate:
        interval = block_bootstrap_mean(values, codes, generator, draws)
        return Estimate(float(np.mean(values)), interval)

    def counted(statistic: Callable[[Int[np.ndarray, " points"]], float]) -> Estimate:
        interval = block_bootstrap_counts(statistic, codes, generator, draws)
        return Estimate(statistic(np.ones(len(codes), dtype=np.int64)), interval)

    square = mean(std.astype(np.float64) ** 2)
    return Scores(
        count=len(residuals),
        groups=len(names),
        nll=mean(gaussian_nll(residuals, std)),
        crps=mean(gaussian_crps(residuals, std)),
        coverage={
            level: mean((distances <= central_bound(level)).astype(np.float64)) for level in LEVELS
        },
        miscalibration_area=counted(miscalibration_area_by_counts(residuals, std)),
        spearman=counted(spearman_by_counts(residuals, std)),
        sharpness=Estimate(
            sharpness(std),
            Interval(math.sqrt(square.interval.low), math.sqrt(square.interval.high)),
        ),
    )


def to_rows(scores: Scores) -> dict[str, Estimate]:
    """The estimates by name, in the order of a table; coverage as `coverage_50` and so on.

    Values keep the unit of the residuals that were scored: `crps` and `sharpness` scale with it,
    `nll` shifts by its logarithm, all others have none.
    """
    return {
        "nll": scores.nll,
        "crps": scores.crps,
        **{f"coverage_{round(100 * level)}": at for level, at in scores.coverage.items()},
        "miscalibration_area": scores.miscalibration_area,
        "spearman": scores.spearman,
        "sharpness": scores.sharpness,
    }
