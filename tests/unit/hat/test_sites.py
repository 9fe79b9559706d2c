from collections import Counter

import pytest

from surefoot.hat.peptides import RESIDUES, conformers, residue
from surefoot.hat.sites import residue_sites

EXPECTED = {
    "GLY": {"CA": 2},
    "ALA": {"CA": 1, "CB": 3},
    "VAL": {"CA": 1, "CB": 1, "CG1": 3, "CG2": 3},
    "LEU": {"CA": 1, "CB": 2, "CG": 1, "CD1": 3, "CD2": 3},
    "ILE": {"CA": 1, "CB": 1, "CG2": 3, "CG1": 2, "CD1": 3},
    "SER": {"CA": 1, "CB": 2},
    "THR": {"CA": 1, "CB": 1, "CG2": 3},
    "ASN": {"CA": 1, "CB": 2},
    "GLN": {"CA": 1, "CB": 2, "CG": 2},
    "ASP": {"CA": 1, "CB": 2},
    "GLU": {"CA": 1, "CB": 2, "CG": 2},
    "CYS": {"CA": 1, "CB": 2},
    "MET": {"CA": 1, "CB": 2, "CG": 2, "CE": 3},
    "PHE": {"CA": 1, "CB": 2, "CD1": 1, "CE1": 1, "CZ": 1, "CE2": 1, "CD2": 1},
    "PRO": {"CA": 1, "CB": 2, "CG": 2, "CD": 2},
}


@pytest.mark.parametrize("name", RESIDUES)
def test_carbon_sites(name: str) -> None:
    assert Counter(site.name for site in residue_sites(name)) == EXPECTED[name]


@pytest.mark.parametrize("name", ["GLY", "THR", "PRO", "MET"])
def test_indices_point_at_bonded_atoms(name: str) -> None:
    (atoms,) = conformers(name, 1, 0)
    sites = residue_sites(name)
    for site in sites:
        assert atoms.numbers[site.donor] == 6
        assert atoms.numbers[site.hydrogen] == 1
        assert residue(name).names[site.donor] == site.name
        assert 1.05 < atoms.get_distance(site.donor, site.hydrogen) < 1.15
    assert len({site.hydrogen for site in sites}) == len(sites)


def test_other_elements_on_request() -> None:
    def found(name: str) -> list[str]:
        return [site.name for site in residue_sites(name, ("N", "O", "S"))]

    assert found("SER") == ["OG"]
    assert found("ASN") == ["ND2", "ND2"]
    assert found("CYS") == ["SG"]
    assert found("ASP") == ["OD2"]
    assert found("ALA") == []
