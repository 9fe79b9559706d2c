"""A hydrogen atom between two atoms of one molecule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Float

from surefoot.hat.sites import Site
from surefoot.hat.transfer import Transfer


def pairs_in_reach(
    atoms: Atoms,
    sites: Sequence[Site],
    apart: Float[np.ndarray, "atoms atoms"],
    reach: float,
    fewest_bonds: int,
) -> list[tuple[Site, Site]]:
    """Ordered pairs of hydrogens on two heavy atoms, one to move and one to make room for it.

    Args:
        atoms: the closed-shell molecule.
        sites: hydrogens that may leave.
        apart: bonds between two atoms.
        reach: largest distance of the two hydrogens in Å.
        fewest_bonds: between the two heavy atoms; 1 lets neighbours exchange a hydrogen.
    """
    positions = atoms.positions
    return [
        (moving, leaving)
        for moving in sites
        for leaving in sites
        if moving.donor != leaving.donor
        and apart[moving.donor, leaving.donor] >= fewest_bonds
        and np.linalg.norm(positions[moving.hydrogen] - positions[leaving.hydrogen]) <= reach
    ]


def make_transfer(
    atoms: Atoms, moving: Site, leaving: Site, names: tuple[str, str, str]
) -> Transfer:
    """Take one hydrogen away and let the other go to where it was.

    Args:
        atoms: the closed-shell molecule.
        moving: the hydrogen that is transferred.
        leaving: the hydrogen that is deleted; its position is the end point.
        names: of the molecule, the donor's site and the radical.
    """
    radical = atoms.copy()
    end = radical.positions[leaving.hydrogen].copy()
    del radical[leaving.hydrogen]

    def shifted(index: int) -> int:
        return index - (index > leaving.hydrogen)

    hydrogen = shifted(moving.hydrogen)
    return Transfer(
        atoms=radical,
        hydrogen=hydrogen,
        donor=shifted(moving.donor),
        acceptor=shifted(leaving.donor),
        start=radical.positions[hydrogen].copy(),
        end=end,
        names=names,
    )
