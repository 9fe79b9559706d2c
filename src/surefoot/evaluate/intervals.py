"""Bootstrap intervals that respect groups: whole groups are drawn again, never single points.

Points of one group (force components of a frame, frames of a trajectory) share their errors; an
interval that draws single points is too short by far. Three functions do the same with different
costs per draw:

    block_bootstrap_mean    means of per-point values: sums per group, the cheapest
    block_bootstrap_counts  statistics that can weigh points by counts
    block_bootstrap         any function of the drawn points, the dearest; choose `draws` with care

All are percentile intervals. With fewer than about twenty groups they are somewhat too short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped


@dataclass(frozen=True)
class Interval:
    """Bounds of an interval; both NaN where one can not be had (fewer than two groups).

    Attributes:
        low: lower bound.
        high: upper bound.
    """

    low: float
    high: float


def block_bootstrap(
    statistic: Callable[[Int[np.ndarray, " drawn"]], float],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 500,
    level: float = 0.95,
) -> Interval:
    """Interval of any statistic of points, from groups drawn with replacement.

    As many groups are drawn as there are; each brings all of its points, so the number of points
    varies where groups differ in size. A NaN of the statistic in any draw makes the interval NaN.

    Args:
        statistic: a function of the indices of the drawn points (repeated, ascending).
        groups: label of each point's group.
        generator: source of the draws.
        draws: number of draws.
        level: probability of the interval.

    Returns:
        Percentile interval; NaN with fewer than two groups.

    Raises:
        ValueError: if draws or level are out of range.
    """
    codes, count = _encode(groups)
    points = np.arange(len(codes))
    counts = draw_groups(count, generator, draws)
    return _percentiles((statistic(np.repeat(points, times[codes])) for times in counts), level)


def block_bootstrap_counts(
    statistic: Callable[[Int[np.ndarray, " points"]], float],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 500,
    level: float = 0.95,
) -> Interval:
    """Interval of a statistic that takes how often each point was drawn.

    The same draws and the same interval as `block_bootstrap`, for statistics that can do their
    sorting once, before the first draw.

    Args:
        statistic: a function of the count of each point, zero for those not drawn.
        groups: label of each point's group.
        generator: source of the draws.
        draws: number of draws.
        level: probability of the interval.

    Returns:
        Percentile interval; NaN with fewer than two groups.

    Raises:
        ValueError: if draws or level are out of range.
    """
    codes, count = _encode(groups)
    counts = draw_groups(count, generator, draws)
    return _percentiles((statistic(times[codes]) for times in counts), level)


def block_bootstrap_mean(
    values: Float[np.ndarray, " points"],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 500,
    level: float = 0.95,
) -> Interval:
    """Interval of the mean over points of a per-point value, from sums per group.

    The same draws and the same interval as `block_bootstrap`. Since percentiles follow a monotone
    function, the interval of a root mean square is the root of the interval of the mean square.

    Args:
        values: one value per point, such as an absolute error or a score.
        groups: label of each point's group.
        generator: source of the draws.
        draws: number of draws.
        level: probability of the interval.

    Returns:
        Percentile interval; NaN with fewer than two groups.

    Raises:
        ValueError: if draws or level are out of range.
    """
    codes, count = _encode(groups)
    sums = np.bincount(codes, weights=values, minlength=count)
    sizes = np.bincount(codes, minlength=count)
    counts = draw_groups(count, generator, draws)
    return _percentiles((float((times @ sums) / (times @ sizes)) for times in counts), level)


def check_level(level: float) -> None:
    """Refuse a level that is not a probability.

    Raises:
        ValueError: if it is not between 0 and 1, both excluded.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(
            f"The level of an interval is {level}; a probability between 0 and 1, both excluded, "
            f"is needed, such as 0.95."
        )


def _encode(groups: Shaped[np.ndarray, " points"]) -> tuple[Int[np.ndarray, " points"], int]:
    """Number of each point's group, and how many groups there are."""
    names, codes = np.unique(groups, return_inverse=True)
    return codes, len(names)


def draw_groups(
    count: int, generator: np.random.Generator, draws: int
) -> Iterator[Int[np.ndarray, " groups"]]:
    """How often each group was drawn, draw after draw; nothing with fewer than two groups."""
    if draws < 1:
        raise ValueError(f"A bootstrap of {draws} draws was asked for; at least 1 is needed.")
    for _ in range(draws if count > 1 else 0):
        yield np.bincount(generator.integers(count, size=count), minlength=count)


def _percentiles(statistics: Iterator[float], level: float) -> Interval:
    check_level(level)
    values = np.array(list(statistics))
    if len(values) == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [0.5 - 0.5 * level, 0.5 + 0.5 * level])
    return Interval(float(low), float(high))
