"""Do the energies and forces of a file belong together: signs, units and placeholders.

Forces are minus the gradient of the energy, so two frames that are nearly the same structure
must satisfy the trapezoid rule E₂ − E₁ ≈ −½ (F₁ + F₂)·(R₂ − R₁). The slope of the left side against
the right one over many such pairs is 1 for sound data, −1 for gradients that are called forces, and
the ratio of the units where those differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase.geometry import complete_cell
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from surefoot.data.findings import Finding, Severity, name_files
from surefoot.data.read import Frame
from surefoot.units import BOHR, HARTREE, KCAL_PER_MOL, KJ_PER_MOL

# Largest displacement of an atom, in Å, up to which a pair counts as close, tried in order.
# Measured on 51 sound files of 12 sources, molecules, liquids, metals and surfaces: tight fits
# have slopes of 0.87 … 1.2.
CLOSENESS = (0.25, 0.5, 1.0)
ENOUGH_PAIRS = 10
MANY_PAIRS = 20
SOUND_SLOPES = (0.1, 3.0)
SOUND_SLOPES_TIGHT = (0.65, 1.5)  # where the fit is tight; tells Å from Bohr, Hartree from Rydberg
# Share of Σ|ΔE| that the fit may leave for a verdict at all, and for a tight fit.
SCATTER = 0.5
SCATTER_OF_MANY = 0.4
SCATTER_OF_FEW = 0.15
MISMATCH_LEEWAY = 0.2
NOTABLE_WORK = 1e-3  # eV; below it a pair says nothing
NEIGHBOURS = 3  # nearest frames to try for each frame
FEATURES = 16
MOST_DISTANCES = 300
MOST_ATOMS_HELD = 1_000_000  # atoms of one composition that are looked at
CHUNK_ATOMS = 100_000

# What the slope becomes with energies and forces in these units, all read alike.
MISMATCHES: dict[str, float] = {
    "energies in Hartree beside forces in eV/Å": 1 / HARTREE,
    "energies in eV beside forces in Hartree/Å": HARTREE,
    "energies in eV beside forces in Hartree/Bohr": HARTREE / BOHR,
    "energies in kcal/mol beside forces in eV/Å": 1 / KCAL_PER_MOL,
    "energies in eV beside forces in kcal/mol/Å": KCAL_PER_MOL,
    "energies in Hartree beside forces in kcal/mol/Å": KCAL_PER_MOL / HARTREE,
    "energies in kcal/mol beside forces in Hartree/Å": HARTREE / KCAL_PER_MOL,
    "energies in kcal/mol beside forces in Hartree/Bohr": HARTREE / BOHR / KCAL_PER_MOL,
    "energies in kJ/mol beside forces in eV/Å": 1 / KJ_PER_MOL,
    "energies in eV beside forces in kJ/mol/Å": KJ_PER_MOL,
    "energies in Rydberg beside forces in eV/Å": 2 / HARTREE,
    "energies in eV beside forces in Rydberg/Å": 0.5 * HARTREE,
    "energies in eV beside forces in Rydberg/Bohr": 0.5 * HARTREE / BOHR,
    "energies in Rydberg beside forces in Hartree/Å": 2.0,
    "energies in Hartree beside forces in Rydberg/Å": 0.5,
    "energies in meV beside forces in eV/Å": 1e3,
    "energies in eV beside forces in meV/Å": 1e-3,
}
LENGTH_MISMATCHES: dict[str, float] = {"Bohr": 1 / BOHR, "nm": 0.1, "Å": BOHR}
"""Slope where only the length of the forces is wrong, by the length to set."""


@dataclass(frozen=True)
class Pairs:
    """Close pairs of frames: what the forces say and what the energies say.

    Attributes:
        frames: both frames of each pair.
        distance: largest displacement of an atom after superposition, in Å.
        work: energy difference from the trapezoid rule over the forces, in eV.
        difference: energy difference from the labels, in eV.
    """

    frames: list[tuple[Frame, Frame]]
    distance: Float[np.ndarray, " pairs"]
    work: Float[np.ndarray, " pairs"]
    difference: Float[np.ndarray, " pairs"]

    def select(self, keep: np.ndarray) -> Pairs:
        """The pairs whose numbers are in `keep`."""
        return Pairs(
            [self.frames[i] for i in keep],
            self.distance[keep],
            self.work[keep],
            self.difference[keep],
        )


def check_forces_against_energies(frames: Sequence[Frame]) -> list[Finding]:
    """Find forces of the wrong sign, and energies and forces in units that do not fit.

    Files with enough close pairs are judged alone, and where nothing is wrong with one as a whole
    each `config_type` in it; the rest is judged together. Where there are too few close pairs,
    nothing is said.
    """
    pairs = find_close_pairs(frames)
    every = list(range(len(pairs.frames)))
    files, rest = _group(pairs, every, lambda frame: frame.file)
    findings = []
    for held in files:
        found = _judge_slope(pairs.select(np.array(held)))
        kinds, _ = _group(pairs, held, lambda frame: frame.config_type)
        for kind in kinds if not found else ():
            name = f", config_type '{pairs.frames[kind[0]][0].config_type}'"
            found += _judge_slope(pairs.select(np.array(kind)), name)
        findings += found
    return findings + (_judge_slope(pairs.select(np.array(rest))) if rest else [])


def _group(
    pairs: Pairs, numbers: Sequence[int], kind: Callable[[Frame], str]
) -> tuple[list[list[int]], list[int]]:
    """Numbers of pairs whose frames are of one kind, of those with enough; and what is left."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i in numbers:
        first, second = map(kind, pairs.frames[i])
        if first == second:
            groups[first].append(i)
    enough = [held for held in groups.values() if len(held) >= ENOUGH_PAIRS]
    return enough, sorted(set(numbers).difference(*enough))


