"""Heights of curves with error bars: of rigid scans, and of one structure above another.

The barrier of a scan is max(E) − E(first), the reverse one max(E) − E(last), as in Riedmiller et
al. 2024: a point of the scan, not a saddle point. Where the highest point is an end it is 0, or the
energy of reaction, and says nothing of what lies between; `Barrier.top` tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from surefoot.evaluate.calibration import central_bound

TOLERANCE = 1e-6  # eV: two barriers that are both exactly zero agree

Top = Literal["inside", "first", "last"]
"""Where a curve is highest."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a potential says along a path.

    Attributes:
        energies: (points) means, eV.
        deviations: (curves, points) of other curves that might be the true one from the means, eV,
            as the potential gives them; None where nothing tells the error of a difference.
        freedom: what a sum of squares over the curves is divided by for a variance: one less than
            their number for draws of weights, about whose mean they lie; their number for draws of
            a normal whose covariance is known.
        factor: of the calibration of energy differences; None where there was none.
        std: (points) of each energy by itself, eV, calibrated; None where it has none.
        ood: (points) distance to the training data; None without a gate.
    """

    energies: Float[np.ndarray, " points"]
    deviations: Float[np.ndarray, "curves points"] | None = None
    freedom: int = 1
    factor: float | None = None
    std: Float[np.ndarray, " points"] | None = None
    ood: Float[np.ndarray, " points"] | None = None

    def curves(self, factor: float) -> Float[np.ndarray, "curves points"] | None:
        """The other curves with their deviations times a factor, eV."""
        return None if self.deviations is None else self.energies + factor * self.deviations

    def from_first(self) -> Float[np.ndarray, " points"] | None:
        """Calibrated standard deviation of E − E(first) at every point, eV."""
        if self.deviations is None:
            return None
        relative = self.deviations - self.deviations[:, :1]
        return (self.factor or 1.0) * np.sqrt((relative**2).sum(0) / self.freedom)


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """One barrier with its error bar, in eV.

    Attributes:
        value: of the mean curve.
        std: calibrated standard deviation; None where nothing tells it.
        uncalibrated: the same without the factor of calibration.
        reference: of the labels, or None.
        top: where the mean curve is highest.
        reference_top: where that of the labels is.
    """

    value: float
    std: float | None
    reference: float | None
    uncalibrated: float | None = None
    top: Top = "inside"
    reference_top: Top | None = None

    def interval(self, level: float, *, calibrated: bool = True) -> tuple[float, float] | None:
        """Central interval, eV; a barrier is never negative. None without an error bar.

        Args:
            level: between 0 and 1.
            calibrated: whether with the factor of calibration.
        """
        std = self.std if calibrated else self.uncalibrated
        if std is None:
            return None
        width = central_bound(level) * std
        return max(0.0, self.value - width), self.value + width

    def holds(self, level: float, *, calibrated: bool = True) -> bool:
        """Whether the reference lies in the interval; never where one of them is missing."""
        found = self.interval(level, calibrated=calibrated)
        if found is None or self.reference is None:
            return False
        return found[0] - TOLERANCE <= self.reference <= found[1] + TOLERANCE


def scan_barrier(
    curve: Curve, reference: Float[np.ndarray, " points"] | None, *, reverse: bool = False
) -> Barrier:
    """Height of a scan above its first point, or above its last.

    σ² = Σ_m (B_m − B)² / freedom, where B_m is the barrier of curve m itself: it covers curves that
    have their maximum elsewhere, and is a difference within one curve, so that errors common to all
    points cancel.

    Args:
        curve: of the potential.
        reference: (points) labels in eV.
        reverse: whether from the last point.
    """
    end = -1 if reverse else 0
    value = height(curve.energies, end)
    spreads = []
    for factor in (curve.factor or 1.0, 1.0):
        curves = curve.curves(factor)
        heights = None if curves is None else curves.max(1) - curves[:, end]
        spreads.append(_spread(heights, value, curve.freedom))
    return Barrier(
        value=value,
        std=spreads[0],
        uncalibrated=spreads[1],
        reference=None if reference is None else height(reference, end),
        top=find_top(curve.energies),
        reference_top=None if reference is None else find_top(reference),
    )


def rise(curve: Curve, low: int, high: int) -> Barrier:
    """E(high) − E(low) of two structures of a curve, as of a saddle above a minimum.

    σ² = Σ_m (B_m − B)² / freedom with B_m = E_m(high) − E_m(low): both energies of one curve, so
    that their covariance counts. Structures are those of the mean surface: the slope of the energy
    is zero there, so that to first order in the error it does not matter that another surface would
    have its own elsewhere.

    Args:
        curve: of the potential.
        low: point that it is counted from.
        high: point that it is counted to.
    """
    value = float(curve.energies[high] - curve.energies[low])
    raw = None
    if curve.deviations is not None:
        found = curve.deviations[:, high] - curve.deviations[:, low]
        raw = _spread(found, 0.0, curve.freedom)
    std = None if raw is None else (curve.factor or 1.0) * raw
    return Barrier(value=value, std=std, uncalibrated=raw, reference=None)


def height(curve: Float[np.ndarray, " points"], end: int) -> float:
    """max(E) − E(end), eV."""
    return float(curve.max() - curve[end])


def find_top(curve: Float[np.ndarray, " points"]) -> Top:
    """Where a curve is highest; of points that are equally high, the first."""
    at = int(curve.argmax())
    if at == 0:
        return "first"
    return "last" if at == len(curve) - 1 else "inside"


def _spread(
    values: Float[np.ndarray, " curves"] | None, centre: float, freedom: int
) -> float | None:
    return None if values is None else float(np.sqrt(np.sum((values - centre) ** 2) / freedom))
