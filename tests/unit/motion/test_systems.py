"""Structures as systems: what is kept, what is refused, each in one sentence."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength

from surefoot.motion.systems import (
    UnfitStructure,
    append_systems,
    join_systems,
    to_atoms,
)
from surefoot.units import DALTON


def test_systems_hold_what_structures_say() -> None:
    water, crystal = molecule("H2O"), bulk("Cu", cubic=True)
    water.info |= {"charge": 1, "spin": 2}
    water.set_constraint(FixAtoms([1]))
    systems, start = join_systems([water, crystal])
    assert systems.count == 2
    assert systems.owner.tolist() == [0] * 3 + [1] * 4
    assert systems.fixed.tolist() == [False, True] + [False] * 5
    assert systems.charge.tolist() == [1, 0]
    assert systems.spin.tolist() == [2, 0]
    assert start.volume.tolist() == pytest.approx([0.0, crystal.get_volume()])
    # p = m v in eV, Å and fs: an energy of ½ m v² is that of ASE's units.
    assert pytest.approx(1 / units.fs**2, rel=1e-6) == DALTON
    only = systems.select(torch.tensor([False, True]))
    assert only.ids.tolist() == [1]
    assert only.owner.tolist() == [0] * 4
    again = append_systems(only, systems.select(torch.tensor([True, False])))
    assert again.ids.tolist() == [1, 0]
    assert again.owner.tolist() == [0] * 4 + [1] * 3


def test_fixed_atoms_can_be_put_anywhere() -> None:
    water = molecule("H2O")
    water.set_constraint(FixAtoms([0, 1, 2]))
    moved = to_atoms(water, torch.ones(3, 3).double(), torch.zeros(3, 3).double())
    assert np.array_equal(moved.positions, np.ones((3, 3)))
    assert len(moved.constraints) == 1


def heavy() -> Atoms:
    atoms = molecule("H2O")
    atoms.set_masses([16.0, 0.0, 1.0])
    return atoms


def held() -> Atoms:
    atoms = molecule("H2O")
    atoms.set_constraint(FixBondLength(0, 1))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms(), "no atoms"),
        (Atoms("H", positions=[[np.nan, 0, 0]]), "not a finite number"),
        (heavy(), r"atom 1 \(H\) has the mass 0.0"),
        (held(), "constraint FixBondLengths? is not known"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.1]]), "atoms 0 and 1 are 0.100 Å apart"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]]), "0.000 Å apart"),
        (
            Atoms("H2", positions=[[0, 0, 0], [5, 0, 0.2]], cell=[5, 5, 5], pbc=True),
            "0.200 Å apart",
        ),
        (
            Atoms("H", positions=[[0, 0, 0]], cell=[[3, 0, 0], [3, 0, 1e-9], [0, 3, 0]], pbc=True),
            "no room for 1 atoms",
        ),
        (Atoms("H", positions=[[0, 0, 0]], pbc=True), "3 periodic axes span 0"),
    ],
)
def test_what_can_not_move_is_refused(atoms: Atoms, words: str) -> None:
    with pytest.raises(UnfitStructure, match=words) as found:
        join_systems([molecule("H2O"), atoms])
    assert str(found.value).startswith("structure 1: ")
