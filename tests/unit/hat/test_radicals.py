import numpy as np
import pytest

from surefoot.hat.peptides import embed
from surefoot.hat.radicals import RADICALS, acceptors, take_hydrogen

EXPECTED = {
    "methyl": ("CH3", "C", 4),
    "ethyl": ("C2H5", "C", 3),
    "isopropyl": ("C3H7", "C", 2),
    "hydroxymethyl": ("CH3O", "C", 3),
    "methoxy": ("CH3O", "O", 1),
    "methylthiyl": ("CH3S", "S", 1),
    "aminomethyl": ("CH4N", "C", 3),
    "methylaminyl": ("CH4N", "N", 2),
    "carbamoyl": ("CH2NO", "C", 1),
    "hydroxyl": ("HO", "O", 2),
    "amidogen": ("H2N", "N", 3),
}


@pytest.mark.parametrize("name", RADICALS)
def test_each_radical_misses_one_hydrogen_at_its_acceptor(name: str) -> None:
    formula, symbol, ways = EXPECTED[name]
    made = acceptors(name, 0)
    assert len(made) == ways
    for acceptor in made:
        assert acceptor.name == name
        assert acceptor.atoms.get_chemical_formula() == formula
        assert acceptor.atoms.symbols[acceptor.index] == symbol
        assert acceptor.atoms.numbers.sum() % 2 == 1
        to_all = np.linalg.norm(acceptor.atoms.positions - acceptor.vacated, axis=1)
        assert to_all.argmin() == acceptor.index
        assert 0.95 < to_all.min() < 1.4


def test_taking_a_hydrogen_leaves_the_parent_alone() -> None:
    (parent,) = embed("CO", 1, 0)
    before = parent.positions.copy()
    left = take_hydrogen("x", parent, 1, 5)
    assert len(parent) == 6
    np.testing.assert_array_equal(parent.positions, before)
    np.testing.assert_array_equal(left.vacated, before[5])


def test_an_unknown_radical_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no radical 'phenyl'. Allowed are methyl, ethyl"):
        acceptors("phenyl", 0)
