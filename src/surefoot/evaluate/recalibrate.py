"""One global factor per quantity that makes error bars true, also from out-of-fold members.

Members of a deep ensemble that are trained on different folds leave each training point unseen by
some of them, and these can be asked about it: no label has to be set aside for calibration. But a
point is unseen by few members and a new one by all, so spreads have to be translated. The model:

    member m at a point:  prediction = label + shared error + deviation_m
    deviations            independent, normal, variance v(point)
    shared error          normal, variance c · v(point); c is the same everywhere

The mean of n unseen members has the residual r ~ N(0, (c + 1/n) v), independent of their unbiased
variance s² ~ v χ²ₙ₋₁ / (n − 1). So r / s is free of the unknown v(point):

    r / s ~ √(c + 1/n) · t with n − 1 degrees of freedom

which gives c by maximum likelihood, however unevenly the v are spread over the points. At a new
point all M members are unseen and the mean square of r / s_M is

    factor² = (c + 1/M) · (M − 1) / (M − 3),  M > 3

where the last fraction is E[v / s²_M]. A Gaussian with std = factor · s_M then has the best mean
log-score that one factor can give, and mean z² = 1.

What the model leaves out: members that left out the same fold have seen the same data and deviate
less from each other than two members taken at random; their spread is then too small for v, and c
and the factor come out too large. Give the members folds of their own, or overlapping ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import root_scalar
from scipy.special import ndtri, stdtrit

from surefoot.evaluate.scoring import standardize

UPPER = 0.975  # level of the upper end of the interval that few members are made to cover


@dataclass(frozen=True)
class OutOfFold:
    """What the members that have not seen a point say about it.

    Attributes:
        residuals: label − mean of the unseen members, in any unit.
        std: unbiased (n − 1) standard deviation of the unseen members, same unit.
        count: number n of unseen members, at least 2.
    """

    residuals: Float[np.ndarray, " points"]
    std: Float[np.ndarray, " points"]
    count: Int[np.ndarray, " points"]


@dataclass(frozen=True)
class Factor:
    """A factor for error bars, and where it came from.

    Attributes:
        value: multiplies every standard deviation; of an ensemble the unbiased (M − 1) one of all
            M members.
        shared_error: c, variance of the members' shared error over that of their deviations; None
            where error bars are not the spread of members.
        points: number of calibration points.
    """

    value: float
    shared_error: float | None
    points: int


def gaussian_factor(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> float:
    """The factor on error bars with the best mean log-score on these points.

    factor = √ mean(residual² / std²)

    For points that no weights have seen, with any posterior. It is a mean of squares: one tiny
    std with an ordinary residual decides it, so look at the largest |z| too.

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: if a std is not positive and finite, a residual is not finite, or there is none.
    """
    return float(np.sqrt(np.mean(standardize(residuals, std) ** 2)))


def fit_factor(
    targets: Float[np.ndarray, " points"],
    members: Float[np.ndarray, "members points"],
    unseen: Bool[np.ndarray, "members points"],
) -> Factor:
    """The factor for the error bars of all members at new points, from out-of-fold points.

    Args:
        targets: labels, in any unit.
        members: prediction of each member, same unit; where a member has seen the point its value
            is not read and may be NaN.
        unseen: True where the member has not seen the point in training, its group included.

    Raises:
        ValueError: as `residuals_out_of_fold` and `fit_shared_error`.
    """
    shared_error = fit_shared_error(residuals_out_of_fold(targets, members, unseen))
    return Factor(
        value=ensemble_factor(shared_error, len(members)),
        shared_error=shared_error,
        points=len(targets),
    )


def residuals_out_of_fold(
    targets: Float[np.ndarray, " points"],
    members: Float[np.ndarray, "members points"],
    unseen: Bool[np.ndarray, "members points"],
) -> OutOfFold:
    """Residual and spread of the members that have not seen each point.

    Args:
        targets: labels, in any unit.
        members: prediction of each member, same unit; not read where seen.
        unseen: True where the member has not seen the point in training.

    Raises:
        ValueError: if a point has fewer than 2 unseen members, which give no spread.
    """
    count = np.sum(unseen, axis=0)
    bad = np.flatnonzero(count < 2)
    if len(bad):
        raise ValueError(
            f"Point {bad[0]} is unseen by {count[bad[0]]} of {len(members)} members ({len(bad)} "
            f"such points in all); at least 2 are needed for a spread. Leave these points out, or "
            f"train the ensemble so that each group is left out by 2 members or more."
        )
    held = np.where(unseen, members.astype(np.float64), 0.0)
    mean = np.sum(held, axis=0) / count
    deviations = np.where(unseen, held - mean, 0.0)
    std = np.sqrt(np.sum(deviations**2, axis=0) / (count - 1))
    return OutOfFold(residuals=targets.astype(np.float64) - mean, std=std, count=count)


def fit_shared_error(out_of_fold: OutOfFold) -> float:
    """Ratio c of shared to member variance, by maximum likelihood over all points.

    The score of a point with u = r² / s², ν = n − 1 and τ = c + 1/n is

        ∂ ln L / ∂c = ν (u − τ) / (2 τ (ν τ + u))

    It is bounded in u: a point with an accidentally tiny spread can not decide the result.

    Args:
        out_of_fold: residuals, spreads and counts of the unseen members.

    Returns:
        c ≥ 0; 0 where the residuals are no larger than the members' deviations explain.

    Raises:
        ValueError: if a spread is zero or not finite, or a residual is not finite.
    """
    squares = standardize(out_of_fold.residuals, out_of_fold.std) ** 2
    count = out_of_fold.count

    def slope(shared_error: float) -> float:
        scale = shared_error + 1.0 / count
        freedom = count - 1
        return float(np.mean(freedom * (squares - scale) / (scale * (freedom * scale + squares))))

    if slope(0.0) <= 0.0:
        return 0.0
    high = 1.0
    while slope(high) > 0.0:  # ends at the largest square at the latest
        high *= 2.0
    return float(root_scalar(slope, bracket=(0.0, high)).root)


def ensemble_factor(shared_error: float, members: int) -> float:
    """Factor on the unbiased spread of all members at a point that none has seen.

    factor² = (c + 1/M) · (M − 1) / (M − 3)      M > 3
    factor  = √(c + 1/M) · t_{M−1}(0.975) / 1.96      M = 2, 3

    z is then not normal but a Student t with M − 1 degrees of freedom, scaled to variance 1: with
    M = 8 the intervals of 50, 68, 90 and 95 % cover 55, 72, 91 and 95 %.

    With M ≤ 3 members the mean of 1 / s² does not exist and no factor has a finite mean log-score;
    the interval of 95 % is then made to cover 95 %, since that is what error bars are asked for;
    those of 50, 68 and 90 % cover more, as with four members: 72, 84 and 93 % with M = 3.

    Args:
        shared_error: c, not negative.
        members: number M of members, at least 2.

    Raises:
        ValueError: if c is negative or not finite, or there are fewer than 2 members.
    """
    if not (math.isfinite(shared_error) and shared_error >= 0.0):
        raise ValueError(
            f"The shared error c is {shared_error}; a ratio of variances has to be finite and not "
            f"negative."
        )
    if members < 2:
        raise ValueError(f"An ensemble of {members} has no spread; at least 2 members are needed.")
    return math.sqrt(shared_error + 1.0 / members) * _of_spread(members)


def _of_spread(members: int) -> float:
    """Width of r / σ in units of its scale, where s of some members stands for σ."""
    if members > 3:
        return math.sqrt((members - 1) / (members - 3))
    return float(stdtrit(members - 1, UPPER) / ndtri(UPPER))


def balanced_factor(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"], draws: int
) -> Factor:
    """Factor on the spread of draws whose mean is the point itself, whatever their number.

    r ~ N(0, a² v) and s² ~ v χ² / (D − 1): there is no deviation of the mean, 1/D of the variance,
    that the residual would share with the draws. So a may be as small as it likes, factor² is
    a² (D − 1) / (D − 3) as in `ensemble_factor`, and nothing follows for draws that are not
    balanced.

    Args:
        residuals: label − prediction, in any unit.
        std: unbiased standard deviation of the draws, same unit.
        draws: number D of draws, at least 2.

    Raises:
        ValueError: if all residuals are zero, or as `fit_shared_error`.
    """
    squares, freedom = standardize(residuals, std) ** 2, draws - 1
    if not squares.any():
        raise ValueError("all residuals are zero, so nothing can be calibrated on them.")

    def slope(scale: float) -> float:
        return float(np.mean(freedom * (squares - scale) / (scale * (freedom * scale + squares))))

    low = high = float(np.mean(squares))
    while slope(high) > 0.0:
        high *= 2.0
    while slope(low) <= 0.0 and low > np.finfo(float).tiny:
        low /= 2.0
    scale = root_scalar(slope, bracket=(low, high)).root if slope(low) > 0.0 else low
    value = math.sqrt(scale) * _of_spread(draws)
    return Factor(value=value, shared_error=None, points=len(squares))