def _judge_slope(pairs: Pairs, kind: str = "") -> list[Finding]:
    """Widen what counts as close until the slope is plainly wrong or plainly right."""
    for limit in CLOSENESS:
        close = pairs.select(np.flatnonzero(pairs.distance < limit))
        count = len(close.frames)
        # Equal energies are placeholders, which have a finding of their own.
        if count < ENOUGH_PAIRS or not np.any(close.difference):
            continue
        slope, scatter = fit_slope(close.work, close.difference)
        tight = scatter <= (SCATTER_OF_MANY if count >= MANY_PAIRS else SCATTER_OF_FEW)
        low, high = SOUND_SLOPES_TIGHT if tight else SOUND_SLOPES
        if scatter <= SCATTER and not low <= slope <= high:
            return [_tell_slope(close, slope, kind)]
        if tight:
            return []
    return []


def fit_slope(
    work: Float[np.ndarray, " pairs"], difference: Float[np.ndarray, " pairs"]
) -> tuple[float, float]:
    """Slope of difference against work through the origin, and the share that it leaves.

    The slope minimises Σ|ΔE − slope·w|, which is the median of ΔE/w weighted with |w|, so that a
    few bad frames do not turn it; the share is Σ|ΔE − slope·w| / Σ|ΔE|.
    """
    used = work != 0
    ratio, weight = difference[used] / work[used], np.abs(work[used])
    if not len(ratio):
        return 0.0, 1.0
    order = np.argsort(ratio)
    total = np.cumsum(weight[order])
    slope = float(ratio[order][np.searchsorted(total, total[-1] / 2)])
    return slope, float(np.abs(difference - slope * work).sum() / np.abs(difference).sum())


