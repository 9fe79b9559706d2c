"""Which score finds the structures on which a potential fails.

A structure fails where its error is larger than a high percentile of the errors in distribution.
Kinds of structures that differ in energy or force are easily told apart without any knowledge of
errors; so scores are held beside the plain ranking by predicted energy and force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Shaped

from surefoot.evaluate.intervals import block_bootstrap_counts
from surefoot.evaluate.ranking import auroc_by_counts
from surefoot.evaluate.scores import Estimate

PERCENTILE = 0.95
"""Of the errors in distribution: what is above is a failure."""


@dataclass(frozen=True)
class Detection:
    """How well one score tells structures apart.

    Attributes:
        failures: AUROC for structures whose error is above the percentile.
        strangers: AUROC for structures that are not of the distribution, whatever their error.
        over: by name of a plain score, how much larger the AUROC for failures is than that score's:
            both in the same draws of a bootstrap, since they mistake the same structures.
    """

    failures: Estimate
    strangers: Estimate
    over: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Failures:
    """What is to be found, and how well each score finds it.

    Attributes:
        threshold: error above which a structure fails, in the unit of the errors.
        inside, outside: number of structures of the distribution and not.
        failed_inside, failed_outside: how many of them fail.
        scores: by name.
    """

    threshold: float
    inside: int
    outside: int
    failed_inside: int
    failed_outside: int
    scores: dict[str, Detection]


def detect_failures(
    errors: Float[np.ndarray, " frames"],
    scores: Mapping[str, Float[np.ndarray, " frames"]],
    outside: Bool[np.ndarray, " frames"],
    groups: Shaped[np.ndarray, " frames"],
    generator: np.random.Generator,
    draws: int = 500,
    plain: Sequence[str] = (),
) -> Failures:
    """AUROC of several scores in a 1:1 mixture of structures in and out of distribution.

    Of the larger part, evenly spaced structures are taken. The threshold comes from all structures
    of the distribution.

    Args:
        errors: of each structure, such as its force RMSE, in any unit.
        scores: by name; larger where failure should be likelier.
        outside: which structures are not of the distribution.
        groups: label of each structure's group.
        generator: source of the draws.
        draws: number of bootstrap draws.
        plain: names of scores that know nothing of errors, which the others are held against.

    Raises:
        ValueError: if one of the parts is empty or a score is not finite.
    """
    inner, outer = np.flatnonzero(~outside), np.flatnonzero(outside)
    if not len(inner) or not len(outer):
        raise ValueError(
            f"{len(inner)} structures in distribution and {len(outer)} out of it; failures are "
            "looked for in a mixture of both, so at least one of each is needed."
        )
    threshold = float(np.quantile(errors[inner], PERCENTILE))
    each = min(len(inner), len(outer))
    mixture = np.concatenate([_spaced(inner, each), _spaced(outer, each)])
    count = len(mixture)
    failed, strange = errors[mixture] > threshold, outside[mixture]
    _, codes = np.unique(groups[mixture], return_inverse=True)

    def estimate(statistic: Callable[[np.ndarray], float]) -> Estimate:
        interval = block_bootstrap_counts(statistic, codes, generator, draws)
        return Estimate(statistic(np.ones(count, np.int64)), interval)

    mixed = {name: score[mixture] for name, score in scores.items()}
    areas = {name: auroc_by_counts(score, failed) for name, score in mixed.items()}

    def lead(name: str, other: str) -> Estimate:
        return estimate(lambda counts: areas[name](counts) - areas[other](counts))

    return Failures(
        threshold=threshold,
        inside=each,
        outside=each,
        failed_inside=int((failed & ~strange).sum()),
        failed_outside=int((failed & strange).sum()),
        scores={
            name: Detection(
                failures=estimate(areas[name]),
                strangers=estimate(auroc_by_counts(score, strange)),
                over={p: lead(name, p) for p in plain if p in scores and name not in plain},
            )
            for name, score in mixed.items()
        },
    )


def _spaced(indices: np.ndarray, count: int) -> np.ndarray:
    return indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]
