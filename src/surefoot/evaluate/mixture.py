"""The factor for members that state a noise of their own, from points that few of them are new to.

As in `recalibrate`, members deviate from each other by a variance v(point) and share an error of
variance c · v(point); on top of it each states a noise α(point), which is right up to a factor a²:

    r  ~ N(0, a² α + (c + 1/n) v)          residual of the mean of n unseen members
    s² ~ v χ²ₙ₋₁ / (n − 1)                 their unbiased variance, independent of r

With few members s² tells little of v, so v / α is taken to be log-normal over the points. Its two
parameters, a and c have their maximum likelihood. At a new point all M members are unseen, and the
factor on √(α + s²_M) that has the best mean log-score is

    factor² = E[ (a² α + (c + 1/M) v) / (α + s²_M) ]
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import gammaincinv, logsumexp

from surefoot.evaluate.scoring import check_std, standardize

MOST = 3000  # points, evenly spaced, that the likelihood is taken over
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(21)  # of the logarithm of v / α
LOG_SHARES = np.log(WEIGHTS / WEIGHTS.sum())
LEVELS = (np.arange(500) + 0.5) / 500  # of the distribution of s²


def mixture_factor(
    residuals: Float[np.ndarray, " points"],
    noise: Float[np.ndarray, " points"],
    spread: Float[np.ndarray, " points"],
    count: Int[np.ndarray, " points"],
    members: int,
) -> float:
    """The factor for total error bars of all members at points that none has seen.

    Args:
        residuals: label − mean of the members that have not seen the point, in any unit.
        noise: mean variance α that they state, in the square of it.
        spread: their unbiased variance s².
        count: how many they are, n, at least 2.
        members: how many there are in all, M.

    Raises:
        ValueError: if a noise is not positive and finite, or a residual is not finite.
    """
    check_std(noise)
    standardize(residuals, np.sqrt(noise))  # for its checks
    some = np.linspace(0, len(residuals) - 1, min(MOST, len(residuals))).round().astype(int)
    square = residuals[some].astype(np.float64) ** 2 / noise[some]
    ratio = spread[some].astype(np.float64) / noise[some]
    return _evaluate(_fit(square, ratio, count[some].astype(np.float64)), members)


def _fit(square: np.ndarray, ratio: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Logarithms of a², of c, of the median of v / α and of its logarithmic width."""
    freedom = (count - 1.0)[:, None]

    def loss(parameters: np.ndarray) -> float:
        noise, shared, _, _ = np.exp(parameters)
        logs = parameters[2] + np.exp(parameters[3]) * NODES
        variance = noise + (shared + 1.0 / count)[:, None] * np.exp(logs)
        of_residual = np.log(variance) + square[:, None] / variance
        of_spread = freedom * (logs + ratio[:, None] / np.exp(logs))
        return -float(np.mean(logsumexp(LOG_SHARES - 0.5 * (of_residual + of_spread), axis=1)))

    middle = np.log(max(np.mean(ratio), 1e-12))
    size = np.log(max(np.mean(square), 1e-12))
    begin = np.array([size - 0.5, -2.0, middle - 0.5, -0.7])
    bounds = [(size - 12, size + 6), (-12, 12), (middle - 12, middle + 6), (-4, 1.5)]
    return minimize(loss, begin, method="L-BFGS-B", bounds=bounds).x


def _evaluate(parameters: np.ndarray, members: int) -> float:
    """The factor with so many members, all unseen."""
    noise, shared, _, _ = np.exp(parameters)
    ratios = np.exp(parameters[2] + np.exp(parameters[3]) * NODES)[:, None]
    freedom = (members - 1) / 2
    drawn = gammaincinv(freedom, LEVELS) / freedom  # s² / v
    expected = (noise + (shared + 1.0 / members) * ratios) / (1.0 + ratios * drawn)
    return float(np.sqrt(np.exp(LOG_SHARES) @ expected.mean(1)))
