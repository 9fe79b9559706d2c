"""Stress of the wrong sign or in the wrong unit, by what it says when a cell is strained.

Two frames of the same atoms in cells C₁ and C₂ = C₁ (1 + ε), at nearly the same scaled positions,
must satisfy, with symmetric ε and the displacements d of the atoms beyond the strain,

    E₂ − E₁ + ½ (F₁ + F₂)·d ≈ ½ (V₁ σ₁ + V₂ σ₂) : ε

The slope of the left side against the right one is 1 for stress that is tensile positive in the
unit of energy over length³, −1 for pressure, and the ratio of units where those differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float

from surefoot.data.consistency import fit_slope
from surefoot.data.file_units import VOIGT
from surefoot.data.findings import Finding, Severity, Suspect, gather, name_files
from surefoot.data.read import Frame
from surefoot.units import STRESS_UNITS

LARGEST_STRAIN = 0.1
LARGEST_STEP = 0.3  # Å, of an atom beyond the strain
UNFORCED_STEP = 1e-3  # Å, where no forces tell what it does
NOTABLE = 2e-3  # eV, of what the stress says
ENOUGH = 5  # pairs
NEIGHBOURS = 4  # frames before, with which each is compared
SCATTER = 0.35  # share of Σ|ΔE| that the fit may leave
SOUND = (0.6, 1.6)
LEEWAY = 0.25
LARGEST = 3.0  # eV/Å³, 480 GPa: the median of a data set in the right unit is below

ROWS, COLUMNS = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]  # the order of VOIGT
TWICE = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
SIZES = {"auto": 1.0, **STRESS_UNITS}  # eV/Å³, as read


def check_stress(frames: Sequence[Frame]) -> list[Finding]:
    """Find stress that is a pressure, in another unit or order, enormous, or a placeholder."""
    held = [f for f in frames if f.stress is not None and f.structure.pbc.all()]
    if not held:
        return []
    zero = [frame for frame in held if not np.any(frame.stress)]
    if len(zero) > len(held) / 2:
        return gather(
            "stress-placeholder",
            Severity.ERROR,
            [Suspect(frame, "all stresses are exactly zero", value=0.0) for frame in zero],
            "that is a placeholder, so ignore it with `keys: {stress: none}`",
        )
    by_file: dict[str, list[Frame]] = defaultdict(list)
    for frame in held:
        by_file[frame.file].append(frame)
    findings = [finding for part in by_file.values() for finding in _judge(part)]
    return findings or _check_size(held)


def _check_size(frames: Sequence[Frame]) -> list[Finding]:
    sizes = np.array([np.abs(np.asarray(frame.stress)).max() for frame in frames])
    if np.median(sizes) <= LARGEST:
        return []
    suspects = [
        Suspect(frame, f"a stress component is {size:.4g} eV/Å³", None, float(size), float(size))
        for frame, size in zip(frames, sizes, strict=True)
        if size > LARGEST
    ]
    return gather(
        "stress-unit",
        Severity.ERROR,
        suspects,
        f"the median of a data set is below {LARGEST:g} eV/Å³ (480 GPa), so set "
        "`units: {stress: GPa}`, kbar or VASP, whichever the file has",
    )


@dataclass(frozen=True)
class Strains:
    """Pairs of frames with strained cells.

    Attributes:
        frames: both of each pair.
        virial: ½ (V₁ σ₁ + V₂ σ₂) as xx yy zz yz xz xy in eV, shears twice.
        strain: ε, in the same order.
        change: what energies and forces say, in eV.
    """

    frames: list[tuple[Frame, Frame]]
    virial: Float[np.ndarray, "pairs 6"]
    strain: Float[np.ndarray, "pairs 6"]
    change: Float[np.ndarray, " pairs"]

    def fit(self, order: Sequence[int] = range(6)) -> tuple[float, float]:
        """Slope of what energies say against what the stress says, and the share it leaves."""
        return fit_slope(np.sum(self.virial[:, list(order)] * self.strain, axis=1), self.change)


def _judge(frames: Sequence[Frame]) -> list[Finding]:
    pairs = _strain(frames)
    if len(pairs.frames) < ENOUGH or not np.any(pairs.change):
        return []
    slope, scatter = pairs.fit()
    said = ""
    if scatter > SCATTER:  # shears in another order fit badly, whatever their unit
        orders = [(*range(3), *shears) for shears in permutations(range(3, 6))]
        best = min(orders, key=lambda order: pairs.fit(order)[1])
        slope, left = pairs.fit(best)
        if left > min(SCATTER, 0.5 * scatter):
            return []
        told = ", ".join(
            f"{VOIGT[place]} as {VOIGT[true]}" for true, place in enumerate(best) if true != place
        )
        said = f"read {told} with `units: {{stress_order: ...}}`: the shears stand in another order"
    wrong = not SOUND[0] <= slope <= SOUND[1]
    if not said and not wrong:
        return []
    if wrong:
        said = f"{_advise(slope)}{'; and ' if said else ''}{said}"
    code = ("stress-sign" if slope < 0 else "stress-unit") if wrong else "stress-order"
    first, second = pairs.frames[int(np.argmax(np.abs(pairs.change)))]
    evidence = (
        f"between {len(pairs.frames)} pairs of frames with strained cells the energy changes by "
        f"{slope:.3g} times what the stress says (1 is right), for example from frame "
        f"{first.index} to {second.index}"
    )
    message = f"{name_files(frames)}: {evidence}, so {said}."
    count = len({frame.index for pair in pairs.frames for frame in pair})
    return [Finding(code, Severity.ERROR, message, first.file, first.index, None, slope, count)]


def _advise(slope: float) -> str:
    """The pairs of units, as read and as they are, whose ratio is the slope."""
    fits = [
        f"if read as {read}, the file is in {unit}: set `units: {{stress: {unit}}}`"
        for read, size in SIZES.items()
        for unit in SIZES
        if read != unit
        and max(ratio := slope * size / SIZES[unit], 1 / ratio) < 1 + LEEWAY
        and ratio > 0
    ]
    low, high = SOUND
    if low <= -slope <= high:
        fits.insert(
            0,
            "the file holds a pressure, while stress is the derivative of the energy with respect "
            "to strain over volume, tensile positive: multiply it by -1 in the file",
        )
    return " or, ".join(fits) or (
        "its unit fits no known one: it has to be energy / length³, GPa or kbar, tensile positive"
    )


def _strain(frames: Sequence[Frame]) -> Strains:
    groups: dict[bytes, list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.energy is not None:
            groups[frame.structure.numbers.tobytes()].append(frame)
    pairs, rows = [], []
    for group in groups.values():
        for number, second in enumerate(group):
            for first in group[max(0, number - NEIGHBOURS) : number]:
                found = _compare(first, second)
                if found is not None:
                    pairs.append((first, second))
                    rows.append(found)
    virial, strain, change = zip(*rows, strict=True) if rows else ((), (), ())
    shape = (len(rows), 6)
    return Strains(
        pairs,
        np.array(virial, float).reshape(shape),
        np.array(strain, float).reshape(shape),
        np.array(change, float),
    )


def _compare(first: Frame, second: Frame) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Virial, strain and change of the energy of a pair; None if it is none."""
    if first.stress is None or second.stress is None:
        return None
    start, end = first.structure.cell, second.structure.cell
    gradient = np.linalg.solve(start, end)
    # A rotation of the cell turns the stress along; only cells that are stretched are compared.
    strain = (gradient + gradient.T) / 2 - np.eye(3)
    turned = np.abs(gradient - gradient.T).max()
    if not 1e-4 < np.abs(strain).max() < LARGEST_STRAIN or turned > 2 * np.abs(strain).max() + 1e-6:
        return None
    scaled = [
        np.linalg.solve(f.structure.cell.T, f.structure.positions.T).T for f in (first, second)
    ]
    step = scaled[1] - scaled[0]
    step = (step - np.round(step)) @ end
    step -= step.mean(axis=0)
    longest = np.linalg.norm(step, axis=1).max()
    forces = first.forces is not None and second.forces is not None
    if longest > (LARGEST_STEP if forces else UNFORCED_STEP):
        return None
    volumes = abs(np.linalg.det(start)), abs(np.linalg.det(end))
    virial = 0.5 * (volumes[0] * first.stress + volumes[1] * second.stress)
    change = float(second.energy or 0.0) - float(first.energy or 0.0)
    if first.forces is not None and second.forces is not None:
        change += 0.5 * float(np.sum((first.forces + second.forces) * step))
    if max(abs(float(np.sum(virial * strain))), abs(change)) < NOTABLE:
        return None
    return virial[ROWS, COLUMNS] * TWICE, strain[ROWS, COLUMNS], change
