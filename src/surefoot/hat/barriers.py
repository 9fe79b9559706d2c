"""Barriers of rigid scans with error bars, beside the reference and a regression on distance.

The barrier of a scan is max(E) − E(first), the reverse one max(E) − E(last), as in Riedmiller et
al. 2024: a point of the scan, not a saddle point. It is 0 where the scan starts at its maximum.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Float

from surefoot.data.read import read_images
from surefoot.evaluate.accuracy import accuracy
from surefoot.evaluate.calibration import central_bound
from surefoot.units import KCAL_PER_MOL, KJ_PER_MOL

DEGREES = {"linear": 1, "quadratic": 2}
REQUIRED = ("system", "path_point", "translation", "energy_ensemble")
DETERMINED = 1e-9  # a leverage closer to 1 means that no other path says anything about this one
TOO_LOW = {"GFN2-xTB": 18, "GFN1-xTB": 19, "spGFN2-xTB": 16, "spGFN1-xTB": 17}
"""kcal/mol that barriers of hydrogen transfers are too low on average (BH9, class 4)."""
TOLERANCE = 1e-6  # eV: two barriers that are both exactly zero agree


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One transfer path: energies of reference and prediction at each point.

    Attributes:
        name: of the path.
        donor: residue that gives the hydrogen.
        translation: distance the hydrogen moves, Å.
        reference: (points) labels in eV, or None where the file has none.
        energies: (points) predicted means in eV.
        members: (members, points) in eV, spread about the mean to calibrated width.
        calibrated: whether there was a factor for that; if not, the spread is as it is.
        method: what made the labels, in words.
    """

    name: str
    donor: str
    translation: float
    reference: Float[np.ndarray, " points"] | None
    energies: Float[np.ndarray, " points"]
    members: Float[np.ndarray, "members points"]
    calibrated: bool
    method: str


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """One barrier with its error bar, in eV.

    Attributes:
        value: of the mean curve.
        std: calibrated standard deviation over members.
        reference: of the labels, or None.
    """

    value: float
    std: float
    reference: float | None

    def interval(self, level: float) -> tuple[float, float]:
        """Central interval; a barrier is never negative."""
        width = central_bound(level) * self.std
        return max(0.0, self.value - width), self.value + width

    def holds(self, level: float) -> bool:
        """Whether the reference lies in the interval."""
        low, high = self.interval(level)
        return self.reference is not None and low - TOLERANCE <= self.reference <= high + TOLERANCE


def read_scans(path: str | Path) -> list[Scan]:
    """Scans from a file that `surefoot predict --members` wrote.

    Raises:
        ValueError: if frames do not belong to scans or carry no prediction of members.
    """
    frames = read_images(Path(path))
    scans: dict[str, list[Atoms]] = {}
    for number, atoms in enumerate(frames):
        missing = [name for name in REQUIRED if name not in atoms.info]
        if missing:
            raise ValueError(
                f"{path}, frame {number}: info has no '{missing[0]}'; make the scans with "
                "`surefoot hat scan` and predict them with `surefoot predict --members`."
            )
        if np.size(atoms.info["energy_ensemble"]) < 2:
            raise ValueError(
                f"{path}, frame {number}: predicted by one member, which has no error bar; train "
                "an ensemble (`posterior: {members: 8}`)."
            )
        scans.setdefault(str(atoms.info["system"]), []).append(atoms)
    return [_read_scan(path, name, images) for name, images in scans.items()]


def _read_scan(path: str | Path, name: str, images: Sequence[Atoms]) -> Scan:
    images = sorted(images, key=lambda atoms: int(atoms.info["path_point"]))
    first = images[0]
    if len(images) < 3 or [int(a.info["path_point"]) for a in images] != list(range(len(images))):
        raise ValueError(f"{path}, path {name}: points are missing or there are fewer than three.")
    energies = np.array([atoms.get_potential_energy() for atoms in images])
    members = np.array([atoms.info["energy_ensemble"] for atoms in images], float).T
    deviation = members - members.mean(0)
    factor = first.info.get("energy_difference_factor")
    labelled = all("REF_energy" in atoms.info for atoms in images)
    return Scan(
        name=name,
        donor=str(first.info.get("donor", "")),
        translation=float(first.info["translation"]),
        reference=np.array([a.info["REF_energy"] for a in images]) if labelled else None,
        energies=energies,
        members=energies + (1.0 if factor is None else float(factor)) * deviation,
        calibrated=factor is not None,
        method=str(first.info.get("label_method", "the label in the file")),
    )


def barrier(scan: Scan, *, reverse: bool = False) -> Barrier:
    """Height of a scan from its first point, or from its last.

    σ² = Σ_m (B_m − B)² / (M − 1), where B_m is the barrier of member m's own curve: it covers
    members that put the maximum elsewhere, and is a difference of energies of one member, so that
    errors common to all points cancel.
    """
    end = -1 if reverse else 0
    value = _height(scan.energies, end)
    heights = np.array([_height(curve, end) for curve in scan.members])
    std = float(np.sqrt(np.sum((heights - value) ** 2) / (len(heights) - 1)))
    reference = None if scan.reference is None else _height(scan.reference, end)
    return Barrier(value=value, std=std, reference=reference)


