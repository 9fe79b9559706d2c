"""Energies and forces that no level of theory gives: wrong energy units and placeholders."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import vesin
from jaxtyping import Float, Int

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.read import ISOLATED, Frame
from surefoot.units import ENERGY_UNITS, HARTREE

FINE_STRUCTURE = 1 / 137.036
LEEWAY = 0.15  # of the expansion for light atoms
RELATIVITY = 0.3  # times (Z α)²; Au gains 6 %, U 9 %, which is 0.2 (Z α)²
BINDING = 10.0  # eV/atom, more than any structure is bound by
HIGHEST = 20.0  # eV/atom above the reference
LOOKS_LIKE = (0.95, 1.06)  # median over molecules of energy over expansion; H₂ alone has 1.09
FEWEST = 3
REACH = 4.0  # Å, of the made-up force
BOUND = (-12.0, 1.0)  # eV/atom, of the median energy beyond free atoms; W has -8.9


def atomic_energies(numbers: Int[np.ndarray, " atoms"]) -> Float[np.ndarray, " atoms"]:
    """Total energies of neutral atoms with all electrons, without relativity, in eV.

    E(Z) = −(0.768745 Z^(7/3) − ½ Z² + 0.2699 Z^(5/3)) Hartree, within 8 % for H and 1 % beyond Ne.

    Source: Thomas-Fermi energy with the corrections of Scott and Schwinger.
    """
    z = np.asarray(numbers, float)
    return -HARTREE * (0.768745 * z ** (7 / 3) - 0.5 * z**2 + 0.2699 * z ** (5 / 3))


def check_energy_scale(frames: Sequence[Frame]) -> list[Finding]:
    """Find energies below those of all electrons, or far above separated atoms."""
    labelled = [frame for frame in frames if frame.energy is not None]
    if not labelled:
        return []
    totals = np.array([atomic_energies(frame.structure.numbers).sum() for frame in labelled])
    energies = np.array([frame.energy for frame in labelled], float)
    sizes = np.array([len(frame.structure) for frame in labelled])
    floors = np.array([_lowest(frame) for frame in labelled])
    low = np.flatnonzero(energies < floors)
    if len(low):
        return _tell_low([labelled[i] for i in low], energies[low], totals[low], floors[low])
    high = np.flatnonzero(energies > HIGHEST * sizes)
    # One hot frame can be that high; a wrong unit lifts most frames.
    if len(high) > len(labelled) / 2:
        return _tell_high([labelled[i] for i in high])
    return _tell_hartree(labelled, energies / totals)


def _lowest(frame: Frame) -> float:
    numbers = frame.structure.numbers
    room = 1 + LEEWAY + RELATIVITY * (numbers * FINE_STRUCTURE) ** 2
    return float(np.sum(atomic_energies(numbers) * room) - BINDING * len(numbers))


def _tell_low(
    frames: Sequence[Frame],
    energies: Float[np.ndarray, " frames"],
    totals: Float[np.ndarray, " frames"],
    floors: Float[np.ndarray, " frames"],
) -> list[Finding]:
    factor = float(np.median(energies / totals))
    suspects = [
        Suspect(
            frame,
            f"the energy is {energy:.6g} eV, {energy / total:.3g} times that of all electrons of "
            f"these atoms, and nothing below {floor:.6g} eV is possible",
            value=float(energy),
            badness=float(energy / total),
        )
        for frame, energy, total, floor in zip(frames, energies, totals, floors, strict=True)
    ]
    return gather("energy-unit", Severity.ERROR, suspects, _name_unit(factor))


def _tell_high(frames: Sequence[Frame]) -> list[Finding]:
    suspects = [
        Suspect(
            frame,
            f"the energy is {frame.energy:.6g} eV, which is {per_atom:.4g} eV/atom",
            value=frame.energy,
            badness=per_atom,
        )
        for frame in frames
        for per_atom in [float(frame.energy or 0.0) / len(frame.structure)]
    ]
    return gather(
        "energy-unit",
        Severity.ERROR,
        suspects,
        f"bound structures are below +{HIGHEST:g} eV/atom at every level of theory, so check the "
        "sign and set `units: {energy: ...}` to the unit of the file",
    )


def _tell_hartree(frames: Sequence[Frame], factors: Float[np.ndarray, " frames"]) -> list[Finding]:
    low, high = np.array(LOOKS_LIKE) / HARTREE
    several = len({frame.structure.formula for frame in frames}) >= FEWEST
    if not several or not low < float(np.median(factors)) < high:
        return []
    suspects = [
        Suspect(frame, f"the energy is {frame.energy:.6g} eV", value=frame.energy)
        for frame in frames
    ]
    return gather(
        "energy-hartree",
        Severity.WARNING,
        suspects,
        "that number is the energy of all electrons in Hartree, so set `units: {energy: Hartree}` "
        "unless the file is in eV",
    )


def _name_unit(factor: float) -> str:
    """The pair of units whose ratio would bring the energies to those of all electrons."""
    fits = [
        f"if read as {read}, the file is in {unit} (ratio {ratio:.4g}): set "
        f"`units: {{energy: {unit}}}`"
        for read, size in ENERGY_UNITS.items()
        for unit in ENERGY_UNITS
        for ratio in [size / ENERGY_UNITS[unit]]
        if abs(np.log(factor / ratio)) < np.log(1.1)
    ]
    if fits:
        return ", or ".join(fits)
    known = ", ".join(ENERGY_UNITS)
    return f"the energy unit is wrong: set `units: {{energy: ...}}` to one of {known}"


def check_references(frames: Sequence[Frame]) -> list[Finding]:
    """Find energies of isolated atoms that do not fit those of the structures."""
    atoms = {
        int(frame.structure.numbers[0]): frame
        for frame in frames
        if len(frame.structure) == 1 and frame.config_type == ISOLATED and frame.energy is not None
    }
    bound = [
        frame
        for frame in frames
        if frame.energy is not None
        and len(frame.structure) > 1
        and set(frame.structure.numbers.tolist()) <= set(atoms)
    ]
    if not bound:
        return []
    energies = {number: float(frame.energy or 0.0) for number, frame in atoms.items()}
    beyond = [
        (float(f.energy or 0.0) - sum(energies[int(z)] for z in f.structure.numbers))
        / len(f.structure)
        for f in bound
    ]
    middle = float(np.median(beyond))
    if BOUND[0] <= middle <= BOUND[1]:
        return []
    text = (
        f"most structures lie {middle:+.4g} eV/atom beyond the sum of the isolated atoms, of which "
        "this is one"
    )
    first = next(iter(atoms.values()))
    return gather(
        "references-unfit",
        Severity.ERROR,
        [Suspect(first, text, None, middle)],
        f"what is bound lies between {BOUND[0]:g} and {BOUND[1]:+g} eV/atom, so atoms and "
        "structures are of two levels or in two units; correct them, or set `references: "
        "least_squares`",
    )


def check_placeholders(frames: Sequence[Frame]) -> list[Finding]:
    """Find energies that are one number for different structures, and forces that are all zero."""
    return _check_equal_energies(frames) + _check_zero_forces(frames)


def _check_equal_energies(frames: Sequence[Frame]) -> list[Finding]:
    groups: dict[str, dict[bytes, Frame]] = defaultdict(dict)
    for frame in frames:
        if frame.energy is not None and len(frame.structure) > 1:
            positions = np.round(frame.structure.positions, 6).tobytes()
            structure = hashlib.blake2b(positions, digest_size=16).digest()
            groups[frame.structure.formula][structure] = frame
    several = [list(group.values()) for group in groups.values() if len(group) >= FEWEST]
    if not several or any(len({frame.energy for frame in group}) > 1 for group in several):
        return []
    suspects = [
        Suspect(
            frame,
            f"the energy is {frame.energy:g} eV in all different structures of one composition",
            value=frame.energy,
        )
        for group in several
        for frame in group
    ]
    return gather(
        "energy-placeholder",
        Severity.ERROR,
        suspects,
        "that is a placeholder, so ignore it with `keys: {energy: none}` or name the right key "
        "with `keys: {energy: NAME}`",
    )


def _check_zero_forces(frames: Sequence[Frame]) -> list[Finding]:
    labelled = [frame for frame in frames if frame.forces is not None and len(frame.structure) > 1]
    zero = [frame for frame in labelled if not np.any(frame.forces)]
    if len(zero) <= len(labelled) / 2:
        return []
    # In a crystal symmetry can make every force exactly zero, and then the sum is zero as well.
    suspects = [
        Suspect(frame, "all forces are exactly zero", value=0.0)
        for frame in zero
        if not _is_symmetric(frame)
    ]
    if len(suspects) <= len(labelled) / 2:
        return []
    return gather(
        "forces-placeholder",
        Severity.ERROR,
        suspects,
        "that is a placeholder, so ignore it with `keys: {forces: none}` or name the right key "
        "with `keys: {forces: NAME}`",
    )


def _is_symmetric(frame: Frame) -> bool:
    """Whether a made-up pair force vanishes on every atom, as it must where symmetry rules."""
    total, scale = made_up_forces(frame)
    return bool(np.abs(total).max() < 1e-3 * scale)


def made_up_forces(frame: Frame) -> tuple[Float[np.ndarray, "atoms 3"], float]:
    """A pair force that only symmetry makes vanish, and the size of its largest part.

    Every real force vanishes where symmetry makes this one vanish; the reverse does not hold.
    """
    neighbours = vesin.NeighborList(cutoff=REACH, full_list=True)
    atoms = frame.structure
    i, j, vectors, lengths = neighbours.compute(atoms.positions, atoms.cell, atoms.pbc, "ijDd")
    # Vanishes smoothly at the cutoff, so that a neighbour on its edge breaks no symmetry.
    size = atoms.numbers[j] * (1 - lengths / REACH) ** 3 / lengths
    total = np.zeros((len(atoms), 3))
    np.add.at(total, i, size[:, None] * vectors)
    return total, max(1.0, float(size.max(initial=0.0)))
