"""Are Gaussian error bars as wide as the errors: coverage, miscalibration, ranking, sharpness.

Every point has a central interval of probability p around its prediction; its label leaves the
interval at p = 2 Φ(|z|) − 1 with z = residual / std. Where error bars are true, these p are
uniform, and the share of labels inside the intervals of probability p is p.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.special import erf, erfinv

from surefoot.evaluate.intervals import check_level
from surefoot.evaluate.scoring import check_std, standardize

LEVEL_GRID = (np.arange(100) + 0.5) / 100
"""Levels over which the calibration error is averaged: 0.005, 0.015 … 0.995."""


def coverage(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"], level: float
) -> float:
    """Share of labels inside the central interval: mean of [ |residual| ≤ z_level · std ].

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.
        level: probability of the interval, between 0 and 1, both excluded.

    Raises:
        ValueError: as `standardize`, or if the level is not a probability.
    """
    return float(calibration_curve(residuals, std, np.array([level]))[0])


def calibration_curve(
    residuals: Float[np.ndarray, " points"],
    std: Float[np.ndarray, " points"],
    levels: Float[np.ndarray, " levels"],
) -> Float[np.ndarray, " levels"]:
    """Share of labels inside the central interval of each level; the diagonal is perfect.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.
        levels: probabilities, between 0 and 1, both excluded, in any order.

    Raises:
        ValueError: as `standardize`, or if a level is not a probability.
    """
    bounds = np.array([central_bound(float(level)) for level in levels])
    distances = np.sort(np.abs(standardize(residuals, std)))
    return np.searchsorted(distances, bounds, side="right") / len(distances)


def central_bound(level: float) -> float:
    """Half width, in standard deviations, of a normal's central interval: 1.96 for 0.95.

    Raises:
        ValueError: if the level is not between 0 and 1, both excluded.
    """
    check_level(level)
    return math.sqrt(2.0) * float(erfinv(level))


def calibration_error(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> float:
    """Mean squared gap between observed and nominal coverage over the levels of `LEVEL_GRID`.

    CE = mean over p of (F(p) − p)²,  F(p) = share of labels inside the central interval of p

    0 is perfect; ⅓ means that no label is in any interval. N independent points with true error
    bars give about 1 / (6 N).

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    Source: Kuleshov, Fenner, Ermon 2018, eq. 9, with equal weights. Differs: the grid is stated.
    """
    return calibration_error_by_counts(residuals, std)(np.ones(len(residuals), dtype=np.int64))


def calibration_error_by_counts(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Callable[[Int[np.ndarray, " points"]], float]:
    """The calibration error as a function of how often each point stands in a sample.

    Raises:
        ValueError: as `standardize`.
    """
    p = erf(np.abs(standardize(residuals, std)) / math.sqrt(2.0))
    # The first level of the grid whose interval holds the point.
    first = np.searchsorted(LEVEL_GRID, p, side="left")

    def error(counts: Int[np.ndarray, " points"]) -> float:
        held = np.bincount(first, weights=counts, minlength=len(LEVEL_GRID) + 1)
        observed = np.cumsum(held)[:-1] / np.sum(counts)
        return float(np.mean((observed - LEVEL_GRID) ** 2))

    return error


def miscalibration_area(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> float:
    """Area between the calibration curve and the diagonal, exact, without a grid of levels.

    A = ∫₀¹ |F(p) − p| dp,  F(p) = share of points with 2 Φ(|z|) − 1 ≤ p

    0 is perfect, ½ the worst. With N points, true error bars still give about 0.31 / √N.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    """
    return miscalibration_area_by_counts(residuals, std)(np.ones(len(residuals), dtype=np.int64))


def miscalibration_area_by_counts(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Callable[[Int[np.ndarray, " points"]], float]:
    """The miscalibration area as a function of how often each point stands in a sample.

    Sorts once, so that each draw of a bootstrap (`block_bootstrap_counts`) costs only sums.

    Raises:
        ValueError: as `standardize`.
    """
    p = erf(np.abs(standardize(residuals, std)) / math.sqrt(2.0))
    order = np.argsort(p)
    edges = np.concatenate(([0.0], p[order], [1.0]))

    def area(counts: Int[np.ndarray, " points"]) -> float:
        observed = np.concatenate(([0], np.cumsum(counts[order]))) / np.sum(counts)
        # F is constant between neighbouring p; ∫ |p − F| dp = ½ (p − F) |p − F|.
        right, left = edges[1:] - observed, edges[:-1] - observed
        return float(0.5 * np.sum(right * np.abs(right) - left * np.abs(left)))

    return area


def spearman(residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]) -> float:
    """Rank correlation of |residual| with std: do larger error bars go with larger errors.

    The Pearson correlation of ranks; equal values share the mean of their ranks. NaN where it has
    no meaning: all std equal (the error bars rank nothing), all |residual| equal, or one point.
    Even perfect error bars give far less than 1, as a true sigma still allows a small residual.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    """
    return spearman_by_counts(residuals, std)(np.ones(len(residuals), dtype=np.int64))


def spearman_by_counts(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Callable[[Int[np.ndarray, " points"]], float]:
    """The rank correlation as a function of how often each point stands in a sample.

    Sorts once, so that each draw of a bootstrap (`block_bootstrap_counts`) costs only sums.

    Raises:
        ValueError: as `standardize`.
    """
    standardize(residuals, std)  # for its checks
    return rank_correlation_by_counts(residuals, std)


def rank_correlation_by_counts(
    residuals: Float[np.ndarray, " points"], score: Float[np.ndarray, " points"]
) -> Callable[[Int[np.ndarray, " points"]], float]:
    """The same for any score that may tell the size of |residual|, such as an entropy."""
    _, error_codes = np.unique(np.abs(residuals), return_inverse=True)
    _, std_codes = np.unique(score, return_inverse=True)

    def correlation(counts: Int[np.ndarray, " points"]) -> float:
        weights = counts.astype(np.float64)
        errors = _centred_ranks(error_codes, weights)
        widths = _centred_ranks(std_codes, weights)
        weighted = weights * errors
        scale = math.sqrt((weighted @ errors) * ((weights * widths) @ widths))
        return float(weighted @ widths) / scale if scale > 0 else math.nan

    return correlation


def _centred_ranks(
    codes: Int[np.ndarray, " points"], weights: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Mid-ranks minus their mean, of points given by the sorted position of their value."""
    held = np.bincount(codes, weights=weights)
    # Mid-rank is cumsum − (held − 1) / 2, and the mean of all ranks (total + 1) / 2.
    ranks = np.cumsum(held) - 0.5 * held - 0.5 * np.sum(weights)
    return ranks[codes]


def sharpness(std: Float[np.ndarray, " points"]) -> float:
    """Root mean square of the error bars, to hold beside the RMSE: equal where they are true.

    Args:
        std: standard deviations, positive and finite, in any unit.

    Raises:
        ValueError: if a std is not positive and finite, or there is none.
    """
    if len(std) == 0:
        raise ValueError("There are no error bars; at least one point is needed.")
    check_std(std)
    return float(np.sqrt(np.mean(std.astype(np.float64) ** 2)))
