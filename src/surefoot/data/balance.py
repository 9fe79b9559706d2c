"""Forces that do not balance, and forces that somebody has set to zero.

Nothing pulls at a free molecule or at a crystal as a whole, so forces add up to zero, and so do the
torques on a free molecule. What is left over is shown relative to √Σ|F|², which it would be of the
order of for forces that know nothing of each other; sound files of 12 sources have below 0.001, and
one of a periodic code on a coarse grid 0.02.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.read import Frame
from surefoot.data.scales import made_up_forces

UNBALANCED = 0.05
LEAST_FORCE = 0.1  # eV/Å, of the sum over a structure
LEAST_TORQUE = 0.3  # eV
BROKEN = 1e-3  # of a made-up force that symmetry does not forbid


def check_balance(frames: Sequence[Frame]) -> list[Finding]:
    """Find net forces and net torques; held atoms and outer fields are taken as said."""
    pulled, turned = [], []
    for frame in frames:
        forces = frame.forces
        if forces is None or len(frame.structure) < 2 or frame.constrained:
            continue
        size = float(np.sqrt(np.sum(forces**2)))
        net = float(np.linalg.norm(forces.sum(axis=0)))
        if net > max(UNBALANCED * size, LEAST_FORCE):
            text = f"the forces add up to {net:.3g} eV/Å, {net / size:.2g} of their root sum square"
            pulled.append(Suspect(frame, text, None, net, net / size))
        elif not frame.structure.pbc.any():
            arms = frame.structure.positions - frame.structure.positions.mean(axis=0)
            reach = float(np.sqrt(np.sum(np.sum(arms**2, 1) * np.sum(forces**2, 1))))
            torque = float(np.linalg.norm(np.cross(arms, forces).sum(axis=0)))
            if torque > max(UNBALANCED * reach, LEAST_TORQUE):
                text = f"the torques of the forces add up to {torque:.3g} eV"
                turned.append(Suspect(frame, text, None, torque, torque / reach))
    return gather(
        "net-force",
        Severity.WARNING,
        pulled,
        "without held atoms and outer fields the sum is zero, and a potential can not learn "
        "another, so look whether forces are converged, and whether atoms are missing or were held",
    ) + gather(
        "net-torque",
        Severity.WARNING,
        turned,
        "on a free molecule the sum is zero, so look whether positions and forces are of the same "
        "orientation, order of atoms and structure",
    )


def check_zeroed(frames: Sequence[Frame]) -> list[Finding]:
    """Find atoms whose force is exactly zero, while nothing about the structure makes it so."""
    suspects = []
    for frame in frames:
        if frame.forces is None or len(frame.structure) < 2:
            continue
        zero = ~frame.forces.any(axis=1) & ~frame.fixed
        if not zero.any():
            continue
        made_up, scale = made_up_forces(frame)
        wrong = np.flatnonzero(zero & (np.abs(made_up).max(axis=1) > BROKEN * scale))
        if len(wrong):
            count = f"of {len(wrong)} of {len(frame.structure)} atoms"
            text = f"the force {count} is exactly zero, atom {wrong[0]} the first"
            suspects.append(Suspect(frame, text, int(wrong[0]), 0.0, float(len(wrong))))
    return gather(
        "zeroed-forces",
        Severity.WARNING,
        suspects,
        "symmetry does not make them so; where atoms were held, hold them in the file "
        "(`move_mask`, `FixAtoms`), so that nothing is learnt from them, else calculate the frame "
        "again",
    )
