"""The data doctor: what is wrong with a data set, before anything is trained on it.

Frames with numbers that are not finite or with broken cells are reported and then left out, so that
one damaged frame does not hide the rest.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import vesin
from ase.geometry import complete_cell
from jaxtyping import Float
from scipy.spatial import KDTree

from surefoot.blocks.conditioning import Conditioning
from surefoot.data.alike import check_alike, check_order
from surefoot.data.balance import check_balance, check_zeroed
from surefoot.data.boxes import check_boxes
from surefoot.data.consistency import check_forces_against_energies
from surefoot.data.findings import Finding, Severity, Suspect, gather, name_files
from surefoot.data.fragments import check_fragments, check_lengths
from surefoot.data.groups import check_groups
from surefoot.data.levels import check_converged, check_kinds, check_levels
from surefoot.data.reach import check_reach
from surefoot.data.read import CALCULATOR, ENERGY_KEYS, FORCES_KEYS, ISOLATED, Frame
from surefoot.data.scales import check_energy_scale, check_placeholders, check_references
from surefoot.data.states import check_charge_and_spin, check_states
from surefoot.data.stress import check_stress

__all__ = ["Finding", "Severity", "check_frames", "check_states"]

CLOSEST = 0.5  # Å; the shortest bond, H2, is 0.74 Å
CLOSEST_OF_TWO = 0.1  # Å; for free pairs of atoms, whose energy curves are scanned on purpose
NEIGHBOUR_CUTOFF = 1.5  # Å; with tiny cutoffs the bins of the neighbour list cost more than pairs
LARGEST_FORCE = 100.0  # eV/Å, one component
OUTLIER_SIGMAS = 20.0
OUTLIER_ENERGY = 1.0  # eV/atom
FEWEST_FOR_OUTLIERS = 10  # frames beyond the number of elements
SAME_POSITION = 1e-6  # Å
SAME_ENERGY = 0.01  # eV/atom


def check_frames(
    splits: Mapping[str, Sequence[Frame]], conditioning: Conditioning = Conditioning()
) -> list[Finding]:
    """Examine a data set; what makes training wrong is an ERROR, what needs a look a WARNING.

    Args:
        splits: frames by the name of their split; a plain file is one split.
        conditioning: of the model; one that is told charge and spin may learn from several states.

    Returns:
        Findings in order of subject: labels, numbers, units and signs, close and lone atoms,
        outliers, boxes, duplicates, order of atoms, test frames beyond training frames, groups,
        levels, charge and spin. An empty list means that nothing was found.
    """
    frames = [frame for split in splits.values() for frame in split]
    findings = [finding for name, split in splits.items() for finding in check_labels(name, split)]
    findings += check_numbers(frames)
    sound = {name: [f for f in split if is_sound(f)] for name, split in splits.items()}
    frames = [frame for split in sound.values() for frame in split]
    findings += check_energy_scale(frames)
    findings += check_lengths(frames)
    findings += check_references(frames)
    findings += check_placeholders(frames)
    if not any(finding.code == "forces-placeholder" for finding in findings):
        findings += check_zeroed(frames)
    for split in sound.values():
        findings += check_forces_against_energies(split)
    findings += check_balance(frames)
    findings += check_stress(frames)
    findings += check_distances(frames)
    findings += check_fragments(frames)
    findings += check_outliers(frames)
    findings += check_boxes(frames)
    findings += check_duplicates(sound)
    findings += check_alike(sound)
    findings += check_order(frames)
    findings += check_reach(sound)
    findings += check_groups(sound)
    findings += check_levels(frames)
    findings += check_kinds(frames)
    findings += check_converged(frames)
    findings += check_charge_and_spin(frames)
    if conditioning.name == "none":
        findings += check_states(frames)
    return findings


def check_labels(name: str, frames: Sequence[Frame]) -> list[Finding]:
    """Find a split without labels, and labels that only some frames have."""
    if not frames:
        return []
    looked = {"energy": ENERGY_KEYS, "forces": FORCES_KEYS}
    # An isolated atom has no force, so it needs no label for one.
    missing = {
        "energy": [frame for frame in frames if frame.energy is None],
        "forces": [f for f in frames if f.forces is None and len(f.structure) > 1],
    }
    if len(missing["energy"]) == len(frames) and all(f.forces is None for f in frames):
        return [_tell_no_labels(name, frames)]
    findings = []
    for label, without in missing.items():
        if not without:
            continue
        total = sum(label == "energy" or len(frame.structure) > 1 for frame in frames)
        having = f"{total - len(without)} of {total} frames of split '{name}' have one"
        if len(without) == total:
            having = f"no other frame of split '{name}' has one"
        text = f"there is no {label} label, and {having}"
        findings += gather(
            f"missing-{label}",
            Severity.WARNING,
            [Suspect(frame, text) for frame in without],
            f"such frames do not teach {label}; if a label is there under another name than "
            f"{', '.join(looked[label])} or {label}, set `keys: {{{label}: NAME}}`",
        )
    return findings


def _tell_no_labels(name: str, frames: Sequence[Frame]) -> Finding:
    first = frames[0]
    held = [key for key in first.atoms.info if not isinstance(first.atoms.info[key], dict)]
    held += [key for key in first.atoms.arrays if key not in ("numbers", "positions")]
    message = (
        f"{name_files(frames)}: none of the {len(frames)} frames of split '{name}' has an energy "
        f"(looked for {', '.join(ENERGY_KEYS)}, energy and the {CALCULATOR}) or forces (looked for "
        f"{', '.join(FORCES_KEYS)}, forces and the {CALCULATOR}); frame {first.index} holds "
        f"{', '.join(held) or 'no keys'}, so name the labels with "
        "`keys: {energy: NAME, forces: NAME}` in the config or with `--energy-key NAME` and "
        "`--forces-key NAME`."
    )
    return Finding("no-labels", Severity.ERROR, message, first.file, first.index, count=len(frames))


def check_numbers(frames: Sequence[Frame]) -> list[Finding]:
    """Find frames without atoms, numbers not finite, misshapen forces and cells without volume."""
    infinite, shapes, cells = [], [], []
    for frame in frames:
        place = _find_infinite(frame)
        if place:
            infinite.append(place)
        if frame.forces is not None and not _forces_fit(frame):
            text = f"forces have shape {frame.forces.shape} for {len(frame.structure)} atoms"
            shapes.append(Suspect(frame, text))
        thickness = _thickness(frame)
        if thickness < CLOSEST:
            text = (
                f"the periodic cell is {thickness:.3g} Å thin along one of its vectors, so atoms "
                "meet their own images"
            )
            cells.append(Suspect(frame, text, value=thickness, badness=-thickness))
    error = Severity.ERROR
    empty = [Suspect(frame, "there are no atoms") for frame in frames if not len(frame.structure)]
    return (
        gather("no-atoms", error, empty, "at least one is needed, so remove the frame")
        + gather("not-finite", error, infinite, "finite numbers are needed, so remove the frame")
        + gather("forces-shape", error, shapes, "one row of three components per atom is needed")
        + gather(
            "broken-cell",
            error,
            cells,
            f"at least {CLOSEST} Å is needed, so correct the cell or switch off pbc in that "
            "direction",
        )
    )


def _find_infinite(frame: Frame) -> Suspect | None:
    """The first number of the frame that is not finite, and where it stands."""
    held = {
        "positions": frame.structure.positions,
        "cell": frame.structure.cell,
        "energy": frame.energy,
        "forces": frame.forces,
        "stress": frame.stress,
    }
    for name, array in held.items():
        if array is None or np.isfinite(array).all():
            continue
        wrong = np.atleast_2d(~np.isfinite(array))
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        value = float(np.atleast_2d(array)[where])
        atom = where[0] if name in ("positions", "forces") else None
        at = "" if atom is None else f" of atom {atom}"
        more = f" and {wrong.sum() - 1} more of its numbers" if wrong.sum() > 1 else ""
        return Suspect(frame, f"{name}{at} is {value}{more}", atom, value)
    return None


def _forces_fit(frame: Frame) -> bool:
    return frame.forces is None or frame.forces.shape == (len(frame.structure), 3)


def _thickness(frame: Frame) -> float:
    """Smallest distance in Å between two faces of the cell across a periodic direction."""
    atoms = frame.structure
    cell = atoms.cell
    if not atoms.pbc.any() or not np.isfinite(cell).all():
        return float("inf")
    if not np.linalg.norm(cell[atoms.pbc], axis=1).all():
        return 0.0
    whole = complete_cell(cell)
    volume = abs(np.linalg.det(whole))
    areas = np.linalg.norm(np.cross(whole[[1, 2, 0]], whole[[2, 0, 1]]), axis=1)
    return float((volume / areas)[atoms.pbc].min())


def is_sound(frame: Frame) -> bool:
    """Whether anything can be calculated with a frame: its numbers, forces and cell are whole."""
    whole = len(frame.structure) > 0 and _forces_fit(frame) and _thickness(frame) >= CLOSEST
    return whole and _find_infinite(frame) is None


def check_distances(frames: Sequence[Frame]) -> list[Finding]:
    """Find atoms closer than 0.5 Å, periodic images included."""
    search = vesin.NeighborList(cutoff=NEIGHBOUR_CUTOFF, full_list=False)
    suspects = []
    for frame in frames:
        first, second, distance = _closest_pair(frame, search)
        free_pair = len(frame.structure) == 2 and not frame.structure.pbc.any()
        if distance < (CLOSEST_OF_TWO if free_pair else CLOSEST):
            text = f"atoms {first} and {second} are {distance:.4f} Å apart"
            if first == second:
                text = f"atom {first} is {distance:.4f} Å from its own periodic image"
            suspects.append(Suspect(frame, text, first, distance, -distance))
    return gather(
        "close-atoms",
        Severity.ERROR,
        suspects,
        f"no bond is shorter than {CLOSEST} Å, so correct positions, cell or their unit, or remove "
        "the frame",
    )


def _closest_pair(frame: Frame, search: vesin.NeighborList) -> tuple[int, int, float]:
    """Both atoms and their distance in Å, infinite if none are within the cutoff."""
    atoms = frame.structure
    positions = np.ascontiguousarray(atoms.positions, dtype=float)
    if atoms.pbc.any():
        i, j, lengths = search.compute(positions, atoms.cell, atoms.pbc, "ijd")
    else:
        i, j = KDTree(positions).query_pairs(CLOSEST, output_type="ndarray").T
        lengths = np.linalg.norm(positions[i] - positions[j], axis=1)
    if not len(lengths):
        return 0, 0, float("inf")
    best = int(np.argmin(lengths))
    return int(min(i[best], j[best])), int(max(i[best], j[best])), float(lengths[best])


def check_outliers(frames: Sequence[Frame]) -> list[Finding]:
    """Find energies far from those of like composition, and enormous forces."""
    return _check_energy_outliers(frames) + _check_force_outliers(frames)


def _check_energy_outliers(frames: Sequence[Frame]) -> list[Finding]:
    bound = [f for f in frames if f.energy is not None and len(f.structure) > 1]
    if not bound:
        return []
    counts = _count_elements(bound)
    if len(bound) < FEWEST_FOR_OUTLIERS + counts.shape[1]:
        return []
    energies = np.array([frame.energy for frame in bound], float)
    residual = _fit_residuals(counts, energies)
    residual -= np.median(residual)
    sigma = 1.4826 * float(np.median(np.abs(residual)))
    allowed = max(OUTLIER_SIGMAS * sigma, OUTLIER_ENERGY)
    suspects = [
        Suspect(
            bound[i],
            f"the energy {energies[i]:.6g} eV is {residual[i]:+.3g} eV/atom away from what a fit "
            "over the composition of all frames gives",
            value=float(energies[i]),
            badness=abs(float(residual[i])),
        )
        for i in np.flatnonzero(np.abs(residual) > allowed)
    ]
    return gather(
        "energy-outlier",
        Severity.WARNING,
        suspects,
        f"the others lie within about {sigma:.2g} eV/atom and up to {allowed:.3g} is taken as "
        "sound, so look at the calculation or remove the frame",
    )


def _count_elements(frames: Sequence[Frame]) -> Float[np.ndarray, "frames elements"]:
    histograms = np.array([np.bincount(frame.structure.numbers, minlength=119) for frame in frames])
    return histograms[:, histograms.any(axis=0)].astype(float)


def _fit_residuals(
    counts: Float[np.ndarray, "frames elements"], energies: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, " frames"]:
    """Energies per atom that a sum over elements leaves, E/N − Σ_Z (n_Z/N) ε_Z, in eV/atom.

    Weights 1/|residual| make it a fit of least absolute residuals, which outliers do not bend.
    """
    sizes = counts.sum(axis=1)
    shares, targets = counts / sizes[:, None], energies / sizes
    weights = np.ones(len(targets))
    residual = targets
    for _ in range(10):
        # Least squares of smallest norm: fixed stoichiometry makes the shares degenerate.
        per_element = np.linalg.lstsq(shares * weights[:, None], targets * weights, rcond=1e-10)[0]
        residual = targets - shares @ per_element
        weights = 1 / np.sqrt(np.maximum(np.abs(residual), 1e-4))
    return residual


def _check_force_outliers(frames: Sequence[Frame]) -> list[Finding]:
    suspects = []
    for frame in frames:
        if frame.forces is None:
            continue
        largest = np.abs(frame.forces).max(axis=1)
        atom = int(np.argmax(largest))
        value = float(largest[atom])
        if value > LARGEST_FORCE:
            text = f"a force component of atom {atom} is {value:.4g} eV/Å"
            suspects.append(Suspect(frame, text, atom, value, value))
    return gather(
        "force-outlier",
        Severity.WARNING,
        suspects,
        f"up to {LARGEST_FORCE:g} eV/Å is usual, so look at the calculation and the unit of "
        "forces, or remove the frame",
    )


def check_duplicates(splits: Mapping[str, Sequence[Frame]]) -> list[Finding]:
    """Find structures that stand twice: in one split, in two splits, or with two energies."""
    held: dict[bytes, list[tuple[str, Frame]]] = defaultdict(list)
    for name, frames in splits.items():
        for frame in frames:
            # Isolated atoms belong in every file that needs their energies.
            if len(frame.structure) > 1 and frame.config_type != ISOLATED:
                held[fingerprint(frame)].append((name, frame))
    within, across, conflicts = [], [], []
    for copies in held.values():
        first_name, first = copies[0]
        seen = {first_name}
        for name, frame in copies[1:]:
            text = f"the structure is also {first.place}"
            if name in seen:
                within.append(Suspect(frame, f"{text}, both in split '{name}'"))
            else:
                text += f", so it is in split '{name}' and in split '{first_name}'"
                across.append(Suspect(frame, text))
            seen.add(name)
            if frame.energy is None or first.energy is None:
                continue
            gap = abs(frame.energy - first.energy) / len(frame.structure)
            if gap > SAME_ENERGY:
                text = f"the structure is also {first.place}, with an energy {gap:.3g} eV/atom off"
                conflicts.append(Suspect(frame, text, None, gap, gap))
    return (
        gather(
            "leakage",
            Severity.ERROR,
            across,
            "errors on known structures say nothing, so remove it from one of the splits",
        )
        + gather("duplicate", Severity.WARNING, within, "it counts twice, so remove one")
        + gather(
            "duplicate-conflict",
            Severity.ERROR,
            conflicts,
            "one structure has one energy per charge and spin, so state those in info or remove "
            "one of the frames",
        )
    )


def fingerprint(frame: Frame) -> bytes:
    """Equal for frames with the same numbers, positions, cell, charge and spin."""
    atoms = frame.structure
    cell = atoms.cell if atoms.pbc.any() else np.zeros((3, 3))
    lengths = np.concatenate([atoms.positions, cell])
    grid = np.round(lengths / SAME_POSITION).astype(np.int64)
    state = repr((frame.charge, frame.spin)).encode()
    whole = atoms.numbers.tobytes() + atoms.pbc.tobytes() + grid.tobytes() + state
    return hashlib.blake2b(whole, digest_size=16).digest()
