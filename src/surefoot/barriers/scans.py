"""Barriers of rigid scans beside the reference and a regression on the transfer distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot.barriers.heights import TOLERANCE, Barrier, Curve, scan_barrier
from surefoot.barriers.paths import TransferPath
from surefoot.evaluate.accuracy import accuracy
from surefoot.evaluate.intervals import check_level
from surefoot.units import KCAL_PER_MOL, KJ_PER_MOL

DEGREES = {"linear": 1, "quadratic": 2}
DETERMINED = 1e-9  # a leverage closer to 1 means that no other path says anything about this one
TOO_LOW = {"GFN2-xTB": 18, "GFN1-xTB": 19, "spGFN2-xTB": 16, "spGFN1-xTB": 17}
"""kcal/mol that barriers of hydrogen transfers are too low on average (BH9, class 4)."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One rigid scan and what a potential says of it.

    Attributes:
        path: its images.
        curve: energies along it.
        forward, reverse: the barriers.
    """

    path: TransferPath
    curve: Curve
    forward: Barrier
    reverse: Barrier

    @property
    def barriers(self) -> dict[str, Barrier]:
        """Both by direction."""
        return {"forward": self.forward, "reverse": self.reverse}


def judge_scan(path: TransferPath, curve: Curve) -> Scan:
    """The barriers of a path both ways."""
    forward = scan_barrier(curve, path.reference)
    reverse = scan_barrier(curve, path.reference, reverse=True)
    return Scan(path=path, curve=curve, forward=forward, reverse=reverse)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All barriers of a set of scans and how far they can be trusted; energies in eV.

    Attributes:
        scans: in the order of the file.
        level: of the intervals.
        method: what made the reference.
        baselines: name → absolute errors of a regression of the forward barrier on the
            translation, each path predicted from all others; only those the paths determine.
    """

    scans: list[Scan]
    level: float
    method: str
    baselines: dict[str, Float[np.ndarray, " paths"]]


def summarize(scans: Sequence[Scan], level: float) -> Summary:
    """Barriers both ways, and what the transfer distance alone would say.

    Args:
        scans: at least one.
        level: of the intervals, between 0 and 1.
    """
    check_level(level)
    labelled = [scan for scan in scans if scan.forward.reference is not None]
    translations = np.array([scan.path.translation for scan in labelled])
    heights = np.array([scan.forward.reference for scan in labelled], float)
    residuals = {
        name: _leave_one_out(translations, heights, degree) for name, degree in DEGREES.items()
    }
    return Summary(
        scans=list(scans),
        level=level,
        method=scans[0].path.method,
        baselines={name: np.abs(r) for name, r in residuals.items() if r is not None},
    )


def _leave_one_out(
    x: Float[np.ndarray, " paths"], y: Float[np.ndarray, " paths"], degree: int
) -> Float[np.ndarray, " paths"] | None:
    """Residuals of a polynomial fit in which each point is predicted from all others.

    r_i / (1 − h_ii) with the hat matrix H = Q Qᵀ; a barrier is never predicted below zero.

    Returns:
        None where there are too few points, or all others do not determine the fit for some point
        (few different distances): there is no such prediction then.
    """
    design = np.vander(x, degree + 1)
    if len(x) <= degree + 2 or np.linalg.matrix_rank(design) <= degree:
        return None
    q = np.linalg.qr(design)[0]
    leverage = np.sum(q**2, axis=1)
    if leverage.max() > 1 - DETERMINED:
        return None
    residuals = (y - q @ (q.T @ y)) / (1 - leverage)
    return y - np.maximum(y - residuals, 0.0)


def describe(summary: Summary) -> list[str]:
    """What the table shows, in sentences; energies in kcal/mol, mean errors in kJ/mol, too."""
    lines = []
    for direction in ("forward", "reverse"):
        lines += _describe_direction(summary, direction)
    every = [barrier for scan in summary.scans for barrier in scan.barriers.values()]
    if any(barrier.std is None for barrier in every):
        lines.append(
            "There are no error bars: one set of weights says nothing of the error of a difference;"
            " train an ensemble (`posterior: {members: 8}`)."
        )
    elif any(scan.curve.factor is None for scan in summary.scans):
        lines.append(
            "The error bars are the bare spread of the draws: this potential had nothing to "
            "calibrate energy differences on (two frames of one composition in a group)."
        )
    ends = sum(scan.forward.top != "inside" for scan in summary.scans)
    if ends:
        lines.append(
            f"{ends} of {len(summary.scans)} paths are highest at an end: one of their barriers is "
            "0 because the scan has no maximum between its ends, not because there is no barrier."
        )
    told = f"These are barriers of rigid scans on the surface of {summary.method}."
    return [*lines, told + warn_of(summary.method)]


def warn_of(method: str) -> str:
    """What is known to be wrong with barriers of a method, as a sentence; empty where nothing is.

    Args:
        method: in words, its name first.
    """
    name = method.partition(" ")[0].rstrip(",")
    if name not in TOO_LOW:
        return ""
    return (
        f" {name} puts hydrogen-transfer barriers some {TOO_LOW[name]} kcal/mol too low: they are "
        "not true barriers."
    )


def _describe_direction(summary: Summary, direction: str) -> list[str]:
    """Errors and coverage of one direction, where there are labels."""
    barriers = [scan.barriers[direction] for scan in summary.scans]
    judged = [b for b in barriers if b.reference is not None]
    if not judged:
        return []
    errors = np.array([b.value - b.reference for b in judged if b.reference is not None])
    found = accuracy(errors / KCAL_PER_MOL)
    line = (
        f"{direction}: {found.count} paths, barrier MAE {_show(found.mae * KCAL_PER_MOL)}, "
        f"RMSE {found.rmse:.2f} kcal/mol"
    )
    if any(b.std is None for b in judged):
        return [line, *_describe_baselines(summary, direction, found.mae)]
    share = _coverage(judged, summary.level)
    before = _coverage(judged, summary.level, calibrated=False)
    line += (
        f"; {share:.0%} of the references lie in the {summary.level:.0%} interval ({before:.0%} "
        "before calibration)"
    )
    lines = [line]
    uphill = [b for b in judged if max(b.value, b.std or 0.0, b.reference or 0.0) > TOLERANCE]
    if 0 < len(uphill) < len(judged):
        share = _coverage(uphill, summary.level)
        lines.append(
            f"  without the {len(judged) - len(uphill)} paths that go downhill for label and "
            f"all draws: {share:.0%} of {len(uphill)}"
        )
    return [*lines, *_describe_baselines(summary, direction, found.mae)]


def _coverage(barriers: Sequence[Barrier], level: float, *, calibrated: bool = True) -> float:
    return float(np.mean([b.holds(level, calibrated=calibrated) for b in barriers]))


def _describe_baselines(summary: Summary, direction: str, mae: float) -> list[str]:
    if direction != "forward":
        return []
    return [
        f"  {kind} regression on the transfer distance alone (each path from all others): "
        f"MAE {_show(float(errors.mean()))}; ours is "
        f"{mae * KCAL_PER_MOL / errors.mean():.2f} of it"
        for kind, errors in summary.baselines.items()
    ]


def _show(energy: float) -> str:
    return f"{energy / KCAL_PER_MOL:.2f} kcal/mol ({energy / KJ_PER_MOL:.2f} kJ/mol)"
