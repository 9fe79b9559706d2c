"""One quantity with its residuals and error bars, point by point: what tables are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Shaped

NEGLIGIBLE = 1e-6
"""Of the largest error bar or spread: below it draws agree up to rounding, in float32 too, as on
force components that symmetry keeps at zero; such points are neither calibrated on nor judged."""
PLAIN = ("predicted energy per atom", "predicted rms force")
"""Scores of structures that know nothing of errors, which all others have to beat."""
Bounds = Callable[[float], tuple[np.ndarray, np.ndarray]]
"""Level → lower and upper bound of each point, in standard deviations."""


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
        strata: what else divides the points, by name: element, atoms, |force|.
        bounds: by name of the recalibration, bounds of intervals other than those of a normal.
        draws: label − prediction of each draw, where there are several and they are kept.
    """

    name: str
    unit: str
    residuals: Float[np.ndarray, " points"]
    std: Float[np.ndarray, " points"] | None
    factor: float
    groups: Shaped[np.ndarray, " points"]
    types: Shaped[np.ndarray, " points"]
    strata: Mapping[str, Shaped[np.ndarray, " points"]] = field(default_factory=dict)
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    draws: Float[np.ndarray, "draws points"] | None = None

    @property
    def scorable(self) -> np.ndarray:
        """Points with an error bar; symmetry makes all members agree on some force components."""
        if self.std is None:
            return np.zeros(len(self.residuals), bool)
        return self.std > NEGLIGIBLE * max(float(np.max(self.std, initial=0.0)), 1e-30)


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Force residuals by atom, with the covariances of those that have one of full rank.

    Attributes:
        residuals: label − prediction, (atoms, 3) in eV/Å.
        covariance: (atoms, 3, 3) in (eV/Å)².
        groups: label of each atom's group.
    """

    residuals: Float[np.ndarray, "atoms 3"]
    covariance: Float[np.ndarray, "atoms 3 3"]
    groups: Shaped[np.ndarray, " atoms"]


@dataclass(frozen=True, kw_only=True)
class Binning:
    """Labels in predicted histograms, point by point.

    Attributes:
        name: `energy`, `force component`, or `force error` for the length of an atom's force error.
        unit: of CRPS and errors.
        pit: level of each label in its histogram.
        crps: of each label, in the unit.
        nll: of each label, in nats.
        groups: label of each point's group.
        errors: label − mean; of histograms of errors the error itself.
        scores: by name, what may tell the size of the error: entropies, deviations, distances.
        beyond: mass of the last bin where that is open; else None.
        in_last: whether the label lies in that bin; else None. Not by `pit`: where the mass is
            tiny, 1 − mass is rounded to 1.
    """

    name: str
    unit: str
    pit: Float[np.ndarray, " points"]
    crps: Float[np.ndarray, " points"]
    nll: Float[np.ndarray, " points"]
    groups: Shaped[np.ndarray, " points"]
    errors: Float[np.ndarray, " points"]
    scores: Mapping[str, Float[np.ndarray, " points"]]
    beyond: Float[np.ndarray, " points"] | None = None
    in_last: Bool[np.ndarray, " points"] | None = None


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Energy differences within pairs of structures, in meV.

    Attributes:
        residuals: label − prediction.
        std: σ that knows what errors the two share.
        independent: √(σ_a² + σ_b²), as if they shared none.
        correlated: |σ_a − σ_b|, as if they shared all.
        groups: label of each pair's group.
        factor: what calibration multiplied `std` by; None where it is not calibrated.
    """

    residuals: Float[np.ndarray, " pairs"]
    std: Float[np.ndarray, " pairs"]
    independent: Float[np.ndarray, " pairs"]
    correlated: Float[np.ndarray, " pairs"]
    groups: Shaped[np.ndarray, " pairs"]
    factor: float | None


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One error and several scores for each point: whether the order of the one is the others'.

    Attributes:
        errors: in any unit; their sign does not count.
        scores: by name; larger where the error should be larger.
        groups: label of each point's group.
    """

    errors: Float[np.ndarray, " points"]
    scores: Mapping[str, Float[np.ndarray, " points"]]
    groups: Shaped[np.ndarray, " points"]


@dataclass(frozen=True, kw_only=True)
class Structures:
    """One error and several scores for each structure.

    Attributes:
        errors: RMSE of its force components in meV/Å, or its energy error in meV/atom: of one kind
            for all structures that are put in one order.
        scores: by name; larger where the error should be larger.
        groups: label of each structure's group.
        types: config_type of each structure.
        counted: which structures of those that were predicted they are.
    """

    errors: Float[np.ndarray, " frames"]
    scores: Mapping[str, Float[np.ndarray, " frames"]]
    groups: Shaped[np.ndarray, " frames"]
    types: Shaped[np.ndarray, " frames"]
    counted: Bool[np.ndarray, " predicted"]
