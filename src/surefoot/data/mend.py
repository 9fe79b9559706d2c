"""What of a damaged data set can be mended without guessing, as a new list of frames.

Frames that are of no use to anybody are left out, exact copies too; labels that are placeholders
are taken away; the sign of forces and stress is turned where the labels themselves show that it is
wrong. Nothing is invented: units, energies, charges and spins stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from ase import Atoms

from surefoot.data.check import fingerprint, is_sound
from surefoot.data.consistency import SOUND_SLOPES_TIGHT
from surefoot.data.findings import Finding
from surefoot.data.read import CALCULATOR, ISOLATED, Frame
from surefoot.wording import counted

PLACEHOLDERS: dict[str, Literal["energy", "forces", "stress"]] = {
    "energy-placeholder": "energy",
    "forces-placeholder": "forces",
    "stress-placeholder": "stress",
}
SIGNS: dict[str, Literal["forces", "stress"]] = {"forces-sign": "forces", "stress-sign": "stress"}


@dataclass(frozen=True, kw_only=True)
class Mended:
    """Frames after mending.

    Attributes:
        frames: those that stay.
        done: one sentence for each kind of change; empty where there was nothing to do.
    """

    frames: list[Frame]
    done: list[str]


def mend(frames: Sequence[Frame], findings: Sequence[Finding]) -> Mended:
    """Do what the findings ask for, where nothing has to be guessed.

    Args:
        frames: of one split; they stay as they are.
        findings: what `check_frames` says of them.
    """
    done: list[str] = []
    kept = _keep(list(frames), is_sound, "damaged (numbers, atoms, forces or cell)", done)
    first: dict[bytes, Frame] = {}
    for frame in kept:
        first.setdefault(fingerprint(frame), frame)
    kept = _keep(kept, lambda frame: _stays(frame, first), "exact copies of earlier ones", done)
    for finding in findings:
        if finding.code in PLACEHOLDERS:
            label = PLACEHOLDERS[finding.code]
            kept = [replace(frame, **{label: None}) for frame in kept]
            done.append(f"{label}: taken away from all frames, since it is a placeholder")
        if finding.code in SIGNS and _turns(finding):
            label = SIGNS[finding.code]
            kept = [_turn(frame, label, finding.file) for frame in kept]
            done.append(f"{label} of {finding.file}: multiplied by -1")
    return Mended(frames=kept, done=done)


def _keep(
    frames: list[Frame], stays: Callable[[Frame], bool], what: str, done: list[str]
) -> list[Frame]:
    kept = [frame for frame in frames if stays(frame)]
    gone = len(frames) - len(kept)
    if gone:
        done.append(f"{counted(gone, 'frame')} left out: {what}")
    return kept


def _stays(frame: Frame, first: dict[bytes, Frame]) -> bool:
    """Whether it is no copy; which of two energies of one structure is right, nobody knows."""
    if len(frame.atoms) == 1 or frame.config_type == ISOLATED:
        return True
    earlier = first[fingerprint(frame)]
    return earlier is frame or not _same_labels(frame, earlier)


def _same_labels(one: Frame, other: Frame) -> bool:
    for label in ("energy", "forces", "stress"):
        a, b = getattr(one, label), getattr(other, label)
        if (a is None) != (b is None):
            return False
        if a is not None and np.abs(np.asarray(a) - b).max() > 1e-6 * max(
            1.0, float(np.abs(a).max())
        ):
            return False
    return True


def _turns(finding: Finding) -> bool:
    """Whether the wrong sign is all that is wrong, and that of one file."""
    low, high = SOUND_SLOPES_TIGHT
    alone = finding.message.startswith(f"{finding.file}: ")
    return alone and finding.value is not None and low <= -finding.value <= high


def _turn(frame: Frame, label: Literal["forces", "stress"], file: str) -> Frame:
    held = getattr(frame, label)
    return frame if held is None or frame.file != file else replace(frame, **{label: -held})


def to_images(frames: Sequence[Frame]) -> list[Atoms]:
    """Frames as extended XYZ has them: labels in eV and Å under `REF_` names, and no others."""
    images = []
    for frame in frames:
        atoms = frame.atoms.copy()
        for key in frame.keys.values():
            if key != CALCULATOR and not key.startswith(("charge", "spin")):
                atoms.info.pop(key, None)
                atoms.arrays.pop(key, None)
        if frame.energy is not None:
            atoms.info["REF_energy"] = float(frame.energy)
        if frame.forces is not None:
            atoms.arrays["REF_forces"] = frame.forces
        if frame.stress is not None:
            atoms.info["REF_stress"] = frame.stress
        images.append(atoms)
    return images
