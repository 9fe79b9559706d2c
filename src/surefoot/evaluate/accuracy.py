"""How far predictions are from labels: mean absolute and root mean square errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped


@dataclass(frozen=True)
class Accuracy:
    """Errors over a set of points, in the unit of the residuals.

    Attributes:
        count: number of points.
        mae: mean absolute error.
        rmse: root mean square error.
    """

    count: int
    mae: float
    rmse: float


def accuracy(residuals: Float[np.ndarray, " points"]) -> Accuracy:
    """Mean absolute and root mean square error.

    Args:
        residuals: label − prediction, in any unit.

    Raises:
        ValueError: if there are no residuals or one is not finite.
    """
    check_residuals(residuals)
    residuals = residuals.astype(np.float64)
    return Accuracy(
        count=len(residuals),
        mae=float(np.mean(np.abs(residuals))),
        rmse=float(np.sqrt(np.mean(residuals**2))),
    )


def accuracy_by_type(
    residuals: Float[np.ndarray, " points"], types: Shaped[np.ndarray, " points"]
) -> dict[str, Accuracy]:
    """Errors of each type of points, in sorted order of the types; the total is not among them.

    Args:
        residuals: label − prediction, in any unit.
        types: what divides the points, such as config_type or element: strings or integers.

    Raises:
        ValueError: as `accuracy`.
    """
    check_residuals(residuals)
    names, codes = np.unique(types, return_inverse=True)
    return {str(name): accuracy(residuals[codes == code]) for code, name in enumerate(names)}


def check_residuals(residuals: Float[np.ndarray, " points"]) -> None:
    """Refuse an empty or not finite set of residuals.

    Raises:
        ValueError: with the index and the value.
    """
    if len(residuals) == 0:
        raise ValueError("There are no residuals; at least one labelled point is needed.")
    bad = np.flatnonzero(~np.isfinite(residuals))
    if len(bad):
        raise ValueError(
            f"The residual of point {bad[0]} is {residuals[bad[0]]} ({len(bad)} such points in "
            f"all); residuals have to be finite. Leave out points without a label."
        )
