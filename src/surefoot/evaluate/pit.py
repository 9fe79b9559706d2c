"""Probability integral transform: where labels fall in their predicted distributions.

u = F(label) is uniform between 0 and 1 where the distributions are true. A hump in the middle
means error bars too wide, a U too narrow, a slope a bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import ndtr

from surefoot.evaluate.intervals import draw_groups
from surefoot.evaluate.scoring import standardize

BINS = 20


@dataclass(frozen=True)
class PitHistogram:
    """Share of points in bins of equal width, times their number: 1 everywhere is uniform.

    Attributes:
        density: by bin.
        low, high: 95 % band by bin, from drawing groups again; NaN with fewer than two groups.
    """

    density: Float[np.ndarray, " bins"]
    low: Float[np.ndarray, " bins"]
    high: Float[np.ndarray, " bins"]


def gaussian_pit(
    residuals: Float[np.ndarray, " points"], std: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Level of each label in its Gaussian, u = Φ(residual / std).

    Args:
        residuals: label − prediction, in any unit.
        std: standard deviations in the same unit, positive and finite.

    Raises:
        ValueError: as `standardize`.
    """
    return ndtr(standardize(residuals, std))


def pit_histogram(
    u: Float[np.ndarray, " points"],
    groups: Shaped[np.ndarray, " points"],
    generator: np.random.Generator,
    draws: int = 500,
) -> PitHistogram:
    """Histogram of PIT values in `BINS` bins, with a block-bootstrap band.

    Args:
        u: between 0 and 1.
        groups: label of each point's group.
        generator: source of the draws.
        draws: number of bootstrap draws.

    Raises:
        ValueError: if a value is not between 0 and 1, or there is none.
    """
    check_unit(u)
    names, codes = np.unique(groups, return_inverse=True)
    places = np.minimum((u * BINS).astype(np.int64), BINS - 1)
    table = np.zeros((len(names), BINS))
    np.add.at(table, (codes, places), 1.0)
    drawn = [times @ table for times in draw_groups(len(names), generator, draws)]
    density = BINS * table.sum(0) / len(u)
    if not drawn:
        nothing = np.full(BINS, np.nan)
        return PitHistogram(density=density, low=nothing, high=nothing)
    shares = BINS * np.array(drawn) / np.sum(drawn, axis=1, keepdims=True)
    low, high = np.quantile(shares, [0.025, 0.975], axis=0)
    return PitHistogram(density=density, low=low, high=high)


def kolmogorov_smirnov(u: Float[np.ndarray, " points"]) -> float:
    """Largest gap between the distribution of PIT values and the uniform one: sup |F(u) − u|.

    No p-value: it would take the points for independent. With N independent points true
    distributions give about 0.87 / √N.

    Args:
        u: between 0 and 1.

    Raises:
        ValueError: if a value is not between 0 and 1, or there is none.
    """
    return kolmogorov_smirnov_by_counts(u)(np.ones(len(u), dtype=np.int64))


def kolmogorov_smirnov_by_counts(
    u: Float[np.ndarray, " points"],
) -> Callable[[Int[np.ndarray, " points"]], float]:
    """The same as a function of how often each point stands in a sample; sorts once.

    Raises:
        ValueError: if a value is not between 0 and 1, or there is none.
    """
    check_unit(u)
    order = np.argsort(u)
    rising = u[order]

    def gap(counts: Int[np.ndarray, " points"]) -> float:
        after = np.cumsum(counts[order]) / np.sum(counts)
        before = np.concatenate(([0.0], after[:-1]))
        # Of equal values and of those that were not drawn no gap is larger than of the rest.
        return float(max(np.max(after - rising), np.max(rising - before)))

    return gap


def check_unit(u: Float[np.ndarray, " points"]) -> None:
    """Refuse what are no probabilities.

    Raises:
        ValueError: with the index and the value.
    """
    if len(u) == 0:
        raise ValueError("There are no PIT values; at least one labelled point is needed.")
    bad = np.flatnonzero(~((u >= 0) & (u <= 1)))
    if len(bad):
        raise ValueError(
            f"The PIT value of point {bad[0]} is {u[bad[0]]} ({len(bad)} such points in all); it "
            "is a probability, from 0 to 1."
        )
