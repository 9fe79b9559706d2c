"""Where a hydrogen atom would sit on a radical: end positions from the radical's bonds alone.

The rules are those of KIMMDY's hydrogen-transfer plug-in (Rennekamp et al., J. Chem. Theory Comput.
16 (2020) 553, and its later releases), written anew from a description of them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

BOND_LENGTHS = {6: 1.10, 7: 1.04, 8: 0.97, 16: 1.41}
"""Å from an atom, by its number, to the hydrogen that it takes up."""
FLAT = 0.6  # |Σ unit vectors| of three bonds below which they count as planar
LINEAR = 1e-3  # likewise of two bonds, below which they name no direction
CONE = 109.5  # degrees between the one bond of an atom and the bond to be made
COUNT = 9  # positions on that cone
PUBLISHED_CONE = 1.911  # radian
PUBLISHED_STEP = 0.785  # radian; eight of these are a turn, so that the last is the first again

Cone = Literal["molecule", "laboratory"]
"""What the positions on the cone of an atom with one bond turn with."""


def end_positions(
    number: int,
    center: Float[np.ndarray, "3"],
    bonded: Float[np.ndarray, "bonded 3"],
    beyond: Float[np.ndarray, "beyond 3"],
    cone: Cone = "molecule",
) -> Float[np.ndarray, "ends 3"]:
    """Positions a hydrogen may take on a radical.

    With u_i the unit vectors of its bonds and d the length of the bond to be made, the position is
    r − d Σu/|Σu|. Three bonds with |Σu| < 0.6 count as flat: r ± d n, with n the normal of the
    plane through the three atoms. One bond leaves a cone of 109.5° about it, on which nine
    positions stand, 40° apart.

    Args:
        number: atomic number of the radical: C, N, O or S.
        center: its position in Å.
        bonded: positions in Å of the atoms it is bonded to, one to three.
        beyond: positions in Å of the atoms that the only one of these is bonded to besides; they
            say where on the cone the first position stands, opposite to their mean. Not read
            with more bonds.
        cone: `molecule` as above. `laboratory` is the published form: the first position lies
            towards (1, 1, 1) whatever way the molecule is turned, steps are of 45°, so that the
            ninth is the first again.

    Raises:
        ValueError: if the element has no bond length, or the bonds name no direction.
    """
    if number not in BOND_LENGTHS:
        raise ValueError(f"an atom of number {number} takes no hydrogen up; C, N, O and S do")
    if not 1 <= len(bonded) <= 3:
        raise ValueError(f"it has {len(bonded)} bonds, where a radical has one to three")
    length = BOND_LENGTHS[number]
    bonds = bonded - center
    units = bonds / np.linalg.norm(bonds, axis=1, keepdims=True)
    if len(units) == 1:
        if cone == "laboratory":
            return center + length * _published_cone(units[0])
        return center + length * _cone(units[0], beyond - bonded[0])
    total = units.sum(axis=0)
    size = float(np.linalg.norm(total))
    if len(units) == 3 and size < FLAT:
        normal = np.cross(bonds[1] - bonds[0], bonds[2] - bonds[0])
        normal /= np.linalg.norm(normal)
        return center + length * np.stack([normal, -normal])
    if size < LINEAR:
        raise ValueError("its two bonds lie on a line and leave no direction for a third")
    return center - length * total[None] / size


def _cone(
    axis: Float[np.ndarray, "3"], beyond: Float[np.ndarray, "beyond 3"]
) -> Float[np.ndarray, "ends 3"]:
    """Nine unit vectors at the angle of the cone from an axis."""
    pointers = beyond - (beyond @ axis)[:, None] * axis
    across = -pointers.sum(axis=0)
    if np.linalg.norm(across) < LINEAR:  # nothing there, or all of it on the axis
        across = _perpendicular(axis, np.ones(3))
    return _ring(axis, across, np.radians(CONE), np.arange(COUNT) * 2 * np.pi / COUNT)


def _published_cone(axis: Float[np.ndarray, "3"]) -> Float[np.ndarray, "ends 3"]:
    across = _perpendicular(axis, np.ones(3))
    return _ring(axis, across, PUBLISHED_CONE, np.arange(COUNT) * PUBLISHED_STEP)


def _ring(
    axis: Float[np.ndarray, "3"],
    across: Float[np.ndarray, "3"],
    opening: float,
    turns: Float[np.ndarray, " ends"],
) -> Float[np.ndarray, "ends 3"]:
    across = across / np.linalg.norm(across)
    third = np.cross(axis, across)
    around = np.cos(turns)[:, None] * across + np.sin(turns)[:, None] * third
    return np.cos(opening) * axis + np.sin(opening) * around


def _perpendicular(
    axis: Float[np.ndarray, "3"], towards: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    found = towards - (towards @ axis) * axis
    if np.linalg.norm(found) > LINEAR:
        return found
    return _perpendicular(axis, np.array([1.0, 0.0, 0.0]))
