"""Where a search begins that comes from a scan."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from surefoot.barriers.guesses import BRIDGE, CLEARANCE, draw_together
from surefoot.barriers.paths import TransferPath, other_bonds

RADII = 0.76 + 0.31  # Å, carbon and hydrogen


def apart(way: float, tilt: float = 0.0) -> TransferPath:
    """CH4 + CH3: the hydrogen 1 goes along z from carbon 0 to carbon 5."""
    methane = molecule("CH4")
    methane.positions -= methane.positions[0]
    methane.rotate(methane.positions[1], "z")
    methyl = molecule("CH3")
    methyl.rotate(tilt, "x")
    methyl.positions += [0, 0, 2.2 + way]
    pair = methane + methyl
    images = []
    for share in (0.0, 0.5, 1.0):
        atoms = pair.copy()
        atoms.positions[1, 2] += share * way
        images.append(atoms)
    return TransferPath(name="p", images=tuple(images), hydrogen=1, donor=0, acceptor=5,
                        reference=None, method="", place="")  # fmt: skip


def between(atoms: Atoms) -> np.ndarray:
    """Distances of the atoms of both molecules but those that react."""
    lengths = atoms.get_all_distances()[[0, 2, 3, 4]][:, 5:].copy()
    lengths[0, 0] = np.inf
    return lengths


def test_molecules_come_as_near_as_a_bridge_is_long() -> None:
    path = apart(2.0)
    atoms = draw_together(path, path.images[1])
    assert atoms.get_distance(0, 5) == pytest.approx(2 * BRIDGE * RADII)
    assert atoms.get_distances(1, [0, 5]) == pytest.approx([BRIDGE * RADII] * 2)
    assert other_bonds(atoms, 1) == other_bonds(path.images[0], 1)
    kept = [0, 2, 3, 4]
    np.testing.assert_array_equal(atoms.positions[kept], path.images[1].positions[kept])
    assert path.images[1].get_distance(0, 5) == pytest.approx(4.2)


def test_other_atoms_keep_clear() -> None:
    path = apart(2.0, tilt=-90.0)  # a hydrogen of the radical looks at the donor
    atoms = draw_together(path, path.images[1])
    assert 2 * BRIDGE * RADII < atoms.get_distance(0, 5) < 4.2
    assert between(atoms).min() >= CLEARANCE
    assert atoms.get_distance(1, 0) == pytest.approx(atoms.get_distance(0, 5) / 2)


def test_what_is_near_or_one_molecule_stays() -> None:
    near = apart(0.3)
    assert draw_together(near, near.images[1]) is near.images[1]
    ethane = molecule("C2H6")
    same = replace(near, images=(ethane,) * 3, hydrogen=2, donor=0, acceptor=1)
    assert draw_together(same, ethane) is ethane
    far = apart(2.0)
    far.images[1].set_constraint(FixAtoms([6]))
    assert draw_together(far, far.images[1]) is far.images[1]
