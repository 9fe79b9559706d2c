"""Limits of structures, each broken alone."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from surefoot.hat.acceptance import (
    NEW_BOND,
    STRETCHED,
    TOO_CLOSE,
    TOO_FAR,
    Limits,
    closest,
    fault_of_displaced,
    fault_of_frame,
    fault_of_intramolecular,
    fault_of_relaxed,
    touching,
)
from surefoot.hat.transfer import IN_THE_WAY, RIVAL, Transfer

LIMITS = Limits()
BONDS = np.array([[0, 1], [0, 2]])
NONE = np.zeros(0, int)


def water() -> Atoms:
    return molecule("H2O")


def transfer(bystanders: list[list[float]], length: float = 1.5) -> Transfer:
    """O–H…O on the x axis, and hydrogens elsewhere."""
    positions = [[0, 0, 0], [1, 0, 0], [2 + length, 0, 0], *bystanders]
    atoms = Atoms("OHO" + "H" * len(bystanders), positions)
    return Transfer(
        atoms, 1, 0, 2, np.array([1.0, 0, 0]), np.array([1.0 + length, 0, 0]), ("a", "b", "c")
    )


def test_what_heat_may_do_to_a_molecule() -> None:
    assert fault_of_displaced(water(), water(), BONDS, LIMITS) is None
    near = water()
    near.positions[1] = near.positions[0] + [0, 0, 0.49]
    assert fault_of_displaced(near, water(), BONDS, LIMITS) == TOO_CLOSE
    for factor, fault in ((1.24, None), (1.26, STRETCHED)):
        long = water()
        long.positions[1] = long.positions[0] + factor * (long.positions[1] - long.positions[0])
        assert fault_of_displaced(long, water(), BONDS, LIMITS) == fault


def test_a_single_atom_has_nothing_to_break() -> None:
    atom = Atoms("He")
    assert closest(atom) == np.inf
    assert fault_of_displaced(atom, atom, np.zeros((0, 2), int), LIMITS) is None
    assert fault_of_relaxed(atom, atom, np.zeros((0, 2), int), 1.25) is None


@pytest.mark.parametrize(
    ("bystanders", "length", "fault"),
    [
        ([[0, 0.9, 0]], 1.5, None),
        ([[1.7, 0.79, 0]], 1.5, IN_THE_WAY),
        ([[1.7, 0.81, 0]], 1.5, None),
        ([], 3.01, TOO_FAR),
    ],
)
def test_transfers_within_a_molecule(bystanders, length, fault) -> None:
    assert fault_of_intramolecular(transfer(bystanders, length), NONE, LIMITS) == fault


def test_a_hydrogen_of_the_donor_that_is_closer_to_the_end() -> None:
    found = transfer([[1.6, 1.0, 0]])  # 1.35 Å from the end, 1 Å from the way
    assert fault_of_intramolecular(found, np.array([3]), LIMITS) == RIVAL
    assert fault_of_intramolecular(found, NONE, LIMITS) is None


def test_the_moving_hydrogen_keeps_clear_of_all_but_its_partners() -> None:
    found = transfer([[0, 0.9, 0]])
    middle = found.with_hydrogen_at(np.array([1.7, 0.3, 0]))
    assert fault_of_frame(middle, found, LIMITS) is None
    near_donor = found.with_hydrogen_at(np.array([0.6, 0, 0]))
    assert fault_of_frame(near_donor, found, LIMITS) is None
    in_donor = found.with_hydrogen_at(np.array([0.4, 0, 0]))
    assert fault_of_frame(in_donor, found, LIMITS) == TOO_CLOSE
    near_other = found.with_hydrogen_at(np.array([0.6, 0.5, 0]))
    assert fault_of_frame(near_other, found, LIMITS) == IN_THE_WAY


def test_relaxations_keep_bonds() -> None:
    assert fault_of_relaxed(water(), water(), BONDS, 1.25) is None
    broken = water()
    broken.positions[1] *= 2.0
    assert fault_of_relaxed(broken, water(), BONDS, 1.25) == NEW_BOND
    made = water()
    made.positions[2] = made.positions[1] + [0, 0, 0.74]
    assert fault_of_relaxed(made, water(), np.zeros((0, 2), int), 1.25) == NEW_BOND
    assert touching(water()).tolist() == BONDS.tolist()
