"""Intervals of any level from calibration points, without the belief that errors are normal.

Two maps, both fitted to residuals of points that no weights have learnt from, z = residual / std:

    conformal   the quantile of |z| that holds for a new point, whatever the distribution
    isotonic    a monotone map of the levels of the predicted distribution to those observed

Points of one group (force components of a frame, frames of a trajectory) share their errors, so
what is counted is groups: a conformal interval of level p covers at least p of the points of a new
group, on average over calibration sets and new groups, if that group is like the calibration
groups. It may be fitted for each kind of point apart (Mondrian), so that each kind is covered as
often as it says.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import ndtr, ndtri

from surefoot.evaluate.intervals import check_level
from surefoot.evaluate.scoring import standardize

SPACED, LARGEST = 250, 100
"""Scores that are kept: of more, so many, closer to each other towards the largest, and so many of
the largest themselves."""
FEWEST = 19
"""Groups with points of a kind that gets quantiles of its own: enough for a level of 0.95."""
KNOTS = 200
"""Knots of an isotonic map."""
MOST_KINDS = 50
"""Kinds with quantiles of their own, those with most groups: the rest are too many for a file."""
REST = ""
"""The kind of all points together, for new kinds and those with too few groups."""

Bounds = tuple[float, float]


class TooFewGroups(ValueError):
    """Fewer calibration groups than a level needs."""


@dataclass(frozen=True)
class Conformal:
    """Scores |z| of the calibration points, or enough of them.

    Attributes:
        scores: rising.
        shares: of the points up to each score, as a mean over groups; rising to 1.
        count: number n of calibration groups.
    """

    scores: tuple[float, ...]
    shares: tuple[float, ...]
    count: int

    def bounds(self, level: float) -> Bounds:
        """Interval of a new point in standard deviations.

        The half width is the smallest score that was kept with a share of (1 + 1/n) level or more.
        With one point in each group it has the rank ⌈(n + 1) level⌉.

        Raises:
            ValueError: if the level is not a probability.
            TooFewGroups: if there are fewer groups than level / (1 − level).
        """
        check_level(level)
        if not self.reaches(level):
            raise TooFewGroups(
                f"an interval of level {level:g} needs at least {needed_groups(level)} groups of "
                f"calibration frames, there are {self.count}; lower the level, calibrate on more, "
                "or state `group` in the info of frames that are independent."
            )
        width = self.scores[bisect_left(self.shares, _share(level, self.count))]
        return -width, width

    def reaches(self, level: float) -> bool:
        """Whether there are enough groups for a level."""
        return _share(level, self.count) <= 1.0


@dataclass(frozen=True)
class Isotonic:
    """A monotone, piecewise linear map of levels: predicted to observed.

    Attributes:
        predicted: Φ(z), rising from 0 to 1.
        observed: share of calibration points below it, rising from 0 to 1.
    """

    predicted: tuple[float, ...]
    observed: tuple[float, ...]

    def bounds(self, level: float) -> Bounds:
        """Interval of a new point in standard deviations; it need not be symmetric.

        Raises:
            ValueError: if the level is not a probability.
        """
        check_level(level)
        wanted = np.array([0.5 - 0.5 * level, 0.5 + 0.5 * level])
        u = np.interp(wanted, self.observed, self.predicted)
        # Beyond the outermost points the map is a straight line to 0 or 1: never quite there.
        low, high = ndtri(np.clip(u, 1e-12, 1.0 - 1e-12))
        return float(low), float(high)


@dataclass(frozen=True)
class Grouped:
    """One map for each kind of point; `REST` serves all others.

    Attributes:
        maps: by kind, `REST` among them.
    """

    maps: Mapping[str, Conformal]

    def bounds(
        self, level: float, kinds: Shaped[np.ndarray, " points"]
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Lower and upper bounds of each point, in standard deviations.

        A kind with too few groups for the level takes the bounds of all points together.

        Raises:
            ValueError: as the maps.
        """
        names, codes = np.unique(kinds, return_inverse=True)
        found = [self._map(str(name), level).bounds(level) for name in names]
        low, high = np.array(found).reshape(-1, 2).T
        return low[codes], high[codes]

    def _map(self, kind: str, level: float) -> Conformal:
        own = self.maps.get(kind, self.maps[REST])
        return own if own.reaches(level) else self.maps[REST]