def _tell_slope(pairs: Pairs, slope: float, kind: str) -> Finding:
    misfit = np.abs(pairs.difference - slope * pairs.work)
    example = int(np.argmax(np.abs(pairs.difference) - 3 * misfit))
    first, second = pairs.frames[example]
    other = f"{second.index}" if second.file == first.file else f"{second.index} of {second.file}"
    evidence = (
        f"between {len(pairs.frames)} pairs of close frames the energy changes by {slope:.3g} "
        f"times what the forces say (1 is right), for example from frame {first.index} to {other} "
        f"by {pairs.difference[example]:.3g} eV against {pairs.work[example]:.3g} eV"
    )
    if slope < 0:
        code, verdict = (
            "forces-sign",
            "forces look like gradients: wrong sign; " + _sign_advice(slope),
        )
    else:
        sizes = float(np.median([len(frame.structure) for frame, _ in pairs.frames]))
        code, verdict = (
            "unit-mismatch",
            "energy and forces have a unit mismatch; " + _unit_advice(slope, sizes),
        )
    files = name_files([frame for pair in pairs.frames for frame in pair])
    return Finding(
        code,
        Severity.ERROR,
        f"{files}{kind}: {evidence}, so {verdict}.",
        first.file,
        first.index,
        None,
        slope,
        len({(f.file, f.index) for pair in pairs.frames for f in pair}),
    )


def _sign_advice(slope: float) -> str:
    advice = "forces must be minus the gradient of the energy, so multiply them by -1 in the file"
    low, high = SOUND_SLOPES_TIGHT
    return advice if low <= -slope <= high else f"{advice}, then see to the factor {-slope:.3g}"


def _unit_advice(slope: float, sizes: float) -> str:
    ratios = dict(MISMATCHES)
    if sizes > 1:
        ratios["energies per atom beside forces of the whole structure"] = 1 / sizes
    near = [
        name
        for _, name in sorted((_misfit(ratio, slope), name) for name, ratio in ratios.items())
        if _misfit(ratios[name], slope) < MISMATCH_LEEWAY
    ]
    fits = " or ".join(f"{name} ({ratios[name]:.3g})" for name in near[:3])
    for unit, ratio in LENGTH_MISMATCHES.items():
        if _misfit(ratio, slope) < MISMATCH_LEEWAY:
            return (
                f"the ratio fits forces per {unit} ({ratio:.3g}): set `units: {{length: {unit}}}`, "
                "the length in the unit of forces"
                + (f", unless the file has {fits}" if fits else "")
            )
    return (
        f"the ratio fits {fits or 'no known units'}: forces must be in the unit of energy over the "
        "unit of length, so convert one of the labels in the file and name both units with "
        "`units: {energy: ..., length: ...}`"
    )


def _misfit(ratio: float, slope: float) -> float:
    """By what factor, from 1 up, the slope is off the ratio, minus 1."""
    return max(ratio / slope, slope / ratio) - 1


