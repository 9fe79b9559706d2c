"""Pairs of hydrogens of one molecule, and the radical that is made of them."""

import numpy as np
import pytest

from surefoot.hat.compounds import bond_distances, from_smiles
from surefoot.hat.intramolecular import make_transfer, pairs_in_reach
from surefoot.hat.peptides import embed
from surefoot.hat.sites import compound_sites

ETHANOL = from_smiles("ethanol", "CCO")
(ATOMS,) = embed(ETHANOL.smiles, 1, 0)
SITES = compound_sites(ETHANOL, ("C", "O"))
APART = bond_distances(ETHANOL)


@pytest.mark.parametrize("reach", [2.4, 2.65, 4.0])
def test_pairs_are_all_within_reach_and_on_two_atoms(reach: float) -> None:
    pairs = pairs_in_reach(ATOMS, SITES, APART, reach, 1)
    expected = {
        (one.hydrogen, two.hydrogen)
        for one in SITES
        for two in SITES
        if one.donor != two.donor and ATOMS.get_distance(one.hydrogen, two.hydrogen) <= reach
    }
    assert {(one.hydrogen, two.hydrogen) for one, two in pairs} == expected
    assert len(pairs) == len(expected) > 0


def test_neighbours_can_be_left_out() -> None:
    pairs = pairs_in_reach(ATOMS, SITES, APART, 4.0, 2)
    assert {(one.name, two.name) for one, two in pairs} == {("C0", "O2"), ("O2", "C0")}
    assert pairs_in_reach(ATOMS, SITES, APART, 4.0, 3) == []


@pytest.mark.parametrize("swapped", [False, True])
def test_indices_follow_the_deleted_hydrogen(swapped: bool) -> None:
    pair = SITES[0], SITES[-1]  # the first and the last hydrogen
    moving, leaving = pair[::-1] if swapped else pair
    before = ATOMS.positions.copy()
    found = make_transfer(ATOMS, moving, leaving, ("ethanol", "x", "y"))
    np.testing.assert_array_equal(ATOMS.positions, before)
    assert found.atoms.get_chemical_formula() == "C2H5O"
    np.testing.assert_array_equal(found.start, before[moving.hydrogen])
    np.testing.assert_array_equal(found.end, before[leaving.hydrogen])
    np.testing.assert_array_equal(found.atoms.positions[found.hydrogen], found.start)
    np.testing.assert_array_equal(found.atoms.positions[found.donor], before[moving.donor])
    np.testing.assert_array_equal(found.atoms.positions[found.acceptor], before[leaving.donor])
    assert found.atoms.numbers[found.hydrogen] == 1