def fit_conformal(
    residuals: Float[np.ndarray, " points"],
    std: Float[np.ndarray, " points"],
    groups: Shaped[np.ndarray, " points"],
) -> Conformal:
    """Split conformal prediction with the score |residual| / std, for groups of points.

    Each group has the mass 1 / (n + 1), which its points share, and what is left lies at infinity.

    Args:
        residuals: label − prediction of points that no weights have learnt from, in any unit.
        std: standard deviations in the same unit, positive and finite.
        groups: label of each point's group.

    Raises:
        ValueError: as `standardize`.
    Source: Lee, Barber, Willett 2023, arXiv:2306.06342; Lei et al. 2018, J. Am. Stat. Assoc. 113,
        1094, algorithm 2, where each group is one point. Differs: the score is normalised.
    """
    distances = np.abs(standardize(residuals, std))
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(distances, kind="stable")
    shares = np.cumsum(1.0 / (len(sizes) * sizes[codes[order]]))
    chosen = np.arange(len(order))
    if len(order) > SPACED + LARGEST:
        levels = 1.0 - np.linspace(0.0, 1.0, SPACED) ** 2
        spaced = np.minimum(np.searchsorted(shares, levels), len(order) - 1)
        chosen = np.union1d(spaced, chosen[-LARGEST:])
    return Conformal(
        scores=tuple(float(f"{score:.6g}") for score in distances[order[chosen]]),
        shares=(*(float(f"{share:.10g}") for share in shares[chosen[:-1]]), 1.0),
        count=len(sizes),
    )


def fit_isotonic(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Isotonic:
    """Map of predicted to observed levels, the isotonic regression of ranks on PIT values.

    Args:
        residuals: label − prediction of points that no weights have learnt from, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    Source: Kuleshov, Fenner, Ermon 2018, arXiv:1807.00263. Differs: fitted in distribution only.
    """
    u = np.sort(ndtr(standardize(residuals, std)))
    count = len(u)
    # Rank / (n + 1): the mean of the level below which a share of new points falls. It rises with u
    # already, so pooling violators, the usual step of an isotonic regression, has nothing to do.
    observed = np.arange(1, count + 1) / (count + 1)
    chosen = np.unique(np.linspace(0, count - 1, min(count, KNOTS)).round().astype(int))
    predicted, observed = u[chosen], observed[chosen]
    # Equal values have one level, the highest; a map that is level can not be inverted.
    last = np.append(np.diff(predicted) > 0, True) & (predicted > 0) & (predicted < 1)
    return Isotonic(
        predicted=(0.0, *map(float, predicted[last]), 1.0),
        observed=(0.0, *map(float, observed[last]), 1.0),
    )


def fit_grouped(
    residuals: Float[np.ndarray, " points"],
    std: Float[np.ndarray, " points"],
    kinds: Shaped[np.ndarray, " points"],
    groups: Shaped[np.ndarray, " points"],
) -> Grouped:
    """Split conformal prediction for each kind in at least `FEWEST` groups, and for all.

    Args:
        residuals: label − prediction of points that no weights have learnt from, in any unit.
        std: standard deviations in the same unit, positive and finite.
        kinds: what divides the points: strings or numbers.
        groups: label of each point's group.

    Raises:
        ValueError: as `standardize`.
    Source: Vovk et al. 2005, Mondrian conformal predictors.
    """
    maps: dict[str, Conformal] = {REST: fit_conformal(residuals, std, groups)}
    names, codes = np.unique(kinds, return_inverse=True)
    held = [len(np.unique(groups[codes == code])) for code in range(len(names))]
    largest = np.argsort(-np.array(held), kind="stable")[:MOST_KINDS]
    for code in largest if len(names) > 1 else ():
        if held[code] >= FEWEST:
            chosen = codes == code
            maps[str(names[code])] = fit_conformal(residuals[chosen], std[chosen], groups[chosen])
    return Grouped(maps=maps)


def needed_groups(level: float) -> int:
    """Calibration groups that a conformal interval of a level needs: 19 for 0.95.

    Raises:
        ValueError: if the level is not a probability.
    """
    check_level(level)
    count = max(1, math.floor(level / (1.0 - level)) - 1)
    while _share(level, count) > 1.0:
        count += 1
    return count


def _share(level: float, count: int) -> float:
    # 20 · 0.95 is 19.000000000000004 in floating point, and 19 groups would be one too few.
    return (count + 1) * level / count - 1e-9