def find_close_pairs(frames: Sequence[Frame]) -> Pairs:
    """Pairs of frames with the same atoms in the same order that are nearly one structure.

    Only neighbours in the file and nearest neighbours by a few projected distances are
    superposed, so the cost grows with the number of frames, not with its square.
    """
    groups: dict[tuple[bytes, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.energy is not None and frame.forces is not None and len(frame.structure) > 1:
            groups[_same_atoms(frame)].append(frame)
    parts = [_pair_up(group) for group in groups.values() if len(group) > 1]
    merged = Pairs(
        [pair for part in parts for pair in part.frames],
        np.concatenate([np.zeros(0), *(part.distance for part in parts)]),
        np.concatenate([np.zeros(0), *(part.work for part in parts)]),
        np.concatenate([np.zeros(0), *(part.difference for part in parts)]),
    )
    notable = np.maximum(np.abs(merged.work), np.abs(merged.difference)) > NOTABLE_WORK
    return merged.select(np.flatnonzero(notable & (merged.distance < CLOSENESS[-1])))


def _same_atoms(frame: Frame) -> tuple[bytes, ...]:
    """What two frames must share: atoms in order, charge, spin, and the cell where periodic."""
    atoms = frame.structure
    cell = np.round(atoms.cell, 3) + 0.0 if atoms.pbc.any() else np.zeros(0)
    state = repr((frame.charge, frame.spin)).encode()
    return atoms.numbers.tobytes(), atoms.pbc.tobytes(), cell.tobytes(), state


def _pair_up(group: list[Frame]) -> Pairs:
    group = group[: max(2, MOST_ATOMS_HELD // len(group[0].structure))]
    positions = np.array([frame.structure.positions for frame in group])
    forces = np.array([frame.forces for frame in group], float)
    energies = np.array([frame.energy for frame in group], float)
    atoms = group[0].structure
    chunk = max(1, CHUNK_ATOMS // len(atoms))
    parts = [positions[start : start + chunk] for start in range(0, len(positions), chunk)]
    described = [_describe(part, atoms.pbc, atoms.cell) for part in parts]
    index = _candidate_pairs(np.concatenate(described))
    distances, works = [], []
    for start in range(0, len(index), chunk):
        i, j = index[start : start + chunk].T
        if atoms.pbc.any():
            step = _nearest_images(positions[j] - positions[i], atoms.pbc, atoms.cell)
            turned = forces[j]
        else:
            step, turned = _superpose(positions[i], positions[j], forces[j])
        works.append(-0.5 * np.sum((forces[i] + turned) * step, axis=(1, 2)))
        distances.append(np.linalg.norm(step, axis=2).max(axis=1))
    return Pairs(
        [(group[i], group[j]) for i, j in index],
        np.concatenate(distances),
        np.concatenate(works),
        energies[index[:, 1]] - energies[index[:, 0]],
    )


def _describe(
    positions: Float[np.ndarray, "frames atoms 3"],
    pbc: np.ndarray,
    cell: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "frames features"]:
    """A few numbers per frame that do not change with rotation or, if periodic, with wrapping."""
    rng = np.random.default_rng(0)
    atoms = positions.shape[1]
    if pbc.any():
        some = rng.permutation(atoms)[:MOST_DISTANCES]
        angles = 2 * np.pi * positions[:, some] @ _inverse(cell)
        values = np.concatenate([np.cos(angles), np.sin(angles)], axis=2).reshape(
            len(positions), -1
        )
    else:
        i, j = rng.integers(atoms, size=(2, min(MOST_DISTANCES, 2 * atoms * atoms)))
        values = np.linalg.norm(positions[:, i] - positions[:, j], axis=2)
    if values.shape[1] <= FEATURES:
        return values
    return values @ rng.normal(size=(values.shape[1], FEATURES)) / np.sqrt(FEATURES)


def _candidate_pairs(features: Float[np.ndarray, "frames features"]) -> Int[np.ndarray, "pairs 2"]:
    count = len(features)
    _, near = KDTree(features).query(features, k=min(NEIGHBOURS + 1, count))
    near = np.reshape(near, (count, -1))
    index = np.stack([np.repeat(np.arange(count), near.shape[1]), near.ravel()], axis=1)
    in_order = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    index = np.sort(np.concatenate([index[index[:, 0] != index[:, 1]], in_order]), axis=1)
    return np.unique(index, axis=0)


def _nearest_images(
    step: Float[np.ndarray, "pairs atoms 3"], pbc: np.ndarray, cell: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "pairs atoms 3"]:
    scaled = step @ _inverse(cell)
    scaled -= np.where(pbc, np.round(scaled), 0.0)
    step = scaled @ _full_rank(cell)
    # A shift of the whole structure does no work: the forces of one structure add up to zero.
    return step - step.mean(axis=1, keepdims=True)


def _superpose(
    fixed: Float[np.ndarray, "pairs atoms 3"],
    moved: Float[np.ndarray, "pairs atoms 3"],
    forces: Float[np.ndarray, "pairs atoms 3"],
) -> tuple[Float[np.ndarray, "pairs atoms 3"], Float[np.ndarray, "pairs atoms 3"]]:
    """Displacements after the best rotation, and the forces of the second frame rotated along.

    Source: Kabsch 1976, by singular value decomposition with the determinant kept at +1.
    """
    fixed = fixed - fixed.mean(axis=1, keepdims=True)
    moved = moved - moved.mean(axis=1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("pai,paj->pij", moved, fixed))
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]
    rotation = u @ vt
    return moved @ rotation - fixed, forces @ rotation


def _full_rank(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The cell with unit vectors where a slab or a wire has none."""
    return complete_cell(cell)


def _inverse(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    return np.linalg.inv(_full_rank(cell))
