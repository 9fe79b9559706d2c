"""Does a score put the large errors first: sparsification, and the area under the ROC curve.

Any score will do, such as an error bar, a distance to the training data or an energy; only the
order counts, so recalibration by a factor changes nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from surefoot.evaluate.accuracy import check_residuals

Counts = Int[np.ndarray, " points"]


def sparsification_curve(
    residuals: Float[np.ndarray, " points"], score: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """RMSE of the points that are left when those of the highest score are taken away.

    Entry k is the RMSE of the k + 1 points of lowest score; the last one is that of all. With
    |residual| as the score it is the curve of an oracle. Points of equal score are taken away in no
    order: each stands for the mean square of all of them.

    Args:
        residuals: label − prediction, in any unit.
        score: larger where the error should be larger, in any unit.

    Raises:
        ValueError: if a residual or a score is not finite, or there is none.
    """
    _check_score(residuals, score)
    _, codes = np.unique(score, return_inverse=True)
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=residuals.astype(np.float64) ** 2) / counts
    return _running_root(means, counts)


def ause(residuals: Float[np.ndarray, " points"], score: Float[np.ndarray, " points"]) -> float:
    """Area between the sparsification curve and the oracle's, in units of that of a random order.

    AUSE = (⟨curve⟩ − ⟨oracle⟩) / (RMSE − ⟨oracle⟩),  ⟨ ⟩ over all sizes of what is left

    0 is the best possible order, 1 that of chance, more than 1 is worse than chance. Even perfect
    error bars are far from 0. NaN where all errors are equal, or all scores. The order of points of
    equal score does not matter, see `sparsification_curve`.

    Args:
        residuals: label − prediction, in any unit.
        score: larger where the error should be larger, in any unit.

    Raises:
        ValueError: if a residual or a score is not finite, or there is none.
    Source: Ilg et al. 2018, arXiv:1802.07095. Differs: divided by the area of a random order.
    """
    return ause_by_counts(residuals, score)(np.ones(len(residuals), dtype=np.int64))


def ause_by_counts(
    residuals: Float[np.ndarray, " points"], score: Float[np.ndarray, " points"]
) -> Callable[[Counts], float]:
    """AUSE as a function of how often each point stands in a sample.

    Sorts once, so that each draw of a bootstrap (`block_bootstrap_counts`) costs only sums.

    Raises:
        ValueError: if a residual or a score is not finite, or there is none.
    """
    _check_score(residuals, score)
    squares = residuals.astype(np.float64) ** 2
    levels, by_score = np.unique(score, return_inverse=True)
    by_error = np.argsort(squares, kind="stable")

    def area(counts: Counts) -> float:
        held = np.bincount(by_score, weights=counts)
        sums = np.bincount(by_score, weights=counts * squares)
        curve = float(np.mean(_running_root(sums / np.maximum(held, 1), held.astype(np.int64))))
        oracle = float(np.mean(_running_root(squares[by_error], counts[by_error])))
        scale = math.sqrt(counts @ squares / np.sum(counts)) - oracle
        if len(levels) == 1 or scale <= 1e-12 * oracle:
            return math.nan
        return float((curve - oracle) / scale)

    return area


def _running_root(squares: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The running root mean square of values that stand several times."""
    drawn = np.repeat(squares, counts)
    return np.sqrt(np.cumsum(drawn) / np.arange(1, len(drawn) + 1))


def auroc(score: Float[np.ndarray, " points"], failed: Bool[np.ndarray, " points"]) -> float:
    """Probability that a point that failed has a higher score than one that did not.

    The area under the ROC curve; equal scores count half. 1 is a perfect order, ½ that of chance;
    NaN where all failed, or none.

    Args:
        score: larger where failure should be likelier, in any unit.
        failed: the flag to be found.

    Raises:
        ValueError: if a score is not finite, or there is none.
    """
    return auroc_by_counts(score, failed)(np.ones(len(score), dtype=np.int64))


def auroc_by_counts(
    score: Float[np.ndarray, " points"], failed: Bool[np.ndarray, " points"]
) -> Callable[[Counts], float]:
    """The area under the ROC curve as a function of how often each point stands in a sample.

    Raises:
        ValueError: if a score is not finite, or there is none.
    """
    _check_score(np.zeros(len(score)), score)
    _, codes = np.unique(score, return_inverse=True)
    bad = failed.astype(np.float64)

    def area(counts: Counts) -> float:
        failures = np.bincount(codes, weights=counts * bad)
        sound = np.bincount(codes, weights=counts * (1.0 - bad))
        pairs = np.sum(failures) * np.sum(sound)
        won = failures @ (np.cumsum(sound) - 0.5 * sound)
        return float(won / pairs) if pairs > 0 else math.nan

    return area


def _check_score(residuals: np.ndarray, score: np.ndarray) -> None:
    check_residuals(residuals)
    bad = np.flatnonzero(~np.isfinite(score))
    if len(bad):
        raise ValueError(
            f"The score of point {bad[0]} is {score[bad[0]]} ({len(bad)} such points in all); "
            "scores have to be finite to be put in order."
        )
