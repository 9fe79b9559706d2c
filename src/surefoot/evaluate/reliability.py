"""Errors beside error bars, bin by bin: the expected normalised calibration error.

Points are put in order of their error bar and cut into bins of equal numbers; in each bin the root
mean square error should be the root mean square error bar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from surefoot.evaluate.intervals import Interval
from surefoot.evaluate.scoring import standardize

BINS = 20
"""Bins of equal numbers of points; fewer where there are fewer than `IN_A_BIN` points for each."""
IN_A_BIN = 10
SIMULATIONS = 200


@dataclass(frozen=True)
class Reliability:
    """Root mean square error bar and error of each bin, in the unit of the residuals.

    Attributes:
        std: by bin, rising.
        rmse: by bin.
    """

    std: Float[np.ndarray, " bins"]
    rmse: Float[np.ndarray, " bins"]


def reliability(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Reliability:
    """Errors against error bars in bins of equal numbers of points.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    """
    standardize(residuals, std)  # for its checks
    order = np.argsort(std, kind="stable")
    squares = np.stack([std, residuals])[:, order].astype(np.float64) ** 2
    sums = _sum_bins(squares, np.ones(len(order), np.int64))
    return Reliability(std=np.sqrt(sums[0]), rmse=np.sqrt(sums[1]))


def ence(residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]) -> float:
    """Expected normalised calibration error, over `BINS` bins in order of the error bar.

    ENCE = mean over bins of |RMV − RMSE| / RMV,  RMV = √⟨std²⟩, RMSE = √⟨residual²⟩ in the bin

    It depends on the number of bins and points and on the shape of the errors, and is not 0 for
    true error bars: hold it beside `ence_reference`.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    Source: Levi et al. 2022, Sensors 22, 5540.
    """
    return ence_by_counts(residuals, std)(np.ones(len(residuals), dtype=np.int64))


def ence_by_counts(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Callable[[Int[np.ndarray, " points"]], float]:
    """The same as a function of how often each point stands in a sample.

    Sorts once, so that each draw of a bootstrap (`block_bootstrap_counts`) costs only sums.

    Raises:
        ValueError: as `standardize`.
    """
    standardize(residuals, std)  # for its checks
    order = np.argsort(std, kind="stable")
    squares = np.stack([std, residuals])[:, order].astype(np.float64) ** 2

    def error(counts: Int[np.ndarray, " points"]) -> float:
        return float(_normalised_gap(_sum_bins(squares, counts[order])))

    return error


def ence_reference(
    std: Float[np.ndarray, " points"],
    generator: np.random.Generator,
    simulations: int = SIMULATIONS,
) -> tuple[float, Interval]:
    """What ENCE is for normal errors drawn from these very error bars: mean and 95 % range.

    Points are drawn independently. Where errors of a group go together true error bars give more.

    Args:
        std: standard deviations, positive and finite.
        generator: source of the errors.
        simulations: how many times all errors are drawn.

    Raises:
        ValueError: as `standardize`.
    Source: Rasmussen et al. 2023, J. Cheminform. 15, 121.
    """
    standardize(np.zeros(len(std)), std)  # for its checks
    variance = np.sort(std.astype(np.float64)) ** 2
    ones = np.ones(len(variance), np.int64)
    found = []
    for _ in range(simulations):
        squares = variance * generator.standard_normal(len(variance)) ** 2
        found.append(_normalised_gap(_sum_bins(np.stack([variance, squares]), ones)))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(np.mean(found)), Interval(float(low), float(high))


def _normalised_gap(means: Float[np.ndarray, "2 bins"]) -> float:
    expected, found = np.sqrt(means)
    return float(np.mean(np.abs(expected - found) / expected))


def _sum_bins(
    values: Float[np.ndarray, "2 points"], counts: Int[np.ndarray, " points"]
) -> Float[np.ndarray, "2 bins"]:
    """Means over bins of equal numbers, of ordered values that stand several times."""
    held = np.concatenate(([0], np.cumsum(counts)))
    total = int(held[-1])
    bins = max(1, min(BINS, total // IN_A_BIN))
    cuts = np.round(np.arange(bins + 1) * (total / bins)).astype(np.int64)
    at = np.minimum(np.searchsorted(held, cuts, side="right") - 1, len(counts) - 1)
    between = np.add.reduceat(values * counts, at, axis=1)[:, :-1]
    between[:, at[1:] == at[:-1]] = 0.0
    # A value that stands on both sides of a cut gives each side its share.
    shares = values[:, at] * (cuts - held[at])
    return (between + np.diff(shares, axis=1)) / np.diff(cuts)
