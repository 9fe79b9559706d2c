"""Everything that is said about the error bars of one quantity, each number with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from surefoot.evaluate.calibration import (
    calibration_error_by_counts,
    central_bound,
    miscalibration_area_by_counts,
    sharpness,
    spearman_by_counts,
)
from surefoot.evaluate.intervals import Interval, block_bootstrap_counts, block_bootstrap_mean
from surefoot.evaluate.pit import gaussian_pit, kolmogorov_smirnov_by_counts
from surefoot.evaluate.quantiles import TooFewGroups
from surefoot.evaluate.ranking import ause_by_counts
from surefoot.evaluate.reliability import ence_by_counts
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
        calibration_error: mean squared gap of coverage over a grid of levels; ⅓ is the worst.
        miscalibration_area: between observed and expected coverage; 0 is perfect, ½ the worst.
        ence: normalised gap of error and error bar, bin by bin; see `ence_reference`.
        pit_ks: largest gap of the PIT values from uniform.
        mean_square: ⟨z²⟩, 1 where error bars are true.
        spearman: rank correlation of |residual| with std; NaN where all std are equal.
        ause: sparsification error, 0 for the best order of the errors, 1 for that of chance.
        sharpness: root mean square std, unit of the residuals.
    """

    count: int
    groups: int
    nll: Estimate
    crps: Estimate
    coverage: dict[float, Estimate]
    calibration_error: Estimate
    miscalibration_area: Estimate
    ence: Estimate
    pit_ks: Estimate
    mean_square: Estimate
    spearman: Estimate
    ause: Estimate
    sharpness: Estimate


def score(
    residuals: Float[np.ndarray, " points"],
    std: Float[np.ndarray, " points"],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 500,
) -> Scores:
    """Score the Gaussian error bars of one quantity, with block-bootstrap intervals.

    The interval of a figure that is never negative (calibration error, miscalibration area, ENCE,
    PIT) is of the resampled figure, which is never less than what chance gives: near perfect
    calibration it lies above the value.

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
        calibration_error=counted(calibration_error_by_counts(residuals, std)),
        miscalibration_area=counted(miscalibration_area_by_counts(residuals, std)),
        ence=counted(ence_by_counts(residuals, std)),
        pit_ks=counted(kolmogorov_smirnov_by_counts(gaussian_pit(residuals, std))),
        mean_square=mean(distances**2),
        spearman=counted(spearman_by_counts(residuals, std)),
        ause=counted(ause_by_counts(residuals, std)),
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
        "calibration_error": scores.calibration_error,
        "miscalibration_area": scores.miscalibration_area,
        "ence": scores.ence,
        "pit_ks": scores.pit_ks,
        "mean_square": scores.mean_square,
        "spearman": scores.spearman,
        "ause": scores.ause,
        "sharpness": scores.sharpness,
    }


@dataclass(frozen=True)
class LevelScores:
    """Quality of predictions of which only the level of each label is known, such as histograms.

    Attributes:
        count: number of points.
        outside: share of points without any density, whose negative log-likelihood is infinite.
        crps: mean continuous ranked probability score.
        nll: mean negative log-likelihood in nats of all others; NaN where there are none.
        coverage: share of labels inside the central interval, for each of LEVELS.
        pit_ks: largest gap of the levels from uniform.
    """

    count: int
    outside: float
    crps: Estimate
    nll: Estimate
    coverage: dict[float, Estimate]
    pit_ks: Estimate


def score_levels(
    pit: Float[np.ndarray, " points"],
    crps: Float[np.ndarray, " points"],
    nll: Float[np.ndarray, " points"],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 500,
) -> LevelScores:
    """Score predictions by the level of each label, with block-bootstrap intervals.

    Args:
        pit: level of each label in its predicted distribution.
        crps: of each label, in any unit.
        nll: of each label, in nats; infinite for labels outside of all predicted values, which
            count in all other figures.
        groups: label of each point's group.
        generator: source of the draws.
        draws: number of bootstrap draws.

    Raises:
        ValueError: if a level is not between 0 and 1, or there is none.
    """
    _, codes = np.unique(groups, return_inverse=True)
    dense = np.isfinite(nll)
    gap = kolmogorov_smirnov_by_counts(pit)

    def mean(values: Float[np.ndarray, " points"], codes: np.ndarray = codes) -> Estimate:
        interval = block_bootstrap_mean(values, codes, generator, draws)
        return Estimate(float(np.mean(values)), interval)

    nothing = Estimate(math.nan, Interval(math.nan, math.nan))
    distance = 2.0 * np.abs(pit - 0.5)
    return LevelScores(
        count=len(pit),
        outside=float(np.mean(~dense)),
        crps=mean(crps),
        nll=mean(nll[dense], np.unique(codes[dense], return_inverse=True)[1])
        if dense.any()
        else nothing,
        coverage={level: mean((distance <= level).astype(np.float64)) for level in LEVELS},
        pit_ks=Estimate(
            gap(np.ones(len(pit), dtype=np.int64)),
            block_bootstrap_counts(gap, codes, generator, draws),
        ),
    )


def coverage_of_bounds(
    distances: Float[np.ndarray, " points"],
    bounds: Callable[[float], tuple[np.ndarray, np.ndarray]],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 500,
) -> dict[float, Estimate]:
    """Coverage at each of LEVELS of intervals that are not those of a normal.

    Args:
        distances: z = residual / std of each point.
        bounds: level → lower and upper bounds, in standard deviations.
        groups: label of each point's group.
        generator: source of the draws.
        draws: number of bootstrap draws.

    Raises:
        ValueError: as the bounds; levels that need more calibration groups than there were are
            NaN.
    """
    _, codes = np.unique(groups, return_inverse=True)
    found = {}
    for level in LEVELS:
        try:
            low, high = bounds(level)
        except TooFewGroups:
            found[level] = Estimate(math.nan, Interval(math.nan, math.nan))
            continue
        inside = ((distances >= low) & (distances <= high)).astype(np.float64)
        interval = block_bootstrap_mean(inside, codes, generator, draws)
        found[level] = Estimate(float(np.mean(inside)), interval)
    return found
