from ase.data import chemical_symbols

from surefoot.elements import SYMBOLS, name_elements


def test_symbols_are_those_of_ase() -> None:
    assert list(SYMBOLS) == chemical_symbols


def test_what_is_no_element_is_named_by_its_number() -> None:
    assert name_elements([1, 8, 17, 0, 130]) == "H, O, Cl, X, 130"
