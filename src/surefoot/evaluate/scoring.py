"""Proper scores of error bars, per point: smaller is better, and only the truth is best.

A Gaussian error bar is a normal distribution around the prediction with the given standard
deviation, so its score needs only the residual (label − prediction) and that standard deviation.
Ensembles are scored as they are.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.special import erf

from surefoot.evaluate.accuracy import check_residuals


def standardize(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Residuals in units of their error bars, z = residual / std, in float64.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: if a std is not positive and finite, a residual is not finite, or there is none.
    """
    check_residuals(residuals)
    check_std(std)
    return residuals.astype(np.float64) / std


def gaussian_nll(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Negative log-likelihood of each label under its Gaussian error bar, in nats.

    NLL = ½ z² + ln std + ½ ln 2π,  z = residual / std

    The density has the inverse unit of the residuals: a change of unit shifts the score by a
    constant, so compare scores only within one unit.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    """
    z = standardize(residuals, std)
    return 0.5 * z**2 + np.log(std.astype(np.float64)) + 0.5 * math.log(2.0 * math.pi)


def gaussian_crps(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Continuous ranked probability score of each Gaussian error bar, in the unit of the residuals.

    CRPS = std · [z (2 Φ(z) − 1) + 2 φ(z) − 1/√π],  z = residual / std

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    Source: Gneiting et al. 2005, Mon. Weather Rev. 133, 1098, eq. 5.
    """
    z = standardize(residuals, std)
    twice_density = math.sqrt(2.0 / math.pi) * np.exp(-0.5 * z**2)
    return std * (z * erf(z / math.sqrt(2.0)) + twice_density - 1.0 / math.sqrt(math.pi))


def ensemble_crps(
    targets: Float[np.ndarray, " points"], draws: Float[np.ndarray, "draws points"]
) -> Float[np.ndarray, " points"]:
    """CRPS of the distribution that puts equal mass on each draw, in the unit of the labels.

    CRPS = ⟨|x − y|⟩ − ½ ⟨|x − x′|⟩ over all draws x, x′

    A few draws score worse than the distribution they come from, and none score well without a
    spread: the score of one draw is its absolute error.

    Args:
        targets: labels y, in any unit.
        draws: predictions x of each draw, same unit.

    Raises:
        ValueError: if there are no points or draws, or a value is not finite.
    Source: Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102, 359, eq. 21.
    """
    check_residuals(targets)
    if not len(draws) or not np.isfinite(draws).all():
        raise ValueError(
            f"CRPS of {len(draws)} draws with values that are not all finite; at least one draw is "
            "needed, and every prediction has to be a number."
        )
    ordered = np.sort(draws.astype(np.float64), axis=0)
    count = len(ordered)
    # Σ_jk |x_j − x_k| = 2 Σ_j (2 j − count + 1) x_(j) for x in order, j from 0.
    ranks = 2 * np.arange(count) - count + 1
    spread = ranks @ ordered / count**2
    return np.mean(np.abs(ordered - targets), axis=0) - spread


def check_std(std: Float[np.ndarray, " points"]) -> None:
    """Refuse standard deviations that are not positive and finite.

    Raises:
        ValueError: with the index and the value.
    """
    bad = np.flatnonzero(~(np.isfinite(std) & (std > 0)))
    if len(bad):
        raise ValueError(
            f"The std of point {bad[0]} is {std[bad[0]]} ({len(bad)} such points in all); an error "
            f"bar has to be positive and finite. Leave out points that are the same in all draws, "
            f"such as force components that symmetry keeps at zero."
        )
