"""One quantity with its residuals and error bars, point by point: what tables are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Residuals of one quantity in the unit a table shows.

    Attributes:
        name: `energy`, `forces` or `stress`.
        unit: of residuals and standard deviations.
        residuals: label − prediction.
        std: calibrated standard deviations; None where there is no error bar.
        factor: what calibration multiplied the standard deviations by.
        groups: label of each point's group.
        types: config_type of each point.
    """

    name: str
    unit: str
    residuals: Float[np.ndarray, " points"]
    std: Float[np.ndarray, " points"] | None
    factor: float
    groups: Shaped[np.ndarray, " points"]
    types: Shaped[np.ndarray, " points"]

    @property
    def scorable(self) -> np.ndarray:
        """Points with an error bar; symmetry makes all members agree on some force components."""
        if self.std is None:
            return np.zeros(len(self.residuals), bool)
        return self.std > 1e-9 * max(float(np.max(self.std, initial=0.0)), 1e-30)
