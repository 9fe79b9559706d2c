"""Levels of theory: labels of two methods do not belong on one energy surface."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.fragments import find_nearest
from surefoot.data.read import Frame

METHOD_KEY = "label_method"
SETTINGS_KEY = "label_settings"
LEVEL_KEY = "label_level"  # hash of the settings: text, which also formats without records keep
CONVERGED = frozenset(
    ("scf_converged", "electronic_converged", "dft_converged", "SCF_converged", "scf_convergence")
)
"""What files call it when a calculation of labels has converged; geometries are another matter."""
NOT = frozenset(("false", "f", "0", "0.0", "no"))
APART = 1.0  # eV/atom between the energies of two kinds of frames
ALIKE = 1.1  # times the length of bonds, up to which they are alike
FEWEST = 5  # frames of a kind
SMALLEST = 3  # atoms; pairs are pulled apart on purpose
DIFFERENCES = 3  # settings named where two levels have one name


def check_levels(frames: Sequence[Frame]) -> list[Finding]:
    """Find frames whose labels come from another method than those of the first frame.

    Only what `surefoot label` wrote into info is compared; frames that do not say where their
    labels come from are taken as they are.
    """
    stated = [frame for frame in frames if METHOD_KEY in frame.info]
    suspects = []
    for frame in stated[1:]:
        first, method = stated[0], frame.info[METHOD_KEY]
        differences = _differences(frame, first)
        if method == first.info[METHOD_KEY] and not differences:
            continue
        text = (
            f"the labels are of {method}{differences}, but those of {first.place} are of "
            f"{first.info[METHOD_KEY]}"
        )
        suspects.append(Suspect(frame, text))
    return gather(
        "two-levels",
        Severity.ERROR,
        suspects,
        "energies of two methods differ by more than a constant, so label all frames alike, train "
        "on one level and then on the other (`start`), or accept `two-levels` if you know better",
    )


def check_converged(frames: Sequence[Frame]) -> list[Finding]:
    """Find frames whose file says that their calculation has not converged."""
    suspects = []
    for frame in frames:
        for key in CONVERGED & frame.info.keys():
            if str(frame.info[key]).lower() in NOT:
                text = f"its info says {key}={frame.info[key]}"
                suspects.append(Suspect(frame, text))
                break
    return gather(
        "unconverged",
        Severity.WARNING,
        suspects,
        "labels of a calculation that has not converged are of no surface, so calculate the frame "
        "again or remove it",
    )


def check_kinds(frames: Sequence[Frame]) -> list[Finding]:
    """Find a `config_type` whose energies lie apart from those of another one of like structures.

    Energies of two levels of theory, or of two programs, lie apart by eV per atom, and so do those
    in two units; structures of one composition whose bonds have like lengths do not.
    """
    kinds: dict[tuple[object, ...], dict[str, list[Frame]]] = defaultdict(lambda: defaultdict(list))
    for frame in frames:
        atoms = frame.structure
        if frame.energy is not None and len(atoms) >= SMALLEST:
            same = (atoms.formula, atoms.pbc.tobytes(), frame.charge, frame.spin)
            kinds[same][frame.config_type].append(frame)
    suspects: list[Suspect] = []
    for by_type in kinds.values():
        many = [held for held in by_type.values() if len(held) >= FEWEST]
        for first, second in combinations(many, 2):
            suspects += _compare_kinds(*sorted((first, second), key=len, reverse=True))
    return gather(
        "two-references",
        Severity.WARNING,
        suspects,
        f"structures of one composition with bonds of like lengths lie within {APART:g} eV/atom, "
        "so look whether both kinds are of one level of theory and in one unit, and train on one",
    )


def _compare_kinds(usual: Sequence[Frame], other: Sequence[Frame]) -> list[Suspect]:
    """The frames of the smaller kind, where energies lie apart and structures do not."""
    size = len(usual[0].structure)
    one, two = (np.array([f.energy for f in held], float) / size for held in (usual, other))
    gap = max(one.min() - two.max(), two.min() - one.max())
    if gap < max(APART, np.ptp(one), np.ptp(two)):
        return []
    lengths = [_bond_length(held) for held in (usual, other)]
    if not max(lengths) < ALIKE * min(lengths):
        return []
    shift = float(np.median(two) - np.median(one))
    text = (
        f"the energies of config_type '{other[0].config_type}' lie {shift:+.4g} eV/atom from those "
        f"of '{usual[0].config_type}' for {usual[0].structure.formula}"
    )
    return [Suspect(frame, text, None, shift, abs(shift)) for frame in other]


def _bond_length(frames: Sequence[Frame]) -> float:
    """Å to the nearest other atom, on average over some frames."""
    return float(np.mean([find_nearest(f.structure)[0].mean() for f in frames[:FEWEST]]))


def _differences(frame: Frame, other: Frame) -> str:
    """Settings that differ where both frames state them and name the same method."""
    if frame.info[METHOD_KEY] != other.info[METHOD_KEY]:
        return ""
    ours, theirs = (f.info.get(SETTINGS_KEY) for f in (frame, other))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        told = [f"{key} {ours.get(key)}, not {theirs.get(key)}" for key in keys[:DIFFERENCES]]
        return f" ({'; '.join(told)})" if told else ""
    levels = {f.info.get(LEVEL_KEY) for f in (frame, other)} - {None}
    return " (with other settings)" if len(levels) > 1 else ""
