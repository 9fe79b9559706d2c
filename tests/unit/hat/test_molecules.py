import pytest

from surefoot.hat.molecules import MOLECULES, molecule, molecule_sites
from surefoot.label.labeler import check_state


@pytest.mark.parametrize("name", sorted(MOLECULES))
def test_molecules_are_closed_shells_with_hydrogens_where_sites_say(name: str) -> None:
    atoms = molecule(name, 0)
    check_state(atoms.numbers, 0, 1)
    elements = {symbol for symbol in atoms.symbols if symbol != "H"}
    for element in elements - {"O"} | ({"O"} if name in ("methanol", "water") else set()):
        for site in molecule_sites(name, element):
            assert atoms.symbols[site.donor] == element
            assert atoms.symbols[site.hydrogen] == "H"
            assert 0.9 < atoms.get_distance(site.donor, site.hydrogen) < 1.4


def test_all_hydrogens_of_an_element_are_sites() -> None:
    assert len(molecule_sites("ethane", "C")) == 6
    assert [site.name for site in molecule_sites("methylamine", "N")] == ["N1", "N1"]


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no molecule 'ether'[.] Allowed are methane"):
        molecule("ether", 0)
    with pytest.raises(ValueError, match="formamide has no hydrogen on an atom of O"):
        molecule_sites("formamide", "O")