def _height(curve: Float[np.ndarray, " points"], end: int) -> float:
    return float(curve.max() - curve[end])


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All barriers of a set of scans and how far they can be trusted; energies in eV.

    Attributes:
        scans: in the order of the file.
        forward, reverse: one barrier per scan.
        level: of the intervals.
        method: what made the reference.
        baselines: name → absolute errors of a regression of the forward barrier on the
            translation, each path predicted from all others; only those the paths determine.
    """

    scans: list[Scan]
    forward: list[Barrier]
    reverse: list[Barrier]
    level: float
    method: str
    baselines: dict[str, Float[np.ndarray, " paths"]]


def summarize(scans: Sequence[Scan], level: float) -> Summary:
    """Barriers both ways, and what the transfer distance alone would say.

    Args:
        scans: at least one.
        level: of the intervals, between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"--level {level}: lies between 0 and 1.")
    forward = [barrier(scan) for scan in scans]
    labelled = [number for number, b in enumerate(forward) if b.reference is not None]
    translations = np.array([scans[number].translation for number in labelled])
    heights = np.array([forward[number].reference for number in labelled], float)
    residuals = {
        name: _leave_one_out(translations, heights, degree) for name, degree in DEGREES.items()
    }
    return Summary(
        scans=list(scans),
        forward=forward,
        reverse=[barrier(scan, reverse=True) for scan in scans],
        level=level,
        method=scans[0].method,
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
    for name, barriers in (("forward", summary.forward), ("reverse", summary.reverse)):
        judged = [b for b in barriers if b.reference is not None]
        if not judged:
            continue
        errors = np.array([b.value - b.reference for b in judged if b.reference is not None])
        found = accuracy(errors / KCAL_PER_MOL)
        share = float(np.mean([b.holds(summary.level) for b in judged]))
        lines.append(
            f"{name}: {found.count} paths, barrier MAE {_show(found.mae * KCAL_PER_MOL)}, "
            f"RMSE {found.rmse:.2f} kcal/mol; {share:.0%} of the references lie in the "
            f"{summary.level:.0%} interval"
        )
        uphill = [b for b in judged if max(b.value, b.std, b.reference or 0.0) > TOLERANCE]
        if 0 < len(uphill) < len(judged):
            share = float(np.mean([b.holds(summary.level) for b in uphill]))
            lines.append(
                f"  without the {len(judged) - len(uphill)} paths that go downhill for label and "
                f"all members: {share:.0%} of {len(uphill)}"
            )
        if name == "forward":
            lines += [
                f"  {kind} regression on the transfer distance alone (each path from all others): "
                f"MAE {_show(float(errors.mean()))}; ours is "
                f"{found.mae * KCAL_PER_MOL / errors.mean():.2f} of it"
                for kind, errors in summary.baselines.items()
            ]
    if not all(scan.calibrated for scan in summary.scans):
        lines.append(
            "The error bars are the bare spread of the members: this potential had nothing to "
            "calibrate energy differences on (two frames of one composition in a group)."
        )
    lines.append(f"These are barriers of rigid scans on the surface of {summary.method}.")
    method = summary.method.partition(" ")[0].rstrip(",")
    if method in TOO_LOW:
        lines[-1] += (
            f" {method} puts hydrogen-transfer barriers some {TOO_LOW[method]} kcal/mol too low: "
            "they are not true barriers."
        )
    return lines


def _show(energy: float) -> str:
    return f"{energy / KCAL_PER_MOL:.2f} kcal/mol ({energy / KJ_PER_MOL:.2f} kJ/mol)"


COLUMNS = ("path", "donor", "translation_A", "direction", "reference_kcal", "predicted_kcal",
           "uncertainty_kcal", "low_kcal", "high_kcal")  # fmt: skip


def to_records(summary: Summary) -> list[dict[str, str | float]]:
    """One record per path and direction, energies in kcal/mol."""
    records: list[dict[str, str | float]] = []
    for scan, *both in zip(summary.scans, summary.forward, summary.reverse, strict=True):
        for direction, found in zip(("forward", "reverse"), both, strict=True):
            low, high = found.interval(summary.level)
            values = (found.reference, found.value, found.std, low, high)
            cells = ["" if v is None else round(v / KCAL_PER_MOL, 4) for v in values]
            named = (scan.name, scan.donor, round(scan.translation, 4), direction, *cells)
            records.append(dict(zip(COLUMNS, named, strict=True)))
    return records


def format_csv(summary: Summary) -> str:
    """The records as CSV, with a first line that says what the numbers are not."""
    text = io.StringIO()
    text.write(f"# rigid scans on the {summary.method} surface, not true barriers\n")
    writer: csv.DictWriter[str] = csv.DictWriter(text, list(COLUMNS))
    writer.writeheader()
    writer.writerows(to_records(summary))
    return text.getvalue()
