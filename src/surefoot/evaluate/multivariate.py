"""Error bars that are ellipsoids: forces with one 3×3 covariance for each atom."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri

from surefoot.evaluate.accuracy import check_residuals
from surefoot.evaluate.intervals import check_level


def mahalanobis_squares(
    residuals: Float[np.ndarray, "points axes"],
    covariance: Float[np.ndarray, "points axes axes"],
) -> Float[np.ndarray, " points"]:
    """Squared length of each residual in units of its ellipsoid, z² = rᵀ Σ⁻¹ r.

    Where the covariances are true and the errors normal, z² is distributed as χ² with as many
    degrees of freedom as there are axes: its mean is 3 for forces.

    Args:
        residuals: label − prediction, (points, axes) in any unit.
        covariance: (points, axes, axes) in the square of it, positive definite.

    Raises:
        ValueError: if a residual is not finite, there is none, or a covariance is not positive
            definite: the spread of fewer than four draws never is, for three axes.
    """
    check_residuals(residuals.reshape(-1))
    factor = cholesky(covariance)
    whitened = np.linalg.solve(factor, residuals.astype(np.float64)[..., None])[..., 0]
    return np.sum(whitened**2, axis=-1)


def gaussian_nll_vectors(
    residuals: Float[np.ndarray, "points axes"],
    covariance: Float[np.ndarray, "points axes axes"],
) -> Float[np.ndarray, " points"]:
    """Negative log-likelihood of each vector under its normal distribution, in nats.

    NLL = ½ z² + ½ ln det Σ + (axes / 2) ln 2π

    Args:
        residuals: label − prediction, (points, axes) in any unit.
        covariance: (points, axes, axes) in the square of it, positive definite.

    Raises:
        ValueError: as `mahalanobis_squares`.
    """
    squares = mahalanobis_squares(residuals, covariance)
    diagonal = np.diagonal(cholesky(covariance), axis1=-2, axis2=-1)
    axes = residuals.shape[-1]
    return 0.5 * squares + np.log(diagonal).sum(-1) + 0.5 * axes * math.log(2.0 * math.pi)


def ellipsoid_bound(level: float, axes: int = 3) -> float:
    """z² that a share `level` of normal errors stays below: 7.81 for 0.95 and three axes.

    Raises:
        ValueError: if the level is not between 0 and 1, both excluded.
    """
    check_level(level)
    return float(chdtri(axes, 1.0 - level))


def cholesky(covariance: Float[np.ndarray, "points axes axes"]) -> np.ndarray:
    """Lower triangular factors, in float64.

    Raises:
        ValueError: if a covariance is not positive definite.
    """
    covariance = covariance.astype(np.float64)
    smallest = np.linalg.eigvalsh(covariance)[:, 0] if len(covariance) else np.ones(1)
    # Of a matrix without rank rounding leaves an eigenvalue that is not quite zero.
    scale = np.trace(covariance, axis1=-2, axis2=-1)
    bad = np.flatnonzero(~(smallest > 1e-12 * scale))
    if len(bad):
        raise ValueError(
            f"The covariance of point {bad[0]} has the smallest eigenvalue {smallest[bad[0]]:.1e} "
            f"({len(bad)} such points in all); it has to be positive definite. The spread of draws "
            "is so from four draws on; leave out atoms that symmetry holds in place."
        )
    return np.linalg.cholesky(covariance)
