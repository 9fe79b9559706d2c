"""Proper scores of error bars, per point: smaller is better, and only the truth is best.

A Gaussian error bar is a normal distribution around the prediction with the given standard
deviation, so its score needs only the residual (label − prediction) and that standard deviation.
Ensembles and histograms are scored as they are.
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


def histogram_crps(
    targets: Float[np.ndarray, " points"],
    edges: Float[np.ndarray, "*rows edges"],
    probabilities: Float[np.ndarray, "points bins"],
) -> Float[np.ndarray, " points"]:
    """CRPS of histograms whose mass is spread evenly inside each bin, in the unit of the labels.

    With a distribution function that rises from a to b in a bin of width w, the bin adds
    w (a² + a b + b²) / 3 where it lies below the label and the same of 1 − a, 1 − b above; the bin
    that holds the label is cut there. A label outside all bins adds its distance to them.

    Args:
        targets: labels, in any unit.
        edges: of the bins, rising, same unit; (points, edges), or (edges) that all points share.
        probabilities: mass of each bin, adding up to 1.

    Raises:
        ValueError: if edges do not rise, masses are negative or do not add up to 1, or the numbers
            do not fit.
    """
    check_residuals(targets)
    edges, masses = _check_histogram(edges, probabilities)
    upper = np.cumsum(masses, axis=1)
    lower = upper - masses
    left, right = edges[:, :-1], edges[:, 1:]
    cut = np.clip(targets[:, None], left, right)
    middle = lower + masses * (cut - left) / (right - left)
    below = (cut - left) * _mean_square(lower, middle)
    above = (right - cut) * _mean_square(1.0 - middle, 1.0 - upper)
    outside = np.maximum(edges[:, 0] - targets, 0.0) + np.maximum(targets - edges[:, -1], 0.0)
    return np.sum(below + above, axis=1) + outside


def _mean_square(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Mean of the square of what runs evenly from start to end."""
    return (start**2 + start * end + end**2) / 3.0


def _check_histogram(edges: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges, masses = np.atleast_2d(edges).astype(np.float64), masses.astype(np.float64)
    if edges.shape[1] != masses.shape[1] + 1:
        raise ValueError(
            f"{edges.shape[1]} edges and {masses.shape[1]} bins; there is one edge more than bins."
        )
    if not (np.diff(edges, axis=1) > 0).all():
        raise ValueError("the edges of a histogram have to rise from bin to bin.")
    if (masses < 0).any() or (np.abs(masses.sum(1) - 1.0) > 1e-4).any():
        raise ValueError("the masses of a histogram are positive and add up to 1.")
    return edges, masses


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
